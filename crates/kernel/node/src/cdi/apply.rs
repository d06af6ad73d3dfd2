//! Puts what devices ask for into a spec.

use std::path::Path;

use ::spec::runtime::{self, IntelRdt, LinuxDevice, LinuxDeviceCgroup, LinuxNetDevice, NamespaceKind, Spec};
use sys::path::clean;

use super::file::{Edits, Hook, Mount, Node};

/// The names of hooks, as the runtime specification has them.
pub const HOOKS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Puts `edits` into a spec whose process, devices and mounts are decided: what they say wins over what is at the same
/// place.
pub fn apply(spec: &mut Spec, edits: &Edits) {
    if *edits == Edits::default() {
        return;
    }
    let process = spec.process_mut();
    for variable in &edits.env {
        set_variable(&mut process.env, variable);
    }
    for gid in edits.additional_gids.iter().map(|gid| gid.small()).filter(|gid| *gid != 0) {
        let groups = &mut process.user.additional_gids;
        if !groups.contains(&gid) {
            groups.push(gid);
        }
    }
    let owner = (process.user.uid, process.user.gid);
    for node in &edits.device_nodes {
        add_node(spec, node, owner);
    }
    for device in &edits.net_devices {
        let inside = LinuxNetDevice { name: device.name.clone() };
        spec.linux_mut().net_devices.insert(device.host_interface_name.clone(), inside);
    }
    for mount in &edits.mounts {
        add_mount(spec, mount);
    }
    if !edits.mounts.is_empty() {
        spec.mounts.sort_by_key(|mount| clean(Path::new(&mount.destination)).components().count());
    }
    for hook in &edits.hooks {
        add_hook(spec, hook);
    }
    if let Some(rdt) = &edits.intel_rdt {
        spec.linux_mut().intel_rdt = Some(IntelRdt {
            clos_id: rdt.clos_id.clone(),
            schemata: rdt.schemata.clone().unwrap_or_default(),
            l3_cache_schema: rdt.l3_cache_schema.clone(),
            mem_bw_schema: rdt.mem_bw_schema.clone(),
            enable_monitoring: rdt.enable_monitoring.0,
        });
    }
}

fn set_variable(env: &mut Vec<String>, variable: &str) {
    let name = |text: &str| text.split_once('=').map(|(name, _)| name.to_owned());
    match env.iter_mut().find(|one| name(one) == name(variable)) {
        Some(known) => variable.clone_into(known),
        None => env.push(variable.to_owned()),
    }
}

fn add_node(spec: &mut Spec, node: &Node, owner: (u32, u32)) {
    let of_process = |id: u32| (id != 0).then_some(id);
    let device = LinuxDevice {
        path: node.path.clone(),
        kind: node.kind.clone(),
        major: node.major.0,
        minor: node.minor.0,
        file_mode: node.file_mode.map(|mode| mode.small()),
        uid: node.uid.map(|id| id.small()).or(of_process(owner.0)),
        gid: node.gid.map(|id| id.small()).or(of_process(owner.1)),
    };
    let linux = spec.linux_mut();
    if matches!(node.kind.as_str(), "b" | "c") {
        let access = match node.permissions.as_str() {
            "" => "rwm",
            "none" => "",
            some => some,
        };
        linux.resources.get_or_insert_default().devices.push(LinuxDeviceCgroup {
            allow: true,
            kind: node.kind.clone(),
            major: Some(node.major.0),
            minor: Some(node.minor.0),
            access: access.to_owned(),
        });
    }
    linux.devices.retain(|one| one.path != device.path);
    linux.devices.push(device);
}

fn add_mount(spec: &mut Spec, mount: &Mount) {
    let at = clean(Path::new(&mount.container_path));
    spec.mounts.retain(|one| clean(Path::new(&one.destination)) != at);
    let bind = mount.options.iter().any(|option| option == "bind" || option == "rbind");
    let mut new = runtime::Mount {
        destination: mount.container_path.clone(),
        kind: mount.kind.clone(),
        source: mount.host_path.clone(),
        options: mount.options.clone(),
        ..runtime::Mount::default()
    };
    let linux = spec.linux_mut();
    if bind && linux.namespace(NamespaceKind::User).is_some() {
        // The vendor's files keep their owners as the container sees them.
        new.uid_mappings.clone_from(&linux.uid_mappings);
        new.gid_mappings.clone_from(&linux.gid_mappings);
    }
    spec.mounts.push(new);
}

