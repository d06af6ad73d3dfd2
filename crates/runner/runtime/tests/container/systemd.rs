//! Containers in scopes of the systemd that runs this machine, with Debian's runc as the measure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use spec::runtime::{
    LinuxCpu, LinuxDeviceCgroup, LinuxMemory, LinuxPids, LinuxResources, Namespace, NamespaceKind,
};

use crate::bundle::{Bundle, Done, bundle, finish, finish_detached};

const DEBIAN: &str = "/usr/sbin/runc";

/// What is compared: what systemd keeps, and what it wrote.
const PROPERTIES: [&str; 14] = [
    "AllowedCPUs",
    "CPUAccounting",
    "CPUQuotaPerSecUSec",
    "CPUQuotaPeriodUSec",
    "CPUWeight",
    "DefaultDependencies",
    "Delegate",
    "DevicePolicy",
    "MemoryLow",
    "MemoryMax",
    "MemorySwapMax",
    "Slice",
    "TasksMax",
    "TimeoutStopUSec",
];

/// A bundle for the systemd driver; `None` with a printed reason where systemd is not init.
fn scoped(test: &str, script: &str) -> Option<Bundle> {
    if !Path::new("/run/systemd/system").is_dir() {
        println!("SKIP {test}: systemd is not init here");
        return None;
    }
    let mut bundle = bundle(test, script)?;
    bundle.spec.linux_mut().cgroups_path = format!("berthtest-{test}.slice:cri-containerd:{}", bundle.id);
    Some(bundle)
}

fn scope(bundle: &Bundle) -> String {
    format!("cri-containerd-{}.scope", bundle.id)
}

fn show(unit: &str, properties: &[&str]) -> BTreeMap<String, String> {
    let mut command = Command::new("systemctl");
    command.args(["show", unit, "--property", &properties.join(",")]);
    let done = finish(command);
    assert_eq!(done.code, 0, "{done:?}");
    let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    done.out.lines().filter_map(pair).collect()
}

fn systemctl(args: &[&str]) -> Done {
    let mut command = Command::new("systemctl");
    command.args(args);
    finish(command)
}

/// The scope's directory in the hierarchy of a controller.
fn directory(bundle: &Bundle, controller: &str) -> PathBuf {
    let path = show(&scope(bundle), &["ControlGroup"]).remove("ControlGroup").unwrap();
    let root = Path::new("/sys/fs/cgroup");
    let hierarchy = if is_v2() { root.to_owned() } else { root.join(controller) };
    hierarchy.join(path.trim_start_matches('/'))
}

fn is_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

fn file(bundle: &Bundle, controller: &str, v1: &str, v2: &str) -> String {
    let path = directory(bundle, controller).join(if is_v2() { v2 } else { v1 });
    std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .trim()
        .to_owned()
}

fn start(bundle: &Bundle) {
    let command = bundle.command(&["--systemd-cgroup", "run", "--detach", &bundle.id]);
    assert_eq!(finish_detached(command), 0);
}

