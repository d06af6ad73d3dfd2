//! Devices of the Container Device Interface in requests: where a request names them. What they are is
//! [`node::cdi`]'s.

use ::spec::Error;
use api::runtime::v1;
use model::{Lane, Result};
use node::cdi::is_qualified;
pub use node::cdi::{Edits, apply, find};

use crate::Cri;

/// What an annotation that names devices begins with.
const ANNOTATION: &str = "cdi.k8s.io/";

/// The most devices that a container may ask for.
const MAX_DEVICES: usize = 4096;

/// The devices that a request asks for, each once: by its field first, then by its annotations.
///
/// # Errors
/// An annotation holds what is no qualified name; there are too many.
pub fn requested(config: &v1::ContainerConfig) -> Result<Vec<String>> {
    let mut all: Vec<String> = Vec::new();
    let mut add = |name: &str| {
        if !all.iter().any(|one| one == name) {
            all.push(name.to_owned());
        }
        if all.len() > MAX_DEVICES { Err(Error::invalid("too many CDI devices")) } else { Ok(()) }
    };
    config.cdi_devices.iter().try_for_each(|device| add(&device.name))?;
    for (_, value) in config.annotations.iter().filter(|(key, _)| key.starts_with(ANNOTATION)) {
        for name in value.split(',') {
            if !is_qualified(name) {
                return Err(Error::invalid(format_args!(
                    "failed to parse CDI device annotations: invalid CDI device name {name:?}"
                )));
            }
            add(name)?;
        }
    }
    Ok(all)
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_each_device_once() {
        let mut config = v1::ContainerConfig::default();
        let device = |name: &str| v1::CdiDevice { name: name.into() };
        config.cdi_devices = vec![device("v.com/gpu=1"), device("v.com/gpu=0"), device("v.com/gpu=1")];
        config.annotations.insert("cdi.k8s.io/plugin_1".into(), "v.com/gpu=0,v.com/net=a".into());
        config.annotations.insert("else".into(), "nothing of ours".into());
        assert_eq!(requested(&config).unwrap(), ["v.com/gpu=1", "v.com/gpu=0", "v.com/net=a"]);
        config.annotations.insert("cdi.k8s.io/plugin_2".into(), "v.com/gpu=0, v.com/gpu=1".into());
        assert!(requested(&config).is_err());
    }
}
