//! `make kubelet KUBELET=/path/to/kubelet`: a standalone kubelet over our daemon, with a static pod of two containers.
//!
//! Everything happens in namespaces of the task's own ([`alone`]), since a kubelet writes all over a machine.

mod alone;
mod files;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;
use testkit::command::{Run, Running};
use testkit::daemon::Daemon;
use testkit::http::Request;
use testkit::image::{Build, Layer, busybox_tar};
use testkit::registry::Registry;
use testkit::{need, place, wait};

/// What somebody without a kubelet needs to know.
const NEED: &str = "\
make kubelet starts a standalone kubelet (no API server, no etcd) over the daemon of this work tree, gives it a static
pod of two containers with probes, shows what becomes of them, and takes everything down again. It wants a kubelet:

    make kubelet KUBELET=/path/to/kubelet

1.36 is the one that was tried. Where to get one:

    curl -LO https://dl.k8s.io/release/v1.36.2/bin/linux/amd64/kubelet && chmod +x kubelet
    apt-get download kubelet && dpkg-deb -x kubelet_*.deb .             # with Kubernetes' package repository
    make WHAT=cmd/kubelet                                               # in Kubernetes' sources, with Go

How to point any kubelet at the daemon: docs/kubernetes.md.";

/// The image of the pod's containers: the daemon is told that the loopback registry is docker.io's mirror.
const IMAGE: &str = "docker.io/library/busybox:static";

/// The kubelet's read-only port, in a network of its own.
const READ_ONLY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 10255);

/// How long the pod may take to become what is waited for.
const LIMIT: Duration = Duration::from_secs(90);

/// Which kubelet.
#[derive(clap::Args)]
pub struct Args {
    /// The kubelet's program
    #[arg(long)]
    kubelet: Option<PathBuf>,
    /// Says that the namespaces are made
    #[arg(long, hide = true)]
    alone: bool,
}

/// Runs it; leaves nothing behind.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let Some(kubelet) = &args.kubelet else {
        eprintln!("{NEED}\n");
        bail!("KUBELET is not set");
    };
    for need in [
        need::root(),
        need::overlayfs(),
        need::program("docker-registry"),
        need::program("busybox"),
        need::program("unshare"),
        need::built("containerd"),
        need::built("ctr"),
        need::built("containerd-shim-runc-v2"),
    ] {
        need.map_err(anyhow::Error::msg)?;
    }
    let kubelet = kubelet.canonicalize().with_context(|| format!("find {}", kubelet.display()))?;
    if !args.alone {
        return alone::again(&[
            "kubelet".as_ref(),
            "--alone".as_ref(),
            "--kubelet".as_ref(),
            kubelet.as_os_str(),
        ]);
    }
    alone::prepare()?;
    show(&kubelet)
}

/// What a reader sees, in a machine that is the task's own.
fn show(kubelet: &Path) -> anyhow::Result<()> {
    say("a registry on loopback, with an image made from Debian's busybox");
    let registry = Registry::start();
    let image = Build::new().layer(Layer::gzip(busybox_tar())).build();
    registry.push("library/busybox", "static", &image);
    println!("{}", registry.host());

    say(
        "the daemon, on directories of its own, with that registry as the mirror of docker.io and a bridge for pods",
    );
    let setup = Daemon::ours();
    let certs = registry.mirror_of("docker.io", setup.dir());
    files::network(setup.dir())?;
    let config = files::daemon(setup.dir(), &certs);
    let mut daemon = setup.config(&config).start();
    println!("{} ready after {:?}", place::built("containerd").display(), daemon.ready_after());

    let pod = files::Pod::new(&daemon, IMAGE)?;
    say("the kubelet: no API server, and pods from a directory of manifests");
    println!("$ cat {}\n{}", pod.config.display(), fs::read_to_string(&pod.config)?);
    let mut node = Node::start(kubelet, &pod)?;
    walk(&mut daemon, &mut node, &pod)?;
    node.stop()?;
    pod.unmount();

    say("and what all this has left");
    // A shim answers before it ends.
    let _ended = wait::within(Duration::from_secs(10), || daemon.traces().processes.is_empty().then_some(()));
    let traces = daemon.traces();
    println!("processes {}, mounts {}", traces.processes.len(), traces.mounts.len());
    ensure!(traces.processes.is_empty() && traces.mounts.is_empty(), "something was left: {traces:?}");
    daemon.stop();
    println!("\ndone");
    Ok(())
}

