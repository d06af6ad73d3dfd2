//! How a container stands, in memory and on disk.
//!
//! Invariant: the file is whole or absent, and never older than what was told to anybody as ended.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use model::{Lane, Result};

use super::io_failed;
use crate::Cri;
use crate::state::{Container, ContainerState};

/// The file's name in the container's root directory.
const FILE: &str = "status";
/// The version of the file's form, as containerd has it.
const VERSION: &str = "v1";
/// The most bytes that a file of ours can have.
const MAX_FILE: u64 = 1 << 20;

/// What a crash of the whole machine may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durable {
    /// The change: a machine that comes back runs no container of before anyway.
    No,
    /// Nothing: how a container ended decides whether a job runs again.
    Yes,
}

impl Cri {
    /// Changes how `container` stands, and answers what `change` does; what was changed before it is on disk before it.
    ///
    /// A disk that takes no file stops no container from ending: the change holds in memory, and the log tells.
    pub(super) async fn change<T: Default + Send + 'static>(
        &self,
        container: &Arc<Container>,
        durable: Durable,
        change: impl FnOnce(&mut ContainerState) -> T + Send + 'static,
    ) -> T {
        let changing = Arc::clone(container);
        let dir = self.container_root(&container.record.id);
        let ctx = self.ctx();
        let changed = ctx.blocking(Lane::Disk, move |_| {
            let _saving = changing.saving.lock().unwrap_or_else(PoisonError::into_inner);
            let mut state = changing.now();
            let answer = change(&mut state);
            if let Err(error) = save(&dir, &state, durable) {
                tracing::error!(id = %changing.record.id, %error, "failed to save the container's status");
            }
            changing.state.send_replace(state);
            Ok(answer)
        });
        changed.await.unwrap_or_else(|error| {
            tracing::error!(id = %container.record.id, %error, "failed to change the container's status");
            T::default()
        })
    }
}

/// Writes the file.
pub(super) fn save(dir: &Path, state: &ContainerState, durable: Durable) -> Result<()> {
    let failed =
        |error: std::io::Error| io_failed(format_args!("cannot write {}/{FILE}", dir.display()), &error);
    let state = ContainerState { version: VERSION.into(), ..state.clone() };
    let text = serde_json::to_vec(&state).map_err(|error| failed(error.into()))?;
    let fresh = dir.join(".status");
    let mut options = std::fs::OpenOptions::new();
    let mut file =
        options.write(true).create(true).truncate(true).mode(0o600).open(&fresh).map_err(failed)?;
    file.write_all(&text).map_err(failed)?;
    if durable == Durable::Yes {
        file.sync_data().map_err(failed)?;
    }
    std::fs::rename(&fresh, dir.join(FILE)).map_err(failed)
}

/// Reads the file; `None` when it is absent or damaged.
pub(super) fn load(dir: &Path) -> Option<ContainerState> {
    use std::io::Read as _;
    let mut text = Vec::new();
    std::fs::File::open(dir.join(FILE)).ok()?.take(MAX_FILE).read_to_end(&mut text).ok()?;
    let state: ContainerState = serde_json::from_slice(&text).ok()?;
    (state.version == VERSION).then_some(state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Phase;

    #[test]
    fn what_was_saved_is_loaded_and_damage_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()), None);
        let state = ContainerState {
            pid: 7,
            created_at: 1,
            started_at: 2,
            finished_at: 3,
            exit_code: 137,
            reason: "OOMKilled".into(),
            ..ContainerState::default()
        };
        for durable in [Durable::No, Durable::Yes] {
            save(dir.path(), &state, durable).unwrap();
            let found = load(dir.path()).unwrap();
            assert_eq!(found, ContainerState { version: "v1".into(), ..state.clone() });
            assert_eq!(found.phase(), Phase::Exited);
        }
        for damaged in ["", "{", r#"{"Version":"v9"}"#] {
            std::fs::write(dir.path().join(FILE), damaged).unwrap();
            assert_eq!(load(dir.path()), None, "{damaged}");
        }
    }

    #[test]
    fn the_file_of_containerd_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"Version":"v1","Pid":42,"CreatedAt":5,"StartedAt":6,"FinishedAt":0,"ExitCode":0,"Reason":"","Message":"","Resources":null}"#;
        std::fs::write(dir.path().join(FILE), text).unwrap();
        let state = load(dir.path()).unwrap();
        assert_eq!((state.pid, state.phase()), (42, Phase::Running));
    }
}
