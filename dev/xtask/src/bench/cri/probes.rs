//! What a kubelet asks of pods that run: commands in them, and lists.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::param::clock_ticks_per_second;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::kubelet::Pod;
use super::node::Node;
use super::pods;
use crate::bench::shims;
use crate::bench::table::{Aim, Samples, Table};
use crate::bench::turns::{alternate, ms};

/// Turns of each side, each with a median and a 99th percentile.
const ROUNDS: usize = 5;

/// Turns of the steady probes, which take long.
const STEADY_ROUNDS: usize = 3;

/// Calls of a turn.
const CALLS: usize = 200;

/// Pods among which the steady probes go round, and the listed containers.
const PODS: usize = 10;

/// Probes in a second.
const RATE: u32 = 200;

/// How long they go on.
const LENGTH: Duration = Duration::from_secs(10);

/// Probes that may be under way at once; who needs more falls behind.
const AT_ONCE: usize = 64;

/// Containers that are listed.
const LISTED: usize = 500;

/// One ExecSync after the other.
pub fn idle(table: &mut Table, (ours, theirs): (&Node, &Node)) {
    let [our_pods, their_pods] = [ours, theirs].map(|node| pods::start_all(node, 1, 1, "exec"));
    let round = |(node, pods): &(&Node, &Vec<Pod>), _| {
        node.block(async { calls(async || node.kubelet.exec(&pods[0]).await).await })
    };
    let (us, them): (Vec<_>, Vec<_>) = alternate(ROUNDS, &(ours, &our_pods), &(theirs, &their_pods), round);
    rows(table, &format!("ExecSync of true, {CALLS} in turn"), &us, &them);
    pods::remove_all(ours, our_pods);
    pods::remove_all(theirs, their_pods);
}

/// ListContainers of containers that were made and, but for one in each pod, not started.
pub fn list(table: &mut Table, (ours, theirs): (&Node, &Node)) {
    let [our_pods, their_pods] = [ours, theirs].map(|node| {
        let pods = pods::start_all(node, PODS, PODS, "list");
        node.block(async {
            for number in pods.len()..LISTED {
                node.kubelet.create(&pods[number % PODS], &format!("c{number}")).await;
            }
        });
        pods
    });
    let round = |node: &&Node, _| {
        let list = async || assert!(node.kubelet.count_containers().await == LISTED, "not all are listed");
        node.block(calls(list))
    };
    let (us, them): (Vec<_>, Vec<_>) = alternate(ROUNDS, &ours, &theirs, round);
    rows(table, &format!("ListContainers of {LISTED}, {CALLS} in turn"), &us, &them);
    pods::remove_all(ours, our_pods);
    pods::remove_all(theirs, their_pods);
}

async fn calls(one: impl AsyncFn()) -> Samples {
    let mut samples = Vec::new();
    for _ in 0..CALLS {
        let began = Instant::now();
        one().await;
        samples.push(ms(began.elapsed()));
    }
    samples.into_iter().collect()
}

/// Medians of the turns, and their 99th percentiles, which are to be at most 5 ms.
fn rows(table: &mut Table, what: &str, us: &[Samples], them: &[Samples]) {
    let medians = |turns: &[Samples]| turns.iter().map(Samples::median).collect();
    let tails = |turns: &[Samples]| turns.iter().map(|turn| turn.percentile(0.99)).collect();
    table.row(&format!("{what}: median"), "ms", medians(us), medians(them));
    table.aimed(&format!("{what}: 99th percentile"), "ms", tails(us), tails(them), Aim::AtMost(5.0));
}

/// What a steady load of probes was answered with.
struct Steady {
    took: Samples,
    rate: f64,
    cpu: Cpu,
}

