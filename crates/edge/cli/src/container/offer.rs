//! What flags ask of this host by name: devices of CDI, graphics processors, the default AppArmor profile, classes of
//! block I/O.

use std::collections::BTreeSet;
use std::path::PathBuf;

use node::apparmor::AppArmor;
use node::{blockio, cdi};
use spec::runtime::Spec;

use super::flags::ContainerFlags;
use super::spec::resources;
use crate::failure::{Failure, Result};

/// Where vendors describe their devices.
const CDI_DIRS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// The vendors whose graphics processors are numbered, the usual one first.
const GPU_VENDORS: [&str; 2] = ["nvidia.com", "amd.com"];

/// Puts all of it into `spec`.
pub fn apply(spec: &mut Spec, flags: &ContainerFlags) -> Result {
    if let Some(name) = flags.apparmor_default_profile.as_ref().filter(|name| !name.is_empty()) {
        let on = AppArmor::of_host().ok_or_else(|| Failure::new("apparmor is not supported"))?;
        on.load_usual(name)?;
        spec.process_mut().apparmor_profile.clone_from(name);
    }
    if let Some(name) = flags.blockio_class.as_ref().filter(|name| !name.is_empty()) {
        resources(spec).block_io = Some(blockio::class(flags.blockio_config_file.as_deref(), name)?);
    }
    let dirs = CDI_DIRS.map(PathBuf::from);
    let named = flags.devices.iter().filter(|device| cdi::is_qualified(device));
    let mut names: Vec<String> = named.cloned().collect();
    if !flags.gpus.is_empty() {
        names.extend(gpus(&cdi::vendors(&dirs), &flags.gpus)?);
    }
    cdi::apply(spec, &cdi::find(&dirs, &names)?);
    Ok(())
}

/// The names of graphics processors by their numbers.
fn gpus(vendors: &BTreeSet<String>, numbers: &[u32]) -> Result<Vec<String>> {
    let vendor = GPU_VENDORS.into_iter().find(|vendor| vendors.contains(*vendor)).ok_or_else(|| {
        Failure::new("no known GPU vendor detected in CDI specs, only AMD and NVIDIA are supported")
            .hint("the vendor's toolkit writes them, such as: nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml")
    })?;
    Ok(numbers.iter().map(|number| format!("{vendor}/gpu={number}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_the_vendors_that_is_here() {
        let vendors = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(gpus(&vendors(&["amd.com", "x.y"]), &[0, 2]).unwrap(), ["amd.com/gpu=0", "amd.com/gpu=2"]);
        assert_eq!(gpus(&vendors(&["amd.com", "nvidia.com"]), &[1]).unwrap(), ["nvidia.com/gpu=1"]);
        let error = gpus(&vendors(&["x.y"]), &[0]).unwrap_err().to_string();
        assert!(error.contains("no known GPU vendor"), "{error}");
    }
}
