//! Names that come from outside, held against the specification's rules before they become paths or arguments.

use super::{Error, code};

/// A container id: a letter or digit, then letters, digits, `_`, `.` and `-`.
pub fn container_id(id: &str) -> Result<(), Error> {
    if id.is_empty() {
        return Err(Error::new(code::UNKNOWN_CONTAINER, "missing containerID"));
    }
    if !is_name(id) {
        return Err(
            Error::new(code::INVALID_ENVIRONMENT, "invalid characters in containerID").with_details(id)
        );
    }
    Ok(())
}

/// A network's name: as a container id.
pub fn network_name(name: &str) -> Result<(), Error> {
    if name.is_empty() {
        return Err(Error::config("missing network name"));
    }
    if !is_name(name) {
        return Err(Error::config("invalid characters found in network name").with_details(name));
    }
    Ok(())
}

/// An interface's name: what the kernel takes, at most 15 bytes.
pub fn interface_name(name: &str) -> Result<(), Error> {
    let wrong = |msg: &str| Err(Error::new(code::INVALID_ENVIRONMENT, msg));
    if name.is_empty() {
        return wrong("interface name is empty");
    }
    if name.len() > 15 {
        return wrong("interface name is too long");
    }
    if name == "." || name == ".." {
        return wrong("interface name is . or ..");
    }
    if name.chars().any(|char| matches!(char, '/' | ':' | '\0') || char.is_whitespace()) {
        return wrong("interface name contains / or : or whitespace characters");
    }
    Ok(())
}

/// A plugin's name, which becomes the last part of a path.
pub fn plugin_name(name: &str) -> Result<(), Error> {
    if name.is_empty() {
        return Err(Error::config("missing plugin type"));
    }
    if name.contains(['/', '\0']) || name == "." || name == ".." {
        return Err(Error::config(format!("invalid plugin name: {name}")));
    }
    Ok(())
}

/// Longest name: a file of the cache is called after three, and a file's name has at most 255 bytes.
const LONGEST: usize = 110;

fn is_name(name: &str) -> bool {
    name.len() <= LONGEST
        && name.starts_with(|char: char| char.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_a_directory_are_refused() {
        for name in ["", "..", ".a", "a/b", "../a", "a b", "a\n", "-a", "a\0", "ä", &"a".repeat(111)] {
            assert!(container_id(name).is_err(), "{name:?}");
            assert!(network_name(name).is_err(), "{name:?}");
        }
        for name in ["a", "0", "cbr0", "A.b_c-d", &"a".repeat(110)] {
            container_id(name).unwrap();
            network_name(name).unwrap();
        }
        for name in ["", ".", "..", "../x", "a/b", "a\0"] {
            assert!(plugin_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn interface_names_are_the_kernels() {
        for name in ["", ".", "..", "eth0/1", "eth0:1", "eth 0", "eth0\n", "sixteen-letters!"] {
            assert!(interface_name(name).is_err(), "{name:?}");
        }
        for name in ["lo", "eth0", "fifteen-letters", "..."] {
            interface_name(name).unwrap();
        }
    }
}
