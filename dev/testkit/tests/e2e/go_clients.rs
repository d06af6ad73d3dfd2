//! Debian's unmodified Go `ctr` on our daemon: everything that its version has.

use testkit::daemon::Daemon;
use testkit::image::Blob;
use testkit::needs;
use testkit::registry::Registry;
use testkit::{image, wait};

use crate::stage;

/// A daemon of ours that Go's ctr has pulled an image into.
fn go_stage() -> (Registry, Daemon, String) {
    let (registry, daemon) = (Registry::start(), Daemon::start());
    let reference = registry.push("library/busybox", "go", &image::busybox());
    let pulled = daemon.go_ctr("image pull --plain-http").args([&reference]).ok();
    assert!(pulled.contains("done"), "{pulled}");
    (registry, daemon, reference)
}

#[test]
fn it_reads_what_the_daemon_is() {
    needs!(root, program "ctr", built "containerd");
    let daemon = Daemon::start();
    let version = daemon.go_ctr("version").ok();
    assert!(version.contains("Server:") && version.contains("UUID:"), "{version}");
    let plugins = daemon.go_ctr("plugins ls").ok();
    assert!(plugins.contains("io.containerd.snapshotter.v1"), "{plugins}");
    daemon.go_ctr("plugins ls -d").ok();
    daemon.go_ctr("namespaces create go a=b").ok();
    daemon.go_ctr("namespaces label go c=d").ok();
    let list = daemon.go_ctr("namespaces ls").ok();
    assert_eq!(stage::row(&list, "go").unwrap(), ["go", "a=b,c=d"]);
    daemon.go_ctr("namespaces rm go").ok();
    daemon.go_ctr("leases create --id go-lease").ok();
    assert!(daemon.go_ctr("leases ls").ok().contains("go-lease"));
    daemon.go_ctr("leases rm go-lease").ok();
    assert!(daemon.go_ctr("oci spec").ok().contains("ociVersion"));
}

#[test]
fn it_pulls_pushes_lists_and_removes_images() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", program "ctr", built "containerd");
    let (registry, daemon, reference) = go_stage();
    let list = daemon.go_ctr("images ls").ok();
    assert!(list.contains(&reference) && list.contains("linux/amd64"), "{list}");
    let check = daemon.go_ctr("images check").ok();
    assert!(check.contains("complete") && check.trim_end().ends_with("true"), "{check}");
    let copy = format!("{}/copy:v1", registry.host());
    daemon.go_ctr("images tag").args([&reference, &copy]).ok();
    daemon.go_ctr("images label").args([&reference, "colour=blue"]).ok();
    assert!(daemon.go_ctr("images ls").ok().contains("colour=blue"));
    assert_eq!(daemon.go_ctr("images ls -q labels.colour==blue").ok(), format!("{reference}\n"));
    daemon.go_ctr("images push --plain-http").args([&copy]).ok();
    let archive = daemon.dir().join("out.tar");
    daemon.go_ctr("images export").args([archive.to_str().unwrap(), &reference]).ok();
    daemon.go_ctr("images rm --sync").args([&reference, &copy]).ok();
    assert_eq!(daemon.go_ctr("images ls -q").ok(), "");
    let back = daemon.go_ctr("images import").args([&archive]).ok();
    assert!(back.contains("unpacking"), "{back}");
    let target = daemon.dir().join("mnt");
    std::fs::create_dir(&target).unwrap();
    let target = target.to_str().unwrap();
    daemon.go_ctr("images mount").args([&reference, target]).ok();
    assert!(std::path::Path::new(target).join("bin/busybox").is_file());
    daemon.go_ctr("images unmount --rm").args([target]).ok();
}

#[test]
fn it_handles_content() {
    needs!(root, program "ctr", built "containerd");
    let daemon = stage::keeping();
    let blob = Blob::new("x", b"by go".to_vec());
    daemon
        .go_ctr("content ingest --expected-size 5 --expected-digest")
        .args([&blob.digest, "key"])
        .stdin("by go")
        .ok();
    assert_eq!(daemon.go_ctr("content get").args([&blob.digest]).ok(), "by go");
    daemon.go_ctr("content label").args([&blob.digest, "a=b"]).ok();
    assert!(daemon.go_ctr("content ls").ok().contains("a=b"));
    daemon.go_ctr("content active").ok();
    daemon.go_ctr("content rm").args([&blob.digest]).ok();
    daemon.go_ctr("content prune references").ok();
}

