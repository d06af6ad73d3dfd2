//! Waiting for a process: one parked call to the shim a process, however many clients wait for it.
//!
//! Invariant: clients that come and go leave nothing behind in the shim.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use api::containerd::task::v3::{WaitRequest, WaitResponse};
use spec::{Error, HasKind, Kind};
use tokio::sync::watch;

use crate::task::{Task, exit};
use model::task::Exit;

/// How a process ended, or why nobody knows; errors are kept as kind and text, for several to hear.
type Outcome = Result<Exit, (Kind, String)>;

/// The calls that are parked in one task's shim, by exec id (empty for the task's init).
#[derive(Debug, Default)]
pub struct Waits {
    parked: Mutex<HashMap<String, watch::Receiver<Option<Outcome>>>>,
}

impl Waits {
    /// Waits for the process `exec_id` of `task`.
    ///
    /// # Errors
    /// The shim's own, or `Unavailable` when it died.
    pub async fn wait(&self, task: &Arc<Task>, exec_id: &str) -> Result<Exit, Error> {
        let mut outcome = self.join(task, exec_id);
        let seen = outcome.wait_for(Option::is_some).await.map(|outcome| outcome.clone());
        match seen.ok().flatten() {
            Some(Ok(exit)) => Ok(exit),
            Some(Err((kind, text))) => Err(Error::new(kind, text)),
            None => Err(Error::unavailable("the wait was given up")),
        }
    }

    /// Joins the call that is parked for `exec_id`, or parks one.
    fn join(&self, task: &Arc<Task>, exec_id: &str) -> watch::Receiver<Option<Outcome>> {
        let mut parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outcome) = parked.get(exec_id) {
            return outcome.clone();
        }
        let (tell, outcome) = watch::channel(None);
        parked.insert(exec_id.to_owned(), outcome.clone());
        let (task, exec_id) = (Arc::clone(task), exec_id.to_owned());
        tokio::spawn(async move {
            let request = WaitRequest { id: task.bundle().id.as_str().into(), exec_id: exec_id.clone() };
            let answer = task.call::<_, WaitResponse>("Wait", None, &request).await;
            // The next to ask shall ask the shim again: the process may be another by then.
            task.waits().parked.lock().unwrap_or_else(PoisonError::into_inner).remove(&exec_id);
            let outcome = match answer {
                Ok(response) => Ok(exit(0, response.exit_status, response.exited_at)),
                Err(error) => Err((error.kind(), error.to_string())),
            };
            tell.send_replace(Some(outcome));
        });
        outcome
    }
}
