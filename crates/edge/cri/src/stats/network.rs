//! What went over the interfaces of a network namespace, as a process in it sees them.

use std::fs::File;
use std::io::Read as _;

use api::runtime::v1;

use super::usage::value;

/// The longest table that is read, in bytes.
const MAX_TABLE: u64 = 1 << 20;
/// The interface that is a pod's own.
const DEFAULT: &str = "eth0";

/// What went over one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Interface {
    /// Its name.
    pub name: String,
    /// Received: bytes, packets, errors, dropped.
    pub received: [u64; 4],
    /// Sent: bytes, packets, errors, dropped.
    pub sent: [u64; 4],
}

/// The interfaces that the process `pid` sees, without loopback; none when it is gone.
pub(super) fn interfaces(pid: u32) -> Vec<Interface> {
    let mut text = String::new();
    let read = File::open(format!("/proc/{pid}/net/dev"))
        .and_then(|table| table.take(MAX_TABLE).read_to_string(&mut text));
    match read {
        Ok(_) => parse(&text),
        Err(_) => Vec::new(),
    }
}

fn parse(text: &str) -> Vec<Interface> {
    let line = |line: &str| {
        let (name, counts) = line.split_once(':')?;
        let counts: Vec<u64> = counts.split_whitespace().map_while(|word| word.parse().ok()).collect();
        let four = |at: usize| counts.get(at..at + 4)?.try_into().ok();
        Some(Interface { name: name.trim().to_owned(), received: four(0)?, sent: four(8)? })
    };
    text.lines().skip(2).filter_map(line).filter(|interface| interface.name != "lo").collect()
}

/// The interfaces as the kubelet sees them: each, and apart from that the default one, as containerd has them.
pub(super) fn usage(at: i64, interfaces: &[Interface]) -> v1::NetworkUsage {
    let one = |interface: &Interface| v1::NetworkInterfaceUsage {
        name: interface.name.clone(),
        rx_bytes: value(interface.received[0]),
        rx_errors: value(interface.received[2]),
        tx_bytes: value(interface.sent[0]),
        tx_errors: value(interface.sent[2]),
    };
    let default = interfaces.iter().find(|interface| interface.name == DEFAULT).or(interfaces.first());
    v1::NetworkUsage {
        timestamp: at,
        default_interface: default.map(one),
        interfaces: interfaces.iter().map(one).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets|bytes\n    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n  \
                    eth0:100 2 3 4 5 6 7 8 900 10 11 12 13 14 15 16\n broken: 1\n";
        let found = parse(text);
        let eth0 = Interface { name: "eth0".into(), received: [100, 2, 3, 4], sent: [900, 10, 11, 12] };
        assert_eq!(found, [eth0]);
        let seen = usage(7, &found);
        assert_eq!(seen.default_interface.clone().unwrap().tx_bytes, value(900));
        assert_eq!(seen.interfaces, [seen.default_interface.unwrap()]);
    }
}
