//! Port mappings as rules of nf_tables.
//!
//! ```text
//! table ip cni_hostport
//!   prerouting, output   CONDITIONS, to an address of this host: jump hostports_all
//!   hostports_all        jump hostip_hostports, jump hostports
//!   hostports            tcp dport 8080 dnat to 10.1.0.5:80   comment CONTAINER
//!   masquerading         what comes from the pod's network or from 127.0.0.1 and was translated to it
//! ```

use std::net::IpAddr;

use super::Config;
use super::config::Mapping;
use crate::cni::{Call, Error, IpNet};
use crate::netlink::{Connection, Protocol};
use crate::nft::{self, Base, Batch, Family, Op, Rule, Table, Verdict};

const ALL: &str = "hostports_all";
const PORTS: &str = "hostports";
/// Rules for one address of the host, of older versions.
const ADDRESS_PORTS: &str = "hostip_hostports";
const MASQUERADING: &str = "masquerading";

fn table(ipv4: bool) -> Table {
    Table { family: Family::of(ipv4), name: "cni_hostport" }
}

/// Forwards the ports to the pod's address `net`.
pub fn forward(call: &Call, config: &Config, connection: &mut Connection, net: IpNet) -> Result<(), Error> {
    let mut batch = Batch::new(table(net.is_ipv4()));
    lay_out(connection, &mut batch, config, net.is_ipv4())?;
    let target = IpNet { address: net.address, prefix: if net.is_ipv4() { 32 } else { 128 } };
    for mapping in config.mappings.iter().filter(|mapping| mapping.is_for(net.is_ipv4())) {
        batch.add_rule(PORTS, &translation(mapping, target.address, &call.container_id));
    }
    if config.snat {
        for source in sources(config, net)? {
            // Only what was translated: pods of one network speak to each other as themselves, whether or not
            // bridge-nf-call-iptables shows their packets to this chain.
            let rule = Rule::new()
                .source(Op::Is, source)
                .destination(Op::Is, target)
                .translated()
                .masquerade()
                .comment(&call.container_id);
            batch.add_rule(MASQUERADING, &rule);
        }
    }
    batch
        .commit(connection)
        .map_err(|error| Error::from(error).context("unable to set up nftables rules for port mappings"))
}

/// Makes the table and its shared chains, unless they are there.
fn lay_out(connection: &mut Connection, batch: &mut Batch, config: &Config, ipv4: bool) -> Result<(), Error> {
    let mut chains = vec![
        (PORTS, None),
        (ADDRESS_PORTS, None),
        (ALL, None),
        ("prerouting", Some(Base::NatPrerouting)),
        ("output", Some(Base::NatOutput)),
    ];
    if config.snat {
        chains.push((MASQUERADING, Some(Base::NatPostrouting)));
    }
    batch.lay_out(connection, "CNI portmap plugin", &chains)?;
    let jumps = [ADDRESS_PORTS, PORTS].map(|chain| Rule::new().verdict(Verdict::Jump(chain.into())));
    batch.settle_chain(connection, ALL, &jumps)?;
    let conditions = &config.conditions[usize::from(!ipv4)];
    let to_ports = || {
        let rule = conditions.iter().fold(Rule::new(), |rule, condition| condition.add_to(rule));
        rule.to_this_host().verdict(Verdict::Jump(ALL.into()))
    };
    for chain in ["prerouting", "output"] {
        batch.settle_chain(connection, chain, &[to_ports()])?;
    }
    Ok(())
}

fn translation(mapping: &Mapping, target: IpAddr, container_id: &str) -> Rule {
    let mut rule = Rule::new();
    if let Some(address) = mapping.one_address() {
        let net = IpNet { address, prefix: if address.is_ipv4() { 32 } else { 128 } };
        rule = rule.destination(Op::Is, net);
    }
    rule.protocol(mapping.protocol)
        .destination_port(mapping.host_port)
        .dnat(target, mapping.container_port)
        .comment(container_id)
}

/// Where packets come from that the pod would answer past the host: its own network, and the host's loopback.
fn sources(config: &Config, net: IpNet) -> Result<Vec<IpNet>, Error> {
    let everywhere = IpNet { address: net.address, prefix: 0 };
    Ok(match (config.masquerade_all, net.is_ipv4()) {
        (true, _) => vec![everywhere],
        (false, true) => vec![net, "127.0.0.1/32".parse()?],
        (false, false) => vec![net],
    })
}

/// Whether the rules for the pod's address `net` are there.
pub fn check(call: &Call, config: &Config, net: IpNet) -> Result<(), Error> {
    let mut connection = Connection::open(Protocol::Netfilter)?;
    let ports = config.mappings.iter().filter(|mapping| mapping.is_for(net.is_ipv4())).count();
    let masquerading = if config.snat { sources(config, net)?.len() } else { 0 };
    for (chain, wanted) in [(PORTS, ports), (MASQUERADING, masquerading)] {
        let rules = nft::rules(&mut connection, table(net.is_ipv4()), chain)?;
        let comment = Rule::new().comment(&call.container_id);
        let found = rules.iter().filter(|rule| comment.has_comment(rule.comment.as_deref())).count();
        if found < wanted {
            return Err(Error::internal(format!("missing hostport rules in {chain:?} chain")));
        }
    }
    Ok(())
}

/// Removes the container's rules of both families.
pub fn remove(call: &Call, connection: &mut Connection) -> Result<(), Error> {
    let comment = Rule::new().comment(&call.container_id);
    for ipv4 in [true, false] {
        nft::delete_rules(connection, table(ipv4), &[PORTS, ADDRESS_PORTS, MASQUERADING], &|found| {
            comment.has_comment(Some(found))
        })?;
    }
    Ok(())
}
