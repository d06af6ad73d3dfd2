//! One run of QEMU: two disks, a console that goes to a file, a port for output, an end that comes in bounded time.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// What the guest's last line begins with; the exit code follows.
const MARK: &str = "berth-vm: exit ";

/// How many lines of a console make its last words.
const LAST_WORDS: usize = 30;

/// Lines that the reader may be ahead of the printer.
const AHEAD: usize = 1024;

/// Which hierarchies systemd mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Cgroups {
    /// Only v2.
    V2,
    /// v1 with the controllers and v2 beside it.
    Hybrid,
    /// Only v1.
    V1,
}

impl Cgroups {
    /// Systemd's words on the kernel's command line.
    fn words(self) -> &'static str {
        match self {
            Self::V2 => "systemd.unified_cgroup_hierarchy=1",
            Self::Hybrid => "systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=0",
            Self::V1 => "systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1",
        }
    }
}

/// A machine to be emulated.
pub struct Guest<'a> {
    /// Directory of `vmlinuz`, `initrd` and `root.img`.
    pub base: &'a Path,
    /// The second disk.
    pub work: PathBuf,
    /// Directory for the console's log and for what is written to the disks.
    pub scratch: &'a Path,
    /// Its hierarchies.
    pub cgroups: Cgroups,
}

/// How a guest ended.
pub enum End {
    /// Its work ended with this exit code.
    Exit(i32),
    /// It was still at it at the deadline.
    Late,
    /// It stopped before its work was done.
    Died,
}

impl Guest<'_> {
    /// Boots, prints what the work says, and waits for its end.
    pub fn run(&self, deadline: Duration) -> anyhow::Result<End> {
        let until = Instant::now() + deadline;
        let mut machine = self.start()?;
        let lines = read_lines(&mut machine)?;
        let end = follow(&lines, until);
        // After the last word the guest powers itself off, but nothing depends on it.
        let _ = machine.kill();
        machine.wait().context("wait for QEMU")?;
        Ok(end)
    }

    fn start(&self) -> anyhow::Result<Child> {
        let disk = |path: &Path| format!("file={},format=raw,if=virtio,snapshot=on", path.display());
        let console = self.console();
        let _ = fs::remove_file(&console);
        Command::new("qemu-system-x86_64")
            // Emulation alone: it is there on every machine, a machine that is itself virtual included.
            .args(["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "4G"])
            .args(["-nodefaults", "-no-reboot", "-display", "none", "-nic", "none"])
            .args(["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"])
            .args([
                "-chardev",
                "file,id=out,path=/dev/stdout",
                "-device",
                "virtserialport,chardev=out,name=out",
            ])
            .arg("-append")
            .arg(format!("console=ttyS0 panic=-1 rw quiet mitigations=off {}", self.cgroups.words()))
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .arg("-kernel")
            .arg(self.base.join("vmlinuz"))
            .arg("-initrd")
            .arg(self.base.join("initrd"))
            .args(["-drive", &disk(&self.base.join("root.img")), "-drive", &disk(&self.work)])
            // Where QEMU puts what the guest writes.
            .env("TMPDIR", self.scratch)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("start qemu-system-x86_64")
    }

    fn console(&self) -> PathBuf {
        self.scratch.join("boot.log")
    }

    /// The end of what the console said.
    pub fn last_words(&self) -> String {
        let text = fs::read(self.console()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n")
    }
}

/// Lines of the guest's output as they come; the thread ends with QEMU.
fn read_lines(machine: &mut Child) -> anyhow::Result<Receiver<String>> {
    let output = machine.stdout.take().context("QEMU's output is a pipe")?;
    let (sender, receiver) = mpsc::sync_channel(AHEAD);
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n') {
            let Ok(line) = line else { return };
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

fn follow(lines: &Receiver<String>, until: Instant) -> End {
    loop {
        match lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => match line.strip_prefix(MARK).map(|code| code.trim().parse()) {
                Some(Ok(code)) => return End::Exit(code),
                _ => println!("{line}"),
            },
            Err(RecvTimeoutError::Timeout) => return End::Late,
            Err(RecvTimeoutError::Disconnected) => return End::Died,
        }
    }
}