/// Two hundred probes a second, due when they are due, however long the ones before take.
pub fn steady(table: &mut Table, (ours, theirs): (&Node, &Node)) {
    let [our_pods, their_pods] = [ours, theirs].map(|node| pods::start_all(node, PODS, PODS, "steady"));
    let (us, them): (Vec<_>, Vec<_>) =
        alternate(STEADY_ROUNDS, &(ours, &our_pods), &(theirs, &their_pods), |(node, pods), _| {
            node.block(probe(node, pods))
        });
    let of = |turns: &[Steady], one: &dyn Fn(&Steady) -> f64| turns.iter().map(one).collect();
    let what = format!("{RATE} ExecSync a second");
    let mut row = |part: &str, unit, one: &dyn Fn(&Steady) -> f64| {
        table.row(&format!("{what}: {part}"), unit, of(&us, one), of(&them, one));
    };
    row("one is done every", "ms", &|turn| 1000.0 / turn.rate);
    row("median", "ms", &|turn| turn.took.median());
    row("99th percentile", "ms", &|turn| turn.took.percentile(0.99));
    row("processor time of the daemon", "% of a core", &|turn| turn.cpu.daemon);
    row("processor time of the shims", "% of a core", &|turn| turn.cpu.shims);
    let all = |turn: &Steady| turn.cpu.daemon + turn.cpu.shims + turn.cpu.children;
    row("processor time of each, whoever's", "ms", &|turn| all(turn) * 10.0 / turn.rate);
    table.aimed(
        &format!("{what}: processor time of daemon, shims and all they ran"),
        "% of a core",
        of(&us, &all),
        of(&them, &all),
        Aim::AtMost(25.0),
    );
    pods::remove_all(ours, our_pods);
    pods::remove_all(theirs, their_pods);
}

async fn probe(node: &Node, pods: &[Pod]) -> Steady {
    let shims = shims(&node.daemon);
    let before = Cpu::of(&node.daemon, &shims);
    let began = tokio::time::Instant::now();
    let (room, mut running, mut took) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new(), Vec::new());
    for number in 0_u32.. {
        let due = LENGTH.min(Duration::from_secs(1) / RATE * number);
        tokio::time::sleep_until(began + due).await;
        if began.elapsed() >= LENGTH {
            break;
        }
        let permit = Arc::clone(&room).acquire_owned().await.expect("nobody closes it");
        let (kubelet, pod) = (node.kubelet.clone(), pods[number as usize % pods.len()].clone());
        running.spawn(async move {
            let began = Instant::now();
            kubelet.exec(&pod).await;
            drop(permit);
            ms(began.elapsed())
        });
        while let Some(one) = running.try_join_next() {
            took.push(one.expect("a probe ends"));
        }
    }
    while let Some(one) = running.join_next().await {
        took.push(one.expect("a probe ends"));
    }
    let seconds = began.elapsed().as_secs_f64();
    let rate = took.len() as f64 / seconds;
    let cpu = Cpu::of(&node.daemon, &shims).since(&before, seconds);
    Steady { took: took.into_iter().collect(), rate, cpu }
}

/// Processor time, in seconds or as a share of a core.
struct Cpu {
    daemon: f64,
    shims: f64,
    /// What both have run and waited for: runtimes and the commands themselves.
    children: f64,
}

impl Cpu {
    fn of(daemon: &testkit::daemon::Daemon, shims: &[u32]) -> Self {
        let (daemon, mut children) = times(daemon.pid());
        let mut own = 0.0;
        for pid in shims {
            let (mine, reaped) = times(*pid);
            own += mine;
            children += reaped;
        }
        Self { daemon, shims: own, children }
    }

    /// Per cent of a core, over `seconds`.
    fn since(&self, before: &Self, seconds: f64) -> Self {
        let share = |now: f64, then: f64| (now - then) / seconds * 100.0;
        Self {
            daemon: share(self.daemon, before.daemon),
            shims: share(self.shims, before.shims),
            children: share(self.children, before.children),
        }
    }
}

/// Seconds of processor time of a process, and of the children that it has waited for: proc_pid_stat(5).
fn times(pid: u32) -> (f64, f64) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name stands in brackets and may hold anything, so fields are counted from the last bracket: the 3rd is next.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |field: usize| -> f64 {
        fields.get(field - 3).and_then(|text| text.parse().ok()).unwrap_or_default()
    };
    let second = clock_ticks_per_second() as f64;
    ((ticks(14) + ticks(15)) / second, (ticks(16) + ticks(17)) / second)
}
