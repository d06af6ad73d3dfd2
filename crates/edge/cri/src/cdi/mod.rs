//! Devices of the Container Device Interface: what a vendor's files say must be in a container for a device to work.
//!
//! ```text
//! /etc/cdi, /var/run/cdi ─► yaml, file (parsed, validated) ─► catalog (by qualified name) ─► Edits ─► apply: a spec
//! request: cdi_devices, cdi.k8s.io/* ─► name ───────────────────┘
//! ```
//!
//! Files are read when a container asks for a device, so that what a vendor's generator wrote last is what counts.
//!
//! Invariant: a file that is not valid, too large or of an unknown version gives no device at all, and takes no other
//! file's away; a device that two files of the same directory define is none.
//! Invariant: a container is made with everything that its devices ask for, or not at all.

mod apply;
mod catalog;
mod file;
mod name;
mod number;
mod yaml;

use model::{Lane, Result};

use crate::Cri;

pub use apply::apply;
pub use catalog::find;
pub use file::Edits;
pub use name::requested;

impl Cri {
    /// What a container with `devices` gets, where a plugin and not the kubelet asks for them.
    ///
    /// # Errors
    /// As of [`find`]; CDI is switched off.
    pub(crate) async fn cdi_edits(&self, devices: impl Iterator<Item = String>) -> Result<Edits> {
        let names: Vec<String> = devices.collect();
        if names.is_empty() {
            return Ok(Edits::default());
        }
        if !self.config.runtime.enable_cdi {
            return Err(::spec::Error::failed_precondition("CDI support is explicitly disabled"));
        }
        let dirs = self.config.runtime.cdi_spec_dirs.clone();
        self.ctx().blocking(Lane::Disk, move |_| find(&dirs, &names)).await
    }
}
