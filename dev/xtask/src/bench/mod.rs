//! `make bench`: our release build beside Debian's containerd and runc, set up alike, in one run.
//!
//! Both daemons run at once, each with directories and a namespace of its own, and turns alternate, so that whatever
//! else the machine does falls on both. Figures are wall time of the client's process.

mod cri;
mod ctr;
mod layers;
mod table;
mod turns;

use std::path::{Path, PathBuf};

use anyhow::ensure;
use testkit::command::Run;
use testkit::daemon::{Daemon, Setup};
use testkit::{image, need, place};

use table::Table;

/// The image of every container.
pub const IMAGE: &str = "example.com/busybox:bench";

/// What to measure.
#[derive(clap::Args)]
pub struct Args {
    /// Turns of each side in cases that take less than seconds
    #[arg(long, default_value_t = 20)]
    turns: usize,
    /// Pulls of each side
    #[arg(long, default_value_t = 3)]
    pulls: usize,
    /// Directory with our four programs
    #[arg(long, default_value = "target/dist/bin")]
    programs: PathBuf,
    /// Leave out the pull of 600 MB
    #[arg(long)]
    no_pull: bool,
    /// Measure one part alone
    #[arg(long)]
    only: Option<Part>,
}

/// A part of the comparison, with a table of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// What `ctr` asks for
    Ctr,
    /// What the kubelet asks for
    Cri,
}

/// One of the two systems.
pub struct Side {
    /// Its daemon.
    pub daemon: Daemon,
    /// Its own ctr.
    ctr: PathBuf,
}

impl Side {
    /// A command line of its own ctr.
    pub fn ctr(&self, line: &str) -> Run {
        self.daemon.client(&self.ctr).line(line)
    }
}

/// Runs every case and prints the tables.
pub fn run(args: &Args) -> anyhow::Result<()> {
    for need in [
        need::root(),
        need::overlayfs(),
        need::program("docker-registry"),
        need::program("busybox"),
        need::program("runc"),
    ] {
        need.map_err(anyhow::Error::msg)?;
    }
    let programs = place::workspace().join(&args.programs);
    for name in ["containerd", "ctr", "containerd-shim-runc-v2", "containerd-pause", "berth-cni"] {
        ensure!(
            programs.join(name).is_file(),
            "{} is missing: `make release`",
            programs.join(name).display()
        );
    }
    print!("{}", machine());
    let wanted = |part| args.only.is_none_or(|only| only == part);
    let mut tables = Vec::new();
    if wanted(Part::Ctr) {
        tables.push(of_ctr(args, &programs)?);
    }
    if wanted(Part::Cri) {
        tables.push(cri::run(args.turns, &programs)?);
    }
    for table in tables {
        println!("\n{table}");
    }
    Ok(())
}

fn of_ctr(args: &Args, programs: &Path) -> anyhow::Result<Table> {
    let mut table = Table::default();
    {
        let ours = ours(programs);
        let theirs = theirs();
        for side in [&ours, &theirs] {
            let archive = side.daemon.dir().join("image.tar");
            std::fs::write(&archive, image::busybox().archive(IMAGE))?;
            side.ctr("image import").args([&archive]).ok();
        }
        ctr::idle_memory(&mut table, &ours, &theirs);
        ctr::floor(&mut table, args.turns);
        ctr::run_rm(&mut table, &ours, &theirs, args.turns);
        ctr::exec(&mut table, &ours, &theirs, args.turns);
        ctr::starts_at_once(&mut table, &ours, &theirs, args.turns);
        ctr::thirty(&mut table, ours, theirs, args.turns);
    }
    if !args.no_pull {
        ctr::pull(&mut table, programs, args.pulls);
    }
    ctr::sizes(&mut table, programs);
    Ok(table)
}

/// Our daemon from `programs`.
pub fn ours(programs: &Path) -> Side {
    let setup = Daemon::ours().program(programs.join("containerd"));
    state_in_memory(&setup);
    Side { daemon: setup.start(), ctr: programs.join("ctr") }
}

/// Debian's daemon.
pub fn theirs() -> Side {
    let setup = Daemon::debian();
    state_in_memory(&setup);
    Side { daemon: setup.start(), ctr: place::debian("ctr") }
}

/// Has the daemon's state lie in memory, as on a real machine's /run.
pub fn state_in_memory(setup: &Setup) {
    let state = setup.dir().join("state");
    std::fs::create_dir(&state).expect("make the state directory");
    Run::new("mount").line("-t tmpfs -o mode=711 tmpfs").args([&state]).ok();
}

/// Process ids of a daemon's shims.
fn shims(daemon: &Daemon) -> Vec<u32> {
    let processes = daemon.traces().processes;
    let shims = processes.iter().filter(|line| line.contains("containerd-shim-runc-v2"));
    shims.filter_map(|line| line.split(' ').next()?.parse().ok()).collect()
}

/// What was measured on, and against what.
fn machine() -> String {
    let first = |program: &str, args: &[&str]| {
        let text = Run::new(program).args(args).run().stdout;
        text.lines().next().unwrap_or_default().to_owned()
    };
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "machine: {cores} cores, {}, Linux {}\ntheirs: {}; {}\n",
        model.trim_start_matches([' ', '\t', ':']),
        first("uname", &["-r"]),
        first("/usr/bin/containerd", &["--version"]),
        first("/usr/sbin/runc", &["--version"]),
    )
}
