//! The cases of containerd itself: each drives both sides through the same `ctr` commands and adds a row.

use std::path::Path;
use std::time::{Duration, Instant};

use testkit::command::Run;
use testkit::place;
use testkit::registry::Registry;

use super::layers;
use super::table::{Samples, Table};
use super::turns::{alternate, mib, ms};
use super::{IMAGE, Side, ours, shims, theirs};
use crate::soak::pss_kib;

/// Containers that start together.
const CROWD: usize = 20;

/// Containers that run while memory and the restart are measured.
const THIRTY: usize = 30;

/// How long a pull may take.
const PULL_LIMIT: Duration = Duration::from_secs(300);

/// Runs a command that must succeed and tells how long it took.
fn timed(run: Run) -> f64 {
    let done = run.run();
    let took = ms(done.took);
    done.ok();
    took
}

/// What no container can go below: a process in new namespaces.
pub fn floor(table: &mut Table, turns: usize) {
    let line = "--fork --pid --mount --ipc --uts --net /bin/true";
    let samples = (0..turns).map(|_| timed(Run::new("unshare").line(line))).collect();
    table.row("bare namespaced exec (unshare)", "ms", samples, Samples::default());
}

/// `ctr run --rm IMAGE ID /bin/true`.
pub fn run_rm(table: &mut Table, ours: &Side, theirs: &Side, turns: usize) {
    let (us, them): (Samples, Samples) = alternate(turns, ours, theirs, |side, turn| {
        timed(side.ctr(&format!("run --rm {IMAGE} rm{turn} /bin/true")))
    });
    table.row("ctr run --rm IMAGE /bin/true", "ms", us, them);
}

/// `ctr task exec` of /bin/true in a container that runs.
pub fn exec(table: &mut Table, ours: &Side, theirs: &Side, turns: usize) {
    for side in [ours, theirs] {
        side.ctr(&format!("run -d {IMAGE} exec sleep 100000")).ok();
    }
    let (us, them): (Samples, Samples) = alternate(turns, ours, theirs, |side, turn| {
        timed(side.ctr(&format!("task exec --exec-id e{turn} exec /bin/true")))
    });
    for side in [ours, theirs] {
        remove(side, "exec");
    }
    table.row("ctr task exec /bin/true", "ms", us, them);
}

/// Twenty `ctr run -d` at the same moment, until the last has returned.
pub fn starts_at_once(table: &mut Table, ours: &Side, theirs: &Side, turns: usize) {
    let (us, them): (Samples, Samples) = alternate(turns, ours, theirs, |side, turn| {
        let ids: Vec<_> = (0..CROWD).map(|n| format!("crowd{turn}-{n}")).collect();
        let began = Instant::now();
        let running: Vec<_> =
            ids.iter().map(|id| side.ctr(&format!("run -d {IMAGE} {id} sleep 100000")).start()).collect();
        for one in running {
            one.wait().ok();
        }
        let took = ms(began.elapsed());
        ids.iter().for_each(|id| remove(side, id));
        took
    });
    table.row("20 x ctr run -d at once", "ms", us, them);
}

/// The daemons' memory before they have done anything but import an image.
pub fn idle_memory(table: &mut Table, ours: &Side, theirs: &Side) {
    let one = |side: &Side| Samples::from_iter([mib(pss_kib(side.daemon.pid()))]);
    table.row("daemon PSS, idle", "MiB", one(ours), one(theirs));
}

/// Thirty containers: memory of daemon and shims, and how soon a daemon that finds them is ready.
pub fn thirty(table: &mut Table, mut ours: Side, mut theirs: Side, turns: usize) {
    for side in [&ours, &theirs] {
        for n in 0..THIRTY {
            side.ctr(&format!("run -d {IMAGE} thirty{n} sleep 100000")).ok();
        }
    }
    let shims = |side: &Side| shims(&side.daemon).into_iter().map(|pid| mib(pss_kib(pid))).collect();
    table.row("PSS of each of 30 shims", "MiB", shims(&ours), shims(&theirs));
    let daemon = |side: &Side| Samples::from_iter([mib(pss_kib(side.daemon.pid()))]);
    table.row("daemon PSS with 30 containers", "MiB", daemon(&ours), daemon(&theirs));
    let (mut us, mut them) = (Samples::default(), Samples::default());
    for _ in 0..turns {
        for (side, samples) in [(&mut ours, &mut us), (&mut theirs, &mut them)] {
            side.daemon.restart();
            samples.push(ms(side.daemon.ready_after()));
        }
    }
    table.row("daemon start with 30 containers", "ms", us, them);
    for side in [&ours, &theirs] {
        (0..THIRTY).for_each(|n| remove(side, &format!("thirty{n}")));
    }
}

/// Pull and unpack of four layers, over 600 MB packed, from a registry on loopback, by a fresh daemon each time.
pub fn pull(table: &mut Table, programs: &Path, pulls: usize) {
    let image = layers::image();
    let size: usize = image.blobs.iter().map(|blob| blob.bytes.len()).sum();
    let registry = Registry::start();
    let reference = registry.push("bench/big", "v1", &image);
    let (mut us, mut them) = (Samples::default(), Samples::default());
    for _ in 0..pulls {
        us.push(pull_once(&ours(programs), &reference));
        them.push(pull_once(&theirs(), &reference));
    }
    table.row(&format!("pull + unpack, 4 layers, {} MB gzip", size / 1_000_000), "s", us, them);
}

fn pull_once(side: &Side, reference: &str) -> f64 {
    // What earlier turns have written goes to disk now, not during this one.
    Run::new("sync").limit(PULL_LIMIT).ok();
    timed(side.ctr("image pull --plain-http").args([reference]).limit(PULL_LIMIT)) / 1000.0
}

/// Sizes of the programs on disk.
pub fn sizes(table: &mut Table, programs: &Path) {
    let size = |path: &Path| match std::fs::metadata(path) {
        Ok(file) => Samples::from_iter([file.len() as f64 / (1024.0 * 1024.0)]),
        Err(_) => Samples::default(),
    };
    for name in ["containerd", "ctr", "containerd-shim-runc-v2", "runc"] {
        table.row(&format!("size of {name}"), "MiB", size(&programs.join(name)), size(&place::debian(name)));
    }
    // Theirs is an image.
    let pause = size(&programs.join("containerd-pause"));
    table.row("size of containerd-pause", "MiB", pause, Samples::default());
}

fn remove(side: &Side, id: &str) {
    side.ctr(&format!("task rm -f {id}")).ok();
    side.ctr(&format!("container rm {id}")).ok();
}
