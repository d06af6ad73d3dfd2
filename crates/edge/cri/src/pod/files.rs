//! A pod's files: what its containers see as hostname, hosts, resolv.conf and /dev/shm.
//!
//! ```text
//! <root>/io.containerd.grpc.v1.cri/sandboxes/<id>/{hostname,hosts,resolv.conf}
//! <state>/io.containerd.grpc.v1.cri/sandboxes/<id>/shm      a tmpfs, unless the pod shares the host's IPC
//! <state>/io.containerd.grpc.v1.cri/sandboxes/<id>/userns   its user namespace, when it has one
//! <state>/io.containerd.grpc.v1.cri/pause/rootfs/pause       the built-in pause, once for all pods
//! ```

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use ::spec::Error;
use api::runtime::v1;
use model::Result;

use crate::Cri;
use crate::container::remove_dir;

/// Where a pod's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// What survives a reboot.
    pub root: PathBuf,
    /// What does not.
    pub state: PathBuf,
}

/// The longest of the host's files that a pod gets a copy of, in bytes.
const MAX_COPY: u64 = 1 << 20;

/// The most searches and options that a resolv.conf may have, as containerd bounds them.
const MAX_DNS: usize = 256;

impl Files {
    /// Its `/etc/hostname`.
    pub fn hostname(&self) -> PathBuf {
        self.root.join("hostname")
    }

    /// Its `/etc/hosts`.
    pub fn hosts(&self) -> PathBuf {
        self.root.join("hosts")
    }

    /// Its `/etc/resolv.conf`.
    pub fn resolv_conf(&self) -> PathBuf {
        self.root.join("resolv.conf")
    }

    /// Its `/dev/shm`; the host's own is `/dev/shm` for a pod in the host's IPC namespace.
    pub fn shm(&self) -> PathBuf {
        self.state.join("shm")
    }

    /// Where the user namespace of a pod that has one is kept.
    pub fn userns(&self) -> PathBuf {
        self.state.join("userns")
    }

    /// Makes all of them.
    ///
    /// # Errors
    /// What the disk said; `InvalidArgument` for a resolver's word that would be another line.
    pub fn make(&self, config: &v1::PodSandboxConfig) -> Result<()> {
        let resolv_conf = match &config.dns_config {
            Some(dns) if !dns.servers.is_empty() || !dns.searches.is_empty() || !dns.options.is_empty() => {
                resolver(dns)?.into_bytes()
            }
            _ => copy_of("/etc/resolv.conf")?,
        };
        make_dir(&self.root, 0o755)?;
        make_dir(&self.state, 0o755)?;
        let hostname = if config.hostname.is_empty() { host_name() } else { config.hostname.clone() };
        write(&self.hostname(), format!("{hostname}\n").as_bytes())?;
        write(&self.hosts(), &copy_of("/etc/hosts")?)?;
        write(&self.resolv_conf(), &resolv_conf)?;
        let ipc = crate::state::namespaces(config).ipc;
        if ipc != v1::NamespaceMode::Node as i32 {
            self.mount_shm()?;
        }
        Ok(())
    }

    fn mount_shm(&self) -> Result<()> {
        let shm = self.shm();
        make_dir(&shm, 0o700)?;
        let options = ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"];
        sys::mount::fstab::mount("tmpfs", OsStr::new("shm"), &options, &shm)
            .map_err(|error| Error::internal(format!("failed to mount sandbox shm: {error}")))
    }

    /// Unmounts what is mounted. May be repeated.
    ///
    /// # Errors
    /// The mount does not go.
    pub fn unmount(&self) -> Result<()> {
        net::netns::remove(&self.userns()).map_err(Error::from)?;
        let shm = self.shm();
        if !shm.exists() {
            return Ok(());
        }
        sys::mount::unmount_all(&shm)
            .map_err(|error| Error::internal(format!("failed to unmount sandbox shm: {error}")))
    }

    /// Removes all of them. May be repeated.
    ///
    /// # Errors
    /// What the disk said.
    pub fn remove(&self) -> Result<()> {
        self.unmount()?;
        // What is mounted there is not the pod's to remove.
        [&self.state, &self.root].into_iter().try_for_each(|dir| remove_dir(dir))
    }
}

impl Cri {
    /// Has new pods run this version's pause program. A failure costs no pod: the old one does as well.
    pub(crate) async fn renew_pause(&self) {
        let (rootfs, program) = (self.pause_rootfs(), self.config.pause_program.clone());
        let renewed =
            self.ctx().blocking(model::Lane::Disk, move |_| renew_pause_rootfs(&rootfs, &program)).await;
        if let Err(error) = renewed {
            tracing::warn!(%error, "the pause program of an earlier version stays");
        }
    }

    /// Where the files of the pod `id` are.
    pub(crate) fn pod_files(&self, id: &str) -> Files {
        Files {
            root: self.root_dir().join("sandboxes").join(id),
            state: self.state_dir().join("sandboxes").join(id),
        }
    }

    /// The root file system of pods without a pause image: one read-only directory for all of them.
    pub(crate) fn pause_rootfs(&self) -> PathBuf {
        self.state_dir().join("pause").join("rootfs")
    }
}

