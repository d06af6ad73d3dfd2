//! A machine within the machine: namespaces for mounts, the network and processes.
//!
//! ```text
//! /run /var/lib /var/log      empty tmpfs: the kubelet's sockets and links, leases of pod addresses, the runtime's state
//! /proc/sys/...               six files that hold what the kubelet would set the machine's own to
//! network                     loopback alone: its ports, the pods' bridge and the kubelet's chains of iptables
//! processes                   the task is their init
//! ```
//!
//! Invariant: whatever the end of the task is, the kernel ends every process and drops every mount and link with it. Only
//! cgroups have no such owner; they are all below the one that the daemon's end removes.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};
use testkit::command::Run;

/// What the kubelet wants of the kernel: it writes where it finds anything else.
const SYSCTLS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Runs this program again, in the namespaces, with `args`.
pub fn again(args: &[&OsStr]) -> anyhow::Result<()> {
    let own = std::env::current_exe().context("find this program")?;
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--propagation",
            "private",
        ])
        .arg(own)
        .args(args);
    let status = command.status().context("run unshare")?;
    if !status.success() {
        bail!("it ended with {status}");
    }
    Ok(())
}

/// Makes the machine of the namespaces.
pub fn prepare() -> anyhow::Result<()> {
    for dir in ["/run", "/var/lib", "/var/log"] {
        Run::new("mount").args(["-t", "tmpfs", "tmpfs", dir]).ok();
    }
    fs::create_dir("/run/sysctl").context("make /run/sysctl")?;
    for (name, value) in SYSCTLS {
        let (file, target) =
            (Path::new("/run/sysctl").join(name.replace('/', ".")), Path::new("/proc/sys").join(name));
        fs::write(&file, value).with_context(|| format!("write {}", file.display()))?;
        Run::new("mount").args([Path::new("--bind"), &file, &target]).ok();
    }
    Run::new("busybox").line("ifconfig lo up").ok();
    Ok(())
}
