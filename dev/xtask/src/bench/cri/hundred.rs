//! A hundred pods: what they cost while they do nothing, and how soon a daemon that finds them serves.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::node::Node;
use super::pods;
use crate::bench::shims;
use crate::bench::table::{Aim, Samples, Table};
use crate::bench::turns::{mib, ms};
use crate::soak::pss_kib;

/// Pods that run.
const PODS: usize = 100;

/// Pods that start at the same time, so that it takes no longer than it must.
const AT_ONCE: usize = 8;

/// Shims that are stopped.
const STOPPED: usize = 10;

/// How long a daemon that is ready may take until its CRI is.
const LIMIT: Duration = Duration::from_secs(120);

/// Memory; restarts; restarts while some shims do not answer.
pub fn run(table: &mut Table, mut ours: Node, mut theirs: Node, turns: usize) {
    let [our_pods, their_pods] = [&ours, &theirs].map(|node| pods::start_all(node, PODS, AT_ONCE, "hundred"));
    memory(table, &ours, &theirs);
    let (mut us, mut them) = (Samples::default(), Samples::default());
    for _ in 0..turns {
        us.push(restart(&mut ours));
        them.push(restart(&mut theirs));
    }
    table.row(&format!("daemon start with {PODS} pods, until CRI answers"), "ms", us, them);
    let stopped = [&ours, &theirs].map(|node| shims(&node.daemon).split_off(PODS - STOPPED));
    stopped.iter().flatten().for_each(|pid| signal(*pid, Signal::STOP));
    let us = (0..turns).map(|_| restart(&mut ours)).collect();
    // Theirs gives such shims up once and for all, so there is no second time.
    let them = Samples::from_iter([restart(&mut theirs)]);
    table.aimed(
        &format!("daemon start with {PODS} pods, {STOPPED} of their shims stopped, until CRI answers"),
        "ms",
        us,
        them,
        Aim::AtMost(300.0),
    );
    stopped.iter().flatten().for_each(|pid| signal(*pid, Signal::CONT));
    for (node, pods) in [(&ours, our_pods), (&theirs, their_pods)] {
        for pod in &pods {
            if let Err(error) = node.block(node.kubelet.try_remove(pod)) {
                println!("a pod whose shim was stopped is not removed: {}", error.message());
            }
        }
    }
}

fn memory(table: &mut Table, ours: &Node, theirs: &Node) {
    let sum = |pids: Vec<u32>| mib(pids.into_iter().map(pss_kib).sum());
    let both = |one: &dyn Fn(&Node) -> f64| [ours, theirs].map(|node| Samples::from_iter([one(node)]));
    let all = |node: &Node| sum(shims(&node.daemon)) + sum(vec![node.daemon.pid()]);
    let [us, them] = both(&all);
    table.aimed(&format!("PSS of daemon and {PODS} shims"), "MiB", us, them, Aim::AtMost(100.0));
    let [us, them] = both(&|node| sum(vec![node.daemon.pid()]));
    table.row(&format!("PSS of the daemon with {PODS} pods"), "MiB", us, them);
    let [us, them] = both(&|node| sum(pauses(node)));
    table.row(&format!("PSS of {PODS} pause processes"), "MiB", us, them);
}

fn pauses(node: &Node) -> Vec<u32> {
    let processes = node.daemon.traces().processes;
    let pauses =
        processes.iter().filter_map(|line| line.split_once(' ')).filter(|(_, line)| *line == "/pause");
    pauses.filter_map(|(pid, _)| pid.parse().ok()).collect()
}

/// Kills the daemon and starts it again; from its start until its CRI tells all pods.
fn restart(node: &mut Node) -> f64 {
    node.daemon.restart();
    let (ready, began) = (node.daemon.ready_after(), Instant::now());
    let told = node.block(async {
        loop {
            match node.kubelet.count_pods().await {
                Ok(PODS) => return true,
                _ if began.elapsed() > LIMIT => return false,
                _ => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    });
    assert!(told, "CRI does not tell {PODS} pods within {LIMIT:?}");
    ms(ready + began.elapsed())
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _gone = kill_process(pid, signal);
    }
}
