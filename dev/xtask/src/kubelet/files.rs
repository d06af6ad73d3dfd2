//! What is written for daemon, network, kubelet and pod.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::json;
use testkit::command::Run;
use testkit::daemon::Daemon;

/// The kernel's cgroup hierarchies.
const CGROUP: &str = "/sys/fs/cgroup";

/// Further lines of the daemon's config.toml.
pub fn daemon(dir: &Path, certs: &Path) -> String {
    let (dir, certs) = (dir.display(), certs.display());
    format!(
        "[plugins.'io.containerd.cri.v1.images'.registry]\n  config_path = '{certs}'\n\
         [plugins.'io.containerd.cri.v1.runtime']\n  netns_mounts_under_state_dir = true\n\
         [plugins.'io.containerd.cri.v1.runtime'.cni]\n  conf_dir = '{dir}/net.d'\n  bin_dirs = ['{dir}/bin']\n"
    )
}

/// The pods' network: a bridge.
pub fn network(dir: &Path) -> anyhow::Result<()> {
    let ipam = json!({
        "type": "host-local", "ranges": [[{ "subnet": "10.88.0.0/24" }]], "routes": [{ "dst": "0.0.0.0/0" }],
    });
    let bridge = json!({ "type": "bridge", "bridge": "cni0", "isGateway": true, "ipam": ipam });
    let list = json!({ "cniVersion": "1.0.0", "name": "pods", "plugins": [bridge] });
    let dir = dir.join("net.d");
    fs::create_dir(&dir).context("make the networks' directory")?;
    fs::write(dir.join("10-pods.conflist"), list.to_string()).context("write the pods' network")
}

/// A static pod and the kubelet that is to run it.
pub struct Pod {
    /// The kubelet's configuration.
    pub config: PathBuf,
    /// Where the manifest goes.
    pub manifest: PathBuf,
    /// The manifest.
    pub text: String,
    dir: PathBuf,
}

impl Pod {
    /// Writes everything but the manifest, and makes the cgroup that all of the kubelet's are below.
    pub fn new(daemon: &Daemon, image: &str) -> anyhow::Result<Self> {
        let dir = daemon.dir().join("kubelet");
        let pod = Self {
            config: dir.join("config.yaml"),
            manifest: dir.join("manifests/clock.yaml"),
            text: manifest(image),
            dir,
        };
        make_cgroup(daemon.namespace())?;
        fs::create_dir_all(pod.dir.join("manifests"))?;
        fs::write(pod.dir.join("resolv.conf"), "nameserver 127.0.0.1\n")?;
        fs::write(&pod.config, config(daemon, &pod.dir))?;
        Ok(pod)
    }

    /// Gives the manifest to the kubelet, which looks at whole files only: so it appears whole.
    pub fn write(&self) -> anyhow::Result<()> {
        let draft = self.dir.join("draft");
        fs::write(&draft, &self.text)?;
        fs::rename(draft, &self.manifest).context("write the manifest")
    }

    /// The kubelet's command line.
    pub fn arguments(&self) -> Vec<String> {
        let dir = self.dir.display();
        vec![
            format!("--config={dir}/config.yaml"),
            format!("--root-dir={dir}/root"),
            format!("--cert-dir={dir}/pki"),
            "--hostname-override=node".into(),
        ]
    }

    /// Undoes what the kubelet does not: it mounts its directory on itself and leaves it so.
    pub fn unmount(&self) {
        Run::new("umount").args([self.dir.join("root")]).ok();
    }

    /// The log of the container `name` and where it is, once there is any.
    pub fn log(&self, name: &str) -> Option<String> {
        let pods = fs::read_dir(self.dir.join("logs")).ok()?;
        let logs = pods.flatten().map(|pod| pod.path().join(name).join("0.log"));
        let (path, text) =
            logs.filter_map(|path| Some((path.clone(), fs::read_to_string(path).ok()?))).next()?;
        (!text.is_empty()).then(|| format!("$ cat {}\n{}", path.display(), text.trim_end()))
    }

    /// The id of the pod's container `name`.
    pub fn container(&self, daemon: &Daemon, name: &str) -> anyhow::Result<String> {
        let filter = format!("labels.\"io.kubernetes.container.name\"=={name}");
        let list = daemon.ctr("-n k8s.io container ls -q").args([filter]).ok();
        let mut ids = list.lines();
        match (ids.next(), ids.next()) {
            (Some(id), None) => Ok(id.to_owned()),
            _ => bail!("not one container {name}: {list:?}"),
        }
    }
}

/// The kubelet's configuration. The disk is the machine's, whose fullness is none of this pod's business.
fn config(daemon: &Daemon, dir: &Path) -> String {
    let (socket, cgroup, dir) = (daemon.socket(), daemon.namespace(), dir.display());
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1\n\
         kind: KubeletConfiguration\n\
         containerRuntimeEndpoint: unix://{}\n\
         cgroupDriver: cgroupfs\n\
         cgroupRoot: /{cgroup}\n\
         failCgroupV1: false\n\
         failSwapOn: false\n\
         staticPodPath: {dir}/manifests\n\
         fileCheckFrequency: 1s\n\
         syncFrequency: 5s\n\
         podLogsDir: {dir}/logs\n\
         volumePluginDir: {dir}/volumes\n\
         resolvConf: {dir}/resolv.conf\n\
         address: 127.0.0.1\n\
         readOnlyPort: 10255\n\
         authentication: {{anonymous: {{enabled: true}}, webhook: {{enabled: false}}}}\n\
         authorization: {{mode: AlwaysAllow}}\n\
         evictionHard: {{nodefs.available: 0%, imagefs.available: 0%}}\n",
        socket.display()
    )
}

/// Two containers: one that serves and is asked over HTTP, one that prints and is asked by a command.
fn manifest(image: &str) -> String {
    format!(
        "apiVersion: v1\n\
         kind: Pod\n\
         metadata: {{name: clock, namespace: default}}\n\
         spec:\n\
         \x20 terminationGracePeriodSeconds: 1\n\
         \x20 containers:\n\
         \x20 - name: web\n\
         \x20   image: {image}\n\
         \x20   command: [httpd, -f, -p, '8080', -h, /etc]\n\
         \x20   readinessProbe: {{httpGet: {{path: /release-of, port: 8080}}, periodSeconds: 1}}\n\
         \x20   resources: {{limits: {{memory: 32Mi, cpu: 500m}}}}\n\
         \x20 - name: clock\n\
         \x20   image: {image}\n\
         \x20   command: [sh, -c, while date; do sleep 1; done]\n\
         \x20   readinessProbe: {{exec: {{command: ['true']}}, periodSeconds: 1}}\n"
    )
}

/// Makes the cgroup `name` in every hierarchy, with every controller that there is.
fn make_cgroup(name: &str) -> anyhow::Result<()> {
    let root = Path::new(CGROUP);
    let pure = root.join("cgroup.controllers");
    if pure.is_file() {
        for controller in fs::read_to_string(&pure)?.split_whitespace() {
            // The kubelet says which of them it misses.
            let _refused = fs::write(root.join("cgroup.subtree_control"), format!("+{controller}"));
        }
        return fs::create_dir(root.join(name)).context("make the pods' cgroup");
    }
    for hierarchy in fs::read_dir(root)?.flatten() {
        // cpu and the like may be links to the hierarchy that several controllers share.
        if hierarchy.file_type()?.is_dir() {
            fs::create_dir(hierarchy.path().join(name)).context("make the pods' cgroup")?;
        }
    }
    Ok(())
}