/// Makes the root file system of pods without a pause image, unless it is there.
///
/// # Errors
/// There is no such program, or it cannot be copied.
pub fn make_pause_rootfs(rootfs: &Path, program: &Path) -> Result<()> {
    let pause = rootfs.join("pause");
    if pause.exists() {
        return Ok(());
    }
    place_pause(rootfs, program)
}

/// Replaces the pause program of an earlier version by `program`; pods that run the old one keep it.
///
/// # Errors
/// It cannot be copied.
pub fn renew_pause_rootfs(rootfs: &Path, program: &Path) -> Result<()> {
    let (Ok(old), Ok(new)) = (fs::read(rootfs.join("pause")), fs::read(program)) else { return Ok(()) };
    if old == new {
        return Ok(());
    }
    place_pause(rootfs, program)
}

fn place_pause(rootfs: &Path, program: &Path) -> Result<()> {
    let pause = rootfs.join("pause");
    for dir in ["", "proc", "dev", "sys", "etc"] {
        make_dir(&rootfs.join(dir), 0o755)?;
    }
    write(&rootfs.join("etc/resolv.conf"), b"")?;
    let draft = rootfs.join(format!(".pause-{}", crate::container::new_id()?));
    fs::copy(program, &draft).map_err(|error| failed("copy the pause program", program, &error))?;
    let placed = fs::set_permissions(&draft, fs::Permissions::from_mode(0o555))
        .and_then(|()| fs::rename(&draft, &pause));
    placed.map_err(|error| failed("place", &pause, &error))
}

fn make_dir(dir: &Path, mode: u32) -> Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(mode).create(dir);
    made.map_err(|error| failed("make", dir, &error))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let written =
        fs::write(path, bytes).and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o644)));
    written.map_err(|error| failed("write", path, &error))
}

/// A copy of a file of the host; empty when it has none.
fn copy_of(path: &str) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    match fs::File::open(path) {
        Ok(file) => {
            file.take(MAX_COPY)
                .read_to_end(&mut bytes)
                .map_err(|error| failed("read", Path::new(path), &error))?;
            Ok(bytes)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(bytes),
        Err(error) => Err(failed("read", Path::new(path), &error)),
    }
}

fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::internal(format!("cannot {what} {}: {error}", path.display()))
}

/// The resolver's configuration for a pod.
fn resolver(dns: &v1::DnsConfig) -> Result<String> {
    if dns.searches.len() > MAX_DNS || dns.options.len() > MAX_DNS || dns.servers.len() > MAX_DNS {
        return Err(Error::invalid("DNSOption.Searches has more than 256 domains"));
    }
    let words = dns.searches.iter().chain(&dns.servers).chain(&dns.options);
    if let Some(word) = words.into_iter().find(|word| word.contains(|c: char| c.is_control())) {
        return Err(Error::invalid(format!("DNS configuration {word:?} holds a control character")));
    }
    let mut text = String::new();
    if !dns.searches.is_empty() {
        let _infallible = writeln!(text, "search {}", dns.searches.join(" "));
    }
    for server in &dns.servers {
        let _infallible = writeln!(text, "nameserver {server}");
    }
    if !dns.options.is_empty() {
        let _infallible = writeln!(text, "options {}", dns.options.join(" "));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_is_told_what_the_kubelet_says_and_no_line_more() {
        let mut dns = v1::DnsConfig {
            servers: vec!["10.0.0.10".into(), "fd00::a".into()],
            searches: vec!["ns.svc".into(), "svc".into()],
            options: vec!["ndots:5".into()],
        };
        let text = "search ns.svc svc\nnameserver 10.0.0.10\nnameserver fd00::a\noptions ndots:5\n";
        assert_eq!(resolver(&dns).unwrap(), text);
        dns.options.push("x\nnameserver 6.6.6.6".into());
        assert!(resolver(&dns).is_err());
    }

    #[test]
    fn pods_get_the_pause_program_of_this_version_once_it_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let (rootfs, program) = (dir.path().join("rootfs"), dir.path().join("program"));
        let pause = rootfs.join("pause");
        fs::write(&program, "first").unwrap();
        renew_pause_rootfs(&rootfs, &program).unwrap();
        assert!(!rootfs.exists(), "made when a pod needs it");
        make_pause_rootfs(&rootfs, &program).unwrap();
        let old = fs::File::open(&pause).unwrap();
        fs::write(&program, "second").unwrap();
        make_pause_rootfs(&rootfs, &program).unwrap();
        assert_eq!(fs::read(&pause).unwrap(), b"first");
        renew_pause_rootfs(&rootfs, &program).unwrap();
        assert_eq!(fs::read(&pause).unwrap(), b"second");
        assert_eq!(fs::metadata(&pause).unwrap().permissions().mode() & 0o777, 0o555);
        // Whoever runs the old one still has it.
        assert_eq!(std::io::read_to_string(old).unwrap(), "first");
        fs::remove_file(&program).unwrap();
        renew_pause_rootfs(&rootfs, &program).unwrap();
        assert_eq!(fs::read(&pause).unwrap(), b"second");
    }
}
