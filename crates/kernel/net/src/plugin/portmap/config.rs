//! The configuration of `portmap`.

use std::net::IpAddr;

use serde::Deserialize;

use super::condition::Condition;
use crate::cni::{Call, Error};
use crate::plugin::config;
use crate::plugin::masquerade::Backend;

/// The bit that asks for masquerading. Kubernetes uses 14 and 15, Calico 20 to 31.
const MARK_BIT: i64 = 13;
/// Most ports of one pod.
const MAPPINGS_MAX: usize = 4096;
/// Most words of a condition, and the longest of them.
const CONDITION_MAX: usize = 64;
const WORD_MAX: usize = 256;
/// Longest name of a chain of iptables.
const CHAIN_MAX: usize = 28;

/// A port of the host that leads to a port of the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The host's.
    pub host_port: u16,
    /// The pod's.
    pub container_port: u16,
    /// Number of the transport protocol.
    pub protocol: u8,
    /// Only packets to this address of the host.
    pub host_ip: Option<IpAddr>,
}

impl Mapping {
    /// Whether it applies to pods' addresses of a family.
    pub fn is_for(&self, ipv4: bool) -> bool {
        self.host_ip.is_none_or(|address| address.is_ipv4() == ipv4)
    }

    /// The host's address, unless it is every address.
    pub fn one_address(&self) -> Option<IpAddr> {
        self.host_ip.filter(|address| !address.is_unspecified())
    }

    /// The protocol as iptables names it.
    pub fn protocol_name(&self) -> &'static str {
        match self.protocol {
            6 => "tcp",
            17 => "udp",
            _ => "sctp",
        }
    }
}

