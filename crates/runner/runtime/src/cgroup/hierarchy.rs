//! Where the hierarchies are mounted.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use sys::cgroup::Filesystem;

use super::{CgroupError, UNIFIED};

/// Where distributions, init systems and runtimes agree to mount cgroups.
const ROOT: &str = "/sys/fs/cgroup";

/// The controllers of cgroup v1 that a container gets a directory in.
const CONTROLLERS: [&str; 14] = [
    "blkio",
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "misc",
    "net_cls",
    "net_prio",
    "perf_event",
    "pids",
    "rdma",
];

/// Which kinds of hierarchies there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Only v1 hierarchies.
    V1,
    /// v1 hierarchies with the controllers, and a v2 hierarchy beside them.
    Hybrid,
    /// Only the v2 hierarchy.
    V2,
}

/// The hierarchies of this host.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Which kinds there are.
    pub mode: Mode,
    /// Mount points by controller name, `name=systemd` and [`UNIFIED`].
    pub mounts: Vec<(String, PathBuf)>,
}

/// The hierarchies of this host, looked up once: mounting others needs a reboot in practice.
pub fn layout() -> Result<&'static Layout, CgroupError> {
    static LAYOUT: OnceLock<Layout> = OnceLock::new();
    if let Some(layout) = LAYOUT.get() {
        return Ok(layout);
    }
    let found = probe(Path::new(ROOT))?;
    Ok(LAYOUT.get_or_init(|| found))
}

fn probe(root: &Path) -> Result<Layout, CgroupError> {
    match sys::cgroup::filesystem(root)? {
        Filesystem::V2 => Ok(Layout { mode: Mode::V2, mounts: vec![(UNIFIED.into(), root.into())] }),
        Filesystem::V1 | Filesystem::Tmpfs | Filesystem::Other => probe_v1(root),
    }
}

/// Each directory is a hierarchy, named after its controllers; links to it are only other names.
fn probe_v1(root: &Path) -> Result<Layout, CgroupError> {
    let mut mounts = Vec::new();
    let mut mode = Mode::V1;
    let entries = std::fs::read_dir(root).map_err(|error| super::file::failed(&error, "opendir", root))?;
    for entry in entries.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        match sys::cgroup::filesystem(&path)? {
            Filesystem::V1 => {
                mounts.extend(names(&entry.file_name().to_string_lossy()).map(|name| (name, path.clone())))
            }
            Filesystem::V2 => {
                mode = Mode::Hybrid;
                mounts.push((UNIFIED.into(), path));
            }
            Filesystem::Tmpfs | Filesystem::Other => {}
        }
    }
    if mounts.iter().all(|(name, _)| name == UNIFIED) {
        return Err(CgroupError::NoHierarchy);
    }
    mounts.sort();
    Ok(Layout { mode, mounts })
}

/// The controllers of the v1 hierarchy mounted as `directory`.
fn names(directory: &str) -> impl Iterator<Item = String> {
    let words: Vec<String> = match directory {
        "systemd" => vec!["name=systemd".into()],
        _ => directory.split(',').filter(|word| CONTROLLERS.contains(word)).map(str::to_owned).collect(),
    };
    words.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joint_hierarchies_have_several_names_and_unknown_ones_none() {
        assert_eq!(names("cpu,cpuacct").collect::<Vec<_>>(), ["cpu", "cpuacct"]);
        assert_eq!(names("systemd").collect::<Vec<_>>(), ["name=systemd"]);
        assert_eq!(names("elogind").count(), 0);
    }
}
