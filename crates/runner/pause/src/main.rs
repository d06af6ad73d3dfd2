//! `containerd-pause`: the first process of a pod, which keeps its namespaces while containers come and go.
//!
//! It owns nothing and does two things: it buries the dead that the kernel gives to the first process of a pid
//! namespace, and it ends with status 0 when it is asked to by SIGTERM or SIGINT.
//!
//! Invariant: it allocates nothing after its start and opens no file but the descriptor that its signals come by.

use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Signal, WaitOptions};
use sys::event::Signals;

fn main() -> ExitCode {
    match pause() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("containerd-pause: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Waits until it is asked to end.
fn pause() -> Result<(), Box<dyn std::error::Error>> {
    let signals = Signals::take(&[Signal::CHILD, Signal::TERM, Signal::INT].map(Signal::as_raw))?;
    // Whoever died before the signal was watched for.
    bury();
    loop {
        match poll(&mut [PollFd::new(&signals, PollFlags::IN)], None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        while let Some(signal) = signals.next()? {
            if signal != Signal::CHILD.as_raw() {
                return Ok(());
            }
            bury();
        }
    }
}

/// Reaps every child that has ended: one signal may stand for many.
fn bury() {
    while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
}
