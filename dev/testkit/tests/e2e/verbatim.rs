//! The commands that people's own pages show, typed as they are, in containerd's usual namespaces.

use serde_json::{Value, json};
use testkit::command::Run;
use testkit::daemon::Daemon;
use testkit::image::{Build, Image, Layer, busybox_tar};
use testkit::needs;
use testkit::place;
use testkit::registry::Registry;
use testkit::tar::Archive;

use crate::stage::{cells, row};

const NGINX: &str = "docker.io/library/nginx:alpine";

/// Types a line in the namespace `default`, as somebody who never heard of namespaces does.
fn ctr(daemon: &Daemon, line: &str) -> Run {
    daemon.ctr(line).env("CONTAINERD_NAMESPACE", "default")
}

/// Stands in for nginx: a multi-platform index, the same stop signal, a `bash`, a process that waits for its signal.
fn nginx() -> Image {
    let extra = Archive::new()
        .dir("bin/", 0o755)
        .file("bin/bash", 0o755, b"#!/bin/sh\nexec sh \"$@\"\n")
        .file(
            "docker-entrypoint.sh",
            0o755,
            b"#!/bin/sh\ntrap 'exit 0' QUIT\nwhile :; do sleep 1 & wait $!; done\n",
        )
        .finish();
    let build = || {
        Build::new()
            .layer(Layer::gzip(busybox_tar()))
            .layer(Layer::gzip(extra.clone()))
            .entrypoint(&["/docker-entrypoint.sh"])
            .set("StopSignal", json!("SIGQUIT"))
            .set("Labels", json!({ "maintainer": "NGINX Docker Maintainers <docker-maint@nginx.com>" }))
    };
    Image::index(vec![build().build(), build().architecture("s390x").build()])
}

struct Page {
    daemon: Daemon,
    registry: Registry,
}

fn page() -> Page {
    let registry = Registry::start();
    registry.push("library/nginx", "alpine", &nginx());
    let daemon = Daemon::ours().mirror(&registry, "docker.io").start();
    Page { daemon, registry }
}

#[test]
fn an_image_is_pulled_listed_checked_tagged_mounted_and_removed() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", built "containerd", built "ctr");
    let page = page();
    let daemon = &page.daemon;
    let pulled = ctr(daemon, "image pull docker.io/library/nginx:alpine").ok();
    for part in [
        "docker.io/library/nginx:alpine: ",
        "resolved",
        "index-sha256:",
        "manifest-sha256:",
        "config-sha256:",
        "layer-sha256:",
        "elapsed: ",
        "total: ",
        "unpacking linux/amd64 sha256:",
        "done: ",
    ] {
        assert!(pulled.contains(part), "{part:?} is missing\n{pulled}");
    }

    let list = ctr(daemon, "image ls").ok();
    assert_eq!(
        list.lines().next().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).as_deref(),
        Some("REF TYPE DIGEST SIZE PLATFORMS LABELS")
    );
    let cells_of = row(&list, NGINX).expect("the image is listed");
    assert_eq!(cells_of[1], "application/vnd.oci.image.index.v1+json");
    assert_eq!(cells_of[2], nginx().top().digest);
    assert!(list.contains("linux/amd64,linux/s390x") && list.trim_end().ends_with('-'), "{list}");
    assert_eq!(ctr(daemon, "image ls -q").ok(), format!("{NGINX}\n"));

    let check = ctr(daemon, "image check").ok();
    assert_eq!(
        check.lines().next().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).as_deref(),
        Some("REF TYPE DIGEST STATUS SIZE UNPACKED")
    );
    assert!(check.contains("complete (") && check.trim_end().ends_with("true"), "{check}");

    let tag = "harbor.example/course/nginx:alpine";
    assert_eq!(ctr(daemon, &format!("image tag {NGINX} {tag}")).ok(), format!("{tag}\n"));
    assert_eq!(ctr(daemon, "image ls -q").ok().lines().count(), 2);
    assert_eq!(ctr(daemon, &format!("image rm {tag}")).ok(), format!("{tag}\n"));

    let target = daemon.dir().join("mnt");
    std::fs::create_dir(&target).unwrap();
    let target = target.to_str().unwrap();
    let mounted = ctr(daemon, &format!("image mount {NGINX} {target}")).ok();
    let lines: Vec<_> = mounted.lines().collect();
    assert!(lines[0].starts_with("sha256:") && lines[1] == target, "{mounted}");
    assert!(std::path::Path::new(target).join("docker-entrypoint.sh").is_file());
    ctr(daemon, &format!("image unmount {target}")).ok();
    assert_eq!(std::fs::read_dir(target).unwrap().count(), 0);

    // Unmounted by other means, it is mounted again from the same snapshot.
    assert_eq!(ctr(daemon, &format!("image mount {NGINX} {target}")).ok(), mounted);
    Run::new("umount").args([target]).ok();
    assert_eq!(ctr(daemon, &format!("image mount {NGINX} {target}")).ok(), mounted);
    assert!(std::path::Path::new(target).join("docker-entrypoint.sh").is_file());
    assert!(ctr(daemon, "leases ls -q").ok().lines().any(|lease| lease == target));
    ctr(daemon, &format!("image unmount --rm {target}")).ok();
    assert!(!ctr(daemon, "leases ls -q").ok().lines().any(|lease| lease == target));
    assert!(!ctr(daemon, "snapshot ls").ok().contains(target));

    assert_eq!(ctr(daemon, &format!("image delete {NGINX}")).ok(), format!("{NGINX}\n"));
    assert_eq!(ctr(daemon, "image ls -q").ok(), "");
}

