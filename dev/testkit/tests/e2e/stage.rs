//! What most cases begin with: a daemon that has the busybox image.

use testkit::daemon::Daemon;
use testkit::image;
use testkit::place::{self, Against};
use testkit::registry::Registry;

/// The name that the busybox image is pulled under.
pub const BUSYBOX: &str = "docker.io/library/busybox:e2e";

/// A daemon with [`BUSYBOX`], and the registry it came from.
pub struct Stage {
    pub daemon: Daemon,
    _registry: Registry,
}

/// A registry that stands in for docker.io, and a daemon that has pulled [`BUSYBOX`] from it.
pub fn busybox() -> Stage {
    let registry = Registry::start();
    registry.push("library/busybox", "e2e", &image::busybox());
    let daemon = Daemon::ours().mirror(&registry, "docker.io").start();
    if place::against() == Against::Nothing {
        daemon.ctr("image pull").args([BUSYBOX]).ok();
    } else {
        // Debian's daemon is too old to pull by itself.
        let reference = format!("{}/library/busybox:e2e", registry.host());
        daemon.go_ctr("image pull --plain-http").args([&reference]).ok();
        daemon.go_ctr("image tag").args([&reference, BUSYBOX]).ok();
        daemon.go_ctr("image rm").args([&reference]).ok();
    }
    Stage { daemon, _registry: registry }
}

/// A daemon that collects nothing for an hour: what a test ingests has no other hold.
pub fn keeping() -> Daemon {
    Daemon::ours().config("[plugins.'io.containerd.gc.v1.scheduler']\n  startup_delay = '1h'").start()
}

/// The cells of a table that is laid out by two or more blanks.
pub fn cells(line: &str) -> Vec<String> {
    line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
}

/// The row of a table whose first cell is `key`.
pub fn row(table: &str, key: &str) -> Option<Vec<String>> {
    table
        .lines()
        .map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .find(|row| row.first().is_some_and(|cell| cell == key))
}

/// The third cell of `ctr task ls` for `id`; `None` when it is not listed.
pub fn status(daemon: &Daemon, id: &str) -> Option<String> {
    row(&daemon.ctr("task ls").ok(), id)?.get(2).cloned()
}

/// The pid that `ctr task ls` shows for `id`.
pub fn pid(daemon: &Daemon, id: &str) -> i32 {
    let row = row(&daemon.ctr("task ls").ok(), id).unwrap_or_else(|| panic!("{id} is listed"));
    row[1].parse().expect("a pid is a number")
}

/// Waits until `ctr task ls` shows `id` as `wanted`.
pub fn becomes(daemon: &Daemon, id: &str, wanted: &str) {
    testkit::wait::eventually(std::time::Duration::from_secs(20), &format!("{id} is {wanted}"), || {
        (status(daemon, id).as_deref() == Some(wanted)).then_some(())
    });
}
