//! `portmap`: ports of the host that lead to a pod.
//!
//! With nf_tables a rule for each port in the table `cni_hostport` of each family, with iptables a chain for each pod;
//! both laid out as the standard plugin lays them out.
//!
//! Invariant: `DEL` removes what either backend holds of the container, whatever the configuration says by then.

mod condition;
mod config;
mod iptables;
mod nftables;

use std::net::IpAddr;

use config::Config;

use super::masquerade::{Backend, nftables};
use super::{Commands, config as common, sysctl};
use crate::cni::{Call, CniResult, Error, IpNet, Version};
use crate::netlink::{Connection, Protocol, conntrack, link, route};
use crate::nft;

/// The plugin.
pub(super) struct Portmap;

impl Commands for Portmap {
    const SINCE: Version = Version::V0_1_0;

    fn add(&self, call: &Call) -> Result<CniResult, Error> {
        let config = Config::read(call)?;
        let previous = common::previous(call)?;
        if config.mappings.is_empty() {
            return Ok(previous);
        }
        let done = forward(call, &config, &previous);
        match done {
            Ok(()) => Ok(previous),
            Err(error) => Err(match remove(call, &config) {
                Ok(()) => error,
                Err(undo) => error.with_details(format!("undo port mappings: {undo}")),
            }),
        }
    }

    fn del(&self, call: &Call) -> Result<(), Error> {
        remove(call, &Config::read(call)?)
    }

    fn check(&self, call: &Call) -> Result<(), Error> {
        let config = Config::read(call)?;
        let previous = common::previous(call)?;
        for net in targets(call, &previous).into_iter().filter(|_| !config.mappings.is_empty()) {
            match config.backend {
                Backend::Nftables => nftables::check(call, &config, net)?,
                Backend::Iptables => iptables::check(call, &config, net)?,
            }
        }
        Ok(())
    }

    fn status(&self, call: &Call) -> Result<(), Error> {
        Config::read(call).map(drop)
    }

    fn gc(&self, call: &Call) -> Result<(), Error> {
        // The rules name a container and no network, and another network's containers are not in the list: what
        // belongs to nobody cannot be told from what belongs to somebody else.
        Config::read(call).map(drop)
    }
}

/// Forwards every port to the pod's first address of each family.
fn forward(call: &Call, config: &Config, previous: &CniResult) -> Result<(), Error> {
    let mut connection = match config.backend {
        Backend::Nftables => Some(Connection::open(Protocol::Netfilter)?),
        Backend::Iptables => None,
    };
    for net in targets(call, previous) {
        match &mut connection {
            Some(connection) => nftables::forward(call, config, connection, net)?,
            None => iptables::forward(call, config, net)?,
        }
        forget_udp(config, net.is_ipv4());
        if config.snat && net.is_ipv4() {
            route_localhost(net.address)?;
        }
    }
    Ok(())
}

/// Removes the container's rules.
fn remove(call: &Call, config: &Config) -> Result<(), Error> {
    let mut connection = nftables();
    let of_iptables = iptables::remove(call, &mut connection);
    let of_nftables = connection.as_mut().map_or(Ok(()), |connection| nftables::remove(call, connection));
    connection.into_iter().for_each(nft::close_with_thread);
    let removed = of_iptables.and(of_nftables);
    if !config.mappings.is_empty() {
        for ipv4 in [true, false] {
            forget_udp(config, ipv4);
        }
    }
    removed
}

/// The pod's first address of each family: of the interface that this call is about, in a namespace.
fn targets(call: &Call, previous: &CniResult) -> Vec<IpNet> {
    let is_pods = |interface: Option<usize>| match interface.and_then(|index| previous.interfaces.get(index))
    {
        Some(interface) => interface.name == call.ifname && !interface.sandbox.is_empty(),
        None => true,
    };
    let pods: Vec<IpNet> =
        previous.ips.iter().filter(|ip| is_pods(ip.interface)).map(|ip| ip.address).collect();
    [true, false]
        .into_iter()
        .filter_map(|ipv4| pods.iter().find(|net| net.is_ipv4() == ipv4).copied())
        .collect()
}

/// Forgets translations, or the lack of them, that clients of UDP ports keep alive by going on to send.
fn forget_udp(config: &Config, ipv4: bool) {
    const UDP: u8 = 17;
    let ports: Vec<u16> = config
        .mappings
        .iter()
        .filter(|mapping| mapping.protocol == UDP)
        .map(|mapping| mapping.host_port)
        .collect();
    if ports.is_empty() {
        return;
    }
    let forgotten = Connection::open(Protocol::Netfilter)
        .and_then(|mut connection| conntrack::forget(&mut connection, ipv4, UDP, &ports));
    if let Err(error) = forgotten {
        tracing::warn!(%error, "stale UDP connections are still tracked");
    }
}

/// Lets 127.0.0.0/8 leave by the host's link that leads to the pod.
fn route_localhost(address: IpAddr) -> Result<(), Error> {
    let mut connection = Connection::open(Protocol::Route)?;
    let Some(index) = route::link_to(&mut connection, address)? else { return Ok(()) };
    let Some(link) = link::find_index(&mut connection, index)? else { return Ok(()) };
    let parts = ["net", "ipv4", "conf", link.name.as_str(), "route_localnet"];
    sysctl::ensure(&parts, "1").map_err(|error| error.context("unable to enable route_localnet"))
}
