//! config.toml, command lines and sockets: what is wrong is named, and a second daemon is kept out.

use std::os::unix::fs::PermissionsExt as _;

use testkit::command::Run;
use testkit::daemon::Daemon;
use testkit::needs;
use testkit::place;

#[test]
fn wrong_values_name_their_line_and_key() {
    needs!(root, built "containerd");
    for (text, words) in [
        ("[debug]\n  level = 7", &["level", "wrong.toml:5"][..]),
        ("[plugins.'io.containerd.gc.v1.scheduler']\n  pause_threshold = 'much'", &["pause_threshold"]),
        ("[timeouts]\n  'io.containerd.timeout.task.state' = 'soon'", &["io.containerd.timeout.task.state"]),
        ("required_plugins = ['nodot']", &["nodot"]),
        ("this is no toml", &["wrong.toml:4"]),
    ] {
        let setup = Daemon::ours();
        // Top-level keys must stand before the first table.
        let path = setup.dir().join("wrong.toml");
        let root = setup.dir().display().to_string();
        std::fs::write(&path, format!("version = 2\nroot = '{root}/r'\nstate = '{root}/s'\n{text}\n"))
            .unwrap();
        let said = Run::new(place::built("containerd")).args(["--config".as_ref(), path.as_path()]).fails();
        for word in words {
            assert!(said.contains(word), "{text:?}: {word:?} is missing in {said}");
        }
    }
}

#[test]
fn an_unknown_key_is_named_and_the_daemon_starts() {
    needs!(root, built "containerd", built "ctr");
    let daemon = Daemon::ours()
        .config("[plugins.'io.containerd.snapshotter.v1.overlayfs']\n  root_pat = '/x'")
        .start();
    assert!(daemon.log().contains("root_pat"), "{}", daemon.log());
    daemon.ctr("version").ok();
}

#[test]
fn the_default_config_is_one_that_loads() {
    needs!(root, built "containerd");
    let text = Run::new(place::built("containerd")).line("config default").ok();
    assert!(text.starts_with("version = ") && text.contains("/run/containerd/containerd.sock"), "{text}");
    let dir = place::temp();
    let path = dir.path().join("default.toml");
    std::fs::write(&path, &text).unwrap();
    let dump = Run::new(place::built("containerd"))
        .args(["--config".as_ref(), path.as_path()])
        .line("config dump")
        .ok();
    assert!(dump.contains("version = "), "{dump}");
}

#[test]
fn the_reference_names_every_key() {
    needs!(built "containerd");
    let page = std::fs::read_to_string(place::workspace().join("docs/config.md")).unwrap();
    let text = Run::new(place::built("containerd")).line("config default").ok();
    let keys =
        text.lines().filter_map(|line| line.split_once(" = ")).map(|(key, _)| key.trim().trim_matches('\''));
    let missing: Vec<_> = keys.filter(|key| !page.contains(&format!("`{key}`"))).collect();
    assert!(missing.is_empty(), "docs/config.md does not name {missing:?}");
}

#[test]
fn a_second_daemon_on_the_same_root_is_refused() {
    needs!(root, built "containerd", built "ctr");
    let first = Daemon::start();
    let said = Daemon::ours().root(first.root()).refused();
    assert!(
        said.to_lowercase().contains("lock") || said.contains("in use") || said.contains("another"),
        "{said}"
    );
    first.ctr("version").ok();
}

