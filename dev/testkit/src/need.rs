//! What a test may need of the machine; each function answers `Err(reason)` when it is missing.
//!
//! Invariant: a skip is always seen: it is printed, and a line of it goes to `target/skips.txt`, which `make test`
//! prints at its end. With `BERTH_NO_SKIP=1` a missing need fails the test instead.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::place;

/// Whether the need is missing; if so the skip has been reported under the running test's name.
pub fn lacks(need: Result<(), String>) -> bool {
    let Err(reason) = need else { return false };
    let test = std::thread::current().name().unwrap_or("main").to_owned();
    assert!(std::env::var_os("BERTH_NO_SKIP").is_none(), "{test} may not be skipped: {reason}");
    println!("SKIP {test}: {reason}");
    // Under nextest a passing test's output is hidden, so the line is kept where `make test` finds it.
    let list = OpenOptions::new().create(true).append(true).open(place::target().join("skips.txt"));
    if let Ok(mut list) = list {
        let _ = list.write_all(format!("SKIP {test}: {reason}\n").as_bytes());
    }
    true
}

/// The effective user is root.
pub fn root() -> Result<(), String> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err("not root".into()) }
}

/// The kernel has overlayfs, perhaps after loading its module.
pub fn overlayfs() -> Result<(), String> {
    filesystem("overlay")
}

/// The kernel can mount `name`; a module of that name is loaded when there is one.
pub fn filesystem(name: &str) -> Result<(), String> {
    let known = || {
        fs::read_to_string("/proc/filesystems")
            .is_ok_and(|list| list.lines().any(|line| line.rsplit('\t').next() == Some(name)))
    };
    if known() {
        return Ok(());
    }
    let _ = Command::new("modprobe").arg(name).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if known() { Ok(()) } else { Err(format!("the kernel has no {name}")) }
}

/// Loop devices can be made.
pub fn loop_devices() -> Result<(), String> {
    if fs::exists("/dev/loop-control").unwrap_or(false) { Ok(()) } else { Err("no /dev/loop-control".into()) }
}

/// `name` is on PATH or in a system administrator's directory.
pub fn program(name: &str) -> Result<(), String> {
    place::program(name).map(drop).ok_or_else(|| format!("no program {name}"))
}

/// The workspace's program `name` has been built in the running test's profile.
pub fn built(name: &str) -> Result<(), String> {
    let path =
        if place::against() != place::Against::Nothing { place::debian(name) } else { place::built(name) };
    if path.is_file() { Ok(()) } else { Err(format!("{} is not built", path.display())) }
}

/// Debian's package mirror answers.
pub fn debian_mirror() -> Result<(), String> {
    let addresses: Vec<SocketAddr> = ("deb.debian.org", 80)
        .to_socket_addrs()
        .map_err(|error| format!("no Debian mirror: {error}"))?
        .collect();
    addresses
        .iter()
        .find_map(|address| TcpStream::connect_timeout(address, Duration::from_secs(5)).ok())
        .map(drop)
        .ok_or_else(|| "no Debian mirror answers".into())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_present_need_is_not_a_skip() {
        assert!(!super::lacks(super::program("sh")));
    }

    #[test]
    fn a_missing_program_is_named() {
        assert_eq!(super::program("no-such-program"), Err("no program no-such-program".into()));
    }
}
