//! A pod's user namespace: its maps, and what they make of specs and snapshots.
//!
//! ```text
//! network namespace ── belongs to ──► user namespace ◄── the sandbox joins it by a path, containers by the sandbox
//! image's layers, hosts, hostname, resolv.conf, image-defined volumes ── mounted with their owners shifted
//! ```
//!
//! Invariant: a pod that asks for a user namespace runs in one, or does not run; its containers ask for the same one.

use std::path::Path;

use ::spec::runtime::{IdMapping, Mount as SpecMount, Namespace, NamespaceKind, Spec};
use ::spec::{Error, Labels};
use api::runtime::v1;
use model::Result;
use model::snapshot::Mount;

/// Labels by which a snapshotter shifts owners.
const UID_LABEL: &str = "containerd.io/snapshot/uidmapping";
const GID_LABEL: &str = "containerd.io/snapshot/gidmapping";

/// What a snapshotter that shifts owners says of itself.
const CAPABILITY: &str = "remap-ids";

/// How ids inside are ids of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserNamespace {
    uids: v1::IdMapping,
    gids: v1::IdMapping,
}

impl UserNamespace {
    /// That of a request; none for the host's.
    ///
    /// # Errors
    /// `InvalidArgument`: the mode is unknown, or the maps do not go with it.
    pub fn of(options: &v1::NamespaceOption) -> Result<Option<Self>> {
        let Some(wanted) = &options.userns_options else { return Ok(None) };
        let wrong = |why: String| Err(Error::invalid(format_args!("user namespace configuration: {why}")));
        let mode = v1::NamespaceMode::try_from(wanted.mode);
        let (uids, gids) = (one("UID", &wanted.uids)?, one("GID", &wanted.gids)?);
        match (mode, uids, gids) {
            (Ok(v1::NamespaceMode::Node), None, None) => Ok(None),
            (Ok(v1::NamespaceMode::Pod), Some(uids), Some(gids)) => Ok(Some(Self { uids, gids })),
            (Ok(v1::NamespaceMode::Node), ..) => {
                wrong("can't use user namespace mode NODE with mappings".into())
            }
            (Ok(v1::NamespaceMode::Pod), ..) => {
                wrong("can't use user namespace mode POD without UID and GID mappings".into())
            }
            _ => wrong(format!("unsupported user namespace mode: {}", wanted.mode)),
        }
    }

    /// That of a container, which is its pod's.
    ///
    /// # Errors
    /// `InvalidArgument`: the container asks for another one than its pod.
    pub fn of_container(options: &v1::NamespaceOption, pod: &v1::PodSandboxConfig) -> Result<Option<Self>> {
        let of_pod = Self::of(&crate::state::namespaces(pod))?;
        let own = Self::of(options)?;
        if own != of_pod {
            return Err(Error::invalid(format_args!(
                "user namespace config for sandbox is different from container. Sandbox userns config: {of_pod:?} - \
                 Container userns config: {own:?}"
            )));
        }
        Ok(own)
    }

    /// The texts of `uid_map` and `gid_map`.
    pub fn maps(self) -> (String, String) {
        let text = |map: v1::IdMapping| format!("{} {} {}\n", map.container_id, map.host_id, map.length);
        (text(self.uids), text(self.gids))
    }

    /// The host's ids of a user and a group inside; none when one is not mapped.
    pub fn to_host(self, uid: u32, gid: u32) -> Option<(u32, u32)> {
        let host = |map: v1::IdMapping, id: u32| {
            let offset = id.checked_sub(map.container_id).filter(|offset| *offset < map.length)?;
            map.host_id.checked_add(offset)
        };
        Some((host(self.uids, uid)?, host(self.gids, gid)?))
    }

