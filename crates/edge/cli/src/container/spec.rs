//! The OCI spec of a container: containerd's default, then the image, then the flags.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use node::cdi::is_qualified;
use spec::image::ProcessConfig;
use spec::runtime::{
    Capabilities, DEFAULT_PATH_ENV, IdMapping, LinuxCpu, LinuxDevice, LinuxDeviceCgroup, LinuxResources,
    Mount, Namespace, NamespaceKind, Rlimit, Spec,
};

use super::flags::{ContainerFlags, RunFlags};
use super::offer;
use super::remap::Maps;
use super::rootfs::Tree;
use super::user;
use crate::ctr::args;
use crate::failure::{Failure, OrFail, Result};

const RWM: &str = "rwm";
/// One CFS period, in microseconds, when only `--cpus` is given.
const PERIOD_US: u64 = 100_000;

/// The default spec with the default devices, before image and flags.
pub fn base(namespace: &str, id: &str) -> Spec {
    let mut spec = spec::runtime::default_unix_spec(namespace, id);
    // null, random, full, tty, zero, urandom, console, pts/*, ptmx: what containerd lets every container open.
    let devices = [
        (1, Some(3)),
        (1, Some(8)),
        (1, Some(7)),
        (5, Some(0)),
        (1, Some(5)),
        (1, Some(9)),
        (5, Some(1)),
        (136, None),
        (5, Some(2)),
    ];
    let allow = devices.map(|(major, minor)| LinuxDeviceCgroup {
        allow: true,
        kind: "c".into(),
        major: Some(major),
        minor,
        access: RWM.into(),
    });
    resources(&mut spec).devices.extend(allow);
    spec
}

pub(super) fn resources(spec: &mut Spec) -> &mut LinuxResources {
    spec.linux_mut().resources.get_or_insert_default()
}

fn cpu(spec: &mut Spec) -> &mut LinuxCpu {
    resources(spec).cpu.get_or_insert_default()
}

/// Applies what the image says of a process; a command replaces the image's entrypoint too, as with Go's ctr. `tree`
/// answers who its user is.
pub fn apply_image(spec: &mut Spec, config: &ProcessConfig, command: &[String], tree: &Tree) -> Result {
    let process = spec.process_mut();
    let defaults = if config.env.is_empty() { vec![DEFAULT_PATH_ENV.to_owned()] } else { config.env.clone() };
    process.env = merge_env(defaults, &process.env);
    process.args =
        if command.is_empty() { [&config.entrypoint[..], &config.cmd].concat() } else { command.to_vec() };
    process.cwd = if config.working_dir.is_empty() { "/".into() } else { config.working_dir.clone() };
    let user = if config.user.is_empty() { "root" } else { &config.user };
    match user::resolve(tree, user) {
        Ok(user) => process.user = user,
        // An image without /etc/passwd still runs as the root that it does not name.
        Err(_) if config.user.is_empty() => {}
        Err(failure) => return Err(failure),
    }
    Ok(())
}

/// The variables of `defaults`, replaced or extended by `overrides`; `NAME` alone removes one.
fn merge_env(defaults: Vec<String>, overrides: &[String]) -> Vec<String> {
    let mut merged = defaults;
    for wanted in overrides {
        let (name, value) =
            wanted.split_once('=').map_or((wanted.as_str(), None), |(name, value)| (name, Some(value)));
        let known = merged.iter().position(|have| have.split('=').next() == Some(name));
        match (known, value) {
            (Some(at), Some(_)) => merged[at] = wanted.clone(),
            (Some(at), None) => {
                merged.remove(at);
            }
            (None, Some(_)) => merged.push(wanted.clone()),
            (None, None) => {}
        }
    }
    merged
}

