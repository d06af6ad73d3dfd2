//! A node in small: the daemon in a network namespace of its own, a bridge for its pods, and faults on demand.

use std::fs;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::runtime::v1;
use testkit::{place, wait};

use crate::client::{Kubelet, call};

/// A kubelet whose daemon's network is not the machine's.
pub struct Node {
    kubelet: Kubelet,
    host: Host,
    network: String,
}

/// The network namespace that is the host's for the daemon.
struct Host(PathBuf);

impl Drop for Host {
    fn drop(&mut self) {
        let _gone = net::netns::remove(&self.0);
    }
}

/// What a verb that failed must not add to.
#[derive(Debug, PartialEq, Eq)]
pub struct Left {
    processes: usize,
    mounts: Vec<PathBuf>,
    cgroups: Vec<PathBuf>,
    bundles: Vec<PathBuf>,
    directories: Vec<PathBuf>,
    snapshots: Vec<String>,
    links: Vec<String>,
    addresses: Vec<PathBuf>,
    cached: Vec<PathBuf>,
    records: Vec<String>,
    leases: Vec<String>,
}

impl Left {
    /// Whether only the number of snapshots is another.
    pub fn same_but_for_snapshots(mut self, other: &Self) -> bool {
        self.snapshots.clone_from(&other.snapshots);
        self == *other
    }

    /// Whether as much is attached to the node's networks as in `other`.
    pub fn attached_as(&self, other: &Self) -> bool {
        (&self.links, &self.addresses, &self.cached) == (&other.links, &other.addresses, &other.cached)
    }

    /// Whether nothing is attached to the node's networks.
    pub fn unattached(&self) -> bool {
        self.links.is_empty() && self.addresses.is_empty() && self.cached.is_empty()
    }
}

