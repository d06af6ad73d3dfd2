//! What a daemon and its containers leave on the machine: counted for leak checks, removed at a test's end.
//!
//! A process belongs to a daemon when its command line names the daemon's directory (shims, loggers) or when it
//! descends from one that does (containers: a shim is their subreaper).

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait;

/// Where shims keep the state of their runtime, a directory for each namespace.
const RUNC: &str = "/run/containerd/runc";
/// Where the kernel's cgroup hierarchies are.
const CGROUP: &str = "/sys/fs/cgroup";

/// What there is of one daemon, apart from the daemon itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traces {
    /// Shims, containers' processes, loggers.
    pub processes: Vec<String>,
    /// Mount points below its directory.
    pub mounts: Vec<PathBuf>,
    /// Cgroups of its namespace.
    pub cgroups: Vec<PathBuf>,
    /// Bundles, fifos and sockets in its state directory, and what the runtime keeps.
    pub state: Vec<PathBuf>,
    /// Directories of snapshots.
    pub snapshots: usize,
    /// Blobs and open ingests in its content store.
    pub blobs: usize,
    /// The daemon's open descriptors.
    pub descriptors: usize,
    /// The daemon's threads.
    pub threads: usize,
}

/// Counts the traces of the daemon `pid` with its private `dir`, persistent `root` and `namespace`.
pub fn of(dir: &Path, root: &Path, namespace: &str, pid: Option<u32>) -> Traces {
    let entries = |what: &str| {
        pid.and_then(|pid| fs::read_dir(format!("/proc/{pid}/{what}")).ok()).map_or(0, Iterator::count)
    };
    let processes = Processes::read();
    let mut lines: Vec<_> = processes
        .of(dir)
        .into_iter()
        .filter(|found| Some(*found) != pid)
        .map(|found| format!("{found} {}", processes.0[&found].1))
        .collect();
    lines.sort();
    let task = dir.join("state/io.containerd.runtime.v2.task").join(namespace);
    let mut state = children(&task);
    state.extend(children(&dir.join("state/s")));
    state.extend(children(&dir.join("state/fifo")));
    state.extend(children(&Path::new(RUNC).join(namespace)));
    let overlay = root.join("io.containerd.snapshotter.v1.overlayfs/snapshots");
    let native = root.join("io.containerd.snapshotter.v1.native/snapshots");
    let content = root.join("io.containerd.content.v1.content");
    Traces {
        processes: lines,
        mounts: mounts(dir),
        cgroups: cgroups(namespace),
        state,
        snapshots: children(&overlay).len() + children(&native).len(),
        blobs: children(&content.join("blobs/sha256")).len() + children(&content.join("ingest")).len(),
        descriptors: entries("fd"),
        threads: entries("task"),
    }
}

impl Traces {
    /// What there is now that was not there `before`: everything but descriptors and threads, which come and go.
    pub fn beyond(&self, before: &Self) -> Vec<String> {
        let mut left: Vec<String> = Vec::new();
        left.extend(self.processes.iter().filter(|line| !before.processes.contains(line)).cloned());
        let paths =
            [(&self.mounts, &before.mounts), (&self.cgroups, &before.cgroups), (&self.state, &before.state)];
        for (now, then) in paths {
            left.extend(
                now.iter().filter(|path| !then.contains(path)).map(|path| path.display().to_string()),
            );
        }
        let counts = [
            ("snapshots", self.snapshots, before.snapshots),
            ("blobs and ingests", self.blobs, before.blobs),
        ];
        for (what, now, then) in counts.into_iter().filter(|(_, now, then)| now > then) {
            left.push(format!("{what}: {then} then {now}"));
        }
        left
    }
}

/// Shims of the daemon with directory `dir`, the latest last.
pub fn shims(dir: &Path) -> Vec<u32> {
    let processes = Processes::read();
    let mut found = processes.of(dir);
    found.retain(|pid| processes.0[pid].1.contains("containerd-shim"));
    found.sort_unstable();
    found
}

/// Processes in the containers of the daemon `pid` with directory `dir`, the latest last.
pub fn contained(dir: &Path, pid: u32) -> Vec<u32> {
    let processes = Processes::read();
    let name = dir.display().to_string();
    let mut found = processes.of(dir);
    found.retain(|other| *other != pid && !processes.0[other].1.contains(&name));
    found.sort_unstable();
    found
}

