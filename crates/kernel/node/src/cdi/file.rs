//! A file of devices: its form, and what makes it valid.

use std::collections::BTreeMap;

use spec::json;

use super::number::{Number, Truth};
use super::{name, yaml};

/// The versions of the form, oldest first.
const VERSIONS: [&str; 10] =
    ["0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"];

/// The largest file that is read, in bytes.
pub const MAX_BYTES: usize = 4 << 20;

/// A file.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct File {
    cdi_version: String,
    kind: String,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    /// Its devices.
    pub devices: Vec<Device>,
    /// What every container with any of the devices gets.
    #[serde(default)]
    pub container_edits: Option<Edits>,
}

/// A device.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Device {
    name: String,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    /// What a container with it gets.
    #[serde(default)]
    pub container_edits: Edits,
}

/// What a container gets.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Edits {
    /// Variables.
    pub env: Vec<String>,
    /// Device nodes.
    pub device_nodes: Vec<Node>,
    /// Network devices that move inside.
    pub net_devices: Vec<NetDevice>,
    /// Commands that the runtime runs.
    pub hooks: Vec<Hook>,
    /// Mounts.
    pub mounts: Vec<Mount>,
    /// Intel RDT class.
    pub intel_rdt: Option<Rdt>,
    /// Groups of the process.
    #[serde(rename = "additionalGids")]
    pub additional_gids: Vec<Number>,
}

/// A device node. What is not said of it is the host's.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Node {
    /// Inside.
    pub path: String,
    /// On the host; empty for the same.
    pub host_path: String,
    /// `b`, `c`, `u` or `p`; empty for the host's.
    #[serde(rename = "type")]
    pub kind: String,
    /// Major number.
    pub major: Number,
    /// Minor number.
    pub minor: Number,
    /// Permission bits.
    pub file_mode: Option<Number>,
    /// Of `rwm`, or `none`; empty for all.
    pub permissions: String,
    /// Owner.
    pub uid: Option<Number>,
    /// Group.
    pub gid: Option<Number>,
}

/// A network device.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NetDevice {
    /// On the host.
    pub host_interface_name: String,
    /// Inside.
    pub name: String,
}

/// A command.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Hook {
    /// When it runs, by the runtime specification's name.
    pub hook_name: String,
    /// The program.
    pub path: String,
    /// Its arguments, with its name.
    pub args: Vec<String>,
    /// Its environment.
    pub env: Vec<String>,
    /// Seconds.
    pub timeout: Option<Number>,
}

/// A mount.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Mount {
    /// Its source.
    pub host_path: String,
    /// Where it is inside.
    pub container_path: String,
    /// Options as in fstab.
    pub options: Vec<String>,
    /// The file system's name.
    #[serde(rename = "type")]
    pub kind: String,
}

/// An Intel RDT class.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Rdt {
    /// Its name.
    #[serde(rename = "closID")]
    pub clos_id: String,
    /// L3 cache bitmasks.
    pub l3_cache_schema: String,
    /// Memory bandwidth.
    pub mem_bw_schema: String,
    /// Lines as they are.
    pub schemata: Option<Vec<String>>,
    /// `true` or `false`.
    pub enable_monitoring: Truth,
}

/// Parses and validates a file.
///
/// # Errors
/// What is wrong with it, in words.
pub fn parse(bytes: &[u8], is_json: bool) -> Result<File, String> {
    let value = if is_json {
        json::from_slice(bytes).map_err(|error| error.to_string())?
    } else {
        yaml::parse(std::str::from_utf8(bytes).map_err(|error| error.to_string())?)?
    };
    let file: File = json::from_value(&value).map_err(|error| error.to_string())?;
    file.check()?;
    Ok(file)
}

impl File {
    /// The name of `device` by which containers ask for it.
    pub fn qualified(&self, device: &Device) -> String {
        format!("{}={}", self.kind, device.name)
    }

    fn check(&self) -> Result<(), String> {
        let version = self.cdi_version.strip_prefix('v').unwrap_or(&self.cdi_version);
        let known = VERSIONS.iter().position(|one| *one == version);
        let known = known.ok_or_else(|| format!("invalid version {version:?}"))?;
        let needed = self.needs();
        if VERSIONS.iter().position(|one| *one == needed) > Some(known) {
            return Err(format!("the spec version must be at least v{needed}"));
        }
        match self.kind.split_once('/') {
            Some((vendor, class)) if name::is_kind(vendor) && name::is_kind(class) => {}
            _ => return Err(format!("invalid kind {:?}", self.kind)),
        }
        let mut names = std::collections::BTreeSet::new();
        for device in &self.devices {
            let name = &device.name;
            if !name::is_device(name) {
                return Err(format!("invalid device name {name:?}"));
            }
            if !names.insert(name) {
                return Err(format!("invalid spec, multiple device {name:?}"));
            }
            if device.container_edits == Edits::default() {
                return Err(format!("device {name:?}: invalid device, empty device edits"));
            }
            device.container_edits.check().map_err(|error| format!("device {name:?}: {error}"))?;
        }
        if names.is_empty() {
            return Err("invalid spec, no devices".into());
        }
        self.container_edits.as_ref().map_or(Ok(()), Edits::check)
    }

