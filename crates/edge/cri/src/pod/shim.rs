//! A pod's shim that does not answer: known by what is left in the pod's bundle, and ended when its pod is removed.
//!
//! Invariant: a process is killed only whose command line names this pod as a shim's does, read behind its pidfd; and
//! only once all that it ran was seen gone.

use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::spec::{Error, Kind};
use model::task::Task;
use model::{Lane, Result};
use sys::procfs::Procfs;

use super::run::SIGKILL;
use crate::Cri;
use crate::container::kill;
use crate::state::Pod;

/// The most bytes of a command line that are read.
const MAX_COMMAND: usize = 64 << 10;
/// How long a killed shim may take to go.
const DEATH: Duration = Duration::from_secs(5);
/// How long the engine may take to clean up after it.
const CLEAN_UP: Duration = Duration::from_secs(30);

impl Cri {
    /// The bundle of the task `id`.
    pub(crate) fn bundle(&self, id: &str) -> PathBuf {
        let tasks = self.engine.state.join("io.containerd.runtime.v2.task");
        tasks.join(self.namespace.as_str()).join(id)
    }

    /// The process of a pod's sandbox, also when its shim has not told it to this daemon; 0 when nobody knows.
    pub(super) async fn sandbox_pid(&self, pod: &Pod, task: &dyn Task) -> Result<u32> {
        let known = [pod.state.borrow().pid, task.pid()].into_iter().find(|&pid| pid != 0);
        match known {
            Some(pid) => Ok(pid),
            None => self.noted_pid(&pod.record.id, "init.pid").await,
        }
    }

    /// Ends the shim of `pod`, whose processes are all gone, if it does not answer: it cannot be asked to go.
    ///
    /// # Errors
    /// It is not found, or does not go.
    pub(super) async fn end_silent_shim(self: &Arc<Self>, pod: &Pod) -> Result<()> {
        let id = &pod.record.id;
        let Ok(task) = self.engine.tasks.get(&self.namespace, id) else { return Ok(()) };
        match task.state("").await {
            Err(error) if error.kind() == Kind::DeadlineExceeded => {}
            _ => return Ok(()),
        }
        let pid = match self.noted_pid(id, "shim.pid").await? {
            // Other shims note no number of their own, but each is the parent of its dead, whom it has not waited for.
            0 => {
                let init = self.noted_pid(id, "init.pid").await?;
                self.ctx().blocking(Lane::Wait, move |_| Ok(kill::parent(init))).await?
            }
            pid => pid,
        };
        tracing::warn!(%id, pid, "the shim does not answer, and all that it ran is gone: killing it");
        let (of, gone) = (id.clone(), format!("failed to kill the shim {pid} of sandbox {id:?}"));
        if !self.ctx().blocking(Lane::Wait, move |_| kill_shim(pid, &of)).await? {
            return Err(Error::new(Kind::DeadlineExceeded, gone));
        }
        // The engine cleans up after it, for each of its tasks.
        let tasks = self.containers_of(id).into_iter().map(|container| container.record.id.clone());
        let deleted = tasks
            .chain([id.clone()])
            .filter_map(|id| self.engine.tasks.get(&self.namespace, &id).ok())
            .map(|task| async move { super::run::gone(task.delete().await.map(drop)) });
        let deleted = tokio::time::timeout(CLEAN_UP, futures_util::future::try_join_all(deleted)).await;
        let late = |_| Err(Error::new(Kind::DeadlineExceeded, format!("cleaning up behind the shim {pid}")));
        deleted.unwrap_or_else(late).map(drop)
    }

    /// A process id that a file of the bundle of `id` holds; 0 when it holds none.
    async fn noted_pid(&self, id: &str, file: &'static str) -> Result<u32> {
        let path = self.bundle(id).join(file);
        let read = move |_: &model::Cx<'_>| Ok(std::fs::read_to_string(path).unwrap_or_default());
        Ok(self.ctx().blocking(Lane::Disk, read).await?.trim().parse().unwrap_or(0))
    }
}

/// Kills the shim `pid` of the pod `id`; says whether it is gone, or was not there any more.
fn kill_shim(pid: u32, id: &str) -> Result<bool> {
    let failed = |error: &sys::Error| Error::internal(format!("cannot kill the shim of {id:?}: {error}"));
    let proc = Procfs::of_host().map_err(|error| failed(&error))?;
    if pid == 0 {
        return Err(Error::failed_precondition(format_args!(
            "nobody knows the process of the shim of {id:?}"
        )));
    }
    let Some(process) = pid.try_into().ok().and_then(|pid| sys::process::pidfd(pid).ok()) else {
        return Ok(true);
    };
    let command = proc.read(&format!("{pid}/cmdline"), MAX_COMMAND).unwrap_or_default();
    if !is_shim_of(&command, id) {
        return Ok(true);
    }
    let _gone = sys::process::signal(process.as_fd(), SIGKILL.cast_signed());
    Ok(sys::process::ended(process.as_fd(), DEATH).unwrap_or(false))
}

/// Whether a command line is that of the shim of the pod `id`: `PROGRAM -namespace NAMESPACE -id ID ...`.
fn is_shim_of(command: &[u8], id: &str) -> bool {
    let words: Vec<&[u8]> = command.split(|&byte| byte == 0).collect();
    let program = words.first().and_then(|word| word.rsplit(|&byte| byte == b'/').next()).unwrap_or_default();
    program.starts_with(b"containerd-shim-")
        && words.windows(2).any(|pair| pair[0] == b"-id" && pair[1] == id.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_shim_of_this_pod_is_its_shim() {
        let id = "0f".repeat(32);
        let line =
            |program: &str, id: &str| format!("{program}\0-namespace\0k8s.io\0-id\0{id}\0-address\0/c\0");
        assert!(is_shim_of(line("/usr/bin/containerd-shim-runc-v2", &id).as_bytes(), &id));
        for (program, other) in [("/usr/bin/vi", id.as_str()), ("containerd-shim-runc-v2", "0f0f")] {
            assert!(!is_shim_of(line(program, other).as_bytes(), &id), "{program} {other}");
        }
        assert!(!is_shim_of(b"", &id));
        // A number that the kernel has given to another.
        assert!(kill_shim(std::process::id(), &id).unwrap());
        assert!(kill_shim(0, &id).is_err());
    }
}
