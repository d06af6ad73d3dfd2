//! The bundle: a task's directory in the state directory, and its work directory in the root.
//!
//! ```text
//! <state>/io.containerd.runtime.v2.task/<namespace>/        0711
//!     <id>/                                                 0700; 0710 of the container's root group in a user namespace
//!         config.json  rootfs/  work -> <root>/...  log (fifo)  shim-binary-path  bootstrap.json
//!     .<id>/                                                a bundle on its way out
//! ```
//!
//! Invariant: a bundle is removed by a walk that never crosses a mount: what cannot be unmounted stays.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use spec::{ContainerId, HasKind, Kind, Namespace};

use crate::Config;
use crate::bootstrap::Endpoint;

/// The directory of all bundles, below state and root.
pub const TASKS: &str = "io.containerd.runtime.v2.task";

/// A bundle's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// The namespace it belongs to.
    pub namespace: Namespace,
    /// The container it is of.
    pub id: ContainerId,
    /// Its directory.
    pub path: PathBuf,
    /// Its persistent directory.
    pub work: PathBuf,
}

/// What failed on a bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A step on one of its files.
    #[error("cannot {step} {}", path.display())]
    File {
        /// The step.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its root file system cannot be unmounted, or its tree not be removed.
    #[error("cannot remove bundle {}", path.display())]
    Remove {
        /// The bundle.
        path: PathBuf,
        /// What the system said.
        source: sys::Error,
    },
    /// The spec is no JSON document with a spec's shape.
    #[error("invalid spec: {0}: invalid argument")]
    Spec(String),
}

impl HasKind for BundleError {
    fn kind(&self) -> Kind {
        match self {
            Self::File { source, .. } => Kind::from_errno(source.raw_os_error().unwrap_or(0)),
            Self::Remove { source, .. } => Kind::from_errno(source.errno()),
            Self::Spec(_) => Kind::InvalidArgument,
        }
    }
}

/// Names the step and the file of an I/O error.
fn at(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BundleError {
    let path = path.to_owned();
    move |source| BundleError::File { step, path, source }
}

impl Bundle {
    /// The bundle of a container; nothing is made.
    pub fn new(config: &Config, namespace: &Namespace, id: &ContainerId) -> Self {
        let below = |dir: &Path| dir.join(TASKS).join(namespace.as_str()).join(id.as_str());
        Self {
            namespace: namespace.clone(),
            id: id.clone(),
            path: below(&config.state),
            work: below(&config.root),
        }
    }

    /// Makes the bundle with `spec` as its `config.json`.
    ///
    /// # Errors
    /// A step failed; nothing is left.
    pub fn create(&self, spec: &[u8]) -> Result<(), BundleError> {
        let group = root_group(spec)?;
        for parent in [&self.path, &self.work].into_iter().filter_map(|dir| dir.parent()) {
            DirBuilder::new().recursive(true).mode(0o711).create(parent).map_err(at("make", parent))?;
        }
        DirBuilder::new().mode(0o700).create(&self.path).map_err(at("make", &self.path))?;
        self.fill(spec, group).inspect_err(|_| {
            // Nothing is mounted yet, so this takes back all of it; the first error is the one to tell.
            let _ = self.remove();
        })
    }

    fn fill(&self, spec: &[u8], group: u32) -> Result<(), BundleError> {
        if group != 0 {
            std::os::unix::fs::chown(&self.path, None, Some(group)).map_err(at("chown", &self.path))?;
            let mode = fs::Permissions::from_mode(0o710);
            fs::set_permissions(&self.path, mode).map_err(at("chmod", &self.path))?;
        }
        let rootfs = self.rootfs();
        DirBuilder::new().mode(0o711).create(&rootfs).map_err(at("make", &rootfs))?;
        remove_tree(&self.work)?; // left by a daemon that was killed
        DirBuilder::new().mode(0o711).create(&self.work).map_err(at("make", &self.work))?;
        std::os::unix::fs::symlink(&self.work, self.path.join("work")).map_err(at("link", &self.work))?;
        self.write("config.json", spec)
    }

    /// Where the root file system is mounted.
    pub fn rootfs(&self) -> PathBuf {
        self.path.join("rootfs")
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), BundleError> {
        let path = self.path.join(name);
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
        file.and_then(|mut file| io::Write::write_all(&mut file, bytes)).map_err(at("write", &path))
    }

    /// Remembers the shim's program, for the next daemon.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn record_program(&self, program: &Path) -> Result<(), BundleError> {
        self.write("shim-binary-path", program.as_os_str().as_encoded_bytes())
    }

    /// Remembers how to reach the shim, for the next daemon.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn record_endpoint(&self, endpoint: &Endpoint) -> Result<(), BundleError> {
        // Three plain fields always encode.
        self.write("bootstrap.json", &serde_json::to_vec(endpoint).unwrap_or_default())
    }

    /// How to reach the shim, as an earlier daemon (or the shim itself) recorded it.
    pub fn endpoint(&self) -> Option<Endpoint> {
        let read = |name| fs::read(self.path.join(name)).ok().and_then(|bytes| Endpoint::parse(&bytes).ok());
        read("bootstrap.json").or_else(|| read("address"))
    }

    /// The shim's program, as an earlier daemon recorded it.
    pub fn program(&self) -> Option<PathBuf> {
        let text = fs::read_to_string(self.path.join("shim-binary-path")).ok()?;
        Some(PathBuf::from(text.trim())).filter(|path| path.is_absolute())
    }

    /// Unmounts what is left of the root file system and removes both directories.
    ///
    /// # Errors
    /// Something cannot be unmounted or removed; it stays, hidden if possible.
    pub fn remove(&self) -> Result<(), BundleError> {
        let rootfs = self.rootfs();
        match fs::remove_dir(&rootfs) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => {
                let removal = |source| BundleError::Remove { path: self.path.clone(), source };
                // What a runtime made in it without a mount goes with the bundle.
                sys::mount::unmount_all(&rootfs).map_err(removal)?;
            }
        }
        let bundle = remove_tree(&self.path);
        remove_tree(&self.work).and(bundle)
    }
}

