//! Kernel settings of a container: only those that belong to its own namespaces.

use std::collections::BTreeMap;

use sys::namespace::Kind;

use super::{Namespaces, PlanError};

/// Settings of an IPC namespace outside `fs.mqueue`.
const IPC: [&str; 8] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];

/// The files below `/proc` and their values.
pub(super) fn plan(
    wanted: &BTreeMap<String, String>,
    namespaces: &Namespaces,
) -> Result<Vec<(String, String)>, PlanError> {
    wanted
        .iter()
        .map(|(key, value)| {
            let path = path(key)?;
            allowed(key, &path, namespaces)?;
            Ok((format!("sys/{path}"), value.clone()))
        })
        .collect()
}

/// `net.ipv4.conf.eth0/1.forwarding` and `net/ipv4/conf/eth0.1/forwarding` name one file: whichever of the two comes
/// first separates.
fn path(key: &str) -> Result<String, PlanError> {
    let dots = key.find(['.', '/']).is_none_or(|index| key.as_bytes()[index] == b'.');
    let path = if dots {
        key.chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect()
    } else {
        key.to_owned()
    };
    if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") || path.contains('\0') {
        return Err(PlanError::field("linux.sysctl", format!("{key:?} is not a name")));
    }
    Ok(path)
}

fn allowed(key: &str, path: &str, namespaces: &Namespaces) -> Result<(), PlanError> {
    let refuse = |why: &str| Err(PlanError::field("linux.sysctl", format!("{key:?} {why}")));
    let needs = if path.starts_with("net/") {
        Kind::Network
    } else if IPC.contains(&path) || path.starts_with("fs/mqueue/") {
        Kind::Ipc
    } else if path == "kernel/domainname" {
        Kind::Uts
    } else if path == "kernel/hostname" {
        return refuse("conflicts with the hostname field");
    } else {
        return refuse("is not in a separate kernel namespace");
    };
    if namespaces.has(needs) { Ok(()) } else { refuse("is not allowed in the hosts namespace") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_separators_name_the_file() {
        assert_eq!(path("net.ipv4.conf.eth0/1.forwarding").unwrap(), "net/ipv4/conf/eth0.1/forwarding");
        assert_eq!(path("net/ipv4/conf/eth0.1/forwarding").unwrap(), "net/ipv4/conf/eth0.1/forwarding");
    }

    #[test]
    fn no_key_climbs() {
        for key in ["net/../kernel/core_pattern", "net.//.kernel", "", "net..x", "/net/x"] {
            assert!(path(key).is_err(), "{key}");
        }
    }
}
