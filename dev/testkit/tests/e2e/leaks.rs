//! What is made is unmade: lives of containers and pulls leave no process, mount, cgroup, file or descriptor.

use std::time::Duration;

use testkit::needs;

use crate::stage::{self, BUSYBOX};

/// The bounded form of `make soak`.
#[test]
fn kills_at_random_moments_leave_the_machine_as_it_was() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", built "containerd", built "ctr");
    let mut stage = stage::busybox();
    testkit::kills::rounds(&mut stage.daemon, BUSYBOX, 12, 0x5eed).unwrap();
}

#[test]
fn ten_lives_leave_the_machine_as_it_was() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", built "containerd", built "ctr");
    let stage = stage::busybox();
    let daemon = &stage.daemon;
    let live = |turn: usize| {
        daemon.ctr(&format!("run --rm {BUSYBOX} short{turn} true")).ok();
        daemon.ctr(&format!("run -d {BUSYBOX} long{turn} sleep 1000")).ok();
        daemon.ctr(&format!("task exec --exec-id e long{turn} true")).ok();
        daemon.ctr(&format!("task rm -f long{turn}")).ok();
        daemon.ctr(&format!("container rm long{turn}")).ok();
    };
    live(0);
    let before = daemon.traces();
    (1..=10).for_each(live);
    // Snapshots go in two steps: the record at once, the directory after the next collection.
    let settled = || Some(daemon.traces()).filter(|after| after.snapshots <= before.snapshots);
    let after =
        testkit::wait::eventually(Duration::from_secs(20), "snapshots' directories are gone", settled);
    assert_eq!(after.processes, before.processes);
    assert_eq!(after.mounts, before.mounts);
    assert_eq!(after.cgroups, before.cgroups);
    assert_eq!(after.state, before.state);
    assert_eq!(after.blobs, before.blobs);
    assert!(after.descriptors <= before.descriptors + 8, "{} then {}", before.descriptors, after.descriptors);
}
