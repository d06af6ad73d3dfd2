//! Limits, field by field.

use ::spec::runtime::default_unix_spec;

use super::*;

fn merged(wanted: &v1::LinuxContainerResources, host: &Host, runtime: &Runtime) -> Result<Spec> {
    let mut spec = default_unix_spec("k8s.io", "a");
    merge_resources(&mut spec, wanted, host, runtime)?;
    Ok(spec)
}

#[test]
fn what_is_said_is_set_and_the_rest_stays() {
    let mut wanted = v1::LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: -1,
        cpu_shares: 512,
        cpuset_cpus: "0-1".into(),
        memory_limit_in_bytes: 1 << 20,
        unified: [("memory.high".to_owned(), "1".to_owned())].into(),
        ..v1::LinuxContainerResources::default()
    };
    let (host, runtime) = (Host { swap_controller: true, ..Host::default() }, Runtime::default());
    let mut spec = merged(&wanted, &host, &runtime).unwrap();
    let resources = spec.linux_mut().resources.clone().unwrap();
    let cpu = resources.cpu.unwrap();
    assert_eq!((cpu.period, cpu.quota, cpu.shares), (Some(100_000), Some(-1), Some(512)));
    assert_eq!((cpu.cpus.as_str(), cpu.mems.as_str()), ("0-1", ""));
    let memory = resources.memory.unwrap();
    assert_eq!((memory.limit, memory.swap), (Some(1 << 20), Some(1 << 20)));
    assert_eq!(resources.unified["memory.high"], "1");
    // An update that says one thing leaves the others.
    let update = v1::LinuxContainerResources { cpu_shares: 2, ..v1::LinuxContainerResources::default() };
    merge_resources(&mut spec, &update, &host, &runtime).unwrap();
    let resources = spec.linux_mut().resources.clone().unwrap();
    assert_eq!(resources.cpu.map(|cpu| (cpu.shares, cpu.quota)), Some((Some(2), Some(-1))));
    assert_eq!(resources.memory.and_then(|memory| memory.limit), Some(1 << 20));
    for (period, shares) in [(-1, 0), (0, -1)] {
        (wanted.cpu_period, wanted.cpu_shares) = (period, shares);
        assert!(merged(&wanted, &host, &runtime).is_err(), "{period} {shares}");
    }
}

#[test]
fn swap_is_limited_where_it_can_be() {
    for (controller, swap, limit, found) in [
        (true, 0, 0, None),
        (true, 0, 5, Some(5)),
        (true, 9, 5, Some(9)),
        (true, -1, 5, Some(-1)),
        (false, 9, 5, None),
    ] {
        let wanted = v1::LinuxContainerResources {
            memory_swap_limit_in_bytes: swap,
            memory_limit_in_bytes: limit,
            ..v1::LinuxContainerResources::default()
        };
        let host = Host { swap_controller: controller, ..Host::default() };
        let spec = merged(&wanted, &host, &Runtime::default()).unwrap();
        let memory = spec.linux.unwrap().resources.unwrap().memory.unwrap();
        assert_eq!(memory.swap, found, "{controller} {swap} {limit}");
    }
}

#[test]
fn huge_pages_are_limited_left_out_or_missed() {
    let limit = v1::HugepageLimit { page_size: "2MB".into(), limit: 7 };
    let wanted =
        v1::LinuxContainerResources { hugepage_limits: vec![limit.clone(), limit], ..Default::default() };
    for (disabled, controller, tolerated, found) in [
        (true, true, true, Some(0)),
        (false, true, true, Some(1)),
        (false, false, true, Some(0)),
        (false, false, false, None),
    ] {
        let host = Host { hugetlb_controller: controller, ..Host::default() };
        let runtime = Runtime {
            disable_hugetlb_controller: disabled,
            tolerate_missing_hugetlb_controller: tolerated,
            ..Runtime::default()
        };
        let spec = merged(&wanted, &host, &runtime);
        let limits = spec.map(|spec| spec.linux.unwrap().resources.unwrap().hugepage_limits.len());
        assert_eq!(limits.ok(), found, "{disabled} {controller} {tolerated}");
    }
}

#[test]
fn an_oom_score_is_in_range_and_not_below_the_daemons_where_that_is_asked() {
    let host = Host { oom_score_adj: -500, ..Host::default() };
    let strict = Runtime { restrict_oom_score_adj: true, ..Runtime::default() };
    assert_eq!(oom_score_adj(-998, &host, &Runtime::default()).unwrap(), -998);
    assert_eq!(oom_score_adj(-998, &host, &strict).unwrap(), -500);
    assert_eq!(oom_score_adj(1000, &host, &strict).unwrap(), 1000);
    for wrong in [-1001, 1001, i64::MAX] {
        assert!(oom_score_adj(wrong, &host, &strict).is_err(), "{wrong}");
    }
}

#[test]
fn limits_are_told_as_they_were_set() {
    let wanted = v1::LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: -1,
        cpu_shares: 512,
        cpuset_cpus: "0-1".into(),
        cpuset_mems: "0".into(),
        memory_limit_in_bytes: 1 << 20,
        memory_swap_limit_in_bytes: 2 << 20,
        unified: [("memory.high".to_owned(), "1".to_owned())].into(),
        ..v1::LinuxContainerResources::default()
    };
    let host = Host { swap_controller: true, ..Host::default() };
    let mut spec = merged(&wanted, &host, &Runtime::default()).unwrap();
    assert_eq!(told(&spec), wanted);
    spec.process.get_or_insert_default().oom_score_adj = Some(-7);
    assert_eq!(told(&spec), v1::LinuxContainerResources { oom_score_adj: -7, ..wanted });
    spec.linux = None;
    let only = v1::LinuxContainerResources { oom_score_adj: -7, ..v1::LinuxContainerResources::default() };
    assert_eq!(told(&spec), only);
}
