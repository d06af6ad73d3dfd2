//! `make test-vm`: tests on a machine with nothing but cgroup v2 and with systemd as PID 1, emulated by QEMU.
//!
//! ```text
//! target/vm/base-HASH/     kernel, initramfs and root file system; `dev/vm/setup.sh` makes them once
//! target/vm/boot.log       what the guest's console said last
//! target/vm/work-*/        one run's disk: the work tree, programs, test binaries and what to do; removed at its end
//! ```
//!
//! The guest sees the work tree and the target directory at the host's own paths, so what was compiled for the host
//! finds its files. It has no network and keeps nothing: both disks are written to temporary overlays.
//!
//! Invariant: a machine that cannot have a guest (no QEMU, no mirror, not root) gives a printed skip, not a failure,
//! but with `BERTH_NO_SKIP=1`.

mod guest;
mod work;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use testkit::place;

/// The exit code with which `setup.sh` says that this machine cannot have a guest.
const CANNOT: i32 = 77;

/// What to run in the guest.
#[derive(clap::Args)]
pub struct Args {
    /// Ends the guest after so many seconds
    #[arg(long, default_value_t = 1500)]
    deadline_s: u64,
    /// A shell command to run in the guest in place of the tests
    #[arg(long)]
    command: Option<String>,
    /// The hierarchies: v2 alone, v1 and v2, or v1 alone
    #[arg(long, default_value = "v2")]
    cgroups: guest::Cgroups,
    /// A package whose tests are brought
    #[arg(long = "package", short, default_values = ["runtime", "shim", "testkit"])]
    packages: Vec<String>,
    /// Arguments of `cargo nextest run`; its profile `vm` says which tests run when there are none
    #[arg(last = true)]
    args: Vec<String>,
}

/// Builds, boots, runs, and fails as the tests do.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let Some(base) = base()? else { return Ok(()) };
    let vm = place::target().join("vm");
    let errand = match &args.command {
        Some(command) => work::Errand::Command(command),
        None => work::Errand::Tests { packages: &args.packages, args: &args.args },
    };
    let work = work::pack(&vm, &errand)?;
    println!("vm: booting");
    let guest = guest::Guest { base: &base, work: work.image(), scratch: &vm, cgroups: args.cgroups };
    match guest.run(Duration::from_secs(args.deadline_s))? {
        guest::End::Exit(0) => Ok(()),
        guest::End::Exit(code) => bail!("the guest's work ended with exit code {code}"),
        guest::End::Late => bail!("the guest was ended after {} s", args.deadline_s),
        guest::End::Died => bail!("the guest died; its console's last words:\n{}", guest.last_words()),
    }
}

/// The directory with kernel and root file system; `None` after a skip has been printed.
fn base() -> anyhow::Result<Option<PathBuf>> {
    let target = place::target();
    let mut setup = Command::new(place::workspace().join("dev/vm/setup.sh"));
    let done = setup.arg(&target).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let done = done.context("run dev/vm/setup.sh")?;
    let said = String::from_utf8(done.stdout).context("dev/vm/setup.sh printed no text")?;
    let last = said.lines().last().unwrap_or_default();
    if done.status.code() == Some(CANNOT) {
        ensure!(std::env::var_os("BERTH_NO_SKIP").is_none(), "the guest may not be skipped: {last}");
        println!("SKIP vm: {last}");
        return Ok(None);
    }
    ensure!(done.status.success(), "dev/vm/setup.sh failed");
    Ok(Some(PathBuf::from(last)))
}
