//! Settings under `/proc/sys/net`, of the calling thread's network namespace.

use std::path::PathBuf;

use crate::cni::Error;

/// Longest value that is read or written.
const VALUE_MAX: usize = 4096;

/// The file of a setting, named from below `/proc/sys`: `["net", "ipv4", "conf", "eth0", "arp_notify"]`.
///
/// Refuses what is not in `net`, the only folder there whose files belong to a network namespace, and what would
/// leave it.
fn path(parts: &[&str]) -> Result<PathBuf, Error> {
    let plain =
        |part: &&str| !part.is_empty() && *part != "." && *part != ".." && !part.contains(['/', '\0']);
    if parts.first() != Some(&"net") || parts.len() < 3 || !parts.iter().all(plain) {
        return Err(Error::config(format!("invalid net sysctl key: {:?}", parts.join("/"))));
    }
    Ok(["/proc", "sys"].iter().chain(parts).collect())
}

/// Sets a setting.
pub fn write(parts: &[&str], value: &str) -> Result<(), Error> {
    let path = path(parts)?;
    if value.len() > VALUE_MAX {
        return Err(Error::config(format!("value of {} is too long", path.display())));
    }
    std::fs::write(&path, value)
        .map_err(|error| Error::io(format!("write {value:?} to {}: {error}", path.display())))
}

/// Sets a setting that some kernels lack, or that is no worse for being as it is.
pub fn try_write(parts: &[&str], value: &str) {
    if let Err(error) = write(parts, value) {
        tracing::debug!(%error, "sysctl not set");
    }
}

/// A setting, without its final newline.
pub fn read(parts: &[&str]) -> Result<String, Error> {
    let path = path(parts)?;
    let mut value = std::fs::read_to_string(&path)
        .map_err(|error| Error::io(format!("read {}: {error}", path.display())))?;
    if value.ends_with('\n') {
        value.pop();
    }
    Ok(value)
}

/// Sets a setting unless it has the value.
pub fn ensure(parts: &[&str], value: &str) -> Result<(), Error> {
    if read(parts)? == value { Ok(()) } else { write(parts, value) }
}

/// Lets this namespace pass packets on.
pub fn forward(ipv4: bool) -> Result<(), Error> {
    let parts: &[&str] =
        if ipv4 { &["net", "ipv4", "ip_forward"] } else { &["net", "ipv6", "conf", "all", "forwarding"] };
    ensure(parts, "1").map_err(|error| error.context("failed to enable forwarding"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_the_network_namespace_are_named() {
        assert_eq!(
            path(&["net", "ipv4", "ip_forward"]).unwrap(),
            PathBuf::from("/proc/sys/net/ipv4/ip_forward")
        );
        for parts in [
            &["kernel", "core_pattern", "x"][..],
            &["net", "..", "kernel", "core_pattern"],
            &["net", "ipv4", "../../kernel/core_pattern"],
            &["net", "", "x"],
            &["net"],
            &[],
        ] {
            assert!(path(parts).is_err(), "{parts:?}");
        }
    }
}