#[test]
fn a_container_is_created_started_entered_and_killed() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", program "script", built "containerd", built "ctr");
    let page = page();
    let daemon = &page.daemon;
    ctr(daemon, "image pull docker.io/library/nginx:alpine").ok();
    assert_eq!(ctr(daemon, "container create docker.io/library/nginx:alpine nginx").ok(), "");
    let list = ctr(daemon, "container ls").ok();
    assert_eq!(cells(list.lines().next().unwrap_or_default()), ["CONTAINER", "IMAGE", "RUNTIME"]);
    assert_eq!(row(&list, "nginx").unwrap(), ["nginx", NGINX, "io.containerd.runc.v2"]);
    let info = ctr(daemon, "container info nginx").ok();
    let info: Value = serde_json::from_str(&info).expect("info is JSON");
    let keys: Vec<_> = info.as_object().unwrap().keys().map(String::as_str).collect();
    for key in [
        "ID",
        "Labels",
        "Image",
        "Runtime",
        "SnapshotKey",
        "Snapshotter",
        "CreatedAt",
        "UpdatedAt",
        "Extensions",
        "Spec",
    ] {
        assert!(keys.contains(&key), "{key} is missing in {keys:?}");
    }
    assert_eq!(info["Labels"]["io.containerd.image.config.stop-signal"], "SIGQUIT");
    assert_eq!(info["Snapshotter"], "overlayfs");
    assert_eq!(info["Spec"]["process"]["args"], json!(["/docker-entrypoint.sh"]));

    ctr(daemon, "task start -d nginx").ok();
    let list = ctr(daemon, "task ls").ok();
    assert_eq!(cells(list.lines().next().unwrap_or_default()), ["TASK", "PID", "STATUS"]);
    let before = row(&list, "nginx").unwrap();
    assert_eq!(before[2], "RUNNING");
    for kind in ["mnt", "uts", "ipc", "pid", "net"] {
        let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert_ne!(of(&before[1]), of("self"), "the {kind} namespace is the container's own");
    }

    // A person's terminal: `script` gives the command one.
    let line = format!("{} task exec -t --exec-id 0 nginx bash", place::built("ctr").display());
    let typed = daemon
        .client("script".as_ref())
        .env("CONTAINERD_NAMESPACE", "default")
        .args(["-qec", &line, "/dev/null"])
        .stdin("echo in-$((40+2)); tty; exit 3\n")
        .run();
    assert!(typed.stdout.contains("in-42") && typed.stdout.contains("/dev/pts/0"), "{typed}");
    assert_eq!(typed.code, 3, "{typed}");

    ctr(daemon, "task kill nginx").ok();
    testkit::wait::eventually(std::time::Duration::from_secs(10), "nginx stops at SIGQUIT", || {
        let row = row(&ctr(daemon, "task ls").ok(), "nginx")?;
        (row[2] == "STOPPED" && row[1] == before[1]).then_some(())
    });
    ctr(daemon, "task rm nginx").ok();
    assert_eq!(ctr(daemon, "task ls -q").ok(), "");
    assert_eq!(ctr(daemon, "container del nginx").ok(), "");
    assert_eq!(ctr(daemon, "container ls -q").ok(), "");
}

