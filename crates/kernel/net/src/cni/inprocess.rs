//! A plugin of ours, called without a process: on a thread of its own, with a program's deadline.
//!
//! A thread cannot be killed. One whose caller has given up goes on until its plugin returns (plugins hold to the
//! call's deadline themselves), and until then nothing else touches the interface that it works on.
//!
//! Invariant: of two calls that may change one interface of one container the second begins when the first has ended.
//! Invariant: `CHECK`, which changes nothing, keeps no other call waiting.

use std::collections::HashSet;
use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use super::{Attachment, Call, CallError, CniResult, Command, Error, Plugin};

/// Most calls at a time, abandoned ones included.
const MOST: usize = 512;

/// Interfaces that calls work on, and a word when one of them ends.
static BUSY: (Mutex<Option<Calls>>, Condvar) = (Mutex::new(None), Condvar::new());

#[derive(Default)]
struct Calls {
    running: usize,
    held: HashSet<Attachment>,
}

/// One running call; its end lets the next one for the interface begin.
struct Running(Option<Attachment>);

/// Calls `plugin` and waits for it, at most until the call's deadline.
pub fn run(
    plugin: &'static dyn Plugin,
    command: Command,
    call: &Call,
) -> Result<Option<CniResult>, CallError> {
    let running = begin(command, call)?;
    let begun = Instant::now();
    let (answer, answered) = mpsc::sync_channel(1);
    let theirs = call.clone();
    let name = theirs.config.plugin.chars().filter(|char| *char != '\0').take(15).collect();
    thread::Builder::new()
        .name(name)
        .spawn(move || {
            let result = plugin.run(command, &theirs);
            // The interface is free before the caller hears of it, who may call for it again at once.
            drop(running);
            // Nobody listens when the deadline has passed.
            let _ = answer.send(result);
        })
        .map_err(|source| CallError::Start { program: call.config.plugin.clone(), source })?;
    match answered.recv_timeout(call.deadline.saturating_duration_since(Instant::now())) {
        Ok(result) => Ok(result?),
        Err(RecvTimeoutError::Timeout) => Err(CallError::Timeout { after: begun.elapsed() }),
        Err(RecvTimeoutError::Disconnected) => Err(CallError::Failed(Error::internal("the plugin panicked"))),
    }
}

/// Waits until no other call works on the interface.
fn begin(command: Command, call: &Call) -> Result<Running, CallError> {
    let attachment = (!call.container_id.is_empty() && command != Command::Check)
        .then(|| Attachment { container_id: call.container_id.clone(), ifname: call.ifname.clone() });
    let mut calls = BUSY.0.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let now = calls.get_or_insert_default();
        if now.running >= MOST {
            let source = io::Error::new(io::ErrorKind::QuotaExceeded, "too many calls at a time");
            return Err(CallError::Start { program: call.config.plugin.clone(), source });
        }
        if attachment.as_ref().is_none_or(|attachment| !now.held.contains(attachment)) {
            now.running += 1;
            now.held.extend(attachment.clone());
            return Ok(Running(attachment));
        }
        let left = call.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(CallError::Busy {
                container_id: call.container_id.clone(),
                ifname: call.ifname.clone(),
            });
        }
        calls = BUSY.1.wait_timeout(calls, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut calls = BUSY.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(calls) = calls.as_mut() {
            calls.running = calls.running.saturating_sub(1);
            if let Some(attachment) = &self.0 {
                calls.held.remove(attachment);
            }
        }
        BUSY.1.notify_all();
    }
}

#[cfg(test)]
#[path = "inprocess_tests.rs"]
mod tests;
