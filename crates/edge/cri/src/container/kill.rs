//! Ends processes by our own hand, when their shim does not.
//!
//! Invariant: only processes of the container's own cgroup are signalled, and its init as the runtime has recorded it: a
//! cgroup whose path has the container's id in it, or the recorded start time, checked again for each process behind its
//! pidfd, so a number that the kernel gave to another hits nobody.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use model::Result;
use sys::procfs::Procfs;

use super::failed;
use super::signal::SIGKILL;

/// The most bytes of a file of /proc that are read.
const MAX_FILE: usize = 1 << 20;
/// How often the cgroup is gone through: processes may be born meanwhile.
const ROUNDS: usize = 20;
/// How many cgroups below the container's are gone into.
const MAX_GROUPS: usize = 1024;
/// How long one process may take to go.
const DEATH: Duration = Duration::from_secs(2);
/// Stops a process, which cannot refuse.
const SIGSTOP: i32 = 19;
/// Where shims keep the records of their runtime, by namespace and container.
const RUNTIME_ROOT: &str = "/run/containerd/runc";
/// The most bytes of such a record that are read.
const MAX_RECORD: u64 = 16 << 20;
/// Where cgroups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Kills everything in the cgroup of the container `id`, whose init is or was `pid`; says whether the init is gone.
///
/// # Errors
/// `/proc` cannot be read.
pub(crate) fn all(pid: u32, id: &str) -> Result<bool> {
    let proc = Procfs::of_host().map_err(|error| failed("cannot kill the container's processes", &error))?;
    let Some(init) = own_process(&proc, pid, id) else { return Ok(true) };
    let groups = groups(&proc, pid, id);
    for group in &groups {
        // On v1 a frozen process hears no signal. Absent elsewhere.
        let _not_frozen = std::fs::write(group.join("freezer.state"), "THAWED");
        // All at once where the kernel can, Linux 5.14.
        let _not_there = std::fs::write(group.join("cgroup.kill"), "1");
    }
    for _ in 0..ROUNDS {
        let pids: BTreeSet<u32> = groups.iter().flat_map(|group| members(group)).collect();
        let mut alive = false;
        for pid in pids {
            let Some(process) = own_process(&proc, pid, id) else { continue };
            alive |= sys::process::signal(process.as_fd(), SIGKILL.cast_signed()).is_ok()
                && !sys::process::ended(process.as_fd(), DEATH).unwrap_or(false);
        }
        if !alive {
            break;
        }
    }
    let _gone = sys::process::signal(init.as_fd(), SIGKILL.cast_signed());
    Ok(sys::process::ended(init.as_fd(), DEATH).unwrap_or(false))
}

/// Signals the init `pid` of the container `id`; says whether it was there.
pub(super) fn init(pid: u32, id: &str, signal: u32) -> Result<bool> {
    let proc = Procfs::of_host().map_err(|error| failed("cannot signal the container's init", &error))?;
    let Some(init) = own_process(&proc, pid, id) else { return Ok(false) };
    Ok(sys::process::signal(init.as_fd(), signal.cast_signed()).is_ok())
}

/// The init of the container `id`, to see whether it lives; `None` when it does not.
pub(super) fn open_init(pid: u32, id: &str) -> Option<OwnedFd> {
    own_process(&Procfs::of_host().ok()?, pid, id)
}

/// Kills the session that `leader` leads and everything that descends from it; `pids` are the processes of the container
/// `id` as its shim tells them, and those of the leader's cgroup are looked at besides.
///
/// All of it is stopped before any of it is killed: what is stopped forks no further, and leaves no orphan whose descent
/// cannot be seen any more.
pub(super) fn session(leader: u32, id: &str, pids: &[u32]) -> Result<()> {
    let proc = Procfs::of_host().map_err(|error| failed("cannot kill the command's processes", &error))?;
    let groups = groups(&proc, leader, id);
    let mut held: BTreeMap<u32, OwnedFd> = BTreeMap::new();
    for _ in 0..ROUNDS {
        let listed = groups.iter().flat_map(|group| members(group)).chain(pids.iter().copied());
        let all: BTreeSet<u32> = listed.collect();
        let found = belonging(leader, &facts(&proc, all));
        let before = held.len();
        for pid in found {
            if let Entry::Vacant(place) = held.entry(pid)
                && let Some(process) = own_process(&proc, pid, id)
            {
                let _gone = sys::process::signal(process.as_fd(), SIGSTOP);
                place.insert(process);
            }
        }
        if held.len() == before {
            break;
        }
    }
    for process in held.values() {
        let _gone = sys::process::signal(process.as_fd(), SIGKILL.cast_signed());
    }
    Ok(())
}

