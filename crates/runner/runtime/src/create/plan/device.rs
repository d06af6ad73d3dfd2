//! Device nodes of a container's `/dev`.

use std::path::{Path, PathBuf};

use spec::runtime::LinuxDevice;

use super::PlanError;

/// A device node to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Where, as an absolute path in the container.
    pub path: PathBuf,
    /// Type and permission bits.
    pub mode: u32,
    /// Its number.
    pub rdev: u64,
    /// Owner and group in the container.
    pub owner: (u32, u32),
}

/// Links that every container's `/dev` has: name and text.
pub const DEFAULT_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Devices that every container has: name, major, minor.
const DEFAULTS: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// The default devices and `wanted`, which replace a default of the same path.
pub(super) fn plan(wanted: &[LinuxDevice], rootfs: &Path) -> Result<Vec<Device>, PlanError> {
    let mut devices: Vec<Device> = DEFAULTS
        .iter()
        .map(|&(name, major, minor)| Device {
            path: PathBuf::from("/dev").join(name),
            mode: libc_char() | 0o666,
            rdev: sys::path::at::device_number(major, minor),
            owner: (0, 0),
        })
        .collect();
    for device in wanted {
        let device = one(device, rootfs)?;
        devices.retain(|default| default.path != device.path);
        devices.push(device);
    }
    Ok(devices)
}

fn one(wanted: &LinuxDevice, rootfs: &Path) -> Result<Device, PlanError> {
    let refuse = |why: String| PlanError::field("linux.devices", format!("{:?}: {why}", wanted.path));
    super::absolute("linux.devices", &wanted.path)?;
    let kind = match wanted.kind.as_str() {
        "c" | "u" => libc_char(),
        "b" => 0o060_000,
        "p" => 0o010_000,
        other => return Err(refuse(format!("type {other:?} is unknown"))),
    };
    let part =
        |number: i64| u32::try_from(number).map_err(|_| refuse(format!("number {number} is out of range")));
    let rdev = if wanted.kind == "p" {
        0
    } else {
        sys::path::at::device_number(part(wanted.major)?, part(wanted.minor)?)
    };
    Ok(Device {
        path: super::mount::below_root(&wanted.path, rootfs),
        mode: kind | wanted.file_mode.unwrap_or(0o666) & 0o7777,
        rdev,
        owner: (wanted.uid.unwrap_or(0), wanted.gid.unwrap_or(0)),
    })
}

/// `S_IFCHR`.
fn libc_char() -> u32 {
    0o020_000
}