/// Ends every process of a daemon but the daemon `except`, and removes its mounts and cgroups.
pub fn remove(dir: &Path, namespace: &str, except: Option<u32>) {
    let gone = wait::within(Duration::from_secs(10), || {
        let found: Vec<_> =
            Processes::read().of(dir).into_iter().filter(|pid| Some(*pid) != except).collect();
        for pid in &found {
            if let Some(pid) = i32::try_from(*pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        found.is_empty().then_some(())
    });
    if gone.is_none() {
        eprintln!("processes of {} could not be killed", dir.display());
    }
    for target in mounts(dir).iter().rev() {
        let _ = unmount(target, UnmountFlags::DETACH);
    }
    // A cgroup stays busy until its dead are reaped, by init once the shim is gone.
    let _ = wait::within(Duration::from_secs(5), || {
        let mut left = cgroups(namespace);
        left.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
        for path in &left {
            thaw(path);
            let _ = fs::remove_dir(path);
        }
        left.is_empty().then_some(())
    });
    if namespace != "default" {
        // Shims keep their runtime's state by namespace, outside the daemon's directories; it may never have been made.
        let _ = fs::remove_dir_all(Path::new(RUNC).join(namespace));
    }
}

/// Mount points below `dir`, outermost first.
pub fn mounts(dir: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|path| PathBuf::from(path.replace("\\040", " ")))
        .filter(|path| path.starts_with(dir))
        .collect()
}

/// Every cgroup directory of `namespace`, its own included, in every hierarchy.
pub fn cgroups(namespace: &str) -> Vec<PathBuf> {
    let mut roots: Vec<_> =
        children(Path::new(CGROUP)).into_iter().filter(|path| !path.is_symlink()).collect();
    roots.push(CGROUP.into());
    let mut found = Vec::new();
    for root in roots {
        descend(&root.join(namespace), &mut found);
    }
    found
}

fn descend(dir: &Path, found: &mut Vec<PathBuf>) {
    if dir.is_dir() {
        found.push(dir.to_owned());
        for child in children(dir).into_iter().filter(|child| child.is_dir()) {
            descend(&child, found);
        }
    }
}

/// Lets a frozen cgroup's processes run, or they cannot die.
fn thaw(cgroup: &Path) {
    for (file, value) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
        let path = cgroup.join(file);
        if path.exists() {
            let _ = fs::write(path, value);
        }
    }
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// Every process: its parent and its command line.
struct Processes(HashMap<u32, (u32, String)>);

impl Processes {
    fn read() -> Self {
        let pids = children(Path::new("/proc"))
            .into_iter()
            .filter_map(|path| path.file_name()?.to_str()?.parse().ok());
        Self(pids.filter_map(|pid| Some((pid, Self::one(pid)?))).collect())
    }

    fn one(pid: u32) -> Option<(u32, String)> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name stands in brackets and may hold anything, so fields are counted from the last bracket.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        // A zombie is its parent's to reap; a dead child of the test itself is no trace.
        if state == "Z" && parent == std::process::id() {
            return None;
        }
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let line = if line.is_empty() { stat } else { line };
        Some((parent, line.trim().to_owned()))
    }

    /// Processes of the daemon with directory `dir`, without the test that runs now.
    fn of(&self, dir: &Path) -> Vec<u32> {
        let name = dir.display().to_string();
        let own = std::process::id();
        let mut ours: Vec<u32> = self
            .0
            .iter()
            .filter(|(pid, (_, line))| **pid != own && line.contains(&name))
            .map(|(pid, _)| *pid)
            .collect();
        let mut at = 0;
        while at < ours.len() {
            let parent = ours[at];
            let found = self.0.iter().filter(|(pid, row)| row.0 == parent && !ours.contains(pid));
            let found: Vec<_> = found.map(|(pid, _)| *pid).collect();
            ours.extend(found);
            at += 1;
        }
        ours
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Run;
    use crate::place;

    #[test]
    fn a_process_that_names_the_directory_is_found_and_ended() {
        let dir = place::temp();
        let script = format!("sleep 60; echo {}", dir.path().display());
        let mut running = Run::new("sh").args(["-c", &script]).start();
        wait::eventually(Duration::from_secs(5), "the shell and its sleep", || {
            (of(dir.path(), dir.path(), "no-such-namespace", None).processes.len() == 2).then_some(())
        });
        remove(dir.path(), "no-such-namespace", None);
        assert!(running.ends_within(Duration::from_secs(5)).is_some());
    }
}