#[test]
fn a_namespace_keeps_its_names_to_itself() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", built "containerd", built "ctr");
    let page = page();
    let daemon = &page.daemon;
    ctr(daemon, "image pull docker.io/library/nginx:alpine").ok();
    assert_eq!(ctr(daemon, "ns create test").ok(), "");
    let list = ctr(daemon, "ns ls").ok();
    assert_eq!(list.lines().next().map(cells).unwrap(), ["NAME", "LABELS"].map(str::to_owned));
    assert!(row(&list, "test").is_some() && row(&list, "default").is_some(), "{list}");
    let images = ctr(daemon, "-n test image ls").ok();
    assert_eq!(images.lines().count(), 1, "only the header: {images}");
    assert_eq!(ctr(daemon, "-n moby container ls").ok().lines().count(), 1);
    assert_eq!(ctr(daemon, "ns rm test").ok(), "test\n");
    assert!(row(&ctr(daemon, "ns ls").ok(), "test").is_none());
    let refused = ctr(daemon, "ns rm default").fails();
    assert!(refused.contains("images") || refused.contains("must be empty"), "{refused}");
}

#[test]
fn plugins_are_listed_with_their_state() {
    needs!(root, overlayfs, built "containerd", built "ctr");
    let daemon = Daemon::start();
    let list = ctr(&daemon, "plugin ls").ok();
    assert_eq!(
        list.lines().next().map(cells).unwrap(),
        ["TYPE", "ID", "PLATFORMS", "STATUS"].map(str::to_owned)
    );
    for (kind, id) in [
        ("io.containerd.content.v1", "content"),
        ("io.containerd.snapshotter.v1", "overlayfs"),
        ("io.containerd.snapshotter.v1", "native"),
        ("io.containerd.runtime.v2", "task"),
        ("io.containerd.grpc.v1", "tasks"),
        ("io.containerd.gc.v1", "scheduler"),
    ] {
        let found = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let found = found.into_iter().find(|row| row.len() >= 4 && row[0] == kind && row[1] == id);
        assert_eq!(found.unwrap_or_else(|| panic!("{kind} {id} is listed\n{list}"))[3], "ok");
    }
}

#[test]
fn a_flag_may_follow_the_reference_and_debug_shows_the_mirror() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", built "containerd", built "ctr");
    let page = page();
    let (daemon, registry) = (&page.daemon, &page.registry);
    registry.push("library/nginx", "latest", &nginx());
    let certs = registry.mirror_of("docker.io", &daemon.dir().join("other"));
    let line = "--debug=true images pull docker.io/library/nginx:latest";
    let done = ctr(daemon, line).args([format!("--hosts-dir={}", certs.display())]).run();
    let said = format!("{}{}", done.stdout, done.stderr);
    done.ok();
    for part in ["loading host directory", "resolving", "do request", &registry.host()] {
        assert!(said.contains(part), "{part:?} is missing\n{said}");
    }
}

#[test]
fn a_memory_limit_stands_in_the_cgroup() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", built "containerd", built "ctr");
    let page = page();
    let daemon = &page.daemon;
    ctr(daemon, "image pull docker.io/library/nginx:alpine").ok();
    let id = place::unique("limited");
    ctr(
        daemon,
        &format!("run -d --memory-limit 52428800 --cpu-period 100000 --cpu-quota 10000 {NGINX} {id}"),
    )
    .ok();
    let v1 = std::path::Path::new("/sys/fs/cgroup/memory/default").join(&id);
    let read =
        |path: std::path::PathBuf| std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    if v1.exists() {
        assert_eq!(read(v1.join("memory.limit_in_bytes")), "52428800\n");
        let cpu = std::path::Path::new("/sys/fs/cgroup/cpu/default").join(&id);
        assert_eq!(read(cpu.join("cpu.cfs_quota_us")), "10000\n");
        assert!(!read(v1.join("tasks")).is_empty());
    } else {
        let v2 = std::path::Path::new("/sys/fs/cgroup/default").join(&id);
        assert_eq!(read(v2.join("memory.max")), "52428800\n");
        assert_eq!(read(v2.join("cpu.max")), "10000 100000\n");
    }
    ctr(daemon, &format!("task kill -s SIGKILL {id}")).ok();
    testkit::wait::eventually(std::time::Duration::from_secs(10), "it stops", || {
        (row(&ctr(daemon, "task ls").ok(), &id)?[2] == "STOPPED").then_some(())
    });
    ctr(daemon, &format!("task rm {id}")).ok();
    ctr(daemon, &format!("container rm {id}")).ok();
    assert!(!v1.exists(), "the cgroup went with the task");
}
