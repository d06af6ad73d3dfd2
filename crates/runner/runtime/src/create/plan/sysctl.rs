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
    let refuse = |why: &str| Err(PlanError::field("linux.sysctl", format!("sysctl {key:?} {why}")));
    let (needs, otherwise) = if path.starts_with("net/") {
        (Kind::Network, "not allowed in host network namespace")
    } else if IPC.contains(&path) || path.starts_with("fs/mqueue/") {
        (Kind::Ipc, "is not allowed in the hosts ipc namespace")
    } else if path == "kernel/domainname" {
        (Kind::Uts, "is not in a separate kernel namespace")
    } else if path == "kernel/hostname" {
        return refuse("is not allowed as it conflicts with the OCI \"hostname\" field");
    } else if path.starts_with("user/") {
        // Without a user namespace of its own the container would set the host's limits.
        (Kind::User, "is not allowed: setting ucounts without a user namespace not allowed")
    } else {
        return refuse("is not in a separate kernel namespace");
    };
    if namespaces.has(needs) { Ok(()) } else { refuse(otherwise) }
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
    fn limits_of_users_need_a_user_namespace() {
        let wanted = BTreeMap::from([("user.max_net_namespaces".to_owned(), "5".to_owned())]);
        let mut namespaces = Namespaces::default();
        let text = plan(&wanted, &namespaces).unwrap_err().to_string();
        assert!(text.contains("setting ucounts without a user namespace not allowed"), "{text}");
        namespaces.new.push(Kind::User);
        let planned = plan(&wanted, &namespaces).unwrap();
        assert_eq!(planned, [("sys/user/max_net_namespaces".to_owned(), "5".to_owned())]);
    }

    #[test]
    fn no_key_climbs() {
        for key in ["net/../kernel/core_pattern", "net.//.kernel", "", "net..x", "/net/x"] {
            assert!(path(key).is_err(), "{key}");
        }
    }
}