#[test]
fn the_socket_is_for_root_and_its_group() {
    needs!(root, built "containerd");
    let daemon = Daemon::start();
    let mode = std::fs::metadata(daemon.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    assert!(daemon.dir().join("c.sock.ttrpc").exists());
}

#[test]
fn version_is_told_by_every_program() {
    needs!(built "containerd", built "ctr", built "runc", built "containerd-shim-runc-v2");
    for (name, flag) in [
        ("containerd", "--version"),
        ("ctr", "--version"),
        ("runc", "--version"),
        ("containerd-shim-runc-v2", "-v"),
    ] {
        let text = Run::new(place::built(name)).args([flag]).ok();
        assert!(text.contains("containerd") || text.contains(name), "{name}: {text}");
    }
}

#[test]
fn a_stop_is_clean_and_a_start_follows() {
    needs!(root, built "containerd", built "ctr");
    let mut daemon = Daemon::start();
    daemon.ctr("ns create before").ok();
    daemon.stop();
    assert!(daemon.ctr("version").run().code != 0);
    daemon.restart();
    assert!(daemon.ctr("ns ls -q").ok().contains("before"));
}

#[test]
fn a_disabled_plugin_serves_nobody_and_a_required_one_must_load() {
    needs!(root, built "containerd", built "ctr");
    let daemon = Daemon::ours()
        .top("disabled_plugins = ['io.containerd.lease.v1.manager', 'io.containerd.cri.v1.images']")
        .start();
    let said = daemon.ctr("leases ls").fails();
    assert!(said.contains("nimplemented") || said.contains("not implemented"), "{said}");
    daemon.ctr("images ls").ok();
    let table = daemon.ctr("plugins ls").ok();
    let state = |id: &str| {
        let row = table.lines().find(|line| line.split_whitespace().nth(1) == Some(id)).unwrap();
        row.split_whitespace().last().unwrap().to_owned()
    };
    assert_eq!(
        (state("leases"), state("cri"), state("containers")),
        ("skip".into(), "skip".into(), "ok".into())
    );
    let setup = Daemon::ours().top(concat!(
        "required_plugins = ['io.containerd.grpc.v1.leases']\n",
        "disabled_plugins = ['io.containerd.lease.v1.manager']"
    ));
    let said = setup.refused();
    assert!(said.contains("required plugin io.containerd.grpc.v1.leases"), "{said}");
}

#[test]
fn a_verifier_that_objects_blocks_the_pull_before_anything_is_fetched() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", built "containerd", built "ctr");
    let registry = testkit::registry::Registry::start();
    let reference = registry.push("library/judged", "v1", &testkit::image::busybox());
    let setup = Daemon::ours();
    let dir = setup.dir().join("verifiers");
    std::fs::create_dir(&dir).unwrap();
    let judge = dir.join("judge");
    std::fs::write(&judge, "#!/bin/sh\necho \"$2 is not signed\"\nexit 1\n").unwrap();
    std::fs::set_permissions(&judge, std::fs::Permissions::from_mode(0o755)).unwrap();
    let table = "[plugins.'io.containerd.image-verifier.v1.bindir']";
    let daemon = setup.config(&format!("{table}\n  bin_dir = '{}'", dir.display())).start();
    let said = daemon.ctr("image pull --plain-http").args([&reference]).fails();
    assert!(said.contains("verifier judge rejected image (exit code 1)"), "{said}");
    assert!(said.contains(&format!("{reference} is not signed")), "{said}");
    assert_eq!(daemon.ctr("content ls -q").ok(), "");
    std::fs::remove_file(&judge).unwrap();
    daemon.ctr("image pull --plain-http").args([&reference]).ok();
}

#[test]
fn disabled_metrics_are_not_served_and_a_plugin_that_is_none_is_named() {
    needs!(root, overlayfs, program "busybox", built "containerd", built "ctr");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let setup = |disabled: &str| {
        let setup = Daemon::ours().top(&format!("disabled_plugins = [{disabled}]"));
        setup.config(&format!("[metrics]\n  address = '{address}'")).start()
    };
    let daemon = setup("'io.containerd.server.v1.metrics', 'io.containerd.gprc.v1.cri'");
    assert!(std::net::TcpStream::connect(&address).is_err(), "nobody listens");
    assert!(daemon.log().contains("io.containerd.gprc.v1.cri"), "{}", daemon.log());
    drop(daemon);

    let daemon = setup("'io.containerd.monitor.task.v1.cgroups'");
    daemon.import("docker.io/library/busybox:e2e", &testkit::image::busybox());
    daemon.ctr("run -d docker.io/library/busybox:e2e told sleep 600").ok();
    let text = scrape(&address);
    assert!(text.contains("containerd_build_info_total") && !text.contains("container_id"), "{text}");
    daemon.ctr("task rm -f told").ok();
    drop(daemon);

    let daemon = setup("'io.containerd.differ.v1.walking'");
    let said = daemon.ctr("image import -").stdin("").fails();
    assert!(said.contains("nimplemented") || said.contains("not implemented"), "{said}");
}

/// What Prometheus gets.
fn scrape(address: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut socket = std::net::TcpStream::connect(address).unwrap();
    write!(socket, "GET /v1/metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn prometheus_is_told_of_containers() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", built "containerd", built "ctr");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let daemon = Daemon::ours().config(&format!("[metrics]\n  address = '{address}'")).start();
    daemon.import("docker.io/library/busybox:e2e", &testkit::image::busybox());
    daemon.ctr("run -d docker.io/library/busybox:e2e told sleep 600").ok();
    let labels = format!("{{container_id=\"told\",namespace=\"{}\"}}", daemon.namespace());
    let text = scrape(&address);
    assert!(text.contains(&format!("\ncontainer_pids_current{labels} 1\n")), "{text}");
    daemon.ctr("task rm -f told").ok();
    assert!(!scrape(&address).contains(&labels));
}
