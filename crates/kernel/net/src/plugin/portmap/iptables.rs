//! Port mappings as chains of iptables: one for each pod, `CNI-DN-` and a hash, jumped to from `CNI-HOSTPORT-DNAT`.

use super::Config;
use super::config::Mapping;
use crate::cni::{Call, Error, IpNet};
use crate::netlink::Connection;
use crate::plugin::hash;
use crate::plugin::iptables::{Iptables, remove_chain};

const TABLE: &str = "nat";
const DNAT: &str = "CNI-HOSTPORT-DNAT";
const SET_MARK: &str = "CNI-HOSTPORT-SETMARK";
const MASQUERADE: &str = "CNI-HOSTPORT-MASQ";
/// Most ports of one `multiport` match.
const PORTS_MAX: usize = 15;
/// Longest comment.
const COMMENT_MAX: usize = 255;

fn chain(call: &Call) -> String {
    hash::chain("CNI-DN-", &call.config.name, &call.container_id)
}

/// A rule's words.
type Words = Vec<String>;

fn words(list: &[&str]) -> Words {
    list.iter().map(|word| (*word).to_owned()).collect()
}

fn refs(words: &Words) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// Forwards the ports to the pod's address `net`.
pub fn forward(call: &Call, config: &Config, net: IpNet) -> Result<(), Error> {
    let iptables = Iptables::find(net.is_ipv4(), call.deadline)?;
    if config.snat && config.set_mark_chain.is_none() {
        let mark = format!("{0:#x}/{0:#x}", config.mark);
        iptables.ensure_chain(TABLE, SET_MARK)?;
        let comment = ["-m", "comment", "--comment", "CNI portfwd masquerade mark"];
        iptables.ensure(TABLE, SET_MARK, &[&comment[..], &["-j", "MARK", "--set-xmark", &mark]].concat())?;
        iptables.ensure_chain(TABLE, MASQUERADE)?;
        iptables.ensure(TABLE, MASQUERADE, &["-m", "mark", "--mark", &mark, "-j", "MASQUERADE"])?;
        // Before the rules of the networks, which would let packets to pods through as they are.
        let comment = ["-m", "comment", "--comment", "CNI portfwd requiring masquerade"];
        iptables.ensure_first(TABLE, "POSTROUTING", &[&comment[..], &["-j", MASQUERADE]].concat())?;
    }
    iptables.ensure_chain(TABLE, DNAT)?;
    for caller in ["PREROUTING", "OUTPUT"] {
        iptables.ensure(TABLE, caller, &["-m", "addrtype", "--dst-type", "LOCAL", "-j", DNAT])?;
    }
    let chain = chain(call);
    iptables.ensure_chain(TABLE, &chain)?;
    for rule in rules(config, net) {
        iptables.ensure(TABLE, &chain, &refs(&rule))?;
    }
    for rule in entries(call, config, net.is_ipv4()) {
        iptables.ensure(TABLE, DNAT, &refs(&rule))?;
    }
    Ok(())
}

/// The rules of the pod's chain. Marks come before translations, which end it.
fn rules(config: &Config, net: IpNet) -> Vec<Words> {
    let mut rules = Vec::new();
    let set_mark = config.set_mark_chain.as_deref().unwrap_or(SET_MARK);
    for mapping in config.mappings.iter().filter(|mapping| mapping.is_for(net.is_ipv4())) {
        let base = base(mapping);
        if config.snat {
            let everywhere = if net.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
            let own = format!("{}/{}", net.network(), net.prefix);
            let sources: &[&str] = match (config.masquerade_all, net.is_ipv4()) {
                (true, _) => &[everywhere],
                (false, true) => &[&own, "127.0.0.1"],
                (false, false) => &[&own],
            };
            for source in sources {
                rules.push([base.clone(), words(&["-s", source, "-j", set_mark])].concat());
            }
        }
        let target = match net.address {
            std::net::IpAddr::V4(address) => format!("{address}:{}", mapping.container_port),
            std::net::IpAddr::V6(address) => format!("[{address}]:{}", mapping.container_port),
        };
        rules.push([base, words(&["-j", "DNAT", "--to-destination", &target])].concat());
    }
    rules
}

fn base(mapping: &Mapping) -> Words {
    let mut base = words(&["-p", mapping.protocol_name(), "--dport", &mapping.host_port.to_string()]);
    if let Some(address) = mapping.one_address() {
        base.extend(["-d".to_owned(), address.to_string()]);
    }
    base
}

/// The rules that send packets to the pod's chain: by protocol, fifteen ports each.
fn entries(call: &Call, config: &Config, ipv4: bool) -> Vec<Words> {
    let mut comment = format!("dnat name: \"{}\" id: \"{}\"", call.config.name, call.container_id);
    comment.truncate(COMMENT_MAX);
    let mut entries = Vec::new();
    for protocol in ["sctp", "tcp", "udp"] {
        let ports: Vec<String> = config
            .mappings
            .iter()
            .filter(|mapping| mapping.protocol_name() == protocol)
            .map(|mapping| mapping.host_port.to_string())
            .collect();
        for some in ports.chunks(PORTS_MAX) {
            let ports = some.join(",");
            let mut entry =
                words(&["-m", "comment", "--comment", &comment, "-m", "multiport", "-p", protocol]);
            entry.extend(words(&["--destination-ports", &ports]));
            entry.extend(config.words[usize::from(!ipv4)].iter().cloned());
            entry.extend(words(&["-j", &chain(call)]));
            entries.push(entry);
        }
    }
    entries
}

/// Whether the rules for the pod's address `net` are there.
pub fn check(call: &Call, config: &Config, net: IpNet) -> Result<(), Error> {
    let iptables = Iptables::find(net.is_ipv4(), call.deadline)?;
    let chain = chain(call);
    for (chain, rules) in [(chain.as_str(), rules(config, net)), (DNAT, entries(call, config, net.is_ipv4()))]
    {
        for rule in rules {
            if !iptables.has(TABLE, chain, &refs(&rule))? {
                let text = format!("rule [{}] in chain {chain} not found in table {TABLE}", rule.join(" "));
                return Err(Error::internal(text));
            }
        }
    }
    Ok(())
}

/// Removes the container's chain from both families, if it is there.
pub fn remove(call: &Call, connection: &mut Option<Connection>) -> Result<(), Error> {
    remove_chain(connection, TABLE, &chain(call), &[DNAT], call.deadline)
}