    /// Labels of a snapshot that is to be seen from inside.
    ///
    /// # Errors
    /// `FailedPrecondition`: the snapshotter, of which these are the capabilities, cannot.
    pub fn labels(self, snapshotter: &str, capabilities: &[&str]) -> Result<Labels> {
        if !capabilities.contains(&CAPABILITY) {
            return Err(Error::failed_precondition(format_args!(
                "snapshotter {snapshotter:?} cannot shift owners here, which user namespaces need"
            )));
        }
        let text = |map: v1::IdMapping| format!("{}:{}:{}", map.container_id, map.host_id, map.length);
        Ok([(UID_LABEL.to_owned(), text(self.uids)), (GID_LABEL.to_owned(), text(self.gids))].into())
    }

    /// Puts it into a spec: joined at `path`, or a new one without. The host's network's /sys cannot be mounted from
    /// inside, so that it is bound there.
    pub fn apply(self, spec: &mut Spec, path: Option<&Path>, host_network: bool) {
        let map = |map: v1::IdMapping| {
            vec![IdMapping { container_id: map.container_id, host_id: map.host_id, size: map.length }]
        };
        let path = path.map(|path| path.display().to_string()).unwrap_or_default();
        let linux = spec.linux_mut();
        linux.namespaces.retain(|one| one.kind != NamespaceKind::User);
        linux.namespaces.push(Namespace { kind: NamespaceKind::User, path });
        (linux.uid_mappings, linux.gid_mappings) = (map(self.uids), map(self.gids));
        if host_network {
            let options = ["rbind", "rro", "nosuid", "nodev", "noexec"];
            let sys = SpecMount::new("/sys", "bind", "/sys", &options);
            match spec.mounts.iter_mut().find(|mount| mount.destination == "/sys") {
                Some(usual) => *usual = sys,
                None => spec.mounts.push(sys),
            }
        }
    }

    /// Has the owners of a mount of ours shown shifted, unless the mount says how.
    pub fn shift(self, mount: &mut v1::Mount) {
        if mount.uid_mappings.is_empty() && mount.gid_mappings.is_empty() {
            (mount.uid_mappings, mount.gid_mappings) = (vec![self.uids], vec![self.gids]);
        }
    }
}

/// Whether a snapshotter of these capabilities can make snapshots for user namespaces.
pub fn can(capabilities: &[&str]) -> bool {
    capabilities.contains(&CAPABILITY)
}

/// A snapshot's mounts as they are on disk, for reading and copying.
pub fn unshifted(mounts: &[Mount]) -> Vec<Mount> {
    let mut mounts = mounts.to_vec();
    for mount in &mut mounts {
        mount.options.retain(|option| !option.starts_with("uidmap=") && !option.starts_with("gidmap="));
    }
    mounts
}

/// The only map of a list.
fn one(what: &str, maps: &[v1::IdMapping]) -> Result<Option<v1::IdMapping>> {
    let wrong = |why: String| {
        Err(Error::invalid(format_args!("user namespace configuration: {what} mapping: {why}")))
    };
    match maps {
        [] => Ok(None),
        [map] if map.length < 1 => wrong(format!("invalid mapping length: {}", map.length)),
        [map]
            if map.container_id.checked_add(map.length).is_none()
                || map.host_id.checked_add(map.length).is_none() =>
        {
            wrong("more ids than there are".into())
        }
        [map] => Ok(Some(*map)),
        more => wrong(format!("only one mapping line supported, got {} mapping lines", more.len())),
    }
}

#[cfg(test)]
mod tests {
    use ::spec::runtime::default_unix_spec;

    use super::*;

    fn map(inside: u32, outside: u32, length: u32) -> v1::IdMapping {
        v1::IdMapping { container_id: inside, host_id: outside, length }
    }

    fn options(mode: i32, uids: &[v1::IdMapping], gids: &[v1::IdMapping]) -> v1::NamespaceOption {
        let wanted = v1::UserNamespace { mode, uids: uids.to_vec(), gids: gids.to_vec() };
        v1::NamespaceOption { userns_options: Some(wanted), ..v1::NamespaceOption::default() }
    }

