//! The owner: one tokio task a container, which alone ends it.

use std::sync::Arc;

use spec::Error;
use tokio::sync::{mpsc, oneshot, watch};

use crate::end;
use crate::task::Task;
use crate::tasks::Shared;
use model::task::Exit;

/// How many deletions wait; more callers wait to ask.
const QUEUE: usize = 4;

/// What an owner is told.
#[derive(Debug)]
pub enum Command {
    /// Delete the task and say how its init ended.
    Delete(oneshot::Sender<Result<Exit, Error>>),
    /// The shim has no such task: end the shim and remove the bundle.
    Forget,
}

/// The owner's end of a task, made before the task itself.
pub struct Seat {
    commands: mpsc::Receiver<Command>,
    ended: watch::Sender<Option<Exit>>,
}

/// Makes both ends.
pub fn seat() -> (mpsc::Sender<Command>, watch::Receiver<Option<Exit>>, Seat) {
    let (owner, commands) = mpsc::channel(QUEUE);
    let (tell, ended) = watch::channel(None);
    (owner, ended, Seat { commands, ended: tell })
}

/// Owns `task` until it is deleted or its shim has died.
pub fn start(shared: Arc<Shared>, task: Arc<Task>, seat: Seat) {
    tokio::spawn(async move {
        let Seat { mut commands, ended } = seat;
        loop {
            // Both arms are cancel-safe: a command that was not received stays queued, a closed shim stays closed.
            let command = tokio::select! {
                command = commands.recv() => command,
                () = task.shim().closed() => None,
            };
            match command {
                Some(Command::Delete(reply)) => {
                    let (done, answer) = end::delete(&shared, &task).await;
                    if done && let Ok(exit) = &answer {
                        // For those who still wait for its end: the shim that they asked is gone.
                        ended.send_replace(Some(exit.clone()));
                    }
                    // A client that hung up needs no answer; its task is gone all the same.
                    let _left = reply.send(answer);
                    if done {
                        return;
                    }
                }
                Some(Command::Forget) => {
                    end::forget(&shared, &task).await;
                    return;
                }
                None => {
                    let exit = end::clean_up(&shared, &task).await;
                    ended.send_replace(Some(exit));
                    return;
                }
            }
        }
    });
}