/// What a call says, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the rules are kept in.
    pub backend: Backend,
    /// Packets that the pod could not answer otherwise come from the host.
    pub snat: bool,
    /// All forwarded packets do.
    pub masquerade_all: bool,
    /// The bit that marks them, for iptables.
    pub mark: u32,
    /// A chain of somebody else's that sets the mark, for iptables.
    pub set_mark_chain: Option<String>,
    /// Conditions in iptables' words: for IPv4 and for IPv6.
    pub words: [Vec<String>; 2],
    /// Conditions in nf_tables' words: for IPv4 and for IPv6.
    pub conditions: [Vec<Condition>; 2],
    /// The ports.
    pub mappings: Vec<Mapping>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Fields {
    backend: Option<String>,
    snat: Option<bool>,
    conditions_v4: Option<Vec<String>>,
    conditions_v6: Option<Vec<String>>,
    masq_all: bool,
    mark_masq_bit: Option<i64>,
    external_set_mark_chain: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Entry {
    host_port: i64,
    container_port: i64,
    protocol: Option<String>,
    #[serde(rename = "hostIP")]
    host_ip: Option<String>,
}

impl Entry {
    fn check(self) -> Result<Mapping, Error> {
        let port = |number: i64, what: &str| {
            let port = u16::try_from(number).ok().filter(|port| *port != 0);
            port.ok_or_else(|| Error::config(format!("Invalid {what} port number: {number}")))
        };
        let protocol = match self.protocol.as_deref().unwrap_or("tcp").to_ascii_lowercase().as_str() {
            "tcp" | "" => 6,
            "udp" => 17,
            "sctp" => 132,
            other => return Err(Error::config(format!("Invalid protocol: {other:?}"))),
        };
        let host_ip = match self.host_ip.as_deref() {
            None | Some("") => None,
            Some(text) => {
                let address: IpAddr =
                    text.parse().map_err(|_| Error::config(format!("Invalid host IP: {text:?}")))?;
                Some(address.to_canonical())
            }
        };
        Ok(Mapping {
            host_port: port(self.host_port, "host")?,
            container_port: port(self.container_port, "container")?,
            protocol,
            host_ip,
        })
    }
}

impl Config {
    /// Reads a call.
    pub fn read(call: &Call) -> Result<Self, Error> {
        let fields: Fields = config::decode(call)?;
        let entries: Vec<Entry> = call.config.runtime_config("portMappings")?.unwrap_or_default();
        if entries.len() > MAPPINGS_MAX {
            return Err(Error::config(format!("more than {MAPPINGS_MAX} port mappings")));
        }
        if fields.mark_masq_bit.is_some() && fields.external_set_mark_chain.is_some() {
            return Err(Error::config("Cannot specify externalSetMarkChain and markMasqBit"));
        }
        let bit = fields.mark_masq_bit.unwrap_or(MARK_BIT);
        let bit = u32::try_from(bit).ok().filter(|bit| *bit <= 31);
        let bit = bit.ok_or_else(|| Error::config("MasqMarkBit must be between 0 and 31"))?;
        if let Some(chain) = fields.external_set_mark_chain.as_deref().filter(|chain| !is_chain(chain)) {
            return Err(Error::config(format!("invalid externalSetMarkChain {chain:?}")));
        }
        let words = [fields.conditions_v4.unwrap_or_default(), fields.conditions_v6.unwrap_or_default()];
        for word in words.iter().flatten() {
            if word.len() > WORD_MAX || word.contains(['\0', '\n']) {
                return Err(Error::config("a condition is too long or holds a line break"));
            }
        }
        let (backend, of_iptables) =
            backend(fields.backend.as_deref(), &fields.external_set_mark_chain, &words)?;
        let conditions = if of_iptables {
            Default::default()
        } else {
            [Condition::parse_all(&words[0])?, Condition::parse_all(&words[1])?]
        };
        Ok(Self {
            backend,
            snat: fields.snat.unwrap_or(true),
            masquerade_all: fields.masq_all,
            mark: 1 << bit,
            set_mark_chain: fields.external_set_mark_chain,
            words,
            conditions,
            mappings: entries.into_iter().map(Entry::check).collect::<Result<_, _>>()?,
        })
    }
}

/// The backend, and whether the conditions are in iptables' words; refuses words of one with the other.
fn backend(
    asked: Option<&str>,
    set_mark_chain: &Option<String>,
    words: &[Vec<String>; 2],
) -> Result<(Backend, bool), Error> {
    if words.iter().any(|words| words.len() > CONDITION_MAX) {
        return Err(Error::config(format!("a condition has more than {CONDITION_MAX} words")));
    }
    let firsts = || words.iter().filter_map(|words| words.first()).filter(|word| !word.is_empty());
    let of_iptables = |word: &String| word.starts_with(['-', '!']);
    let needs_iptables = set_mark_chain.is_some() || firsts().any(of_iptables);
    let needs_nftables = firsts().any(|word| !of_iptables(word));
    let backend = match asked {
        None | Some("") if needs_iptables => Backend::Iptables,
        asked => Backend::choose(asked, "backend")?,
    };
    let (wrong, name, other) = match backend {
        Backend::Iptables => (needs_nftables, "iptables", "nftables"),
        Backend::Nftables => (needs_iptables, "nftables", "iptables"),
    };
    if wrong {
        let text =
            format!("{name} backend was requested but configuration contains {other}-specific options");
        return Err(Error::config(text));
    }
    Ok((backend, needs_iptables))
}

fn is_chain(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= CHAIN_MAX
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        && !name.starts_with('-')
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cni::NetworkConfig;

    fn call(config: Value) -> Call {
        Call {
            container_id: "pod".into(),
            netns: None,
            ifname: "eth0".into(),
            args: Vec::new(),
            path: Vec::new(),
            config: NetworkConfig::parse(config.to_string().as_bytes()).unwrap(),
            deadline: std::time::Instant::now(),
        }
    }

    #[test]
    fn ports_in_another_case_are_read() {
        let mapping = json!({"HostPort": 8080, "ContainerPort": 80, "Protocol": "UDP", "HostIP": "10.0.0.1"});
        let config = json!({
            "cniVersion": "1.0.0", "name": "n", "type": "portmap", "SNAT": false, "backend": "nftables",
            "conditionsV4": null, "runtimeConfig": {"PortMappings": [mapping]},
        });
        let config = Config::read(&call(config)).unwrap();
        let wanted = Mapping {
            host_port: 8080,
            container_port: 80,
            protocol: 17,
            host_ip: Some("10.0.0.1".parse().unwrap()),
        };
        assert_eq!(config.mappings, [wanted]);
        assert!(!config.snat);
    }

    #[test]
    fn port_that_is_absent_or_null_is_refused_as_zero() {
        for mapping in [json!({"hostPort": 80}), json!({"hostPort": 80, "containerPort": null})] {
            let config = json!({
                "cniVersion": "1.0.0", "name": "n", "type": "portmap", "backend": "nftables",
                "runtimeConfig": {"portMappings": [mapping]},
            });
            assert_eq!(Config::read(&call(config)).unwrap_err().msg, "Invalid container port number: 0");
        }
    }
}