impl Node {
    /// A node with a bridge; `config` is further configuration of the daemon.
    pub fn new(config: &str) -> Self {
        let host = Host(net::netns::fresh_path(Path::new("/run/netns")).unwrap());
        net::netns::create_at(&host.0).unwrap();
        net::netns::loopback_up(&host.0).unwrap();
        let netns = host.0.clone();
        let setup = |setup: testkit::daemon::Setup| {
            let (program, fault) = (setup.dir().join("inside"), setup.dir().join("fault"));
            let (daemon, netns) = (place::built("containerd"), netns.display());
            let script = format!("#!/bin/sh\nexec nsenter --net={netns} {} \"$@\"\n", daemon.display());
            fs::write(&program, script).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
            setup.program(program).env("BERTH_FAULT", &fault.display().to_string())
        };
        let config = format!(
            "[plugins.'io.containerd.cri.v1.runtime']\nnetns_mounts_under_state_dir = true\n{config}"
        );
        let kubelet = Kubelet::with_setup(&config, setup);
        let bin = kubelet.daemon.dir().join("bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy(place::built("berth-cni"), bin.join("berth-cni")).unwrap();
        for name in ["bridge", "host-local", "loopback", "portmap"] {
            symlink("berth-cni", bin.join(name)).unwrap();
        }
        let network = format!("net-{}", kubelet.daemon.namespace());
        let node = Self { kubelet, host, network };
        node.configure(&[]);
        node
    }

    /// Writes the network's configuration: a bridge, and behind it the plugins `then`. Waits until the daemon has it.
    pub fn configure(&self, then: &[&str]) {
        let dir = self.daemon.dir();
        let mut plugins = vec![format!(
            r#"{{"type":"bridge","bridge":"bf0","isGateway":true,"ipam":{{"type":"host-local","dataDir":"{}/ipam",
            "ranges":[[{{"subnet":"10.77.0.0/24"}}]],"routes":[{{"dst":"0.0.0.0/0"}}]}}}}"#,
            dir.display()
        )];
        plugins.extend(then.iter().map(|name| format!(r#"{{"type":"{name}"}}"#)));
        let (name, plugins) = (&self.network, plugins.join(","));
        let list = format!(r#"{{"cniVersion":"1.0.0","name":"{name}","plugins":[{plugins}]}}"#);
        fs::create_dir_all(dir.join("net.d")).unwrap();
        let draft = dir.join("draft");
        fs::write(&draft, list).unwrap();
        fs::rename(draft, dir.join("net.d/10-bridge.conflist")).unwrap();
        let last = format!("\"{}\"", then.last().unwrap_or(&"bridge"));
        wait::eventually(Duration::from_secs(20), "the network's configuration", || {
            let request = v1::StatusRequest { verbose: true };
            let status = call!(self, status, request).unwrap();
            status
                .info
                .values()
                .any(|text| text.contains(&last) || text.contains(&last.replace('"', "\\\"")))
                .then_some(())
        });
    }

    /// A program in the directory of CNI plugins.
    pub fn plugin(&self, name: &str, script: &str) {
        let path = self.daemon.dir().join("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A container `id` of somebody else's in the node's networks, as nerdctl makes them; answers its namespace, for the
    /// caller to remove.
    pub fn attach_stranger(&self, id: &str) -> PathBuf {
        self.attach_stranger_by(id, &self.daemon.dir().join("net.d"))
    }

    /// The same in the networks of `conf_dir`.
    pub fn attach_stranger_by(&self, id: &str, conf_dir: &Path) -> PathBuf {
        let netns = net::netns::create(&self.daemon.dir().join("strangers")).unwrap();
        let settings = net::cni::Settings {
            conf_dir: conf_dir.to_owned(),
            bin_dirs: vec![self.daemon.dir().join("bin")],
            ..net::cni::Settings::default()
        };
        let pod = net::cni::Pod { id: id.into(), netns: Some(netns.clone()), ..net::cni::Pod::default() };
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        let attach = || net::cni::Network::open(settings).setup(&pod, deadline).map(drop);
        let host = net::netns::open(&self.host.0).unwrap();
        net::netns::run(std::os::fd::AsFd::as_fd(&host), attach).unwrap().unwrap();
        netns
    }

    /// Writes the configuration of another network, of a handler, into `dir`; answers its name.
    pub fn configure_own(&self, dir: &Path) -> String {
        let name = format!("own-{}", self.daemon.namespace());
        let list = format!(
            r#"{{"cniVersion":"1.0.0","name":"{name}","plugins":[{{"type":"bridge","bridge":"bf1","ipam":
            {{"type":"host-local","dataDir":"{}/ipam","ranges":[[{{"subnet":"10.78.0.0/24"}}]]}}}}]}}"#,
            self.daemon.dir().display()
        );
        fs::write(dir.join("draft"), list).unwrap();
        fs::rename(dir.join("draft"), dir.join("10-own.conflist")).unwrap();
        name
    }

    /// Addresses that are taken in the network `name`.
    pub fn addresses(&self, name: &str) -> Vec<PathBuf> {
        let taken =
            |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("10."));
        children(&self.daemon.dir().join("ipam").join(name)).into_iter().filter(taken).collect()
    }

    /// Attachments to the network `name` that are remembered.
    pub fn cached(&self, name: &str) -> Vec<PathBuf> {
        let of_network = |path: &PathBuf| path.to_string_lossy().contains(name);
        children(Path::new("/var/lib/cni/results")).into_iter().filter(of_network).collect()
    }

    /// The configuration of a pod with a network of its own.
    pub fn networked(&self, name: &str) -> v1::PodSandboxConfig {
        let mut config = self.pod(name);
        config.linux.get_or_insert_default().security_context = None;
        config
    }

    /// Has `step` go wrong: `fail` or `die`.
    pub fn fault(&self, how: &str, step: &str) {
        fs::write(self.daemon.dir().join("fault"), format!("{how} {step}")).unwrap();
    }

    /// Has nothing go wrong any more.
    pub fn no_fault(&self) {
        fs::write(self.daemon.dir().join("fault"), "").unwrap();
    }

    /// What there is now of everything that a pod or container is made of.
    pub fn left(&self) -> Left {
        let dir = self.daemon.dir();
        let traces = self.daemon.traces();
        let own = self.daemon.namespace();
        let entries = |paths: &[&str]| {
            let mut all: Vec<_> = paths.iter().flat_map(|path| children(&dir.join(path))).collect();
            all.sort();
            all
        };
        let lines = |command: &str| {
            let text = self.daemon.ctr(&format!("-n k8s.io {command}")).ok();
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        Left {
            processes: traces.processes.len(),
            mounts: traces.mounts,
            cgroups: traces.cgroups.into_iter().filter(|path| !path.ends_with(own)).collect(),
            bundles: entries(&["state/io.containerd.runtime.v2.task/k8s.io", "state/s"]),
            directories: entries(&[
                "root/io.containerd.grpc.v1.cri/sandboxes",
                "state/io.containerd.grpc.v1.cri/sandboxes",
                "root/io.containerd.grpc.v1.cri/containers",
                "state/io.containerd.grpc.v1.cri/containers",
                "state/io.containerd.grpc.v1.cri/image-volumes",
                "state/netns",
            ]),
            snapshots: lines("snapshots ls"),
            links: self.links(),
            addresses: self.addresses(&self.network),
            cached: self.cached(&self.network),
            records: lines("container ls -q"),
            leases: lines("leases ls -q"),
        }
    }

    /// Waits until there is nothing but `before`: what a collector or init removes may take a moment.
    pub fn settles_at(&self, before: &Left, when: &str) {
        let settled = wait::within(Duration::from_secs(15), || {
            (self.left() == *before && self.stray_snapshots() == 0).then_some(())
        });
        if settled.is_none() {
            assert_eq!(self.left(), *before, "{when}");
            assert_eq!(self.stray_snapshots(), 0, "directories of snapshots without a record, {when}");
        }
    }

    /// Directories of snapshots that have no record.
    fn stray_snapshots(&self) -> usize {
        let recorded = self.daemon.ctr("-n k8s.io snapshots ls").ok().lines().count().saturating_sub(1);
        self.daemon.traces().snapshots.saturating_sub(recorded)
    }

    /// The host's ends of pods' links.
    fn links(&self) -> Vec<String> {
        let netns = format!("--net={}", self.host.0.display());
        let run = testkit::command::Run::new("nsenter").args([netns.as_str(), "cat", "/proc/net/dev"]).ok();
        let names =
            run.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned());
        names.filter(|name| name.starts_with("veth")).collect()
    }
}

impl Deref for Node {
    type Target = Kubelet;

    fn deref(&self) -> &Kubelet {
        &self.kubelet
    }
}

impl DerefMut for Node {
    fn deref_mut(&mut self) -> &mut Kubelet {
        &mut self.kubelet
    }
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}
