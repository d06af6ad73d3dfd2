//! Device nodes: those that the kubelet names, and all of the host's.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use ::spec::runtime::{LinuxDevice, LinuxDeviceCgroup, Spec};
use ::spec::{Error, Kind};
use api::runtime::v1;
use model::Result;

/// Directories of /dev that hold no devices of the host, or another container's.
const LEFT_OUT: [&str; 7] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"];

/// How deep a directory of devices may be, and how many devices a container may have.
const MAX_DEPTH: usize = 16;
const MAX_DEVICES: usize = 16384;

/// A device of the request with what the cgroup is to allow.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    device: LinuxDevice,
    access: String,
}

/// Finds the devices that the kubelet names: links are followed, directories mean all that is in them.
///
/// # Errors
/// There is no such device; the permissions are not of `r`, `w` and `m`.
pub fn find(wanted: &[v1::Device]) -> Result<Vec<Found>> {
    let mut all = Vec::new();
    for device in wanted {
        let access = &device.permissions;
        if access.is_empty() || !access.bytes().all(|byte| b"rwm".contains(&byte)) {
            return Err(Error::invalid(format_args!(
                "permissions {access:?} of device {:?}",
                device.host_path
            )));
        }
        let path = Path::new(&device.host_path);
        let path = path.canonicalize().map_err(|error| missing(path, &error))?;
        let inside = if device.container_path.is_empty() { &path } else { Path::new(&device.container_path) };
        let mut found = Vec::new();
        walk(&path, inside, 0, &mut found)?;
        all.extend(found.into_iter().map(|device| Found { device, access: access.clone() }));
    }
    Ok(all)
}

/// Every device of the host.
///
/// # Errors
/// `/dev` cannot be read.
pub fn of_host() -> Result<Vec<LinuxDevice>> {
    let mut found = Vec::new();
    walk(Path::new("/dev"), Path::new("/dev"), 0, &mut found)?;
    Ok(found)
}

/// Puts devices into a spec; `owner` are the user and group that they are to belong to inside, where not the host's.
pub fn apply(spec: &mut Spec, found: &[Found], owner: (Option<u32>, Option<u32>)) {
    for Found { device, access } in found {
        let rule = LinuxDeviceCgroup {
            allow: true,
            kind: device.kind.clone(),
            major: Some(device.major),
            minor: Some(device.minor),
            access: access.clone(),
        };
        let device =
            LinuxDevice { uid: owner.0.or(device.uid), gid: owner.1.or(device.gid), ..device.clone() };
        let linux = spec.linux_mut();
        linux.devices.push(device);
        linux.resources.get_or_insert_default().devices.push(rule);
    }
}

/// Puts the host's devices into a spec, but for those whose place is taken.
pub fn add_of_host(spec: &mut Spec, devices: &[LinuxDevice]) {
    let list = &mut spec.linux_mut().devices;
    let taken: std::collections::BTreeSet<_> = list.iter().map(|device| device.path.clone()).collect();
    list.extend(devices.iter().filter(|device| !taken.contains(&device.path)).cloned());
}

fn walk(path: &Path, inside: &Path, depth: usize, found: &mut Vec<LinuxDevice>) -> Result<()> {
    let metadata = path.symlink_metadata().map_err(|error| missing(path, &error))?;
    if !metadata.is_dir() {
        let device = device(&metadata, inside)
            .ok_or_else(|| Error::invalid(format_args!("{:?} is not a device node", path.display())))?;
        found.push(device);
        return Ok(());
    }
    if depth > MAX_DEPTH {
        return Err(Error::invalid(format_args!("{:?} is too deep", path.display())));
    }
    let mut entries: Vec<PathBuf> = std::fs::read_dir(path)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
        .map_err(|error| missing(path, &error))?;
    entries.sort();
    for entry in entries {
        let Some(name) = entry.file_name() else { continue };
        let inside = inside.join(name);
        // What goes away while it is looked at was not there.
        let Ok(metadata) = entry.symlink_metadata() else { continue };
        if metadata.is_dir() {
            if !LEFT_OUT.iter().any(|one| *one == name) {
                walk(&entry, &inside, depth + 1, found)?;
            }
        } else if name != "console"
            && let Some(device) = device(&metadata, &inside)
            && device.kind != "p"
        {
            found.push(device);
        }
        if found.len() > MAX_DEVICES {
            return Err(Error::invalid(format_args!("more than {MAX_DEVICES} devices")));
        }
    }
    Ok(())
}

fn device(metadata: &std::fs::Metadata, inside: &Path) -> Option<LinuxDevice> {
    let kind = match metadata.file_type() {
        kind if kind.is_char_device() => "c",
        kind if kind.is_block_device() => "b",
        kind if kind.is_fifo() => "p",
        _ => return None,
    };
    let (major, minor) = sys::path::at::device_parts(metadata.rdev());
    Some(LinuxDevice {
        path: inside.to_str()?.to_owned(),
        kind: kind.into(),
        major: major.into(),
        minor: minor.into(),
        file_mode: Some(metadata.mode() & 0o7777),
        uid: Some(metadata.uid()),
        gid: Some(metadata.gid()),
    })
}

fn missing(path: &Path, error: &std::io::Error) -> Error {
    let kind = error.raw_os_error().map_or(Kind::Internal, Kind::from_errno);
    Error::new(kind, format!("device {:?}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(host: &str, inside: &str, permissions: &str) -> v1::Device {
        v1::Device { host_path: host.into(), container_path: inside.into(), permissions: permissions.into() }
    }

    #[test]
    fn a_device_is_found_and_allowed() {
        let found = find(&[wanted("/dev/null", "/dev/nothing", "rw")]).unwrap();
        let mut spec = Spec::default();
        apply(&mut spec, &found, (Some(7), None));
        let linux = spec.linux.unwrap();
        let device = &linux.devices[0];
        assert_eq!((device.path.as_str(), device.kind.as_str()), ("/dev/nothing", "c"));
        assert_eq!((device.major, device.minor, device.uid), (1, 3, Some(7)));
        let rule = &linux.resources.unwrap().devices[0];
        assert_eq!((rule.allow, rule.major, rule.access.as_str()), (true, Some(1), "rw"));
    }

    #[test]
    fn what_is_no_device_is_refused() {
        for (path, access) in
            [("/dev/null", ""), ("/dev/null", "x"), ("/etc/passwd", "r"), ("/dev/none", "r")]
        {
            assert!(find(&[wanted(path, "", access)]).is_err(), "{path} {access}");
        }
    }

    #[test]
    fn the_host_has_devices_but_no_console_and_no_terminals() {
        let all = of_host().unwrap();
        assert!(all.iter().any(|device| device.path == "/dev/null"));
        let hidden = ["/dev/console", "/dev/pts/", "/dev/shm/"];
        assert!(!all.iter().any(|device| hidden.iter().any(|path| device.path.starts_with(path))));
    }
}
