//! Our shim under Debian's Go containerd 1.6 and its `ctr`: bootstrap by flags and a bare address, task service 2.

use std::fs;
use std::path::Path;
use std::time::Duration;

use testkit::daemon::Daemon;
use testkit::wait::eventually;
use testkit::{image, needs};

const LIMIT: Duration = Duration::from_secs(30);
const IMAGE: &str = "docker.io/library/busybox:test";

/// Debian's daemon, which finds our shim first, with an image.
fn daemon() -> Daemon {
    let ours = Path::new(crate::shim::BINARY).parent().unwrap();
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", ours.display());
    let daemon = Daemon::debian().env("PATH", &path).start();
    let archive = daemon.dir().join("image.tar");
    fs::write(&archive, image::busybox().archive(IMAGE)).unwrap();
    daemon.go_ctr("image import --snapshotter native").args([&archive]).limit(LIMIT * 2).ok();
    daemon
}

/// The flags of `ctr run` for every container here.
fn flags() -> String {
    match std::env::var("SHIM_TEST_RUNTIME") {
        Ok(binary) => format!("--snapshotter native --runc-binary {binary}"),
        Err(_) => "--snapshotter native".into(),
    }
}

fn status_of(daemon: &Daemon, id: &str) -> Option<String> {
    let list = daemon.go_ctr("task ls").ok();
    let line = list.lines().find(|line| line.split_whitespace().next() == Some(id))?.to_owned();
    line.split_whitespace().nth(2).map(str::to_owned)
}

/// Removes a task, of which Go's `ctr` says how it ended.
fn assert_exit(daemon: &Daemon, id: &str, code: u32) {
    let done = daemon.go_ctr(&format!("task rm {id}")).limit(LIMIT).run();
    let text = format!("exit code {code}");
    assert!(done.code == 0 && done.stderr.contains(&text), "{done}");
}

#[test]
fn go_containerd_runs_containers_with_it() {
    needs!(root, program "containerd", program "ctr", program "busybox");
    let daemon = daemon();
    let flags = flags();
    let hello = daemon.go_ctr(&format!("run --rm {flags} {IMAGE} once /bin/echo hello")).limit(LIMIT).ok();
    assert_eq!(hello, "hello\n");
    daemon.go_ctr(&format!("run -d {flags} {IMAGE} c /bin/sleep 1000")).limit(LIMIT).ok();
    let shim: u32 = fs::read_to_string(daemon.bundle("c").join("shim.pid")).unwrap().trim().parse().unwrap();
    let own = fs::metadata(crate::shim::BINARY).unwrap();
    let running = fs::metadata(format!("/proc/{shim}/exe")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::ino(&own), std::os::unix::fs::MetadataExt::ino(&running));
    assert_eq!(status_of(&daemon, "c").as_deref(), Some("RUNNING"));

    let said = daemon.go_ctr("task exec --exec-id e c /bin/echo again").limit(LIMIT).ok();
    assert_eq!(said, "again\n");
    let failed =
        daemon.go_ctr("task exec --exec-id f c").args(["/bin/sh", "-c", "exit 7"]).limit(LIMIT).run();
    assert_eq!(failed.code, 7);
    let typed = daemon.go_ctr("task exec --exec-id g c /bin/cat").stdin("typed\n").limit(LIMIT).ok();
    assert_eq!(typed, "typed\n");
    assert!(daemon.go_ctr("task ps c").ok().lines().count() > 1);
    assert!(daemon.go_ctr("task metrics c").ok().contains("memory"));

    daemon.go_ctr("task pause c").ok();
    assert_eq!(status_of(&daemon, "c").as_deref(), Some("PAUSED"));
    daemon.go_ctr("task resume c").ok();
    daemon.go_ctr("task kill -s SIGKILL c").ok();
    eventually(LIMIT, "the end of c", || (status_of(&daemon, "c")? == "STOPPED").then_some(()));
    assert_exit(&daemon, "c", 137);
    daemon.go_ctr("container rm c").ok();
    eventually(LIMIT, "the end of the shim", || (!crate::shim::is_alive(shim)).then_some(()));
    assert_eq!(status_of(&daemon, "c"), None);
}

#[test]
fn containers_and_exit_codes_survive_the_daemon() {
    needs!(root, program "containerd", program "ctr", program "busybox");
    let mut daemon = daemon();
    let flags = flags();
    let shared = daemon.dir().join("shared");
    fs::create_dir(&shared).unwrap();
    let mount = format!("--mount type=bind,src={},dst=/tmp,options=rbind:rw", shared.display());
    let script = "while [ ! -e /tmp/go ]; do sleep 0.05; done; echo last words; exit 5";
    let mut run = daemon.go_ctr(&format!("run -d {flags} {mount} {IMAGE} c"));
    run = run.args(["/bin/sh", "-c", script]);
    run.limit(LIMIT).ok();
    daemon.go_ctr(&format!("run -d {flags} {IMAGE} lasting /bin/sleep 1000")).limit(LIMIT).ok();
    let pid = fs::read_to_string(daemon.bundle("c").join("init.pid")).unwrap();
    daemon.kill();
    fs::write(shared.join("go"), "").unwrap();
    eventually(LIMIT, "the end of c", || (!Path::new("/proc").join(pid.trim()).exists()).then_some(()));
    daemon.restart();
    eventually(LIMIT, "c to be known as stopped", || (status_of(&daemon, "c")? == "STOPPED").then_some(()));
    assert_exit(&daemon, "c", 5);
    assert_eq!(status_of(&daemon, "lasting").as_deref(), Some("RUNNING"));
    let said = daemon.go_ctr("task exec --exec-id e lasting /bin/echo here").limit(LIMIT).ok();
    assert_eq!(said, "here\n");
    daemon.go_ctr("task kill -s SIGKILL lasting").ok();
    eventually(LIMIT, "the end of lasting", || (status_of(&daemon, "lasting")? == "STOPPED").then_some(()));
    assert_exit(&daemon, "lasting", 137);
}

#[test]
fn go_containerd_cleans_up_after_a_dead_one() {
    needs!(root, program "containerd", program "ctr", program "busybox");
    let daemon = daemon();
    let flags = flags();
    daemon.go_ctr(&format!("run -d {flags} {IMAGE} c /bin/sleep 1000")).limit(LIMIT).ok();
    let shim = fs::read_to_string(daemon.bundle("c").join("shim.pid")).unwrap().trim().parse().unwrap();
    let pid = fs::read_to_string(daemon.bundle("c").join("init.pid")).unwrap();
    let shim = rustix::process::Pid::from_raw(shim).unwrap();
    rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
    eventually(LIMIT, "the task to be forgotten", || status_of(&daemon, "c").is_none().then_some(()));
    eventually(LIMIT, "init to be gone", || {
        let stat = fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat")).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    });
    eventually(LIMIT, "the bundle to be gone", || (!daemon.bundle("c").exists()).then_some(()));
}
