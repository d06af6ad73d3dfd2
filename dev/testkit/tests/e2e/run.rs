//! `ctr run` and what its flags do inside the container.

use testkit::command::Run;
use testkit::needs;

use crate::stage::{self, BUSYBOX, Stage, becomes};

fn run(stage: &Stage, flags: &str, id: &str, script: &str) -> Run {
    stage.daemon.ctr(&format!("run --rm {flags} {BUSYBOX} {id}")).args(["sh", "-c", script])
}

#[test]
fn output_input_and_exit_code_pass_through() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", built "containerd", built "ctr");
    let stage = stage::busybox();
    let done = run(&stage, "", "io", "cat; echo err >&2; exit 42").stdin("from outside\n").run();
    assert_eq!((done.code, done.stdout.as_str()), (42, "from outside\n"), "{done}");
    assert!(done.stderr.contains("err\n"), "{done}");
    let big = run(&stage, "", "big", "dd if=/dev/zero bs=65536 count=160 2>/dev/null | tr '\\0' x").ok();
    assert_eq!(big.len(), 160 * 65536, "all output comes before the end");
}

#[test]
fn flags_shape_the_container() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", built "containerd", built "ctr");
    let stage = stage::busybox();
    assert_eq!(run(&stage, "--env A=b --env EMPTY=", "env", "echo $A.$EMPTY.").ok(), "b..\n");
    assert_eq!(run(&stage, "--cwd /tmp", "cwd", "pwd").ok(), "/tmp\n");
    assert_eq!(run(&stage, "--user app", "user", "id -u; id -g; id -G").ok(), "1000\n1000\n1000 2000\n");
    assert_eq!(run(&stage, "--user 7:8", "ids", "id -u; id -g").ok(), "7\n8\n");
    assert_eq!(run(&stage, "--hostname harbour", "host", "hostname").ok(), "harbour\n");
    let read_only = run(&stage, "--read-only", "ro", "echo x >/file || echo refused").run();
    assert!(read_only.stdout.contains("refused"), "{read_only}");
    let net = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(
        run(&stage, "--net-host", "net", "readlink /proc/self/ns/net").ok().trim(),
        net.to_str().unwrap()
    );
    let dir = stage.daemon.dir().join("shared");
    std::fs::create_dir(&dir).unwrap();
    let mount = format!("--mount type=bind,src={},dst=/shared,options=rbind:rw", dir.display());
    run(&stage, &mount, "mount", "echo from-inside >/shared/file").ok();
    assert_eq!(std::fs::read_to_string(dir.join("file")).unwrap(), "from-inside\n");
    assert_eq!(run(&stage, "--rlimit-nofile 123:456", "limit", "ulimit -Sn; ulimit -Hn").ok(), "123\n456\n");
}

#[test]
fn a_container_is_confined_unless_told_otherwise() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", built "containerd", built "ctr");
    let stage = stage::busybox();
    let caps = |flags: &str, id: &str| {
        let out = run(&stage, flags, id, "grep CapEff /proc/self/status").ok();
        u64::from_str_radix(out.split_whitespace().last().unwrap(), 16).unwrap()
    };
    let usual = caps("", "usual");
    assert_eq!(usual.count_ones(), 14, "containerd's fourteen: {usual:x}");
    assert_eq!(caps("--cap-drop CAP_CHOWN", "dropped"), usual & !1);
    assert_eq!(caps("--cap-add CAP_SYS_ADMIN", "added"), usual | 1 << 21);
    let status = run(
        &stage,
        "",
        "nnp",
        "grep NoNewPrivs /proc/self/status; wc -c </proc/kcore; ls /proc/acpi /sys/firmware 2>&1 | wc -l",
    )
    .ok();
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    let denied = run(&stage, "", "proc", "echo x >/proc/sys/kernel/domainname && echo written").run();
    assert!(!denied.stdout.contains("written"), "{denied}");
    let links = run(
        &stage,
        "",
        "fds",
        "ls -l /proc/1/fd | grep -v -e pipe -e /dev/null -e total -e '/proc/1/fd'; true",
    )
    .ok();
    assert_eq!(links, "", "nothing of the host is open in the container");
    let exe = run(&stage, "", "exe", "readlink /proc/1/exe").ok();
    assert_eq!(exe, "/bin/sh\n", "not the runtime");
}