/// Hides a directory under its name with a dot before it, then removes it. One that is not there is fine.
pub fn remove_tree(path: &Path) -> Result<(), BundleError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    let target = parent.join(&hidden);
    let renamed = match fs::rename(path, &target) {
        // An earlier removal did not get through: finish it first.
        Err(error) if error.raw_os_error().is_some_and(|errno| errno == 39 || errno == 17) => {
            remove_hidden(parent, &hidden)?;
            fs::rename(path, &target)
        }
        other => other,
    };
    match renamed {
        Ok(()) => remove_hidden(parent, &hidden),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(at("rename", path)(error)),
    }
}

/// Removes the tree `name` below `parent` without crossing a mount.
pub fn remove_hidden(parent: &Path, name: &std::ffi::OsStr) -> Result<(), BundleError> {
    let dir = fs::File::open(parent).map_err(at("open", parent))?;
    sys::path::remove_tree(dir.as_fd(), name)
        .map_err(|source| BundleError::Remove { path: parent.join(name), source })
}

/// What of a spec decides who may enter the bundle.
#[derive(Deserialize)]
struct Spec {
    linux: Option<Linux>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    #[serde(default)]
    gid_mappings: Option<Vec<Mapping>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    #[serde(rename = "containerID", default)]
    container: u32,
    #[serde(rename = "hostID", default)]
    host: u32,
    #[serde(default)]
    size: u32,
}

/// The host's group that is the container's group 0, which must be able to reach the root file system.
fn root_group(spec: &[u8]) -> Result<u32, BundleError> {
    let spec: Spec = spec::json::from_slice(spec).map_err(|error| BundleError::Spec(error.to_string()))?;
    let mappings = spec.linux.and_then(|linux| linux.gid_mappings).unwrap_or_default();
    let root = mappings.iter().find(|mapping| mapping.container == 0 && mapping.size > 0);
    Ok(root.map_or(0, |mapping| mapping.host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(dir: &Path) -> Bundle {
        let config = Config {
            root: dir.join("root"),
            state: dir.join("state"),
            socket_dir: dir.join("s"),
            grpc_address: String::new(),
            ttrpc_address: String::new(),
            program: PathBuf::new(),
            debug: false,
            env: Vec::new(),
            deadlines: crate::Deadlines::default(),
        };
        Bundle::new(&config, &"ns".parse().unwrap(), &"a".parse().unwrap())
    }

    #[test]
    fn a_bundle_comes_whole_and_goes_whole() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = bundle(dir.path());
        bundle.create(b"{}").unwrap();
        assert_eq!(fs::read(bundle.path.join("config.json")).unwrap(), b"{}");
        assert_eq!(fs::read_link(bundle.path.join("work")).unwrap(), bundle.work);
        assert!(matches!(bundle.create(b"{}"), Err(BundleError::File { .. })));
        let endpoint = Endpoint::parse(b"unix:///x").unwrap();
        bundle.record_program(Path::new("/bin/shim")).unwrap();
        bundle.record_endpoint(&endpoint).unwrap();
        assert_eq!((bundle.endpoint(), bundle.program()), (Some(endpoint), Some("/bin/shim".into())));
        bundle.remove().unwrap();
        bundle.remove().unwrap();
        assert_eq!(fs::read_dir(bundle.path.parent().unwrap()).unwrap().count(), 0);
        assert_eq!(fs::read_dir(bundle.work.parent().unwrap()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_runtime_made_in_the_root_goes_too() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = bundle(dir.path());
        bundle.create(b"{}").unwrap();
        fs::create_dir(bundle.rootfs().join("proc")).unwrap();
        bundle.remove().unwrap();
        assert!(!bundle.path.exists());
    }

    #[test]
    fn a_spec_that_is_none_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = bundle(dir.path());
        assert_eq!(bundle.create(b"nonsense").unwrap_err().kind(), Kind::InvalidArgument);
        assert!(!bundle.path.exists());
    }

    #[test]
    fn the_group_of_a_user_namespace_may_enter() {
        let spec = br#"{"linux":{"gidMappings":[{"containerID":0,"hostID":1000,"size":10}]}}"#;
        assert_eq!(root_group(spec).unwrap(), 1000);
        assert_eq!(root_group(b"{\"linux\":{}}").unwrap(), 0);
    }
}
