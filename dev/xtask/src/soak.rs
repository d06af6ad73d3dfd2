//! `make soak`: the life of a container again and again, and kills in the middle of it; whatever grows is a leak. Then
//! databases are damaged under a container that runs: no record may be lost.

mod damage;

use std::time::Duration;

use anyhow::ensure;
use testkit::daemon::Daemon;
use testkit::trace::Traces;
use testkit::{image, need};

/// The image of every container.
const IMAGE: &str = "example.com/busybox:soak";

/// How long to soak.
#[derive(clap::Args)]
pub struct Args {
    /// Lives to live through
    #[arg(long, default_value_t = 200)]
    cycles: usize,
    /// Kill and restart the daemon after so many cycles
    #[arg(long, default_value_t = 50)]
    restart_every: usize,
    /// Databases to damage
    #[arg(long, default_value_t = 100)]
    damages: usize,
    /// Then kill the daemon, a shim or an init so often at a random moment of a verb
    #[arg(long, default_value_t = 300)]
    kills: usize,
    /// Seed of the random moments; drawn anew without it
    #[arg(long)]
    seed: Option<u64>,
}

/// Runs the cycles and compares the machine before and after.
pub fn run(args: &Args) -> anyhow::Result<()> {
    for need in [need::root(), need::overlayfs(), need::built("containerd"), need::built("ctr")] {
        need.map_err(anyhow::Error::msg)?;
    }
    let mut daemon = Daemon::start();
    daemon.import(IMAGE, &image::busybox());
    // The first lives make what stays on purpose: the namespace's cgroup, caches, lazily opened descriptors.
    for cycle in 0..5 {
        live(&daemon, cycle);
    }
    let before = daemon.traces();
    let memory = pss_kib(daemon.pid());
    for cycle in 0..args.cycles {
        live(&daemon, cycle);
        if args.restart_every > 0 && cycle % args.restart_every == args.restart_every - 1 {
            daemon.restart();
            println!("{} cycles, daemon restarted in {:?}", cycle + 1, daemon.ready_after());
        }
    }
    // Snapshots go in two steps: the record at once, the directory after the next collection.
    let settled = || Some(daemon.traces()).filter(|after| after.snapshots <= before.snapshots);
    let after = testkit::wait::within(Duration::from_secs(30), settled).unwrap_or_else(|| daemon.traces());
    println!("daemon: {memory} KiB before, {} KiB after", pss_kib(daemon.pid()));
    compare(&before, &after)?;
    println!("nothing left behind after {} cycles", args.cycles);
    let seed = args.seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        now.subsec_nanos().into()
    });
    testkit::kills::rounds(&mut daemon, IMAGE, args.kills, seed)
        .map_err(|left| anyhow::anyhow!("seed {seed}: {left}"))?;
    println!("nothing left behind after {} kills, seed {seed}", args.kills);
    drop(daemon);
    damage::run(args.damages)
}

/// One foreground run, and one container with an exec that is killed.
fn live(daemon: &Daemon, cycle: usize) {
    let (short, long) = (format!("short-{cycle}"), format!("long-{cycle}"));
    daemon.ctr(&format!("run --rm {IMAGE} {short} true")).ok();
    daemon.ctr(&format!("run -d {IMAGE} {long} sleep 1000")).ok();
    daemon.ctr(&format!("task exec --exec-id e {long} true")).ok();
    daemon.ctr(&format!("task rm -f {long}")).ok();
    daemon.ctr(&format!("container rm {long}")).ok();
}

fn compare(before: &Traces, after: &Traces) -> anyhow::Result<()> {
    ensure!(after.processes == before.processes, "processes: {:?}", after.processes);
    ensure!(after.mounts == before.mounts, "mounts: {:?}", after.mounts);
    ensure!(after.cgroups == before.cgroups, "cgroups: {:?}", after.cgroups);
    ensure!(after.state == before.state, "state: {:?}", after.state);
    ensure!(after.snapshots <= before.snapshots, "snapshots: {} then {}", before.snapshots, after.snapshots);
    ensure!(after.blobs == before.blobs, "blobs: {} then {}", before.blobs, after.blobs);
    // A few descriptors and threads come and go with idle connections.
    let grew = |what: &str, before: usize, after: usize| {
        ensure!(after <= before + 8, "{what}: {before} then {after}");
        Ok(())
    };
    grew("descriptors", before.descriptors, after.descriptors)?;
    grew("threads", before.threads, after.threads)
}

/// Memory of a process with shared pages divided among those who share them.
pub fn pss_kib(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0)
}
