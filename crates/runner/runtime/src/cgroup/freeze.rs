//! Freezing and thawing.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{Cgroup, CgroupError, file};

/// How long tasks may take to freeze; a task in an uninterruptible call keeps the rest waiting.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether the tasks of a cgroup run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreezerState {
    /// They run.
    Thawed,
    /// They stand still, or are about to.
    Frozen,
    /// There is no freezer.
    Unknown,
}

impl Cgroup {
    /// Stops every task and waits until they stand still; on failure they run again.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        let path = self.freezer()?;
        let result = if self.is_v2() { freeze_v2(path) } else { freeze_v1(path) };
        result.inspect_err(|_| {
            let _ = self.thaw();
        })
    }

    /// Lets every task run.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        let path = self.freezer()?;
        let (name, value) = if self.is_v2() { ("cgroup.freeze", "0") } else { ("freezer.state", "THAWED") };
        Ok(file::write(path, name, value)?)
    }

    /// Whether its tasks run.
    pub fn freezer_state(&self) -> Result<FreezerState, CgroupError> {
        let Ok(path) = self.freezer() else { return Ok(FreezerState::Unknown) };
        // A v1 cgroup below a frozen one says FROZEN too; only its own wish counts.
        let name = if self.is_v2() { "cgroup.freeze" } else { "freezer.self_freezing" };
        Ok(match file::read_optional(path, name)?.as_deref().map(str::trim) {
            Some("1") => FreezerState::Frozen,
            Some(_) => FreezerState::Thawed,
            None => FreezerState::Unknown,
        })
    }

    fn freezer(&self) -> Result<&Path, CgroupError> {
        self.path("freezer").ok_or(CgroupError::NoController { controller: "freezer" })
    }
}

/// Tasks that fork while being frozen can leave the state at FREEZING for ever; asking again catches the newcomers,
/// and thawing for a moment lets a task out that others wait for.
fn freeze_v1(path: &Path) -> Result<(), CgroupError> {
    let deadline = Instant::now() + PATIENCE;
    for round in 1u32.. {
        file::write(path, "freezer.state", "FROZEN")?;
        if file::read(&path.join("freezer.state"))?.trim() == "FROZEN" {
            return Ok(());
        }
        if Instant::now() > deadline {
            break;
        }
        match round % 50 {
            0 => {
                file::write(path, "freezer.state", "THAWED")?;
                sleep(Duration::from_millis(10));
            }
            _ => sleep(Duration::from_micros(100)),
        }
    }
    Err(CgroupError::Timeout { path: path.to_owned(), what: "freeze" })
}

fn freeze_v2(path: &Path) -> Result<(), CgroupError> {
    let deadline = Instant::now() + PATIENCE;
    file::write(path, "cgroup.freeze", "1")?;
    let mut pause = Duration::from_micros(50);
    while file::value_of(&file::read(&path.join("cgroup.events"))?, "frozen") != Some(1) {
        if Instant::now() > deadline {
            return Err(CgroupError::Timeout { path: path.to_owned(), what: "freeze" });
        }
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
    Ok(())
}
