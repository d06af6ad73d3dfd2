//! Cgroups on the host's own hierarchies.
#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use runtime::cgroup::{Cgroup, CgroupError, FreezerState, Mode, OomEvent, Stats, layout};
use spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxHugepageLimit, LinuxMemory, LinuxPids, LinuxResources,
};

/// A cgroup of this test alone, removed with everything in it.
struct Own(Cgroup);

impl Drop for Own {
    fn drop(&mut self) {
        let _ = self.0.kill(9);
        let _ = self.0.destroy();
    }
}

fn own(test: &str) -> Option<Own> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let path = format!("/berth-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    match Cgroup::create(&path, "unused") {
        Ok(cgroup) => Some(Own(cgroup)),
        Err(error) => {
            println!("SKIP {test}: {error}");
            None
        }
    }
}

/// A process in the cgroup; it ends with the test.
struct Member(Child);

impl Member {
    fn new(cgroup: &Cgroup, program: &[&str]) -> Self {
        let mut command = Command::new(program[0]);
        let child = command.args(&program[1..]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        cgroup.add(child.id() as i32).unwrap();
        Self(child)
    }

    fn pid(&self) -> i32 {
        self.0.id() as i32
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn file(cgroup: &Cgroup, controller: &str, name: &str) -> String {
    let path: PathBuf = cgroup.path(controller).unwrap().join(name);
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

#[test]
fn limits_reach_the_kernels_files() {
    let Some(own) = own("limits_reach_the_kernels_files") else { return };
    let resources = LinuxResources {
        memory: Some(LinuxMemory {
            limit: Some(64 << 20),
            reservation: Some(32 << 20),
            ..LinuxMemory::default()
        }),
        cpu: Some(LinuxCpu {
            shares: Some(512),
            quota: Some(50_000),
            period: Some(200_000),
            cpus: "0".into(),
            ..LinuxCpu::default()
        }),
        pids: Some(LinuxPids { limit: Some(17) }),
        devices: vec![LinuxDeviceCgroup {
            allow: false,
            access: "rwm".into(),
            ..LinuxDeviceCgroup::default()
        }],
        ..LinuxResources::default()
    };
    own.0.apply(&resources).unwrap();
    if own.0.is_v2() {
        assert_eq!(file(&own.0, "memory", "memory.max"), (64 << 20).to_string());
        assert_eq!(file(&own.0, "cpu", "cpu.max"), "50000 200000");
        assert_eq!(file(&own.0, "cpu", "cpu.weight"), "59");
    } else {
        assert_eq!(file(&own.0, "memory", "memory.limit_in_bytes"), (64 << 20).to_string());
        assert_eq!(file(&own.0, "memory", "memory.soft_limit_in_bytes"), (32 << 20).to_string());
        assert_eq!(file(&own.0, "cpu", "cpu.cfs_quota_us"), "50000");
        assert_eq!(file(&own.0, "cpu", "cpu.cfs_period_us"), "200000");
        assert_eq!(file(&own.0, "cpu", "cpu.shares"), "512");
        let devices = file(&own.0, "devices", "devices.list");
        assert!(devices.contains("c 1:3 rwm") && !devices.contains("a *:* rwm"), "{devices}");
    }
    assert_eq!(file(&own.0, "cpuset", "cpuset.cpus"), "0");
    assert_eq!(file(&own.0, "pids", "pids.max"), "17");
}

#[test]
fn limits_of_v2_alone_reach_its_files() {
    const TEST: &str = "limits_of_v2_alone_reach_its_files";
    let Some(own) = own(TEST) else { return };
    if !own.0.is_v2() {
        println!("SKIP {TEST}: cgroup v2 only");
        return;
    }
    let unified = [("memory.high", "33554432"), ("memory.oom.group", "1"), ("pids.max", "9")];
    let resources = LinuxResources {
        memory: Some(LinuxMemory {
            limit: Some(64 << 20),
            swap: Some(80 << 20),
            reservation: Some(1 << 20),
            ..LinuxMemory::default()
        }),
        cpu: Some(LinuxCpu {
            quota: Some(50_000),
            period: Some(100_000),
            burst: Some(20_000),
            idle: Some(1),
            mems: "0".into(),
            ..LinuxCpu::default()
        }),
        block_io: Some(LinuxBlockIo { weight: Some(500), ..LinuxBlockIo::default() }),
        hugepage_limits: vec![LinuxHugepageLimit { page_size: "2MB".into(), limit: 4 << 20 }],
        unified: unified.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..LinuxResources::default()
    };
    own.0.apply(&resources).unwrap();
    for (name, value) in [
        ("memory.swap.max", "16777216"),
        ("memory.low", "1048576"),
        ("cpu.max", "50000 100000"),
        ("cpu.max.burst", "20000"),
        ("cpu.idle", "1"),
        ("cpuset.mems", "0"),
        ("io.weight", "default 4950"),
        ("hugetlb.2MB.max", "4194304"),
        ("hugetlb.2MB.rsvd.max", "4194304"),
        ("memory.high", "33554432"),
        ("memory.oom.group", "1"),
        ("pids.max", "9"),
    ] {
        assert_eq!(file(&own.0, "", name), value, "{name}");
    }
    // The kernel takes any limit and then kills; a caller may ask that one below the usage be refused.
    let _member = Member::new(&own.0, &["sleep", "60"]);
    let low = LinuxResources {
        memory: Some(LinuxMemory {
            limit: Some(4096),
            swap: Some(4096),
            check_before_update: Some(true),
            ..LinuxMemory::default()
        }),
        ..LinuxResources::default()
    };
    let current: u64 = file(&own.0, "", "memory.current").parse().unwrap();
    if current > 4096 {
        assert!(matches!(own.0.update(&low), Err(CgroupError::Value(_))));
        assert_eq!(file(&own.0, "", "memory.max"), (64 << 20).to_string());
    }
}

#[test]
fn an_update_may_raise_and_lower_memory_and_swap() {
    let Some(own) = own("an_update_may_raise_and_lower_memory_and_swap") else { return };
    for (limit, swap) in [(64 << 20, 128 << 20), (32 << 20, 32 << 20), (256 << 20, 512 << 20), (-1, -1)] {
        let memory = LinuxMemory { limit: Some(limit), swap: Some(swap), ..LinuxMemory::default() };
        own.0.update(&LinuxResources { memory: Some(memory), ..LinuxResources::default() }).unwrap();
    }
}

#[test]
fn a_limit_below_the_kernels_minimum_is_explained() {
    let Some(own) = own("a_limit_below_the_kernels_minimum_is_explained") else { return };
    if own.0.is_v2() {
        println!("SKIP a_limit_below_the_kernels_minimum_is_explained: cgroup v1 only");
        return;
    }
    let cpu = LinuxCpu { shares: Some(1), ..LinuxCpu::default() };
    let error = own.0.update(&LinuxResources { cpu: Some(cpu), ..LinuxResources::default() }).unwrap_err();
    assert_eq!(error.to_string(), "the minimum allowed cpu-shares is 2");
    let unified =
        LinuxResources { unified: [("a.b".into(), "1".into())].into(), ..LinuxResources::default() };
    assert!(matches!(own.0.update(&unified), Err(CgroupError::Value(_))));
}

#[test]
fn a_thread_joins_every_v1_hierarchy_by_itself() {
    let Some(own) = own("a_thread_joins_every_v1_hierarchy_by_itself") else { return };
    let joiner = own.0.joiner().unwrap();
    let text = std::thread::scope(|scope| {
        let join = || {
            joiner.join_self().unwrap();
            std::fs::read_to_string("/proc/thread-self/cgroup").unwrap()
        };
        scope.spawn(join).join().unwrap()
    });
    let inside = text.lines().filter(|line| line.contains("/berth-test-")).count();
    let v1 = own.0.paths().keys().filter(|name| !name.is_empty()).count();
    assert_eq!(inside, v1, "{text}");
    assert_eq!(joiner.clone_into().is_some(), layout().unwrap().mode != Mode::V1);
}

#[test]
fn frozen_processes_are_counted_thawed_and_killed() {
    let Some(own) = own("frozen_processes_are_counted_thawed_and_killed") else { return };
    let mut members: Vec<_> = (0..3).map(|_| Member::new(&own.0, &["sleep", "60"])).collect();
    own.0.freeze().unwrap();
    assert_eq!(own.0.freezer_state().unwrap(), FreezerState::Frozen);
    let mut pids: Vec<_> = members.iter().map(Member::pid).collect();
    let mut found = own.0.processes().unwrap();
    pids.sort();
    found.sort();
    assert_eq!(found, pids);
    own.0.thaw().unwrap();
    assert_eq!(own.0.freezer_state().unwrap(), FreezerState::Thawed);
    own.0.kill(9).unwrap();
    for member in &mut members {
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(member.0.wait().unwrap().signal(), Some(9));
    }
    assert!(own.0.processes().unwrap().is_empty());
}

#[test]
fn a_paused_cgroup_stays_so_when_it_is_signalled() {
    let Some(own) = own("a_paused_cgroup_stays_so_when_it_is_signalled") else { return };
    let mut member = Member::new(&own.0, &["sleep", "60"]);
    own.0.freeze().unwrap();
    own.0.kill(15).unwrap();
    assert_eq!(own.0.freezer_state().unwrap(), FreezerState::Frozen);
    own.0.kill(9).unwrap();
    assert!(!member.0.wait().unwrap().success());
}

#[test]
fn a_cgroup_in_use_is_not_taken() {
    let Some(own) = own("a_cgroup_in_use_is_not_taken") else { return };
    let path = format!("/{}", own.0.paths().values().next().unwrap().file_name().unwrap().to_str().unwrap());
    Cgroup::create(&path, "again").unwrap();
    let _member = Member::new(&own.0, &["sleep", "60"]);
    let error = Cgroup::create(&path, "again").unwrap_err();
    assert_eq!(error.to_string(), "container's cgroup is not empty: 1 process(es) found");
    assert!(own.0.exists(), "a refused create must leave the owner's directories");
}

#[test]
fn destroy_takes_nested_cgroups_along_and_may_be_repeated() {
    let Some(own) = own("destroy_takes_nested_cgroups_along_and_may_be_repeated") else { return };
    let nested = own.0.path("pids").unwrap().join("a/b");
    std::fs::create_dir_all(&nested).unwrap();
    own.0.destroy().unwrap();
    assert!(!own.0.exists());
    own.0.destroy().unwrap();
    assert!(own.0.processes().unwrap().is_empty());
}

#[test]
fn figures_are_read() {
    let Some(own) = own("figures_are_read") else { return };
    let _member = Member::new(&own.0, &["sleep", "60"]);
    let memory = LinuxMemory { limit: Some(64 << 20), ..LinuxMemory::default() };
    own.0.update(&LinuxResources { memory: Some(memory), ..LinuxResources::default() }).unwrap();
    match own.0.stats().unwrap() {
        Stats::V1(stats) => {
            assert_eq!((stats.pids.current, stats.pids.limit), (1, u64::MAX));
            assert_eq!(stats.memory.usage.limit, 64 << 20);
            assert_eq!(stats.memory.stat("hierarchical_memory_limit"), 64 << 20);
            assert!(!stats.cpu.per_cpu.is_empty());
        }
        Stats::V2(stats) => {
            assert_eq!((stats.pids.current, stats.pids.limit), (1, u64::MAX));
            assert_eq!(stats.memory.usage_limit, 64 << 20);
        }
    }
}

#[test]
fn running_out_of_memory_is_noticed() {
    let Some(own) = own("running_out_of_memory_is_noticed") else { return };
    let memory = LinuxMemory { limit: Some(8 << 20), swap: Some(8 << 20), ..LinuxMemory::default() };
    own.0.update(&LinuxResources { memory: Some(memory), ..LinuxResources::default() }).unwrap();
    let mut watch = own.0.watch_oom().unwrap();
    assert_eq!(watch.take().unwrap(), OomEvent::Nothing);
    // tail keeps all of an endless line; it waits for its input until it is in the cgroup.
    let mut hog = Command::new("tail").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    own.0.add(hog.id() as i32).unwrap();
    let zeros = vec![0u8; 1 << 20];
    let mut pipe = hog.stdin.take().unwrap();
    while std::io::Write::write_all(&mut pipe, &zeros).is_ok() {}
    drop(pipe);
    hog.wait().unwrap();
    assert!(sys::process::readable(watch.fd(), std::time::Duration::from_secs(10)).unwrap());
    assert_eq!(watch.take().unwrap(), OomEvent::Oom);
    assert_eq!(own.0.oom_kills().unwrap(), 1);
    own.0.destroy().unwrap();
    assert_eq!(watch.take().unwrap(), OomEvent::Gone);
}