fn add_hook(spec: &mut Spec, hook: &Hook) {
    let all = spec.hooks.get_or_insert_default();
    let list = match hook.hook_name.as_str() {
        "prestart" => &mut all.prestart,
        "createContainer" => &mut all.create_container,
        "startContainer" => &mut all.start_container,
        "poststart" => &mut all.poststart,
        "poststop" => &mut all.poststop,
        // A file with any other name than these was refused.
        _ => &mut all.create_runtime,
    };
    list.push(runtime::Hook {
        path: hook.path.clone(),
        args: hook.args.clone(),
        env: hook.env.clone(),
        timeout: hook.timeout.map(|seconds| seconds.0),
    });
}

#[cfg(test)]
mod tests {
    use ::spec::runtime::default_unix_spec;

    use super::super::number::Number;
    use super::*;

    #[test]
    fn a_spec_gets_what_devices_ask_for() {
        let mut spec = default_unix_spec("k8s.io", "a");
        spec.process_mut().env = vec!["PATH=/bin".into(), "GPU=none".into()];
        spec.process_mut().user.uid = 7;
        spec.linux_mut().devices = vec![LinuxDevice { path: "/dev/gpu0".into(), ..LinuxDevice::default() }];
        let node = Node {
            path: "/dev/gpu0".into(),
            kind: "c".into(),
            major: Number(195),
            permissions: "none".into(),
            ..Node::default()
        };
        let mount = |at: &str| Mount {
            host_path: "/opt/driver".into(),
            container_path: at.into(),
            options: vec!["ro".into(), "bind".into()],
            ..Mount::default()
        };
        let hook = |name: &str| Hook { hook_name: name.into(), path: "/h".into(), ..Hook::default() };
        let edits = Edits {
            env: vec!["GPU=0".into(), "NEW=1".into()],
            device_nodes: vec![node],
            mounts: vec![mount("/usr/lib/driver"), mount("/proc/"), mount("/a")],
            hooks: HOOKS.iter().map(|name| hook(name)).collect(),
            additional_gids: vec![Number(0), Number(44), Number(44)],
            ..Edits::default()
        };
        apply(&mut spec, &edits);
        let process = spec.process.as_ref().unwrap();
        assert_eq!(process.env, ["PATH=/bin", "GPU=0", "NEW=1"]);
        assert_eq!(process.user.additional_gids, [44]);
        let linux = spec.linux.as_ref().unwrap();
        let device = &linux.devices[..];
        assert_eq!((device.len(), device[0].major, device[0].uid, device[0].gid), (1, 195, Some(7), None));
        let rule = linux.resources.as_ref().unwrap().devices.last().unwrap();
        assert_eq!((rule.allow, rule.major, rule.access.as_str()), (true, Some(195), ""));
        let proc: Vec<_> = spec.mounts.iter().filter(|one| one.destination.starts_with("/proc")).collect();
        assert_eq!((proc.len(), proc[0].source.as_str()), (1, "/opt/driver"));
        let place = |at: &str| spec.mounts.iter().position(|one| one.destination == at).unwrap();
        assert!(place("/a") < place("/usr/lib/driver") && place("/dev") < place("/dev/pts"));
        let hooks = spec.hooks.unwrap();
        for list in [
            &hooks.prestart,
            &hooks.create_runtime,
            &hooks.create_container,
            &hooks.start_container,
            &hooks.poststart,
            &hooks.poststop,
        ] {
            assert_eq!(list.len(), 1);
        }
    }

    #[test]
    fn no_devices_change_nothing() {
        let mut spec = default_unix_spec("k8s.io", "a");
        apply(&mut spec, &Edits::default());
        assert_eq!(spec, default_unix_spec("k8s.io", "a"));
    }
}