/// Applies the flags of `run` and `create`, in Go ctr's order.
pub fn apply_flags(spec: &mut Spec, flags: &ContainerFlags, run: &RunFlags, tree: Option<&Tree>) -> Result {
    environment(spec, flags)?;
    mounts(spec, &flags.mounts)?;
    if flags.read_only {
        spec.root.get_or_insert_default().readonly = true;
    }
    let process = spec.process_mut();
    if let Some(cwd) = &flags.cwd {
        process.cwd.clone_from(cwd);
    }
    if let Some(text) = &flags.user {
        let tree =
            tree.ok_or_else(|| Failure::new("--user needs a root file system to look the user up in"))?;
        process.user = user::resolve(tree, text)?;
    }
    if flags.tty {
        process.terminal = true;
        if !process.env.iter().any(|env| env.starts_with("TERM=")) {
            process.env.push("TERM=xterm".into());
        }
    }
    if flags.privileged {
        privileged(spec, !run.privileged_without_host_devices)?;
    } else if run.privileged_without_host_devices {
        return Err(Failure::new(
            "can't use 'privileged-without-host-devices' without 'privileged' specified",
        ));
    }
    if flags.net_host {
        host_network(spec)?;
    }
    spec.annotations.extend(args::annotations(&flags.annotations)?);
    capabilities(spec, flags)?;
    security(spec, flags)?;
    limits(spec, flags, run)?;
    namespaces(spec, flags, run)?;
    devices(spec, flags.devices.iter().filter(|device| !is_qualified(device)))?;
    offer::apply(spec, flags)?;
    if flags.allow_new_privs {
        spec.process_mut().no_new_privileges = false;
    }
    if let Some(cgroup) = &run.cgroup {
        spec.linux_mut().cgroups_path.clone_from(cgroup);
    }
    if let Some(propagation) = &flags.rootfs_propagation {
        spec.linux_mut().rootfs_propagation.clone_from(propagation);
    }
    if let Some(class) = &flags.rdt_class {
        spec.linux_mut().intel_rdt.get_or_insert_default().clos_id.clone_from(class);
    }
    if let Some(hostname) = &flags.hostname {
        spec.hostname.clone_from(hostname);
    }
    spec.annotations.extend(args::labels(&flags.label.labels));
    Ok(())
}

fn environment(spec: &mut Spec, flags: &ContainerFlags) -> Result {
    let mut wanted = Vec::new();
    if let Some(file) = &flags.env_file {
        let text = fs::read_to_string(file).or_fail(format!("cannot read {}", file.display()))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        wanted.extend(lines.map(str::to_owned));
    }
    wanted.extend(flags.envs.iter().cloned());
    let process = spec.process_mut();
    process.env = merge_env(std::mem::take(&mut process.env), &wanted);
    Ok(())
}

/// `type=bind,src=/a,dst=/b,options=rbind:ro`; a mount replaces another at the same place.
fn mounts(spec: &mut Spec, words: &[String]) -> Result {
    for word in words {
        let mut mount = Mount::default();
        for field in word.split(',') {
            let (key, value) = field
                .split_once('=')
                .ok_or_else(|| Failure::new("invalid mount specification: expected key=val"))?;
            match key {
                "type" => mount.kind = value.into(),
                "source" | "src" => mount.source = value.into(),
                "destination" | "dst" => mount.destination = value.into(),
                "options" => mount.options = value.split(':').map(str::to_owned).collect(),
                _ => return Err(Failure::new(format!("mount option {key:?} not supported"))),
            }
        }
        if !mount.destination.starts_with('/') {
            return Err(Failure::new(format!("mount {word:?} needs an absolute destination (dst=/...)")));
        }
        spec.mounts.retain(|known| known.destination != mount.destination);
        spec.mounts.push(mount);
    }
    Ok(())
}

