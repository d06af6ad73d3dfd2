//! What the rules ask of the host: read once, when the server starts.

use std::path::Path;

use sys::cgroup::Filesystem;

/// The host, as far as specs depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Whether `/sys/fs/cgroup` is cgroup v2.
    pub cgroup2: bool,
    /// Whether swap can be limited.
    pub swap_controller: bool,
    /// Whether huge pages can be limited.
    pub hugetlb_controller: bool,
    /// Options of the host's cgroup mount that a container's mount must repeat, or the host's would lose them.
    pub cgroup_options: Vec<String>,
    /// Whether AppArmor confines containers here.
    pub apparmor: bool,
    /// Whether SELinux labels containers here.
    pub selinux: bool,
    /// Whether system calls can be filtered.
    pub seccomp: bool,
    /// Whether mounts can be read-only with all that is below them.
    pub recursive_read_only: bool,
    /// Whether the daemon itself is in a user namespace.
    pub in_user_namespace: bool,
    /// The daemon's own `oom_score_adj`.
    pub oom_score_adj: i32,
    /// What the daemon is capable of, by name: what a privileged container gets.
    pub capabilities: Vec<String>,
}

impl Host {
    /// Reads the host. What cannot be read counts as absent.
    pub fn read() -> Self {
        let cgroup2 = sys::cgroup::filesystem(Path::new("/sys/fs/cgroup")) == Ok(Filesystem::V2);
        Self { cgroup2, ..Self::default() }
    }
}

impl Default for Host {
    /// A host with cgroup v2, seccomp and nothing else.
    fn default() -> Self {
        Self {
            cgroup2: true,
            swap_controller: false,
            hugetlb_controller: false,
            cgroup_options: Vec::new(),
            apparmor: false,
            selinux: false,
            seccomp: true,
            recursive_read_only: true,
            in_user_namespace: false,
            oom_score_adj: 0,
            capabilities: Vec::new(),
        }
    }
}
