//! From `linux.cgroupsPath` to directories.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::{CgroupError, Layout, UNIFIED};

/// Longest path taken, in bytes: what `open(2)` takes less the mount point and a file name.
const MAX_BYTES: usize = 3072;

/// Where a cgroup goes in each hierarchy; no component is `..`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Below the mount points.
    Absolute(PathBuf),
    /// Below the caller's own cgroups.
    Relative(PathBuf),
}

/// Reads `path`; an empty one is `id` below the caller's own cgroup.
pub(super) fn parse(path: &str, id: &str) -> Result<Place, CgroupError> {
    let invalid = || CgroupError::Path(path.to_owned());
    if path.len() > MAX_BYTES || path.bytes().any(|byte| byte == 0 || byte == b'\n') {
        return Err(invalid());
    }
    if !path.contains('/') && path.split(':').count() == 3 {
        return Err(CgroupError::SystemdPath(path.to_owned()));
    }
    let clean = clean(if path.is_empty() { id } else { path });
    if clean.as_os_str().is_empty() {
        // The root of a hierarchy is everybody's: neither limits nor removal may reach it.
        return Err(invalid());
    }
    Ok(if path.starts_with('/') { Place::Absolute(clean) } else { Place::Relative(clean) })
}

/// Resolves `.` and `..` by name alone; `..` never leaves the root.
fn clean(path: &str) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// The directory of `place` in every hierarchy.
pub(super) fn directories(layout: &Layout, place: &Place) -> Result<BTreeMap<String, PathBuf>, CgroupError> {
    let join = |name: &str, mount: &Path, below: &Path| (name.to_owned(), mount.join(below));
    match place {
        Place::Absolute(path) => {
            Ok(layout.mounts.iter().map(|(name, mount)| join(name, mount, path)).collect())
        }
        Place::Relative(path) => {
            let text = super::file::read(Path::new("/proc/self/cgroup"))?;
            let own = own_paths(&text);
            let is_v2 = layout.mounts.iter().all(|(name, _)| name == UNIFIED);
            let below = |name: &str| {
                let own = own.get(name).map_or("", String::as_str).trim_start_matches('/');
                // On v2 a cgroup that has processes cannot give controllers to children, and the caller is one: go beside.
                let own =
                    if is_v2 { Path::new(own).parent().unwrap_or(Path::new("")) } else { Path::new(own) };
                own.join(path)
            };
            Ok(layout.mounts.iter().map(|(name, mount)| join(name, mount, &below(name))).collect())
        }
    }
}

/// Cgroups by controller name from the text of `/proc/<pid>/cgroup`: `4:memory:/a/b`, `1:name=systemd:/`, `0::/`.
pub(super) fn own_paths(text: &str) -> BTreeMap<String, String> {
    let mut paths = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(names), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        for name in names.split(',') {
            paths.insert(name.to_owned(), path.to_owned());
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_never_leave_the_root() {
        assert_eq!(parse("/../../etc/./x/../y", "i").unwrap(), Place::Absolute("etc/y".into()));
        assert_eq!(parse("../a", "i").unwrap(), Place::Relative("a".into()));
        assert_eq!(parse("", "i").unwrap(), Place::Relative("i".into()));
    }

    #[test]
    fn the_root_itself_and_systemds_form_are_refused() {
        for path in ["/", "/..", "a/..", "/a\0b"] {
            assert!(matches!(parse(path, "i"), Err(CgroupError::Path(_))), "{path:?}");
        }
        assert!(matches!(parse("system.slice:cri:abc", "i"), Err(CgroupError::SystemdPath(_))));
    }

    #[test]
    fn own_cgroups_are_read_by_controller() {
        let own = own_paths("4:cpu,cpuacct:/a:b\n1:name=systemd:/\n0::/u\n");
        assert_eq!((own["cpu"].as_str(), own["cpuacct"].as_str()), ("/a:b", "/a:b"));
        assert_eq!((own["name=systemd"].as_str(), own[""].as_str()), ("/", "/u"));
    }

    proptest::proptest! {
        #[test]
        fn no_path_leaves_the_hierarchies_or_is_their_root(path in "[./a-c:]{0,12}", id in "[a-c]{1,3}") {
            let mount = PathBuf::from("/sys/fs/cgroup/pids");
            let layout = Layout { mode: crate::cgroup::Mode::V1, mounts: vec![("pids".into(), mount.clone())] };
            if let Ok(place @ Place::Absolute(_)) = parse(&path, &id) {
                let directory = &directories(&layout, &place).unwrap()["pids"];
                proptest::prop_assert!(directory.starts_with(&mount) && *directory != mount, "{directory:?}");
                proptest::prop_assert!(!directory.components().any(|part| part == Component::ParentDir));
            }
        }
    }
}
