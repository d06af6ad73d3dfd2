//! Other runtimes through our shim: Debian's runc, crun, and one that is not there.

use std::path::Path;

use testkit::needs;
use testkit::place;

use crate::stage::{self, BUSYBOX, becomes};

/// The life of a container through the runtime at `path`.
fn lives_through(path: &Path) {
    let stage = stage::busybox();
    let daemon = &stage.daemon;
    let with = format!("--runc-binary {}", path.display());
    assert_eq!(daemon.ctr(&format!("run --rm {with} {BUSYBOX} one echo hello")).ok(), "hello\n");
    assert_eq!(
        daemon.ctr(&format!("run --rm {with} {BUSYBOX} two")).args(["sh", "-c", "exit 6"]).run().code,
        6
    );
    daemon.ctr(&format!("run -d {with} {BUSYBOX} three sleep 1000")).ok();
    assert_eq!(daemon.ctr("task exec --exec-id e three echo inside").ok(), "inside\n");
    daemon.ctr("task pause three").ok();
    daemon.ctr("task resume three").ok();
    daemon.ctr("task kill -s SIGKILL three").ok();
    becomes(daemon, "three", "STOPPED");
    daemon.ctr("task rm three").ok();
    daemon.ctr("container rm three").ok();
    let said = daemon.ctr(&format!("run --rm {with} {BUSYBOX} four no-such-program")).fails();
    assert!(said.contains("no-such-program"), "{said}");
    let traces = daemon.traces();
    assert_eq!((traces.processes.len(), traces.mounts.len()), (0, 0), "{traces:?}");
}

#[test]
fn debians_runc_runs_containers() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", program "runc", built "containerd", built "ctr");
    lives_through(&place::debian("runc"));
}

#[test]
fn crun_runs_containers() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", program "crun", built "containerd", built "ctr");
    if testkit::need::lacks(crun_runs_here()) {
        return;
    }
    lives_through(&place::debian("crun"));
}

#[test]
fn our_own_runc_runs_containers_as_a_program() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", built "runc", built "containerd", built "ctr");
    lives_through(&place::built("runc"));
}

#[test]
fn a_runtime_that_is_not_there_is_named() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", built "containerd", built "ctr");
    let stage = stage::busybox();
    let said = stage.daemon.ctr(&format!("run --rm --runc-binary /no/such/runc {BUSYBOX} one true")).fails();
    assert!(said.contains("/no/such/runc"), "{said}");
    assert_eq!(stage.daemon.ctr("container ls -q").ok(), "");
}

/// Whether crun works in this machine's cgroup mode at all: it needs all controllers in one place on v1.
fn crun_runs_here() -> Result<(), String> {
    let dir = place::temp();
    let rootfs = dir.path().join("rootfs");
    std::fs::create_dir_all(rootfs.join("bin")).expect("make a root file system");
    std::fs::copy(place::program("busybox").expect("busybox"), rootfs.join("bin/busybox"))
        .expect("copy busybox");
    let crun = place::debian("crun");
    testkit::command::Run::new(&crun).args(["spec"]).cwd(dir.path()).ok();
    let path = dir.path().join("config.json");
    let text = std::fs::read_to_string(&path).expect("crun spec wrote it");
    let mut spec: serde_json::Value = serde_json::from_str(&text).expect("a spec is JSON");
    spec["process"]["args"] = serde_json::json!(["/bin/busybox", "true"]);
    spec["process"]["terminal"] = false.into();
    std::fs::write(&path, spec.to_string()).expect("write the spec");
    let state = dir.path().join("state");
    let done = testkit::command::Run::new(&crun)
        .args(["--root", state.to_str().expect("a plain path"), "run", &place::unique("crun")])
        .cwd(dir.path())
        .run();
    if done.code == 0 { Ok(()) } else { Err(format!("crun does not run here: {}", done.stderr.trim())) }
}
