//! SIGKILL at random moments: a verb of a container is cut off by the end of the daemon, the container's shim or its
//! first process, and afterwards the machine is as it was before.
//!
//! Each round is named by its verb, its victim and its delay, so that one that leaves something can be told.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::daemon::Daemon;
use crate::trace::{self, Traces};
use crate::wait;

/// How long the processes, mounts and files of one round may take to be removed.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a victim may take to appear.
const VICTIM_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest delay of a kill, in microseconds: a start takes a few thousand.
const MAX_DELAY_US: u64 = 24_000;

/// What is cut off.
#[derive(Clone, Copy, Debug)]
enum Verb {
    Run,
    Exec,
    Kill,
    Delete,
}

/// Who is killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Daemon,
    Shim,
    Init,
}

/// What is known of one round.
#[derive(Clone, Copy, Debug)]
struct Round {
    verb: Verb,
    victim: Victim,
    delay: Duration,
}

/// Random numbers, the same for the same seed (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    /// Half of the delays are below a millisecond.
    fn round(&mut self) -> Round {
        let verb = [Verb::Run, Verb::Run, Verb::Exec, Verb::Kill, Verb::Delete][self.below(5) as usize];
        let victim = [Victim::Daemon, Victim::Shim, Victim::Init][self.below(3) as usize];
        let end = if self.below(2) == 0 { 1_000 } else { MAX_DELAY_US };
        Round { verb, victim, delay: Duration::from_micros(self.below(end)) }
    }
}

/// Kills `count` times with containers of `image`.
///
/// # Errors
/// The first round that leaves something, and what.
pub fn rounds(daemon: &mut Daemon, image: &str, count: usize, seed: u64) -> Result<(), String> {
    let mut dice = Dice(seed | 1);
    // A first life makes what stays on purpose: the namespace's cgroup, and lazily made directories.
    daemon.ctr(&format!("run --rm {image} first true")).ok();
    let before = settled(daemon, None).map_err(|left| format!("before the first round: {left}"))?;
    for number in 0..count {
        let round = dice.round();
        let id = format!("kill-{number}");
        cut(daemon, image, &id, round);
        remove(daemon, &id);
        settled(daemon, Some(&before)).map_err(|left| format!("round {number}, {round:?}: {left}"))?;
    }
    Ok(())
}

/// Begins the verb, and kills in the middle of it.
fn cut(daemon: &mut Daemon, image: &str, id: &str, round: Round) {
    let line = match round.verb {
        Verb::Run => format!("run -d {image} {id} sleep 1000"),
        Verb::Exec => format!("task exec --exec-id e {id} true"),
        Verb::Kill => format!("task kill -s KILL {id}"),
        Verb::Delete => format!("task rm -f {id}"),
    };
    if !matches!(round.verb, Verb::Run) {
        daemon.ctr(&format!("run -d {image} {id} sleep 1000")).ok();
    }
    let client = daemon.ctr(&line).start();
    let began = Instant::now();
    let victim = loop {
        let found = match round.victim {
            Victim::Daemon => Some(daemon.pid()),
            Victim::Shim => trace::shims(daemon.dir()).last().copied(),
            Victim::Init => trace::contained(daemon.dir(), daemon.pid()).last().copied(),
        };
        // A victim that has ended already is as good as one that was killed.
        if found.is_some() || began.elapsed() > VICTIM_TIMEOUT {
            break found;
        }
    };
    std::thread::sleep(round.delay);
    match (round.victim, victim.and_then(|pid| Pid::from_raw(pid.cast_signed()))) {
        (Victim::Daemon, _) => daemon.kill(),
        (_, Some(pid)) => {
            let _ = kill_process(pid, Signal::KILL); // it may have ended by itself
        }
        (_, None) => {}
    }
    // Whether the client has succeeded depends on the moment.
    let _ = client.wait();
    if matches!(round.victim, Victim::Daemon) {
        daemon.restart();
    }
}

/// Removes what the verb was to leave, as its user would; each of it may be gone.
fn remove(daemon: &Daemon, id: &str) {
    for line in [format!("task rm -f {id}"), format!("container rm {id}"), format!("snapshots rm {id}")] {
        let _ = daemon.ctr(&line).run();
    }
    // A client that lost its daemon has left its lease, which would hold what it made for a day.
    for lease in daemon.ctr("leases ls -q").ok().split_whitespace() {
        let _ = daemon.ctr(&format!("leases rm --sync {lease}")).run();
    }
}

/// The traces once nothing is left but what was there `before`; else what is.
fn settled(daemon: &Daemon, before: Option<&Traces>) -> Result<Traces, String> {
    let left = |after: &Traces| match before {
        Some(before) => after.beyond(before),
        None => after.processes.clone(),
    };
    let found = wait::within(SETTLE_TIMEOUT, || Some(daemon.traces()).filter(|after| left(after).is_empty()));
    found.ok_or_else(|| format!("{:#?} left\n{}", left(&daemon.traces()), tail(&daemon.log())))
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_the_same_for_the_same_seed() {
        let draw = |seed| {
            let mut dice = Dice(seed);
            (0..50).map(|_| format!("{:?}", dice.round())).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(9));
        for wanted in ["Run", "Exec", "Kill", "Delete", "Daemon", "Shim", "Init"] {
            assert!(draw(7).iter().any(|round| round.contains(wanted)), "{wanted}");
        }
    }
}