#[test]
fn a_detached_container_is_entered_paused_measured_and_removed() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", built "containerd", built "ctr");
    let stage = stage::busybox();
    let daemon = &stage.daemon;
    daemon
        .ctr(&format!("run -d {BUSYBOX} web"))
        .args(["sh", "-c", "trap 'exit 5' TERM; while :; do sleep 1 & wait $!; done"])
        .ok();
    let done = daemon.ctr("task exec --exec-id one web").args(["sh", "-c", "echo hello; exit 9"]).run();
    assert_eq!((done.code, done.stdout.as_str()), (9, "hello\n"), "{done}");
    daemon
        .ctr("task exec --exec-id two --cwd /tmp --user 1000 web")
        .args(["sh", "-c", "test $(pwd)$(id -u) = /tmp1000"])
        .ok();
    assert_eq!(daemon.ctr("task exec --exec-id three web").args(["sh", "-c", "kill -9 $$"]).run().code, 137);
    let ps = daemon.ctr("task ps web").ok();
    assert!(stage::row(&ps, &stage::pid(daemon, "web").to_string()).is_some(), "{ps}");
    daemon.ctr("task pause web").ok();
    assert_eq!(stage::status(daemon, "web").as_deref(), Some("PAUSED"));
    daemon.ctr("task resume web").ok();
    assert_eq!(stage::status(daemon, "web").as_deref(), Some("RUNNING"));
    let metrics = daemon.ctr("task metrics web").ok();
    assert!(metrics.contains("METRIC") && metrics.contains("memory"), "{metrics}");
    let early = daemon.ctr("task rm web").fails();
    assert!(early.contains("must be stopped"), "{early}");
    daemon.ctr("task kill web").ok();
    becomes(daemon, "web", "STOPPED");
    let removed = daemon.ctr("task rm web").run();
    assert!(removed.code == 0 && removed.stderr.contains("exit code 5"), "the exit code is told: {removed}");
    daemon.ctr("container rm web").ok();
    assert_eq!(daemon.ctr("snapshot ls").ok().lines().filter(|line| line.contains("Active")).count(), 0);
}

#[test]
fn wrong_requests_name_what_is_wrong() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", built "containerd", built "ctr");
    let stage = stage::busybox();
    let daemon = &stage.daemon;
    for (line, word) in [
        ("run --rm docker.io/library/absent:v1 x", "not found"),
        ("container create docker.io/library/busybox:e2e bad-", "identifier"),
        ("container info absent", "not found"),
        ("task start absent", "not found"),
        ("task kill absent", "not found"),
        ("snapshot info absent", "not found"),
        ("content get sha256:0000000000000000000000000000000000000000000000000000000000000000", "not found"),
        ("content get sha256:short", "digest"),
        ("ns create UPPER/slash", "identifier"),
        ("image pull not-a-reference", "reference"),
        ("run --rm --runtime io.containerd.absent.v1 docker.io/library/busybox:e2e r true", "absent"),
        ("image ls name=", "filter"),
    ] {
        let said = daemon.ctr(line).fails();
        assert!(said.to_lowercase().contains(word), "{line}: {word:?} is missing in {said}");
    }
    daemon.ctr(&format!("container create {BUSYBOX} same")).ok();
    let twice = daemon.ctr(&format!("container create {BUSYBOX} same")).fails();
    assert!(twice.contains("already exists"), "{twice}");
}

#[test]
fn a_program_that_does_not_exist_is_named_and_nothing_stays() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", built "containerd", built "ctr");
    let stage = stage::busybox();
    let daemon = &stage.daemon;
    daemon.ctr(&format!("run --rm {BUSYBOX} warm true")).ok();
    let before = daemon.traces();
    let said = daemon.ctr(&format!("run --rm {BUSYBOX} missing no-such-program")).fails();
    assert!(said.contains("no-such-program") && said.contains("executable file not found"), "{said}");
    let said = daemon.ctr(&format!("run --rm {BUSYBOX} directory /tmp")).fails();
    assert!(said.contains("permission denied") || said.contains("is a directory"), "{said}");
    assert_eq!(daemon.ctr("container ls -q").ok(), "");
    let after = daemon.traces();
    assert_eq!(
        (after.processes, after.mounts, after.cgroups),
        (before.processes, before.mounts, before.cgroups)
    );
}

