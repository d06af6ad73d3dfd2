//! Locks by name: two verbs on the same snapshot or blob run one after the other, all others at once.
//!
//! Invariant: all names of a verb are taken in one step, so no two verbs wait for each other.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use model::Cx;
use spec::Error;

/// How often a waiting verb looks whether its caller has left.
const LOOK: Duration = Duration::from_millis(100);

/// The names that are taken.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    taken: Mutex<BTreeSet<String>>,
    freed: Condvar,
}

/// Names taken until this drops.
#[derive(Debug)]
pub(crate) struct Hold<'h> {
    holds: &'h Holds,
    names: Vec<String>,
}

impl Holds {
    /// Takes every one of `names`, waiting for those that are taken.
    ///
    /// # Errors
    /// The request was given up first.
    pub(crate) fn take(&self, cx: &Cx<'_>, mut names: Vec<String>) -> Result<Hold<'_>, Error> {
        names.sort_unstable();
        names.dedup();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        while names.iter().any(|name| taken.contains(name)) {
            (taken, _) = self.freed.wait_timeout(taken, LOOK).unwrap_or_else(PoisonError::into_inner);
            cx.check()?;
        }
        taken.extend(names.iter().cloned());
        Ok(Hold { holds: self, names })
    }

    /// What is taken right now.
    pub(crate) fn taken(&self) -> BTreeSet<String> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        let mut taken = self.holds.taken.lock().unwrap_or_else(PoisonError::into_inner);
        for name in &self.names {
            taken.remove(name);
        }
        drop(taken);
        self.holds.freed.notify_all();
    }
}
