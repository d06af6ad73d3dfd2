//! A node in small: a daemon in a network of its own, its pods' network, and a kubelet.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use testkit::command::Run;
use testkit::daemon::{Daemon, Setup};
use testkit::image::{self, Build, Layer};
use testkit::tar::Archive;
use testkit::{place, wait};
use tokio::runtime::Runtime;

use super::STANDARD;
use super::kubelet::Kubelet;
use crate::bench::{IMAGE, state_in_memory};

/// The image of Debian's sandboxes: the program that ours run without an image.
const PAUSE: &str = "example.com/pause:bench";

/// Where libcni remembers attachments, whoever's they are.
const RESULTS: &str = "/var/lib/cni/results";

/// Configuration of both. Pods' networks go with the daemon's directory; and root may lack CAP_SYS_RESOURCE, as in some
/// virtual machines, without which Debian's runc starts no process that is to be killed later than the daemon.
const COMMON: &str = "  netns_mounts_under_state_dir = true\n  restrict_oom_score_adj = true\n";

/// Debian's daemon may take so long to start: it waits five seconds for each shim that does not answer.
const PATIENCE: Duration = Duration::from_secs(300);

/// A daemon, its network, and its kubelet.
pub struct Node {
    /// The daemon.
    pub daemon: Daemon,
    /// Its kubelet.
    pub kubelet: Kubelet,
    runtime: Rc<Runtime>,
}

impl Node {
    /// Ours, with the plugins as `make install` puts them there, which it calls without starting a program.
    pub fn ours(runtime: &Rc<Runtime>, programs: &Path) -> anyhow::Result<Self> {
        let setup = Daemon::ours();
        let bin = setup.dir().join("bin");
        Run::new(programs.join("berth-cni")).args([Path::new("install"), &bin]).ok();
        Self::of_ours(runtime, programs, setup, &bin)
    }

    /// Ours, with the standard plugins.
    pub fn ours_with_standard_plugins(runtime: &Rc<Runtime>, programs: &Path) -> anyhow::Result<Self> {
        Self::of_ours(runtime, programs, Daemon::ours(), Path::new(STANDARD))
    }

    fn of_ours(runtime: &Rc<Runtime>, programs: &Path, setup: Setup, plugins: &Path) -> anyhow::Result<Self> {
        let (dir, plugins) = (setup.dir().display().to_string(), plugins.display());
        let setup = setup.config(&format!(
            "[plugins.'io.containerd.cri.v1.runtime']\n{COMMON}\
             [plugins.'io.containerd.cri.v1.runtime'.cni]\n  conf_dir = '{dir}/net.d'\n  bin_dirs = ['{plugins}']"
        ));
        Self::start(runtime, setup, &programs.join("containerd"), &programs.join("ctr"), &[])
    }

    /// Debian's, with the standard plugins; its sandboxes run our pause.
    pub fn theirs(runtime: &Rc<Runtime>, programs: &Path) -> anyhow::Result<Self> {
        let setup = Daemon::debian().with_cri().patience(PATIENCE);
        let dir = setup.dir().display().to_string();
        let setup = setup.config(&format!(
            "[plugins.'io.containerd.grpc.v1.cri']\n  sandbox_image = '{PAUSE}'\n{COMMON}\
             [plugins.'io.containerd.grpc.v1.cri'.cni]\n  conf_dir = '{dir}/net.d'\n  bin_dir = '{STANDARD}'"
        ));
        let pause = fs::read(programs.join("containerd-pause")).context("read containerd-pause")?;
        let layer = Layer::gzip(Archive::new().file("pause", 0o755, &pause).finish());
        let pause = Build::new().layer(layer).entrypoint(&["/pause"]).build();
        let (daemon, ctr) = (place::debian("containerd"), place::debian("ctr"));
        Self::start(runtime, setup, &daemon, &ctr, &[(PAUSE, pause)])
    }

    fn start(
        runtime: &Rc<Runtime>,
        setup: Setup,
        program: &Path,
        ctr: &Path,
        images: &[(&str, image::Image)],
    ) -> anyhow::Result<Self> {
        state_in_memory(&setup);
        configure_network(setup.dir())?;
        let inside = enter_network(setup.dir(), program)?;
        let daemon = setup.program(inside).start();
        let archive = daemon.dir().join("image.tar");
        let busybox = (IMAGE, image::busybox());
        for (name, image) in images.iter().chain([&busybox]) {
            fs::write(&archive, image.archive(name))?;
            daemon.client(ctr).line("-n k8s.io image import").args([&archive]).ok();
        }
        let kubelet = runtime.block_on(Kubelet::connect(&daemon))?;
        let node = Self { daemon, kubelet, runtime: Rc::clone(runtime) };
        // CRI hears of an import by an event.
        let ready = || node.block(node.kubelet.is_ready()).then_some(());
        wait::eventually(Duration::from_secs(30), "network and image", ready);
        Ok(node)
    }

    /// Runs `work` to its end.
    pub fn block<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // What pods that could not be removed have left; the rest is below the daemon's directory.
        let dir = self.daemon.dir().display().to_string();
        for entry in fs::read_dir(RESULTS).into_iter().flatten().flatten() {
            if fs::read_to_string(entry.path()).is_ok_and(|text| text.contains(&dir)) {
                let _gone = fs::remove_file(entry.path());
            }
        }
    }
}

/// The name of the pods' network of the daemon with the private directory `dir`.
fn network_name(dir: &Path) -> String {
    dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The network that containerd's own documentation begins with: a bridge, addresses of the host's, mapped ports.
fn configure_network(dir: &Path) -> anyhow::Result<()> {
    let (name, leases) = (network_name(dir), dir.join("leases").display().to_string());
    let list = serde_json::json!({
        "cniVersion": "1.0.0",
        "name": name,
        "plugins": [
            {
                "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "promiscMode": true,
                "ipam": {
                    "type": "host-local", "dataDir": leases,
                    "ranges": [[{ "subnet": "10.88.0.0/16" }]], "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    });
    fs::create_dir_all(dir.join("net.d"))?;
    fs::write(dir.join("net.d/10-containerd-net.conflist"), list.to_string())?;
    Ok(())
}

/// Makes a network namespace, kept below `dir`, and a program that runs `program` in it.
fn enter_network(dir: &Path, program: &Path) -> anyhow::Result<PathBuf> {
    let netns = dir.join("host-network");
    fs::File::create(&netns)?;
    Run::new("unshare").args([format!("--net={}", netns.display())]).line("busybox ip link set lo up").ok();
    let inside = dir.join("inside");
    let script = format!("#!/bin/sh\nexec nsenter --net={} {} \"$@\"\n", netns.display(), program.display());
    fs::write(&inside, script)?;
    fs::set_permissions(&inside, fs::Permissions::from_mode(0o755))?;
    Ok(inside)
}
