//! The daemon's own cgroup, where `[cgroup] path` names one.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use spec::{HasKind, Kind};

/// Where cgroups are.
const ROOT: &str = "/sys/fs/cgroup";

/// Why the daemon is in no cgroup of its own.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The path leads elsewhere.
    #[error("cgroup.path: {0:?} is no path of a cgroup")]
    Path(String),
    /// A directory cannot be made or joined.
    #[error("cgroup.path: cannot {step} {}", path.display())]
    Join {
        /// What was tried.
        step: &'static str,
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl HasKind for CgroupError {
    fn kind(&self) -> Kind {
        match self {
            Self::Path(_) => Kind::InvalidArgument,
            Self::Join { source, .. } => Kind::from_errno(source.raw_os_error().unwrap_or(0)),
        }
    }
}

/// Moves this process to the cgroup `path` of every hierarchy, making it where it is missing.
///
/// # Errors
/// See [`CgroupError`].
pub fn join(path: &str) -> Result<(), CgroupError> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    for dir in places(path, &own)? {
        let failed = |step, path: &Path| {
            let path = path.to_owned();
            move |source| CgroupError::Join { step, path, source }
        };
        fs::create_dir_all(&dir).map_err(failed("make", &dir))?;
        let procs = dir.join("cgroup.procs");
        fs::write(&procs, std::process::id().to_string()).map_err(failed("write", &procs))?;
    }
    Ok(())
}

/// The directories of the cgroup `path`, in the hierarchies that `own`, a /proc/PID/cgroup, lists.
fn places(path: &str, own: &str) -> Result<Vec<PathBuf>, CgroupError> {
    let below = Path::new(path.trim_start_matches('/'));
    let is_plain = below.components().all(|part| matches!(part, Component::Normal(_)));
    if below.as_os_str().is_empty() || !is_plain {
        return Err(CgroupError::Path(path.to_owned()));
    }
    let hierarchies = own.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers) = (parts.next()?, parts.next()?);
        match controllers.strip_prefix("name=").unwrap_or(controllers) {
            // The unified hierarchy; beside others it has a directory of its own.
            "" if own.lines().count() == 1 => Some(PathBuf::from(ROOT)),
            "" => Some(Path::new(ROOT).join("unified")).filter(|dir| dir.is_dir()),
            // A new cpuset takes no process before it has processors.
            "cpuset" => None,
            name => Some(Path::new(ROOT).join(name)),
        }
    });
    Ok(hierarchies.map(|root| root.join(below)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hierarchy_has_the_cgroup_and_no_path_leads_out() {
        let unified: Vec<_> = places("/system/containerd", "0::/user.slice\n").unwrap();
        assert_eq!(unified, [Path::new("/sys/fs/cgroup/system/containerd")]);
        let divided = places("c", "5:cpu,cpuacct:/\n4:cpuset:/\n1:name=systemd:/x\n").unwrap();
        assert_eq!(
            divided,
            [Path::new("/sys/fs/cgroup/cpu,cpuacct/c"), Path::new("/sys/fs/cgroup/systemd/c")]
        );
        for path in ["", "/", "../x", "a/../../x", "./"] {
            assert!(matches!(places(path, "0::/\n"), Err(CgroupError::Path(_))), "{path}");
        }
    }
}
