//! The pure part of a task's life: which verb may run in which phase, and why not.
//!
//! ```text
//!            create                 delete
//!  (absent) ───────► Creating ──► Live ───────► Ending ──► (absent)
//!                        │          │ shim died    ▲
//!                        ▼          └──────────────┘
//!                     (absent)
//! ```

use spec::{HasKind, Kind};

/// Where a task is in its life. Only the registry moves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its bundle or its shim is being made; nobody else sees it.
    Creating,
    /// Its shim answers for it.
    Live,
    /// It is being deleted, or cleaned up after its shim died.
    Ending,
}

/// What a caller wants with a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Make it.
    Create,
    /// See it, or have its shim do something.
    Use,
}

/// Why a verb may not run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is one already, or one is on its way in or out.
    #[error("task {0}: already exists")]
    Exists(String),
    /// There is none, or not yet.
    #[error("task {0} not found: not found")]
    Absent(String),
}

impl HasKind for Refusal {
    fn kind(&self) -> Kind {
        match self {
            Self::Exists(_) => Kind::AlreadyExists,
            Self::Absent(_) => Kind::NotFound,
        }
    }
}

/// Whether `verb` may run on the task `id` that is in `phase` (`None`: there is none).
///
/// # Errors
/// It may not; the refusal says why.
pub fn admit(phase: Option<Phase>, verb: Verb, id: &str) -> Result<(), Refusal> {
    match (verb, phase) {
        (Verb::Create, None) | (Verb::Use, Some(Phase::Live | Phase::Ending)) => Ok(()),
        (Verb::Create, Some(Phase::Creating | Phase::Live | Phase::Ending)) => {
            Err(Refusal::Exists(id.into()))
        }
        (Verb::Use, None | Some(Phase::Creating)) => Err(Refusal::Absent(id.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_task_an_id_and_none_is_seen_half_made() {
        let all = [None, Some(Phase::Creating), Some(Phase::Live), Some(Phase::Ending)];
        let may = |verb| all.map(|phase| admit(phase, verb, "a").is_ok());
        assert_eq!(may(Verb::Create), [true, false, false, false]);
        assert_eq!(may(Verb::Use), [false, false, true, true]);
    }

    #[test]
    fn the_words_are_containerds() {
        assert_eq!(admit(None, Verb::Use, "a").unwrap_err().to_string(), "task a not found: not found");
        let live = Some(Phase::Live);
        assert_eq!(admit(live, Verb::Create, "a").unwrap_err().to_string(), "task a: already exists");
    }
}