fn delete(bundle: &Bundle) {
    let done = bundle.runc(&["delete", "--force"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert_unit_gone(bundle);
    bundle.assert_gone();
}

/// Neither active nor failed: systemd knows nothing of it.
fn assert_unit_gone(bundle: &Bundle) {
    let state = show(&scope(bundle), &["LoadState", "ActiveState"]);
    assert_eq!((state["LoadState"].as_str(), state["ActiveState"].as_str()), ("not-found", "inactive"));
}

fn limits() -> LinuxResources {
    LinuxResources {
        memory: Some(LinuxMemory {
            limit: Some(64 << 20),
            swap: Some(96 << 20),
            reservation: Some(32 << 20),
            ..LinuxMemory::default()
        }),
        cpu: Some(LinuxCpu {
            // The one end of the scale that every version of runc translates alike.
            shares: Some(262_144),
            quota: Some(33_333),
            period: Some(50_000),
            cpus: "0".into(),
            ..LinuxCpu::default()
        }),
        pids: Some(LinuxPids { limit: Some(50) }),
        devices: vec![
            LinuxDeviceCgroup { access: "rwm".into(), ..LinuxDeviceCgroup::default() },
            LinuxDeviceCgroup {
                allow: true,
                kind: "c".into(),
                major: Some(10),
                minor: Some(229),
                access: "rw".into(),
            },
        ],
        ..LinuxResources::default()
    }
}

#[test]
fn a_scope_has_the_properties_that_debians_runc_gives_it() {
    let Some(mut ours) = scoped("properties", "exec sleep 100") else { return };
    let Some(mut theirs) = scoped("properties", "exec sleep 100") else { return };
    for bundle in [&mut ours, &mut theirs] {
        bundle.spec.linux_mut().resources = Some(limits());
        let annotation = ("org.systemd.property.TimeoutStopSec".to_owned(), "uint64 7".to_owned());
        bundle.spec.annotations.extend([annotation]);
    }
    start(&ours);
    let found = show(&scope(&ours), &PROPERTIES);
    assert_eq!(found["Slice"], "berthtest-properties.slice");
    assert_eq!((found["TimeoutStopUSec"].as_str(), found["TasksMax"].as_str()), ("7s", "50"));
    let devices = show(&scope(&ours), &["DeviceAllow"]);
    assert!(format!("{devices:?}").contains("/dev/char/10:229 rw"), "{devices:?}");
    if is_v2() {
        assert_eq!(found["MemoryMax"], (64 << 20).to_string());
        assert_eq!(file(&ours, "", "", "cpu.max"), "33500 50000");
        assert_eq!(file(&ours, "", "", "memory.swap.max"), (32 << 20).to_string());
    }
    if Path::new(DEBIAN).exists() {
        // Writes the configuration.
        theirs.command(&[]);
        let mut command = Command::new(DEBIAN);
        command.args(["--systemd-cgroup", "--root"]).arg(theirs.root()).args(["run", "-d", &theirs.id]);
        command
            .current_dir(theirs.path())
            .stdin(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        assert_eq!(finish_detached(command), 0);
        assert_eq!(found, show(&scope(&theirs), &PROPERTIES));
    } else {
        println!("SKIP the comparison: no {DEBIAN}");
    }
    // Each runtime can look after the other's containers.
    delete(&theirs);
    delete(&ours);
}

#[test]
fn the_life_of_a_container_in_a_scope() {
    let Some(bundle) = scoped("life", "exec sleep 100") else { return };
    assert_eq!(finish_detached(bundle.command(&["--systemd-cgroup", "create", &bundle.id])), 0);
    let pids = std::fs::read_to_string(directory(&bundle, "systemd").join("cgroup.procs")).unwrap();
    assert_eq!(pids.lines().count(), 1, "init alone, without the placeholder: {pids:?}");
    assert_eq!(bundle.runc(&["start"]).code, 0);
    assert_eq!(show(&scope(&bundle), &["ActiveState"])["ActiveState"], "active");
    for memory in ["48", "80"] {
        let bytes = format!("{}", memory.parse::<u64>().unwrap() << 20);
        let done = finish(bundle.command(&["update", "--memory", &bytes, "--pids-limit", "33", &bundle.id]));
        assert_eq!(done.code, 0, "{done:?}");
        assert_eq!(file(&bundle, "memory", "memory.limit_in_bytes", "memory.max"), bytes);
    }
    assert_eq!(show(&scope(&bundle), &["TasksMax"])["TasksMax"], "33");
    // Whatever systemd does on its own account leaves the limits as they are.
    assert_eq!(systemctl(&["daemon-reload"]).code, 0);
    assert_eq!(file(&bundle, "memory", "memory.limit_in_bytes", "memory.max"), (80 << 20).to_string());
    assert_eq!(bundle.exec(&["cat", "/dev/null"]).code, 0);
    assert_eq!(bundle.runc(&["pause"]).code, 0);
    assert_eq!(bundle.runc(&["resume"]).code, 0);
    let denied = bundle.exec(&["sh", "-c", "cat </dev/mem"]);
    assert_ne!(denied.code, 0);
    assert_eq!(bundle.exec(&["sh", "-c", "echo x >/dev/null"]).code, 0);
    delete(&bundle);
}

#[test]
fn init_is_born_in_its_scope() {
    let Some(mut bundle) = scoped("born", "cat /proc/self/cgroup") else { return };
    bundle.namespace(NamespaceKind::Cgroup, Some(Namespace::new(NamespaceKind::Cgroup)));
    let done = bundle.runc(&["--systemd-cgroup", "run"]);
    assert_eq!(done.code, 0, "{done:?}");
    // The root of its cgroup namespace, in every hierarchy.
    assert!(done.out.lines().all(|line| line.ends_with(":/")), "{}", done.out);
    assert_unit_gone(&bundle);
}

#[test]
fn a_user_namespace_does_not_mind() {
    let Some(mut bundle) = scoped("user", "cat /proc/self/uid_map") else { return };
    bundle.user_namespace();
    let done = bundle.runc(&["--systemd-cgroup", "run"]);
    assert!(done.code == 0 && done.out.contains("100000"), "{done:?}");
    assert_unit_gone(&bundle);
}

#[test]
fn one_process_is_enough() {
    let Some(mut bundle) = scoped("single", "exec sleep 100") else { return };
    let resources = LinuxResources { pids: Some(LinuxPids { limit: Some(1) }), ..LinuxResources::default() };
    bundle.spec.linux_mut().resources = Some(resources);
    start(&bundle);
    assert_eq!(file(&bundle, "pids", "pids.max", "pids.max"), "1");
    assert_eq!(show(&scope(&bundle), &["TasksMax"])["TasksMax"], "1");
    delete(&bundle);
}

#[test]
fn a_scope_in_use_is_not_taken() {
    let Some(first) = scoped("taken", "exec sleep 100") else { return };
    let Some(mut second) = scoped("taken", "exec sleep 100") else { return };
    start(&first);
    second.spec.linux_mut().cgroups_path.clone_from(&first.spec.linux.as_ref().unwrap().cgroups_path);
    let done = second.runc(&["--systemd-cgroup", "run"]);
    assert!(done.code != 0 && done.err.contains(&scope(&first)), "{done:?}");
    assert_eq!(show(&scope(&first), &["ActiveState"])["ActiveState"], "active");
    assert!(!second.root().join(&second.id).exists());
    delete(&first);
}

#[test]
fn a_failed_create_leaves_no_scope() {
    let Some(mut bundle) = scoped("failed", "true") else { return };
    bundle.process().cwd = "/no/such/directory/below/\0".into();
    assert_ne!(bundle.runc(&["--systemd-cgroup", "create"]).code, 0);
    bundle.process().cwd = "/bin/sh".into();
    assert_ne!(bundle.runc(&["--systemd-cgroup", "create"]).code, 0);
    assert_unit_gone(&bundle);
    let odd = ("org.systemd.property.NoSuchProperty".to_owned(), "true".to_owned());
    bundle.process().cwd = "/".into();
    bundle.spec.annotations.extend([odd]);
    let done = bundle.runc(&["--systemd-cgroup", "create"]);
    assert!(done.code != 0 && done.err.contains("NoSuchProperty"), "{done:?}");
    assert_unit_gone(&bundle);
    assert!(!bundle.root().join(&bundle.id).exists());
}

#[test]
fn a_scope_that_ran_out_of_memory_is_forgotten_when_deleted() {
    let Some(mut bundle) = scoped("oom", "head -c 100m /dev/zero | sort >/dev/null; sleep 1") else { return };
    let memory = LinuxMemory { limit: Some(16 << 20), swap: Some(16 << 20), ..LinuxMemory::default() };
    let resources = LinuxResources { memory: Some(memory), ..LinuxResources::default() };
    bundle.spec.linux_mut().resources = Some(resources);
    let _ = bundle.runc(&["--systemd-cgroup", "run"]);
    assert_unit_gone(&bundle);
    bundle.spec.linux_mut().resources = None;
    bundle.process().args = ["true".to_owned()].into();
    let done = bundle.runc(&["--systemd-cgroup", "run"]);
    assert_eq!(done.code, 0, "{done:?}");
}

#[test]
fn an_exec_runs_in_a_cgroup_below() {
    let Some(bundle) = scoped("below", "exec sleep 100") else { return };
    start(&bundle);
    let (argument, line) = if is_v2() { ("sub", "0::") } else { ("pids:sub", "pids:") };
    std::fs::create_dir(directory(&bundle, "pids").join("sub")).unwrap();
    let done =
        finish(bundle.command(&["exec", "--cgroup", argument, &bundle.id, "cat", "/proc/self/cgroup"]));
    let own = done.out.lines().find(|own| own.contains(line)).unwrap_or_default();
    assert!(done.code == 0 && own.ends_with(".scope/sub"), "{done:?}");
    delete(&bundle);
}
