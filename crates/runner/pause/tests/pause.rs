//! The program as pods have it.
#![allow(clippy::unwrap_used)]

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

const BINARY: &str = env!("CARGO_BIN_EXE_containerd-pause");
const LIMIT: Duration = Duration::from_secs(20);

/// Starts the program once `before` has run in the process that becomes it, and waits until it watches its signals.
fn start(before: &str) -> Child {
    let child = Command::new("/bin/sh").args(["-c", &format!("{before} exec {BINARY}")]).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    testkit::wait::eventually(LIMIT, "the program to watch its signals", || {
        let text = std::fs::read_to_string(&status).unwrap();
        // SIGINT, SIGTERM and SIGCHLD.
        text.lines().any(|line| line == "SigBlk:\t0000000000014002").then_some(())
    });
    child
}

#[test]
fn it_ends_well_when_asked() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut child = start("");
        kill_process(Pid::from_child(&child), signal).unwrap();
        let status = child.wait().unwrap();
        assert_eq!((status.code(), status.signal()), (Some(0), None));
    }
}

#[test]
fn it_buries_the_dead() {
    // The first may die before it watches, the second dies after.
    let mut child = start("true & sleep 0.2 &");
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    testkit::wait::eventually(LIMIT, "the children to be buried", || {
        std::fs::read_to_string(&children).unwrap().is_empty().then_some(())
    });
    assert_eq!(child.try_wait().unwrap(), None);
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
}
