//! Qualified names of devices, `vendor/class=name`, and where a request says them.

use ::spec::Error;
use api::runtime::v1;
use model::Result;

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

/// Whether `name` is a whole one.
fn is_qualified(name: &str) -> bool {
    let parts = name.split_once('=').and_then(|(kind, name)| Some((kind.split_once('/')?, name)));
    parts.is_some_and(|((vendor, class), name)| is_kind(vendor) && is_kind(class) && is_device(name))
}

/// Whether `text` can be a vendor or a class.
pub fn is_kind(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic()) && is_made_of(text, b"_-.")
}

/// Whether `text` can be a device's name within its kind.
pub fn is_device(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric()) && is_made_of(text, b"_-.:")
}

/// Letters, digits and `also`, the last one a letter or digit.
fn is_made_of(text: &str, also: &[u8]) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || also.contains(&byte))
        && text.ends_with(|last: char| last.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_whole_or_none() {
        for (name, whole) in [
            ("vendor.com/gpu=0", true),
            ("nvidia.com/gpu=all", true),
            ("v/c=a:b_c.d-e", true),
            ("vendor.com/gpu.mig=GPU-1:2", true),
            ("", false),
            ("gpu", false),
            ("/dev/null", false),
            ("vendor.com/gpu", false),
            ("vendor.com/gpu=", false),
            ("vendor.com=gpu", false),
            ("/gpu=0", false),
            ("0vendor/gpu=0", false),
            ("vendor./gpu=0", false),
            ("vendor.com/gpu/x=0", false),
            ("vendor.com/gpu=-0", false),
            ("vendor.com/gpu=0:", false),
            ("vendor.com/gpu=a=b", false),
            ("vendor.com/gpu=../x", false),
            ("vendör.com/gpu=0", false),
        ] {
            assert_eq!(is_qualified(name), whole, "{name}");
        }
    }

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