fn privileged(spec: &mut Spec, host_devices: bool) -> Result {
    let all = current_capabilities()?;
    let process = spec.process_mut();
    process.capabilities = Some(Capabilities {
        bounding: all.clone(),
        effective: all.clone(),
        permitted: all.clone(),
        inheritable: vec![],
        ambient: vec![],
    });
    process.selinux_label.clear();
    process.apparmor_profile.clear();
    for mount in &mut spec.mounts {
        if matches!(mount.kind.as_str(), "sysfs" | "cgroup") {
            mount
                .options
                .iter_mut()
                .filter(|option| *option == "ro")
                .for_each(|option| *option = "rw".into());
        }
    }
    let linux = spec.linux_mut();
    linux.masked_paths.clear();
    linux.readonly_paths.clear();
    linux.seccomp = None;
    if host_devices {
        resources(spec).devices =
            vec![LinuxDeviceCgroup { allow: true, access: RWM.into(), ..LinuxDeviceCgroup::default() }];
        let mut found = Vec::new();
        collect_devices(Path::new("/dev"), 0, &mut found)?;
        spec.linux_mut().devices.extend(found);
    }
    Ok(())
}

/// The capabilities that this process could pass on: its bounding set, by name.
fn current_capabilities() -> Result<Vec<String>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let hex = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap_or("0").trim();
    let set = u64::from_str_radix(hex, 16).map_err(|error| Failure::new(format!("CapBnd {hex}: {error}")))?;
    Ok(sys::capability::names()
        .enumerate()
        .filter(|(bit, _)| set & (1 << bit) != 0)
        .map(|(_, name)| name)
        .collect())
}

fn capabilities(spec: &mut Spec, flags: &ContainerFlags) -> Result {
    if flags.cap_add.iter().chain(&flags.cap_drop).any(|cap| !cap.starts_with("CAP_")) {
        return Err(Failure::new("capabilities must be specified with 'CAP_' prefix"));
    }
    let sets = spec.process_mut().capabilities.get_or_insert_default();
    for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
        for cap in &flags.cap_add {
            if !set.contains(cap) {
                set.push(cap.clone());
            }
        }
        set.retain(|cap| !flags.cap_drop.contains(cap));
    }
    Ok(())
}

fn security(spec: &mut Spec, flags: &ContainerFlags) -> Result {
    match (flags.seccomp, &flags.seccomp_profile) {
        (false, Some(_)) => {
            return Err(Failure::new("seccomp must be set to true, if using a custom seccomp-profile"));
        }
        (true, Some(file)) => {
            let text = fs::read(file).or_fail(format!("cannot load seccomp profile {}", file.display()))?;
            let profile =
                spec::json::from_slice(&text).or_fail(format!("{} is no seccomp profile", file.display()))?;
            spec.linux_mut().seccomp = Some(profile);
        }
        (true, None) => {
            let bounding = spec.process_mut().capabilities.clone().unwrap_or_default().bounding;
            spec.linux_mut().seccomp = Some(spec::runtime::seccomp_default(&bounding));
        }
        (false, None) => {}
    }
    if let Some(profile) = &flags.apparmor_profile {
        spec.process_mut().apparmor_profile.clone_from(profile);
    }
    Ok(())
}

fn limits(spec: &mut Spec, flags: &ContainerFlags, run: &RunFlags) -> Result {
    let own_quota = flags.cpu_quota != -1 || flags.cpu_period != 0;
    if run.cpus > 0.0 {
        if own_quota {
            return Err(Failure::new("cpus and quota/period should be used separately"));
        }
        #[expect(clippy::cast_possible_truncation, reason = "microseconds of a period; saturates")]
        let quota = (run.cpus * 100_000.0) as i64;
        (cpu(spec).quota, cpu(spec).period) = (Some(quota), Some(PERIOD_US));
    } else if own_quota {
        cpu(spec).quota = Some(flags.cpu_quota);
        cpu(spec).period = (flags.cpu_period != 0).then_some(flags.cpu_period);
    }
    if flags.cpu_burst != 0 {
        cpu(spec).burst = Some(flags.cpu_burst);
    }
    if let Some(cpus) = &run.cpuset_cpus {
        cpu(spec).cpus.clone_from(cpus);
    }
    if let Some(mems) = &run.cpuset_mems {
        cpu(spec).mems.clone_from(mems);
    }
    if run.cpu_shares > 0 {
        cpu(spec).shares = Some(run.cpu_shares);
    }
    if flags.memory_limit > 0 {
        let limit =
            i64::try_from(flags.memory_limit).map_err(|_| Failure::new("--memory-limit is out of range"))?;
        resources(spec).memory.get_or_insert_default().limit = Some(limit);
    }
    if let Some(text) = &run.rlimit_nofile {
        let (soft, hard) = text.split_once(':').unwrap_or((text, text));
        let parse = |word: &str| {
            word.parse::<u64>()
                .map_err(|error| Failure::new(format!("failed to parse rlimit-nofile {text:?}: {error}")))
        };
        let limit = Rlimit { kind: "RLIMIT_NOFILE".into(), hard: parse(hard)?, soft: parse(soft)? };
        let rlimits = &mut spec.process_mut().rlimits;
        rlimits.retain(|known| known.kind != limit.kind);
        rlimits.push(limit);
    }
    Ok(())
}

