//! A pod's files: what its containers see as hostname, hosts, resolv.conf and /dev/shm.
//!
//! ```text
//! <root>/io.containerd.grpc.v1.cri/sandboxes/<id>/{hostname,hosts,resolv.conf}
//! <state>/io.containerd.grpc.v1.cri/sandboxes/<id>/shm      a tmpfs, unless the pod shares the host's IPC
//! ```

use std::path::PathBuf;

use crate::Cri;

/// Where a pod's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// What survives a reboot.
    pub root: PathBuf,
    /// What does not.
    pub state: PathBuf,
}

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
}

impl Cri {
    /// Where the files of the pod `id` are.
    pub(crate) fn pod_files(&self, id: &str) -> Files {
        Files {
            root: self.root_dir().join("sandboxes").join(id),
            state: self.state_dir().join("sandboxes").join(id),
        }
    }
}