    #[test]
    fn requests_are_a_namespace_none_or_wrong() {
        let good = [map(0, 100_000, 65536)];
        let (pod, node) = (v1::NamespaceMode::Pod as i32, v1::NamespaceMode::Node as i32);
        assert_eq!(UserNamespace::of(&v1::NamespaceOption::default()).unwrap(), None);
        assert_eq!(UserNamespace::of(&options(node, &[], &[])).unwrap(), None);
        let found = UserNamespace::of(&options(pod, &good, &good)).unwrap().unwrap();
        assert_eq!(found.maps(), ("0 100000 65536\n".into(), "0 100000 65536\n".into()));
        for (mode, uids, gids) in [
            (node, &good[..], &good[..]),
            (node, &good, &[]),
            (pod, &[], &[]),
            (pod, &good, &[]),
            (pod, &[map(0, 1, 0)], &good),
            (pod, &[map(0, u32::MAX, 2)], &good),
            (pod, &[map(u32::MAX, 0, 2)], &good),
            (pod, &[map(0, 1, 1), map(1, 2, 1)], &good),
            (v1::NamespaceMode::Container as i32, &good, &good),
            (v1::NamespaceMode::Target as i32, &[], &[]),
            (77, &[], &[]),
        ] {
            assert!(UserNamespace::of(&options(mode, uids, gids)).is_err(), "{mode} {uids:?} {gids:?}");
        }
    }

    #[test]
    fn a_container_is_in_its_pods_namespace() {
        let of =
            |start: u32| options(v1::NamespaceMode::Pod as i32, &[map(0, start, 9)], &[map(0, start, 9)]);
        let pod = |options: v1::NamespaceOption| {
            let security = v1::LinuxSandboxSecurityContext {
                namespace_options: Some(options),
                ..v1::LinuxSandboxSecurityContext::default()
            };
            let linux = v1::LinuxPodSandboxConfig {
                security_context: Some(security),
                ..v1::LinuxPodSandboxConfig::default()
            };
            v1::PodSandboxConfig { linux: Some(linux), ..v1::PodSandboxConfig::default() }
        };
        assert!(UserNamespace::of_container(&of(7), &pod(of(7))).unwrap().is_some());
        assert!(UserNamespace::of_container(&of(7), &pod(of(8))).is_err());
        assert!(UserNamespace::of_container(&v1::NamespaceOption::default(), &pod(of(8))).is_err());
        assert!(UserNamespace::of_container(&of(7), &v1::PodSandboxConfig::default()).is_err());
    }

    #[test]
    fn specs_and_snapshots_are_shifted() {
        let namespace = UserNamespace { uids: map(0, 7, 9), gids: map(0, 8, 9) };
        let mut spec = default_unix_spec("k8s.io", "a");
        namespace.apply(&mut spec, Some(Path::new("/proc/1/ns/user")), true);
        let linux = spec.linux.as_ref().unwrap();
        assert_eq!(linux.namespace(NamespaceKind::User).unwrap().path, "/proc/1/ns/user");
        assert_eq!((linux.uid_mappings[0].host_id, linux.gid_mappings[0].host_id), (7, 8));
        let sys: Vec<_> = spec.mounts.iter().filter(|mount| mount.destination == "/sys").collect();
        assert_eq!((sys.len(), sys[0].kind.as_str()), (1, "bind"));
        let labels = namespace.labels("overlayfs", &["remap-ids"]).unwrap();
        assert_eq!(labels[UID_LABEL], "0:7:9");
        assert!(namespace.labels("native", &[]).is_err());
        let options = ["uidmap=0:7:9", "gidmap=0:8:9", "ro"].map(str::to_owned).to_vec();
        let mounts = unshifted(&[Mount { options, ..Mount::default() }]);
        assert_eq!(mounts[0].options, ["ro"]);
    }
}