fn set_namespace(spec: &mut Spec, namespace: Namespace) {
    let namespaces = &mut spec.linux_mut().namespaces;
    match namespaces.iter_mut().find(|known| known.kind == namespace.kind) {
        Some(known) => *known = namespace,
        None => namespaces.push(namespace),
    }
}

/// The host's network, its resolver and host names, and its name.
fn host_network(spec: &mut Spec) -> Result {
    spec.linux_mut().namespaces.retain(|namespace| namespace.kind != NamespaceKind::Network);
    for file in ["/etc/hosts", "/etc/resolv.conf"] {
        spec.mounts.push(Mount::new(file, "bind", file, &["rbind", "ro"]));
    }
    let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let process = spec.process_mut();
    process.env = merge_env(std::mem::take(&mut process.env), &[format!("HOSTNAME={hostname}")]);
    Ok(())
}

fn namespaces(spec: &mut Spec, flags: &ContainerFlags, run: &RunFlags) -> Result {
    if let Some(maps) = id_maps(run)? {
        set_namespace(spec, Namespace::new(NamespaceKind::User));
        (spec.linux_mut().uid_mappings, spec.linux_mut().gid_mappings) = (maps.uids, maps.gids);
    }
    for word in &flags.with_ns {
        let (kind, path) = word.split_once(':').ok_or_else(|| {
            Failure::new("joining a Linux namespace using --with-ns requires the format 'nstype:path'")
        })?;
        let known = NamespaceKind::ALL.into_iter().find(|known| known.name() == kind);
        let kind = known.ok_or_else(|| {
            Failure::new(format!("the Linux namespace type specified in --with-ns is not valid: {kind}"))
        })?;
        set_namespace(spec, Namespace { path: path.into(), ..Namespace::new(kind) });
    }
    Ok(())
}

/// The user namespace that the flags ask for.
pub fn id_maps(run: &RunFlags) -> Result<Option<Maps>> {
    if run.uid_maps.is_empty() && run.gid_maps.is_empty() {
        return Ok(None);
    }
    if run.uid_maps.is_empty() || run.gid_maps.is_empty() {
        return Err(Failure::new("--uidmap and --gidmap go together"));
    }
    let maps = |words: &[String]| words.iter().map(|word| id_mapping(word)).collect::<Result<_>>();
    Ok(Some(Maps { uids: maps(&run.uid_maps)?, gids: maps(&run.gid_maps)? }))
}

/// `container-id:host-id:size`.
pub fn id_mapping(text: &str) -> Result<IdMapping> {
    let parts: Vec<&str> = text.split(':').collect();
    let [container, host, size] = parts[..] else {
        return Err(Failure::new("user namespace mappings require the format `container-id:host-id:size`"));
    };
    let parse = |word: &str, what: &str| {
        word.parse::<u32>()
            .map_err(|error| Failure::new(format!("invalid {what} for user namespace remapping: {error}")))
    };
    Ok(IdMapping {
        container_id: parse(container, "container id")?,
        host_id: parse(host, "host id")?,
        size: parse(size, "size")?,
    })
}

