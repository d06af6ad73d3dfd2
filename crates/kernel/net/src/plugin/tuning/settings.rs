//! Names of settings, as configurations write them, and the administrator's list of those that are allowed.

use std::fs;
use std::io::ErrorKind;

use regex::bytes::Regex;
use serde_json::{Map, Value};

use crate::cni::{Error, code};

/// A regular expression a line; without the file everything in `net` is allowed.
const ALLOWED: &str = "/etc/cni/tuning/allowlist.conf";
/// Most settings of one call.
const MOST: usize = 256;

/// The settings in parts, with their values; `IFNAME` stands for the interface.
pub fn read(sysctl: &Map<String, Value>, ifname: &str) -> Result<Vec<(Vec<String>, String)>, Error> {
    if sysctl.is_empty() {
        return Ok(Vec::new());
    }
    if sysctl.len() > MOST {
        return Err(Error::config(format!("more than {MOST} sysctls")));
    }
    let allowed = match fs::read_to_string(ALLOWED) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(Error::io(format!("read {ALLOWED}: {error}"))),
    };
    let mut settings = Vec::new();
    for (key, value) in sysctl {
        if let Some(text) = &allowed {
            check_allowed(key, text)?;
        }
        let value = value
            .as_str()
            .ok_or_else(|| Error::new(code::DECODING, format!("sysctl {key} is not a string")))?;
        settings.push((parts(key, ifname)?, value.to_owned()));
    }
    Ok(settings)
}

/// `net.ipv4.conf.IFNAME.arp_filter` as `net`, `ipv4`, `conf`, `eth0`, `arp_filter`.
fn parts(key: &str, ifname: &str) -> Result<Vec<String>, Error> {
    let parts: Vec<String> = key
        .split(['.', '/'])
        .map(|part| if part == "IFNAME" { ifname.into() } else { part.to_owned() })
        .collect();
    let plain = |part: &String| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    if parts.len() < 3 || parts[0] != "net" || !parts.iter().all(plain) {
        return Err(Error::config(format!("invalid net sysctl key: {key:?}")));
    }
    Ok(parts)
}

fn check_allowed(key: &str, list: &str) -> Result<(), Error> {
    for line in list.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let failed = |error: String| Error::config(format!("{ALLOWED}: {error}"));
        let translated = spec::regexp::translate(line).map_err(|error| failed(error.to_string()))?;
        let pattern = Regex::new(&translated).map_err(|error| failed(error.to_string()))?;
        if pattern.is_match(key.as_bytes()) {
            return Ok(());
        }
    }
    Err(Error::config(format!("Sysctl {key} is not allowed. Only the sysctls of {ALLOWED} are allowed")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_the_network_namespaces_settings() {
        assert_eq!(
            parts("net.ipv4.conf.IFNAME.arp_filter", "eth0.5").unwrap(),
            ["net", "ipv4", "conf", "eth0.5", "arp_filter"]
        );
        assert_eq!(parts("net/core/somaxconn", "eth0").unwrap(), ["net", "core", "somaxconn"]);
        for key in [
            "kernel.core_pattern",
            "net..kernel.core_pattern",
            "net/../kernel/core_pattern",
            "net",
            "",
            "vm.x.y",
        ] {
            assert!(parts(key, "eth0").is_err(), "{key}");
        }
    }

    #[test]
    fn a_list_allows_what_it_matches() {
        let list = "^net\\.ipv4\\.conf\\.[a-z]+\\.arp_filter$\n\n ^net\\.core ";
        check_allowed("net.core.somaxconn", list).unwrap();
        assert!(check_allowed("net.ipv4.ip_forward", list).is_err());
        assert!(check_allowed("x", "(").is_err());
    }
}
