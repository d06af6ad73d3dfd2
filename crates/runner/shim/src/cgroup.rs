//! The cgroup that a container or a pod is in, whichever runtime put it there.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use runtime::cgroup::{Cgroup, layout};

/// The cgroup of the process `pid`, whose directories are read once, right after creation: a process that later moves
/// itself, as an init system does, does not move the container.
pub fn of(pid: u32) -> Option<Cgroup> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let mounts = &layout().ok()?.mounts;
    let paths = directories(&text, mounts);
    (!paths.is_empty()).then(|| Cgroup::open(paths))
}

/// The cgroup at `path` below the mount points, if there is one.
pub fn at(path: &str) -> Option<Cgroup> {
    let absolute = format!("/{}", path.trim_start_matches('/'));
    Cgroup::find(&absolute).ok().filter(Cgroup::exists)
}

/// Directories by controller name; `text` is that of `/proc/PID/cgroup`.
fn directories(text: &str, mounts: &[(String, PathBuf)]) -> BTreeMap<String, PathBuf> {
    let mut paths = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(names), Some(path)) = (fields.next(), fields.next()) else { continue };
        // The root of a hierarchy is everybody's: its figures are not the container's.
        let below = path.trim_start_matches('/');
        if below.is_empty() || below.split('/').any(|word| word == "..") {
            continue;
        }
        for name in names.split(',') {
            if let Some((_, mount)) = mounts.iter().find(|(found, _)| found == name) {
                paths.insert(name.to_owned(), mount.join(below));
            }
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_a_directory_per_controller() {
        let mounts = ["", "cpu", "memory", "name=systemd"]
            .map(|name| (name.to_owned(), PathBuf::from("/cg").join(name)));
        let text = "4:cpu,cpuacct:/ns/a:b\n3:memory:/\n1:name=systemd:/ns/../x\n0::/ns/a\n";
        let paths = directories(text, &mounts);
        let found: Vec<(&str, &str)> =
            paths.iter().map(|(name, path)| (name.as_str(), path.to_str().unwrap())).collect();
        assert_eq!(found, [("", "/cg/ns/a"), ("cpu", "/cg/cpu/ns/a:b")]);
    }
}