/// The parent and the session of each process.
fn facts(proc: &Procfs, pids: impl IntoIterator<Item = u32>) -> BTreeMap<u32, (u32, u32)> {
    let one = |pid: u32| {
        let text = proc.read(&format!("{pid}/stat"), MAX_FILE).ok()?;
        Some((pid, parent_and_session(&String::from_utf8_lossy(&text))?))
    };
    pids.into_iter().filter_map(one).collect()
}

/// The parent of a process, also of one that has ended and that its parent has not waited for; 0 when there is none.
pub(crate) fn parent(pid: u32) -> u32 {
    let Ok(proc) = Procfs::of_host() else { return 0 };
    facts(&proc, [pid]).get(&pid).map_or(0, |(parent, _)| *parent)
}

/// Of the line of `/proc/PID/stat`: what the process calls itself may have spaces and brackets in it.
fn parent_and_session(line: &str) -> Option<(u32, u32)> {
    let (_, rest) = line.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let (_state, parent, _group) = (fields.next()?, fields.next()?, fields.next()?);
    Some((parent.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Those of the session of `leader`, and their descendants.
fn belonging(leader: u32, facts: &BTreeMap<u32, (u32, u32)>) -> BTreeSet<u32> {
    let mut found = BTreeSet::from([leader]);
    loop {
        let more: Vec<u32> = facts
            .iter()
            .filter(|(pid, (parent, session))| {
                !found.contains(pid) && (*session == leader || found.contains(parent))
            })
            .map(|(pid, _)| *pid)
            .collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

/// The process `pid`, if it is in a cgroup of the container `id`, or is its init.
fn own_process(proc: &Procfs, pid: u32, id: &str) -> Option<OwnedFd> {
    if pid == 0 || id.is_empty() {
        return None;
    }
    let process = sys::process::pidfd(pid.try_into().ok()?).ok()?;
    // Read behind the pidfd: what is in the file now is of this process, or the pidfd hits nobody.
    let text = proc.read(&format!("{pid}/cgroup"), MAX_FILE).ok()?;
    let ours = !paths(&String::from_utf8_lossy(&text), id).is_empty() || is_recorded_init(proc, pid, id);
    ours.then_some(process)
}

/// Whether the runtime has recorded the process `pid` as the init of `id`: its cgroup can have been removed, or it was
/// moved to another, and it runs on all the same.
fn is_recorded_init(proc: &Procfs, pid: u32, id: &str) -> bool {
    let Ok(stat) = proc.read(&format!("{pid}/stat"), MAX_FILE) else { return false };
    let Some(start) = start_time(&String::from_utf8_lossy(&stat)) else { return false };
    std::fs::read_dir(RUNTIME_ROOT).into_iter().flatten().flatten().any(|namespace| {
        let file = std::fs::File::open(namespace.path().join(id).join("state.json"));
        let Ok(file) = file else { return false };
        let mut text = Vec::new();
        let read = std::io::Read::read_to_end(&mut std::io::Read::take(file, MAX_RECORD), &mut text);
        read.is_ok() && recorded(&text) == Some((pid, start))
    })
}

/// The start time of a process, field 22 of `/proc/PID/stat`.
fn start_time(line: &str) -> Option<u64> {
    line.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// The init of a runtime's record, in the form that runc writes: its number and its start time.
fn recorded(text: &[u8]) -> Option<(u32, u64)> {
    #[derive(serde::Deserialize)]
    struct Init {
        init_process_pid: u32,
        init_process_start: u64,
    }
    let init: Init = serde_json::from_slice(text).ok()?;
    Some((init.init_process_pid, init.init_process_start))
}

/// The directories of the container's cgroup, in every hierarchy that has one.
fn groups(proc: &Procfs, pid: u32, id: &str) -> Vec<PathBuf> {
    let Ok(text) = proc.read(&format!("{pid}/cgroup"), MAX_FILE) else { return Vec::new() };
    paths(&String::from_utf8_lossy(&text), id).into_iter().filter(|path| path.is_dir()).collect()
}

/// The directories that a `/proc/PID/cgroup` names and whose path has the container's id in it.
fn paths(text: &str, id: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let Some(path) = own_group(Path::new(path), id) else { continue };
        let mounts: &[&str] = match controllers {
            "" => &["", "unified"],
            named => &[named.strip_prefix("name=").unwrap_or(named)],
        };
        found.extend(mounts.iter().map(|mount| Path::new(CGROUPS).join(mount).join(&path)));
    }
    found
}

/// The path down to the name that has the container's id in it: what a container makes below is part of it.
fn own_group(path: &Path, id: &str) -> Option<PathBuf> {
    let mut own = PathBuf::new();
    for component in path.components() {
        match component {
            Component::RootDir => {}
            Component::Normal(name) => {
                own.push(name);
                if name.to_string_lossy().contains(id) {
                    return Some(own);
                }
            }
            _ => return None,
        }
    }
    None
}

/// The processes of a cgroup and of those below it.
fn members(group: &Path) -> Vec<u32> {
    let mut pids = Vec::new();
    let mut pending = vec![group.to_owned()];
    let mut seen = 0;
    while let Some(group) = pending.pop() {
        seen += 1;
        let listed = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        pids.extend(listed.lines().filter_map(|line| line.parse::<u32>().ok()));
        if seen + pending.len() >= MAX_GROUPS {
            continue;
        }
        for entry in std::fs::read_dir(&group).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                pending.push(entry.path());
            }
        }
    }
    pids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_belongs_by_its_session_or_by_its_descent() {
        assert_eq!(parent_and_session("7 (a) b) S 3 7 5 0 -1"), Some((3, 5)));
        assert_eq!(parent_and_session("7 (sh"), None);
        // 10 leads; 11 is its child; 12 was left to init but is of the session; 13 has a session of its own below 11.
        let facts = BTreeMap::from([
            (1, (0, 1)),
            (10, (1, 10)),
            (11, (10, 10)),
            (12, (1, 10)),
            (13, (11, 13)),
            (20, (1, 20)),
        ]);
        assert_eq!(belonging(10, &facts), BTreeSet::from([10, 11, 12, 13]));
    }

    #[test]
    fn init_is_known_by_the_start_time_in_its_record() {
        let line = "7 (a) Z 1) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21";
        assert_eq!(start_time(line), Some(4711));
        let record =
            br#"{"id": "x", "init_process_pid": 7, "init_process_start": 4711, "config": {"rootfs": "/"}}"#;
        assert_eq!(recorded(record), Some((7, 4711)));
        assert_eq!(recorded(b"{"), None);
        assert!(!is_recorded_init(&Procfs::of_host().unwrap(), std::process::id(), "no-such-container"));
    }

    #[test]
    fn only_a_cgroup_with_the_containers_id_is_its_own() {
        let v1 =
            "12:memory:/kubepods/abc\n3:cpu,cpuacct:/kubepods/abc/inner\n1:name=systemd:/\n0::/user.slice\n";
        let found = paths(v1, "abc");
        assert_eq!(
            found,
            [
                PathBuf::from("/sys/fs/cgroup/memory/kubepods/abc"),
                PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/kubepods/abc"),
            ]
        );
        let v2 = "0::/kubepods.slice/cri-containerd-abc.scope\n";
        assert_eq!(
            paths(v2, "abc")[0],
            PathBuf::from("/sys/fs/cgroup/kubepods.slice/cri-containerd-abc.scope")
        );
        assert!(paths("0::/../../abc\n", "abc").is_empty());
        assert!(paths("0::/\n", "abc").is_empty());
        assert!(own_process(&Procfs::of_host().unwrap(), std::process::id(), "abc").is_none());
    }
}
