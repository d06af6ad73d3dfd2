//! Several plugins and one container.

use super::*;

fn container() -> pb::Container {
    pb::Container {
        id: "c".into(),
        env: vec!["A=1".into(), "B=2".into()],
        args: vec!["sh".into()],
        annotations: [("old".to_owned(), "x".to_owned())].into(),
        mounts: vec![pb::Mount { destination: "/data".into(), ..pb::Mount::default() }],
        ..pb::Container::default()
    }
}

fn env(pairs: &[(&str, &str)]) -> pb::ContainerAdjustment {
    let pair = |&(key, value): &(&str, &str)| pb::KeyValue { key: key.into(), value: value.into() };
    pb::ContainerAdjustment { env: pairs.iter().map(pair).collect(), ..pb::ContainerAdjustment::default() }
}

fn memory(limit: i64) -> pb::LinuxResources {
    let memory =
        pb::LinuxMemory { limit: Some(pb::OptionalInt64 { value: limit }), ..pb::LinuxMemory::default() };
    pb::LinuxResources { memory: Some(memory), ..pb::LinuxResources::default() }
}

fn update(id: &str, limit: i64, ignore_failure: bool) -> pb::ContainerUpdate {
    let linux = Some(pb::LinuxContainerUpdate { resources: Some(memory(limit)) });
    pb::ContainerUpdate { container_id: id.into(), linux, ignore_failure }
}

#[test]
fn a_plugin_sees_what_those_before_it_wanted() {
    let (mut all, mut seen) = (Collected::default(), container());
    all.adjust("10-a", &mut seen, env(&[("A", "9"), ("C", "3")])).unwrap();
    assert_eq!(seen.env, ["B=2", "A=9", "C=3"]);
    all.adjust("20-b", &mut seen, env(&[("-C", ""), ("C", "4")])).unwrap();
    assert_eq!(seen.env, ["B=2", "A=9", "C=4"]);
    let collected: Vec<_> =
        all.adjust.env.iter().map(|pair| (pair.key.as_str(), pair.value.as_str())).collect();
    assert_eq!(collected, [("A", "9"), ("-C", ""), ("C", "4")]);
    let error = all.adjust("30-c", &mut seen, env(&[("A", "1")])).unwrap_err();
    assert_eq!(error.text(), "plugins \"30-c\" and \"10-a\" both tried to set Env A");
}

#[test]
fn what_is_taken_away_is_gone_for_the_next() {
    let (mut all, mut seen) = (Collected::default(), container());
    let wanted = pb::ContainerAdjustment {
        annotations: [("-old", ""), ("new", "y")].map(|(key, value)| (key.into(), value.into())).into(),
        mounts: vec![pb::Mount { destination: "-/data".into(), ..pb::Mount::default() }],
        ..pb::ContainerAdjustment::default()
    };
    all.adjust("10-a", &mut seen, wanted.clone()).unwrap();
    assert_eq!(seen.annotations.into_iter().collect::<Vec<_>>(), [("new".to_owned(), "y".to_owned())]);
    assert!(seen.mounts.is_empty());
    assert_eq!(all.adjust.annotations, wanted.annotations);
    assert_eq!(all.adjust.mounts, wanted.mounts);
}

#[test]
fn limits_and_single_settings_have_one_owner_each() {
    let linux = |linux| pb::ContainerAdjustment { linux: Some(linux), ..pb::ContainerAdjustment::default() };
    let (mut all, mut seen) = (Collected::default(), container());
    let limits = pb::LinuxContainerAdjustment { resources: Some(memory(5)), ..Default::default() };
    all.adjust("10-a", &mut seen, linux(limits.clone())).unwrap();
    let path = pb::LinuxContainerAdjustment { cgroups_path: "/x".into(), ..Default::default() };
    all.adjust("20-b", &mut seen, linux(path.clone())).unwrap();
    let seen_linux = seen.linux.clone().unwrap();
    assert_eq!((seen_linux.resources, seen_linux.cgroups_path.as_str()), (Some(memory(5)), "/x"));
    for (wanted, what) in [(limits, "MemLimit"), (path, "CgroupsPath")] {
        let error = all.adjust("30-c", &mut seen, linux(wanted)).unwrap_err();
        assert!(error.text().ends_with(&format!("both tried to set {what}")), "{}", error.text());
    }
}

#[test]
fn args_are_replaced_by_a_second_plugin_only_on_purpose() {
    let args = |args: &[&str]| pb::ContainerAdjustment {
        args: args.iter().map(|&word| word.to_owned()).collect(),
        ..pb::ContainerAdjustment::default()
    };
    let (mut all, mut seen) = (Collected::default(), container());
    all.adjust("10-a", &mut seen, args(&["one"])).unwrap();
    all.adjust("20-b", &mut seen, args(&["two"])).unwrap_err();
    all.adjust("20-b", &mut seen, args(&["", "two"])).unwrap();
    assert_eq!((all.adjust.args, seen.args), (vec!["two".to_owned()], vec!["two".to_owned()]));
}

#[test]
fn updates_of_others_are_collected_and_of_the_own_handed_back() {
    let mut all = Collected::default();
    let own = all.update("10-a", "c", vec![update("c", 1, false), update("d", 2, true)]).unwrap();
    assert_eq!(own, [memory(1)]);
    assert!(all.updates["d"].ignore_failure);
    all.update("20-b", "c", vec![update("d", 3, false)]).unwrap_err();
    // What may fail does so without a word.
    assert!(all.update("20-b", "c", vec![update("d", 3, true)]).unwrap().is_empty());
    assert_eq!(all.updates["d"].linux.clone().unwrap().resources, Some(memory(2)));
    let error = all.update_others("20-b", "c", vec![update("c", 3, true)]).unwrap_err();
    assert!(error.text().starts_with("plugin \"20-b\" asked update of \"c\" during creation"), "{error}");
}
