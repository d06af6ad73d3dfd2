//! Undo: a multi-step verb registers how to take back each step; on failure all of it runs, newest first.

use std::pin::Pin;

use spec::Error;

type Step = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send>> + Send>;

/// What has been done and how to take it back.
#[derive(Default)]
pub struct Undo {
    steps: Vec<(&'static str, Step)>,
}

impl Undo {
    /// Registers how to take back the step `what`.
    pub fn push<F, Fut>(&mut self, what: &'static str, step: F)
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), Error>> + Send + 'static,
    {
        self.steps.push((what, Box::new(move || Box::pin(step()))));
    }

    /// Forgets every step: the verb succeeded.
    pub fn commit(mut self) {
        self.steps.clear();
    }

    /// Takes back every step, newest first, whatever fails; `error` comes back with every failure attached.
    pub async fn roll_back(self, error: Error) -> Error {
        match self.take_back().await {
            Ok(()) => error,
            Err(left) => {
                let text = format!("{} (and undoing failed: {})", error.text(), left.text());
                Error::new(error.kind(), text)
            }
        }
    }

    /// Takes back every step, newest first, whatever fails.
    ///
    /// # Errors
    /// Every failure: something of what was done is still there.
    pub async fn take_back(mut self) -> Result<(), Error> {
        let mut failures = Vec::new();
        while let Some((what, step)) = self.steps.pop() {
            if let Err(failure) = step().await {
                failures.push(format!("{what}: {failure}"));
            }
        }
        if failures.is_empty() { Ok(()) } else { Err(Error::internal(failures.join("; "))) }
    }
}

impl Undo {
    /// Takes back steps, newest first, until one resists: the older ones are what that one stands on, and what whoever
    /// tries again needs.
    ///
    /// # Errors
    /// What resisted. It and everything older is still there.
    pub async fn unwind(mut self) -> Result<(), Error> {
        while let Some((what, step)) = self.steps.pop() {
            step().await.map_err(|error| error.context(what))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    fn finish<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
    }

    #[test]
    fn every_step_is_taken_back_newest_first_whatever_fails() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut undo = Undo::default();
        for (what, fails) in [("first", false), ("second", true), ("third", false)] {
            let seen = Arc::clone(&seen);
            undo.push(what, move || async move {
                seen.lock().unwrap().push(what);
                if fails { Err(Error::internal("stuck")) } else { Ok(()) }
            });
        }
        let error = finish(undo.roll_back(Error::invalid("no")));
        assert_eq!(*seen.lock().unwrap(), ["third", "second", "first"]);
        assert_eq!(error.kind(), spec::Kind::InvalidArgument);
        assert!(error.text().contains("undoing failed: second"), "{}", error.text());
    }

    #[test]
    fn unwind_keeps_what_a_step_that_resists_stands_on() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut undo = Undo::default();
        for (what, fails) in [("first", false), ("second", true), ("third", false)] {
            let seen = Arc::clone(&seen);
            undo.push(what, move || async move {
                seen.lock().unwrap().push(what);
                if fails { Err(Error::unavailable("stuck")) } else { Ok(()) }
            });
        }
        let error = finish(undo.unwind()).unwrap_err();
        assert_eq!(*seen.lock().unwrap(), ["third", "second"]);
        assert_eq!((error.kind(), error.text()), (spec::Kind::Unavailable, "second: stuck"));
        assert!(finish(Undo::default().unwind()).is_ok());
    }

    #[test]
    fn an_undo_that_succeeds_says_so() {
        let mut undo = Undo::default();
        undo.push("only", || async { Ok(()) });
        assert!(finish(undo.take_back()).is_ok());
    }
}