#[test]
fn events_tell_the_life_of_a_container() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", built "containerd", built "ctr");
    let stage = stage::busybox();
    let daemon = &stage.daemon;
    let events = daemon.ctr("events").start();
    // The subscription is in place once it has shown an event of ours.
    testkit::wait::eventually(std::time::Duration::from_secs(20), "the subscription", || {
        daemon.ctr("ns label").args([daemon.namespace(), "seen=yes"]).ok();
        events.stdout().contains("/namespaces/update").then_some(())
    });
    daemon.ctr(&format!("run --rm {BUSYBOX} life true")).ok();
    events.sees("/containers/delete");
    let text = events.stdout();
    let topics: Vec<_> = text
        .lines()
        .filter_map(|line| {
            line.split_whitespace()
                .find(|word| word.starts_with("/tasks/") || word.starts_with("/containers/"))
        })
        .collect();
    assert_eq!(
        topics,
        [
            "/containers/create",
            "/tasks/create",
            "/tasks/start",
            "/tasks/exit",
            "/tasks/delete",
            "/containers/delete"
        ],
        "{text}"
    );
}

#[test]
fn twenty_start_at_once() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", built "containerd", built "ctr");
    let stage = stage::busybox();
    let running: Vec<_> =
        (0..20).map(|n| run(&stage, "", &format!("crowd{n}"), &format!("echo {n}")).start()).collect();
    for (number, one) in running.into_iter().enumerate() {
        assert_eq!(one.wait().ok(), format!("{number}\n"));
    }
}

#[test]
fn a_user_namespace_owns_its_files_under_every_snapshotter() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", built "containerd", built "ctr");
    let stage = stage::busybox();
    let script =
        "id -u; stat -c %u:%g /bin/busybox /bin/sh; touch /made; stat -c %u /made; cat /proc/self/uid_map";
    for snapshotter in ["native", "overlayfs"] {
        let flags = format!("--snapshotter {snapshotter} --uidmap 0:100000:65536 --gidmap 0:100000:65536");
        let snapshots = || stage.daemon.ctr(&format!("snapshots --snapshotter {snapshotter} ls")).ok();
        // Without a container on it the copy is garbage, and collected as soon as that.
        let holder = format!("holder-{snapshotter}");
        stage.daemon.ctr(&format!("run -d {flags} {BUSYBOX} {holder} sleep 600")).ok();
        for turn in ["first", "second"] {
            let out = run(&stage, &flags, &format!("{turn}-{snapshotter}"), script).ok();
            let words: Vec<_> = out.split_whitespace().collect();
            assert_eq!(words, ["0", "0:0", "0:0", "0", "0", "100000", "65536"], "{snapshotter}, {turn}");
        }
        // One shifted copy serves every container of the same ids; the other driver needs none.
        let committed = snapshots().lines().filter(|line| line.contains("Committed")).count();
        assert_eq!(committed, if snapshotter == "native" { 2 } else { 1 }, "{}", snapshots());
        stage.daemon.ctr(&format!("task rm -f {holder}")).ok();
        stage.daemon.ctr(&format!("container rm {holder}")).ok();
    }
}