fn devices<'a>(spec: &mut Spec, paths: impl Iterator<Item = &'a String>) -> Result {
    for path in paths.map(Path::new) {
        let mut found = Vec::new();
        let metadata = fs::metadata(path).or_fail(format!("cannot use device {}", path.display()))?;
        if metadata.is_dir() {
            collect_devices(path, 0, &mut found)?;
        } else {
            found.extend(device(path, &metadata));
        }
        if found.is_empty() {
            return Err(Failure::new(format!("{} is no device", path.display())));
        }
        for device in found {
            resources(spec).devices.push(LinuxDeviceCgroup {
                allow: true,
                kind: device.kind.clone(),
                major: Some(device.major),
                minor: Some(device.minor),
                access: RWM.into(),
            });
            spec.linux_mut().devices.push(device);
        }
    }
    Ok(())
}

/// Every device below `dir` but those that a container has of its own.
fn collect_devices(dir: &Path, depth: usize, found: &mut Vec<LinuxDevice>) -> Result {
    const OWN: [&str; 8] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console"];
    if depth > 8 {
        return Ok(());
    }
    for entry in fs::read_dir(dir).or_fail(format!("cannot list {}", dir.display()))? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_name().to_str().is_some_and(|name| OWN.contains(&name)) {
            continue;
        }
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue }; // gone since it was listed
        if metadata.is_dir() {
            collect_devices(&path, depth + 1, found)?;
        } else {
            found.extend(device(&path, &metadata));
        }
    }
    Ok(())
}

fn device(path: &Path, metadata: &fs::Metadata) -> Option<LinuxDevice> {
    let kind = match metadata.file_type() {
        kind if kind.is_char_device() => "c",
        kind if kind.is_block_device() => "b",
        _ => return None,
    };
    let rdev = metadata.rdev();
    Some(LinuxDevice {
        path: path.display().to_string(),
        kind: kind.into(),
        major: rustix::fs::major(rdev).into(),
        minor: rustix::fs::minor(rdev).into(),
        file_mode: Some(metadata.mode() & 0o7777),
        uid: Some(metadata.uid()),
        gid: Some(metadata.gid()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environments_merge_as_gos_do() {
        let merged = merge_env(
            vec!["A=1".into(), "B=2".into(), "C=3".into()],
            &["B=9".into(), "C".into(), "D=4".into()],
        );
        assert_eq!(merged, ["A=1", "B=9", "D=4"]);
    }

    #[test]
    fn command_replaces_entrypoint_and_cmd() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::of_directory(dir.path()).unwrap();
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        for (entrypoint, cmd, command, expected) in [
            ("/entry -x", "default", "", "/entry -x default"),
            ("/entry -x", "default", "sh -c true", "sh -c true"),
            ("/entry", "", "sh", "sh"),
            ("", "default", "sh", "sh"),
            ("", "default", "", "default"),
        ] {
            let mut spec = base("default", "x");
            let config =
                ProcessConfig { entrypoint: words(entrypoint), cmd: words(cmd), ..ProcessConfig::default() };
            apply_image(&mut spec, &config, &words(command), &tree).unwrap();
            assert_eq!(spec.process_mut().args, words(expected), "{entrypoint} {cmd} {command}");
        }
    }

    #[test]
    fn a_mount_replaces_one_at_its_place() {
        let mut spec = base("default", "x");
        mounts(&mut spec, &["type=bind,src=/a,dst=/dev/shm,options=rbind:ro".into()]).unwrap();
        let at: Vec<_> = spec.mounts.iter().filter(|mount| mount.destination == "/dev/shm").collect();
        assert_eq!(at.len(), 1);
        assert_eq!(at[0].options, ["rbind", "ro"]);
        assert!(mounts(&mut spec, &["src=/a".into()]).is_err());
        assert!(mounts(&mut spec, &["type=bind,what=1,dst=/x".into()]).is_err());
    }

    #[test]
    fn id_mappings_have_three_numbers() {
        let map = id_mapping("0:100000:65536").unwrap();
        assert_eq!((map.container_id, map.host_id, map.size), (0, 100_000, 65_536));
        assert!(id_mapping("0:1").is_err());
        assert!(id_mapping("0:1:4294967296").is_err());
    }
}
