//! `make demo`: an image goes from a registry to a running container, each command shown as a person would type it.

use std::fs;
use std::time::Duration;

use anyhow::ensure;
use testkit::daemon::Daemon;
use testkit::image::{Build, Layer, busybox_tar};
use testkit::registry::Registry;
use testkit::tar::Archive;
use testkit::{need, place};

/// The reference that the demo pulls: the daemon is told that the loopback registry is docker.io's mirror.
const IMAGE: &str = "docker.io/library/busybox:demo";

/// Runs the demo; leaves nothing behind.
pub fn run() -> anyhow::Result<()> {
    for need in [
        need::root(),
        need::overlayfs(),
        need::program("docker-registry"),
        need::program("busybox"),
        need::built("containerd"),
        need::built("ctr"),
        need::built("containerd-shim-runc-v2"),
    ] {
        need.map_err(anyhow::Error::msg)?;
    }
    say("a registry on loopback, with an image of two layers made from Debian's busybox");
    let registry = Registry::start();
    let banner = Archive::new().dir("etc/", 0o755).file("etc/motd", 0o644, b"Welcome to berth.\n").finish();
    let image = Build::new()
        .layer(Layer::gzip(busybox_tar()))
        .layer(Layer::zstd(banner))
        .cmd(&["cat", "/etc/motd"])
        .build();
    registry.push("library/busybox", "demo", &image);
    println!("{}", registry.host());

    say("the daemon, on directories of its own, with that registry as the mirror of docker.io");
    let mut daemon = Daemon::ours().mirror(&registry, "docker.io").start();
    println!("{} ready after {:?}", place::built("containerd").display(), daemon.ready_after());
    let hello = walk(&mut daemon)?;

    say("and what all this has left on the machine");
    let traces = daemon.traces();
    println!("processes {}, mounts {}", traces.processes.len(), traces.mounts.len());
    ensure!(traces.processes.is_empty() && traces.mounts.is_empty(), "something was left: {traces:?}");
    daemon.stop();
    ensure!(hello == "Welcome to berth.\n", "the container printed {hello:?}");
    println!("\ndone");
    Ok(())
}

/// From pull to the last delete; returns what the first container printed.
fn walk(daemon: &mut Daemon) -> anyhow::Result<String> {
    type_line(daemon, "version");
    type_line(daemon, &format!("image pull {IMAGE}"));
    type_line(daemon, "image ls");
    type_line(daemon, "snapshot tree");
    let hello = type_line(daemon, &format!("run --rm {IMAGE} hello"));
    type_line(daemon, &format!("run -d --memory-limit 52428800 {IMAGE} web sleep 600"));
    type_line(daemon, "task ls");
    type_line(daemon, "task exec --exec-id ps web ps");
    type_line(daemon, "task metrics web");

    say("kill -9 of the daemon: the container runs on, and the next daemon knows it");
    daemon.restart();
    println!("ready after {:?}", daemon.ready_after());
    let list = type_line(daemon, "task ls");
    ensure!(list.contains("RUNNING"), "the container did not survive: {list}");
    type_line(daemon, "task exec --exec-id again web cat /etc/motd");
    type_line(daemon, "task kill --signal SIGKILL web");
    testkit::wait::eventually(Duration::from_secs(10), "web stops", || {
        daemon.ctr("task ls").ok().contains("STOPPED").then_some(())
    });
    type_line(daemon, "task rm web");
    type_line(daemon, "container rm web");
    type_line(daemon, &format!("image rm --sync {IMAGE}"));
    let blobs = daemon.root().join("io.containerd.content.v1.content/blobs/sha256");
    println!("blobs left in the content store: {}", fs::read_dir(blobs).map_or(0, Iterator::count));
    Ok(hello)
}

fn say(text: &str) {
    println!("\n# {text}");
}

/// Runs one command of `ctr`, showing the line and what it prints; returns its standard output.
fn type_line(daemon: &Daemon, line: &str) -> String {
    println!("\n$ ctr {line}");
    let done = daemon.ctr(line).run();
    print!("{}{}", done.stdout, done.stderr);
    done.ok()
}