    /// The oldest version that has all that the file uses.
    fn needs(&self) -> &'static str {
        let edits = || self.devices.iter().map(|device| &device.container_edits).chain(&self.container_edits);
        let rdt = || edits().filter_map(|edits| edits.intel_rdt.as_ref());
        let annotated = |all: &Option<BTreeMap<_, _>>| all.as_ref().is_some_and(|all| !all.is_empty());
        if rdt().any(|rdt| rdt.schemata.is_some() || rdt.enable_monitoring.0)
            || edits().any(|edits| !edits.net_devices.is_empty())
        {
            "1.1.0"
        } else if rdt().next().is_some() || edits().any(|edits| !edits.additional_gids.is_empty()) {
            "0.7.0"
        } else if annotated(&self.annotations)
            || self.devices.iter().any(|device| annotated(&device.annotations))
            || self.kind.split_once('/').is_some_and(|(_, class)| class.contains('.'))
        {
            "0.6.0"
        } else if self.devices.iter().any(|device| device.name.starts_with(|c: char| c.is_ascii_digit()))
            || edits().any(|edits| edits.device_nodes.iter().any(|node| !node.host_path.is_empty()))
        {
            "0.5.0"
        } else if edits().any(|edits| edits.mounts.iter().any(|mount| !mount.kind.is_empty())) {
            "0.4.0"
        } else {
            "0.3.0"
        }
    }
}

impl Edits {
    /// Adds those of another device.
    pub fn append(&mut self, other: &Self) {
        self.env.extend_from_slice(&other.env);
        self.device_nodes.extend_from_slice(&other.device_nodes);
        self.net_devices.extend_from_slice(&other.net_devices);
        self.hooks.extend_from_slice(&other.hooks);
        self.mounts.extend_from_slice(&other.mounts);
        if other.intel_rdt.is_some() {
            self.intel_rdt.clone_from(&other.intel_rdt);
        }
        self.additional_gids.extend_from_slice(&other.additional_gids);
    }

    fn check(&self) -> Result<(), String> {
        variables(&self.env)?;
        self.device_nodes.iter().try_for_each(Node::check)?;
        for hook in &self.hooks {
            variables(&hook.env)?;
            let known = super::apply::HOOKS.contains(&hook.hook_name.as_str());
            if !known || !is_path(&hook.path) || hook.args.iter().any(|argument| argument.contains('\0')) {
                return Err(format!("invalid hook {:?} of {:?}", hook.hook_name, hook.path));
            }
        }
        for mount in &self.mounts {
            let words = mount.options.iter().chain([&mount.host_path, &mount.kind]);
            let clean = words.into_iter().all(|word| !word.contains('\0'));
            if mount.host_path.is_empty() || !is_path(&mount.container_path) || !clean {
                return Err(format!("invalid mount of {:?} at {:?}", mount.host_path, mount.container_path));
            }
        }
        for device in &self.net_devices {
            if device.host_interface_name.is_empty() || device.name.is_empty() {
                return Err("invalid linux net device".into());
            }
        }
        let class = self.intel_rdt.as_ref().map_or("", |rdt| rdt.clos_id.as_str());
        if class != "/" && (class.len() >= 4096 || matches!(class, "." | "..") || class.contains(['/', '\n']))
        {
            return Err("invalid ClosID".into());
        }
        self.additional_gids.iter().try_for_each(|gid| fits(*gid, "additional group"))
    }
}

impl Node {
    fn check(&self) -> Result<(), String> {
        let path = &self.path;
        if !is_path(path) || !(self.host_path.is_empty() || is_path(&self.host_path)) {
            return Err(format!("invalid device path {path:?}"));
        }
        if !matches!(self.kind.as_str(), "" | "b" | "c" | "u" | "p") {
            return Err(format!("device {path:?}: invalid type {:?}", self.kind));
        }
        if self.permissions != "none" && !self.permissions.bytes().all(|byte| b"rwm".contains(&byte)) {
            return Err(format!("device {path:?}: invalid permissions {:?}", self.permissions));
        }
        let numbers = [Some(self.major), Some(self.minor), self.file_mode, self.uid, self.gid];
        numbers.into_iter().flatten().try_for_each(|number| fits(number, path))
    }
}

fn fits(number: Number, what: &str) -> Result<(), String> {
    u32::try_from(number.0).map(drop).map_err(|_| format!("{what}: {} is out of range", number.0))
}

fn is_path(path: &str) -> bool {
    path.starts_with('/') && !path.contains('\0')
}

fn variables(env: &[String]) -> Result<(), String> {
    let wrong = env.iter().find(|one| matches!(one.find('='), None | Some(0)) || one.contains('\0'));
    wrong.map_or(Ok(()), |one| Err(format!("invalid environment variable {one:?}")))
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
