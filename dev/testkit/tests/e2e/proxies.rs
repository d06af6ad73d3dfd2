//! `proxy_plugins`: snapshots that another process keeps, as stargz and nydus do.

use testkit::daemon::Daemon;
use testkit::{image, needs};

#[test]
fn a_snapshotter_that_does_not_run_fails_its_own_calls_alone() {
    needs!(root, program "busybox", built "containerd", built "ctr");
    let daemon = Daemon::ours()
        .top("proxy_plugins = { far = { type = 'snapshot', address = '/run/nobody/far.sock' } }")
        .start();
    let table = daemon.ctr("plugins ls").ok();
    let row = table.lines().find(|line| line.contains(" far ")).unwrap();
    assert!(row.contains("io.containerd.snapshotter.v1") && row.trim_end().ends_with("ok"), "{row}");
    let said = daemon.ctr("snapshots --snapshotter far prepare alone").fails();
    assert!(said.contains("snapshotter far at /run/nobody/far.sock"), "{said}");
    daemon.import("docker.io/library/busybox:e2e", &image::busybox());
    daemon.ctr("images ls").ok();
}

#[test]
fn a_snapshotter_that_hangs_holds_up_nobody_else() {
    needs!(root, program "busybox", built "containerd", built "ctr");
    let setup = Daemon::ours();
    let socket = setup.dir().join("far.sock");
    // It takes connections and says nothing, ever.
    let _silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let daemon = setup
        .top(&format!(
            "proxy_plugins = {{ far = {{ type = 'snapshot', address = '{}' }} }}",
            socket.display()
        ))
        .start();
    // More than there are places for work on the disk.
    let hanging: Vec<_> =
        (0..40).map(|n| daemon.ctr(&format!("snapshots --snapshotter far prepare k{n}")).start()).collect();
    daemon.import("docker.io/library/busybox:e2e", &image::busybox());
    daemon.ctr("images ls").ok();
    daemon.ctr("run --rm docker.io/library/busybox:e2e one /bin/true").ok();
    drop(hanging);
}
