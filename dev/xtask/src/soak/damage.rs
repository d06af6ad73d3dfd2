//! Databases damaged at random while a container runs: the daemon starts, and every record is there.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use testkit::daemon::Daemon;
use testkit::image;

/// The image of the container.
const IMAGE: &str = "example.com/busybox:damage";
/// The databases, below the root directory.
const DATABASES: [&str; 2] =
    ["io.containerd.metadata.v1.bolt/meta.redb", "io.containerd.snapshotter.v1.overlayfs/metadata.redb"];

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap_or(0) % sides.max(1)
    }
}

/// Damages databases `rounds` times, with a start of the daemon after each.
pub fn run(rounds: usize) -> anyhow::Result<()> {
    let mut daemon = Daemon::start();
    daemon.import(IMAGE, &image::busybox());
    daemon.ctr(&format!("run -d {IMAGE} lasting sleep 100000")).ok();
    // What nothing refers to may be collected at any start: it is no loss.
    daemon.ctr("content prune references").ok();
    let before = records(&daemon);
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    for round in 0..rounds {
        daemon.stop();
        let mut how = String::new();
        for database in DATABASES {
            how += &damage(&daemon.root().join(database), &mut dice)?;
        }
        daemon.restart();
        let after = records(&daemon);
        ensure!(after == before, "round {round}: {how}: {before:#?} then {after:#?}");
        // What a collection takes shows in the next round.
        daemon.ctr(&format!("run --rm {IMAGE} short-{round} true")).ok();
    }
    daemon.ctr("task rm -f lasting").ok();
    daemon.ctr("container rm lasting").ok();
    println!("no record lost by {rounds} damages");
    Ok(())
}

/// What the daemon says of everything that it keeps.
fn records(daemon: &Daemon) -> Vec<String> {
    ["images ls", "images check", "containers ls", "tasks ls", "snapshots ls", "content ls -q", "leases ls"]
        .iter()
        .map(|command| daemon.ctr(command).ok())
        .collect()
}

/// Damages the file `path` in one of the ways that a disk has.
fn damage(path: &Path, dice: &mut Dice) -> anyhow::Result<String> {
    let named = |how: &str| format!("{}: {how}; ", path.display());
    let path: PathBuf = path.to_owned();
    let mut bytes = fs::read(&path).with_context(|| path.display().to_string())?;
    let how = match dice.roll(6) {
        0..=2 => {
            let bit = dice.roll(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            format!("bit {bit} flipped")
        }
        3 => {
            let page = dice.roll(bytes.len() / 4096);
            bytes[page * 4096..(page + 1) * 4096].fill(0xa5);
            format!("page {page} overwritten")
        }
        4 => {
            bytes.truncate(dice.roll(bytes.len()));
            format!("cut to {} bytes", bytes.len())
        }
        _ => {
            fs::remove_file(&path)?;
            return Ok(named("removed"));
        }
    };
    fs::write(&path, bytes)?;
    Ok(named(&how))
}