#[test]
fn it_handles_snapshots() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", program "ctr", built "containerd");
    let (_registry, daemon, _) = go_stage();
    let list = daemon.go_ctr("snapshots ls").ok();
    let parent = list
        .lines()
        .nth(1)
        .and_then(|line| line.split_whitespace().next())
        .expect("a committed layer")
        .to_owned();
    daemon.go_ctr("snapshots prepare active").args([&parent]).ok();
    let mounts = daemon.go_ctr("snapshots mounts /target active").ok();
    assert!(mounts.starts_with("mount -t overlay overlay /target -o "), "{mounts}");
    daemon.go_ctr("snapshots view seen").args([&parent]).ok();
    assert!(daemon.go_ctr("snapshots info active").ok().contains("Active"));
    daemon.go_ctr("snapshots label active x=y").ok();
    daemon.go_ctr("snapshots usage").ok();
    daemon.go_ctr("snapshots tree").ok();
    daemon.go_ctr("snapshots diff").args([&parent, "active"]).ok();
    daemon.go_ctr("snapshots commit fixed active").ok();
    assert_eq!(stage::row(&daemon.go_ctr("snapshots ls").ok(), "fixed").unwrap()[2], "Committed");
    daemon.go_ctr("snapshots rm fixed").ok();
}

#[test]
fn it_runs_enters_and_ends_containers() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", program "ctr", built "containerd");
    let (_registry, daemon, reference) = go_stage();
    assert_eq!(daemon.go_ctr("run --rm").args([&reference, "one", "echo", "hello"]).ok(), "hello\n");
    assert_eq!(daemon.go_ctr("run --rm").args([&reference, "two", "sh", "-c", "exit 4"]).run().code, 4);
    let out = daemon.go_ctr("run --rm --env A=b --cwd /tmp --read-only --memory-limit 50000000 --cpus 0.5");
    let out = out.args([&reference, "three", "sh", "-c", "echo $A $(pwd)"]).ok();
    assert_eq!(out, "b /tmp\n");

    daemon.go_ctr("containers create").args([&reference, "web", "sleep", "1000"]).ok();
    daemon.go_ctr("containers label web a=b").ok();
    assert!(daemon.go_ctr("containers info web").ok().contains("\"a\": \"b\""));
    assert!(stage::row(&daemon.go_ctr("containers ls").ok(), "web").is_some());
    daemon.go_ctr("tasks start -d web").ok();
    assert_eq!(stage::row(&daemon.go_ctr("tasks ls").ok(), "web").unwrap()[2], "RUNNING");
    assert_eq!(daemon.go_ctr("tasks exec --exec-id e web echo inside").ok(), "inside\n");
    let done = daemon.go_ctr("tasks exec --exec-id f web").args(["sh", "-c", "exit 8"]).run();
    assert_eq!(done.code, 8, "{done}");
    assert!(daemon.go_ctr("tasks ps web").ok().contains("PID"));
    daemon.go_ctr("tasks pause web").ok();
    assert_eq!(stage::row(&daemon.go_ctr("tasks ls").ok(), "web").unwrap()[2], "PAUSED");
    daemon.go_ctr("tasks resume web").ok();
    let metrics = daemon.go_ctr("tasks metrics web").ok();
    assert!(metrics.contains("memory."), "{metrics}");
    daemon.go_ctr("tasks kill -s SIGKILL web").ok();
    wait::eventually(std::time::Duration::from_secs(10), "web stops", || {
        (stage::row(&daemon.go_ctr("tasks ls").ok(), "web")?[2] == "STOPPED").then_some(())
    });
    daemon.go_ctr("tasks rm web").ok();
    daemon.go_ctr("containers rm web").ok();
    assert_eq!(daemon.go_ctr("containers ls -q").ok(), "");
}

#[test]
fn it_hears_events() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", program "ctr", built "containerd");
    let (_registry, daemon, reference) = go_stage();
    let events = daemon.go_ctr("events").start();
    wait::eventually(std::time::Duration::from_secs(20), "the subscription", || {
        daemon.go_ctr("images label").args([&reference, "seen=yes"]).ok();
        events.stdout().contains("/images/update").then_some(())
    });
    daemon.go_ctr("run --rm").args([&reference, "life", "true"]).ok();
    for topic in [
        "/containers/create",
        "/tasks/create",
        "/tasks/start",
        "/tasks/exit",
        "/tasks/delete",
        "/containers/delete",
    ] {
        events.sees(topic);
    }
}

#[test]
fn its_errors_are_the_ones_it_knows() {
    needs!(root, program "ctr", built "containerd");
    let daemon = Daemon::start();
    for (line, text) in [
        ("containers info absent", "not found"),
        ("snapshots info absent", "not found"),
        ("images rm absent", "not found"),
        ("leases rm absent", "not found"),
    ] {
        let done = daemon.go_ctr(line).run();
        let said = format!("{}{}", done.stdout, done.stderr);
        assert!(said.contains(text), "{line}: {said}");
    }
}
