//! Freezing and thawing.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{Cgroup, CgroupError, file};
use crate::ongoing::{Ongoing, Wait, complete};

/// How long tasks may take to freeze; a task in an uninterruptible call keeps the rest waiting.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often v1 looks again at first, for as many rounds as follow; most cgroups freeze in the first.
const BRISK: (Duration, u32) = (Duration::from_micros(100), 200);
/// How often v1 looks again after that.
const SLOW: Duration = Duration::from_millis(1);
/// How long a v1 cgroup that does not freeze is thawed, and after how many rounds.
const RELIEF: (Duration, u32) = (Duration::from_millis(10), 50);

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
        complete(self.begin_freeze())
    }

    /// Begins to stop every task.
    pub fn begin_freeze(&self) -> Freezing {
        let now = Instant::now();
        Freezing { cgroup: self.clone(), round: 0, deadline: now + FREEZE_TIMEOUT, next: now }
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

/// A freeze under way: over when every task stands still, or in vain after [`FREEZE_TIMEOUT`].
#[derive(Debug)]
pub struct Freezing {
    cgroup: Cgroup,
    round: u32,
    deadline: Instant,
    next: Instant,
}

impl Ongoing for Freezing {
    type Output = Result<(), CgroupError>;

    fn wait(&self) -> Wait<'_> {
        Wait { fd: None, until: self.next }
    }

    fn advance(&mut self) -> Option<Self::Output> {
        let failure = match self.attempt() {
            Ok(None) => return Some(Ok(())),
            Ok(Some(pause)) if Instant::now() < self.deadline => {
                self.round = self.round.saturating_add(1);
                self.next = spec::time::deadline(pause);
                return None;
            }
            Ok(Some(_)) => self.timeout(),
            Err(error) => error,
        };
        // Best effort: the error that matters is the one that led here.
        let _ = self.cgroup.thaw();
        Some(Err(failure))
    }
}

impl Freezing {
    /// Looks once; how long to wait before the next look, nothing when all stand still.
    fn attempt(&self) -> Result<Option<Duration>, CgroupError> {
        let path = self.cgroup.freezer()?;
        Ok(if self.cgroup.is_v2() { attempt_v2(path, self.round)? } else { attempt_v1(path, self.round)? })
    }

    fn timeout(&self) -> CgroupError {
        let path = self.cgroup.freezer().unwrap_or(Path::new("")).to_owned();
        CgroupError::Timeout { path, what: "freeze" }
    }
}

/// Tasks that fork while being frozen can leave the state at FREEZING for ever; asking again catches the newcomers,
/// and thawing for a moment lets a task out that others wait for.
fn attempt_v1(path: &Path, round: u32) -> Result<Option<Duration>, sys::Error> {
    file::write(path, "freezer.state", "FROZEN")?;
    if file::read(&path.join("freezer.state"))?.trim() == "FROZEN" {
        return Ok(None);
    }
    Ok(Some(match round {
        round if round % RELIEF.1 == RELIEF.1 - 1 => {
            file::write(path, "freezer.state", "THAWED")?;
            RELIEF.0
        }
        round if round < BRISK.1 => BRISK.0,
        _ => SLOW,
    }))
}

fn attempt_v2(path: &Path, round: u32) -> Result<Option<Duration>, sys::Error> {
    if round == 0 {
        file::write(path, "cgroup.freeze", "1")?;
    }
    if file::value_of(&file::read(&path.join("cgroup.events"))?, "frozen") == Some(1) {
        return Ok(None);
    }
    // From 50 microseconds to 10 milliseconds.
    Ok(Some(Duration::from_micros(50 << round.min(8)).min(Duration::from_millis(10))))
}