/// From the manifest to its removal.
fn walk(daemon: &mut Daemon, node: &mut Node, pod: &files::Pod) -> anyhow::Result<()> {
    say("a static pod");
    println!("$ cat {}\n{}", pod.manifest.display(), pod.text);
    pod.write()?;
    node.until("both containers are ready", |pods| ready(pods, 0))?;
    type_line(daemon, "-n k8s.io image ls");
    type_line(daemon, "-n k8s.io container ls");
    type_line(daemon, "-n k8s.io task ls");

    say("what its containers print, where the kubelet looks for it");
    node.until("the clock has struck", |_| pod.log("clock"))?;

    say("kill -9 of the daemon: the pod does not notice");
    daemon.restart();
    println!("ready after {:?}", daemon.ready_after());
    type_line(daemon, "-n k8s.io task ls");

    say("a container that is killed: the kubelet has the new daemon start another");
    let task = pod.container(daemon, "clock")?;
    type_line(daemon, &format!("-n k8s.io task kill --signal SIGKILL {task}"));
    node.until("the clock runs again", |pods| ready(pods, 1))?;

    say("without the manifest there is no pod");
    fs::remove_file(&pod.manifest)?;
    node.until("no task is left", |_| {
        daemon.ctr("-n k8s.io task ls -q").ok().trim().is_empty().then(|| "$ ctr -n k8s.io task ls -q".into())
    })
}

/// One line about the only pod, once both its containers are ready and the clock was started again `restarts` times.
fn ready(pods: &Value, restarts: u64) -> Option<String> {
    let [pod] = pods["items"].as_array()?.as_slice() else { return None };
    let status = &pod["status"];
    let mut line =
        format!("{} {} {}", pod["metadata"]["name"], status["phase"], status["podIP"]).replace('"', "");
    let containers = status["containerStatuses"].as_array()?;
    let times = |name: &str| {
        containers.iter().find(|one| one["name"] == name && one["ready"] == true)?["restartCount"].as_u64()
    };
    let (web, clock) = (times("web")?, times("clock")?);
    line.push_str(&format!(", web ready (restarts {web}), clock ready (restarts {clock})"));
    (status["phase"] == "Running" && clock == restarts).then_some(line)
}

/// A kubelet that runs.
struct Node(Running);

impl Node {
    fn start(program: &Path, pod: &files::Pod) -> anyhow::Result<Self> {
        let version = Run::new(program).args(["--version"]).ok();
        println!("{}: {}", program.display(), version.trim());
        let mut node = Self(Run::new(program).args(pod.arguments()).start());
        node.until("the kubelet serves", |_| Some(format!("http://{READ_ONLY}/pods answers")))?;
        Ok(node)
    }

    /// Asks for the kubelet's pods until `probe` is content with them, and prints what it says.
    fn until(&mut self, what: &str, probe: impl Fn(&Value) -> Option<String>) -> anyhow::Result<()> {
        let mut died = false;
        let found = wait::within(LIMIT, || {
            died = self.0.ends_within(Duration::ZERO).is_some();
            if died {
                return Some(None);
            }
            let answer = Request::new("GET", "/pods").send(READ_ONLY).ok()?;
            probe(&serde_json::from_slice(&answer.body).ok()?).map(Some)
        });
        match found.flatten() {
            Some(line) => {
                println!("{what}\n{line}");
                Ok(())
            }
            None => {
                let why = if died { "the kubelet has ended" } else { "it has had its time" };
                bail!("{what}: {why}; it said\n{}", self.last_words())
            }
        }
    }

    fn last_words(&self) -> String {
        let said = self.0.stderr();
        let lines: Vec<_> = said.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    fn stop(mut self) -> anyhow::Result<()> {
        self.0.signal(Signal::TERM);
        let done = self.0.ends_within(LIMIT);
        ensure!(done.is_some(), "the kubelet does not end; it said\n{}", self.last_words());
        Ok(())
    }
}

fn say(text: &str) {
    println!("\n# {text}");
}

/// Runs one command of `ctr`, showing the line and what it prints.
fn type_line(daemon: &Daemon, line: &str) {
    println!("\n$ ctr {line}");
    let done = daemon.ctr(line).run();
    print!("{}{}", done.stdout, done.stderr);
    done.ok();
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_ready_when_both_are_and_the_clock_was_started_so_often() {
        let pods = |web: bool, restarts: u64| {
            json!({ "items": [{
                "metadata": { "name": "pod-node" },
                "status": { "phase": "Running", "podIP": "10.0.0.2", "containerStatuses": [
                    { "name": "clock", "ready": true, "restartCount": restarts },
                    { "name": "web", "ready": web, "restartCount": 0 },
                ] },
            }] })
        };
        let line = "pod-node Running 10.0.0.2, web ready (restarts 0), clock ready (restarts 1)";
        assert_eq!(ready(&pods(true, 1), 1).as_deref(), Some(line));
        assert_eq!(ready(&pods(true, 0), 1), None);
        assert_eq!(ready(&pods(false, 1), 1), None);
        assert_eq!(ready(&json!({ "items": null }), 0), None);
    }
}