/// Gives this mount and network namespace a CNI network, runs containers in it, and tells what leases there are.
const CNI: &str = r#"
mount -t tmpfs none /etc && mkdir -p /etc/cni/net.d && cp "$1" /etc/cni/net.d/10-e2e.conflist
mount -t tmpfs none /var/lib
leases() { echo "$1: $(ls /var/lib/cni/networks/e2e | grep -c '^10\.87\.')"; }
"$2" run --rm --cni "$3" attached busybox ip addr show eth0
leases "after --rm"
"$2" run -d --cni "$3" stays sleep 600
leases "while it runs"
"$2" task rm -f stays
leases "after task rm"
"$2" container rm stays
rm /etc/cni/net.d/*
"$2" run --rm --cni "$3" refused true 2>&1 || echo refused
"$2" task ls -q
"#;

#[test]
fn cni_attaches_a_container_and_lets_go_of_it() {
    needs!(
        root, overlayfs, program "unshare", program "docker-registry", program "busybox", built "containerd",
        built "ctr"
    );
    let stage = stage::busybox();
    let config = stage.daemon.dir().join("e2e.conflist");
    let text = serde_json::json!({ "cniVersion": "1.0.0", "name": "e2e", "plugins": [{
        "type": "bridge", "bridge": "e2ecni0", "isGateway": true,
        "ipam": { "type": "host-local", "ranges": [[{ "subnet": "10.87.0.0/24" }]] },
    }]});
    std::fs::write(&config, text.to_string()).unwrap();
    let program = testkit::place::built("ctr");
    let out = stage
        .daemon
        .client(std::path::Path::new("unshare"))
        .args(["-m", "-n", "sh", "-ec", CNI, "sh"])
        .args([config.as_path(), program.as_path(), std::path::Path::new(BUSYBOX)])
        .ok();
    assert!(out.contains("inet 10.87.0."), "{out}");
    for part in ["after --rm: 0", "while it runs: 1", "after task rm: 0", "no network config found"] {
        assert!(out.contains(part), "{part:?} is missing in\n{out}");
    }
    assert!(out.ends_with("refused\n"), "no task stays: {out}");
}

/// Runs `ctr` in a mount namespace whose `/etc/cdi` describes a device.
const CDI: &str = r#"
mount -t tmpfs none /etc && mkdir -p /etc/cdi && cp "$1" /etc/cdi/e2e.json
"$2" run --rm --device e2e.example/thing=0 "$3" injected sh -c 'echo "thing is $THING"; ls /dev/thing'
"$2" run --rm --device e2e.example/thing=1 "$3" missing true 2>&1 || :
"$2" run --rm --gpus 0 "$3" graphics true 2>&1 || :
"$2" container ls -q
"#;

#[test]
fn devices_come_by_their_cdi_names() {
    needs!(
        root, overlayfs, program "unshare", program "docker-registry", program "busybox", built "containerd",
        built "ctr"
    );
    let stage = stage::busybox();
    let file = stage.daemon.dir().join("e2e.json");
    let text = serde_json::json!({ "cdiVersion": "0.6.0", "kind": "e2e.example/thing", "devices": [{
        "name": "0",
        "containerEdits": {
            "env": ["THING=here"], "deviceNodes": [{ "path": "/dev/thing", "hostPath": "/dev/null" }],
        },
    }]});
    std::fs::write(&file, text.to_string()).unwrap();
    let program = testkit::place::built("ctr");
    let out = stage
        .daemon
        .client(std::path::Path::new("unshare"))
        .args(["-m", "sh", "-ec", CDI, "sh"])
        .args([file.as_path(), program.as_path(), std::path::Path::new(BUSYBOX)])
        .ok();
    assert!(out.starts_with("thing is here\n/dev/thing\n"), "{out}");
    for part in ["unresolvable CDI devices e2e.example/thing=1", "no known GPU vendor detected"] {
        assert!(out.contains(part), "{part:?} is missing in\n{out}");
    }
    assert!(!out.contains("\nmissing") && !out.contains("\ngraphics"), "nothing stays: {out}");
}

#[test]
fn a_class_of_block_io_is_what_its_file_says() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", built "containerd", built "ctr");
    let stage = stage::busybox();
    let file = stage.daemon.dir().join("classes.yaml");
    std::fs::write(&file, "Classes:\n  slow:\n  - Weight: 80\n").unwrap();
    let create = |id: &str, class: &str| {
        let flags = format!("--blockio-config-file {} --blockio-class {class}", file.display());
        stage.daemon.ctr(&format!("container create {flags} {BUSYBOX} {id} true"))
    };
    create("classed", "slow").ok();
    let info = stage.daemon.ctr("container info --spec classed").ok();
    let spec: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert_eq!(spec["linux"]["resources"]["blockIO"]["weight"], 80, "{info}");
    let said = create("unclassed", "fast").fails();
    assert!(said.contains("blockio class \"fast\": not found"), "{said}");
}
