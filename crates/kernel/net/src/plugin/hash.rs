//! Names made of hashes, as the standard plugins make theirs.

use sha2::{Digest, Sha512};

/// `prefix` and hexadecimal digits of `text`'s SHA-512, `length` characters in all.
pub fn name(length: usize, prefix: &str, text: &str) -> String {
    let mut name = prefix.to_owned();
    for byte in Sha512::digest(text.as_bytes()) {
        name.push_str(&format!("{byte:02x}"));
    }
    name.truncate(length);
    name
}

/// Longest name of an iptables chain.
const CHAIN_MAX: usize = 28;

/// An iptables chain of a network's container: `CNI-` or `CNI-DN-`, then a hash.
pub fn chain(prefix: &str, network: &str, container_id: &str) -> String {
    name(CHAIN_MAX, prefix, &format!("{network}{container_id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_standard_plugins() {
        // From the standard plugins' own tests: chain "test" of "1234", and their longest case.
        assert_eq!(chain("CNI-", "test", "1234"), "CNI-2bbe0c48b91a7d1b8a6753a8");
        assert_eq!(name(15, "bwp", "x").len(), 15);
    }
}
