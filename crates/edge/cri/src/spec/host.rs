//! What the rules ask of the host: read once, when the server starts.

use std::path::Path;

use sys::cgroup::Filesystem;

use super::apparmor::AppArmor;
use super::selinux::SeLinux;
use crate::config::Runtime;

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
    /// AppArmor, where it confines containers.
    pub apparmor: Option<AppArmor>,
    /// SELinux, where it labels containers.
    pub selinux: Option<SeLinux>,
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
    /// SELinux, where it labels containers and the configuration wants that.
    pub fn selinux(&self, runtime: &Runtime) -> Option<&SeLinux> {
        self.selinux.as_ref().filter(|_| runtime.enable_selinux)
    }

    /// Reads the host. What cannot be read counts as absent.
    pub fn read() -> Self {
        let cgroup2 = sys::cgroup::filesystem(Path::new("/sys/fs/cgroup")) == Ok(Filesystem::V2);
        let capabilities = sys::capability::get().map(|(effective, ..)| effective).unwrap_or_default();
        let named = sys::capability::names().enumerate();
        let held = named.filter(|(number, _)| capabilities.0 >> number & 1 == 1).map(|(_, name)| name);
        Self {
            cgroup2,
            apparmor: AppArmor::of_host(),
            selinux: SeLinux::of_host(),
            swap_controller: has_swap(cgroup2),
            hugetlb_controller: has_hugetlb(cgroup2),
            cgroup_options: if cgroup2 { cgroup_options() } else { Vec::new() },
            seccomp: text("/proc/self/status").contains("\nSeccomp:"),
            in_user_namespace: !text("/proc/self/uid_map").split_whitespace().eq(["0", "0", "4294967295"]),
            oom_score_adj: text("/proc/self/oom_score_adj").trim().parse().unwrap_or(0),
            capabilities: held.collect(),
            recursive_read_only: sys::mount::sets_detached(),
        }
    }
}

/// A file of the kernel's, empty when it cannot be read.
fn text(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn has_hugetlb(cgroup2: bool) -> bool {
    if cgroup2 {
        text("/sys/fs/cgroup/cgroup.controllers").split_whitespace().any(|one| one == "hugetlb")
    } else {
        Path::new("/sys/fs/cgroup/hugetlb").is_dir()
    }
}

fn has_swap(cgroup2: bool) -> bool {
    if !cgroup2 {
        return Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists();
    }
    // The root has no such file; the daemon's own cgroup has.
    let own = text("/proc/self/cgroup");
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default().to_owned();
    Path::new("/sys/fs/cgroup").join(own).join("memory.swap.max").exists()
}

fn cgroup_options() -> Vec<String> {
    let table = sys::mount::table::read().unwrap_or_default();
    let mount = table.iter().rfind(|entry| entry.target == Path::new("/sys/fs/cgroup"));
    let options = mount.map_or("", |entry| entry.super_options.as_str()).split(',');
    options.filter(|one| matches!(*one, "nsdelegate" | "memory_recursiveprot")).map(str::to_owned).collect()
}

impl Default for Host {
    /// A host with cgroup v2, seccomp and nothing else.
    fn default() -> Self {
        Self {
            cgroup2: true,
            swap_controller: false,
            hugetlb_controller: false,
            cgroup_options: Vec::new(),
            apparmor: None,
            selinux: None,
            seccomp: true,
            recursive_read_only: true,
            in_user_namespace: false,
            oom_score_adj: 0,
            capabilities: Vec::new(),
        }
    }
}
