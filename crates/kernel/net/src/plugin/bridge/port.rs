//! The bridge and the pod's port on it.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use super::Config;
use crate::cni::Error;
use crate::netlink::link::{self, Change, Link, Veth};
use crate::netlink::port::{self, Membership};
use crate::netlink::{Connection, Mac};
use crate::plugin::sysctl;

/// How often another name is tried for the host's end.
const ATTEMPTS: usize = 10;

/// A veth pair that was made.
#[derive(Clone, Debug)]
pub struct Ends {
    /// Index of the host's end.
    pub index: u32,
    /// Name of the host's end.
    pub name: String,
    /// Address of the pod's end.
    pub pod_mac: Mac,
}

/// The bridge of a configuration: made if need be, up in any case.
pub fn ensure_bridge(host: &mut Connection, config: &Config) -> Result<Link, Error> {
    let name = &config.bridge;
    let bridge = match link::find(host, name)? {
        Some(bridge) => bridge,
        None => {
            match link::add_bridge(host, name, config.mtu, config.filters_vlans(), Mac::random()?) {
                // Another pod's ADD was faster.
                Err(error) if error.is(Errno::EXIST.raw_os_error()) => {}
                made => {
                    made.map_err(|error| Error::from(error).context(format!("could not add {name:?}")))?
                }
            }
            // The routes of this link are ours, not a router's advertisement's.
            sysctl::try_write(&["net", "ipv6", "conf", name, "accept_ra"], "0");
            link::get(host, name)?
        }
    };
    if !bridge.is_kind("bridge") {
        return Err(Error::internal(format!("{name:?} already exists but is not a bridge")));
    }
    if config.promisc && bridge.promiscuity == 0 || !bridge.is_up() {
        let promisc = config.promisc.then_some(true);
        link::change(host, bridge.index, &Change { up: Some(true), promisc, ..Change::default() })?;
    }
    Ok(bridge)
}

/// Makes the pair of a pod, under a name that is free.
pub fn add_veth(
    host: &mut Connection,
    config: &Config,
    bridge: &Link,
    netns: BorrowedFd<'_>,
    ifname: &str,
) -> Result<Ends, Error> {
    let (mac, pod_mac) = (Mac::random()?, config.mac.map_or_else(Mac::random, Ok)?);
    for _ in 0..ATTEMPTS {
        let name = random_name()?;
        let veth = Veth {
            name: &name,
            peer: ifname,
            netns: Some(netns),
            master: bridge.index,
            mtu: config.mtu,
            mac,
            peer_mac: pod_mac,
        };
        match link::add_veth(host, &veth) {
            Ok(()) => {
                sysctl::try_write(&["net", "ipv6", "conf", &name, "accept_ra"], "0");
                return Ok(Ends { index: link::get(host, &name)?.index, name, pod_mac });
            }
            Err(error) if error.is(Errno::EXIST.raw_os_error()) => {
                if link::find(host, &name)?.is_none() {
                    let text = format!("container veth name ({ifname:?}) already exists");
                    return Err(Error::internal(text));
                }
            }
            Err(error) => return Err(Error::from(error).context("failed to make veth pair")),
        }
    }
    Err(Error::internal("failed to find a unique veth name"))
}

fn random_name() -> Result<String, Error> {
    let Mac([_, _, a, b, c, d]) = Mac::random()?;
    Ok(format!("veth{a:02x}{b:02x}{c:02x}{d:02x}"))
}

/// Gives the port what its configuration asks for beyond being one.
pub fn set_up(host: &mut Connection, config: &Config, index: u32) -> Result<(), Error> {
    if config.hairpin {
        port::set_hairpin(host, index, true)?;
    }
    if config.isolation {
        port::set_isolated(host, index, true)?;
    }
    if config.filters_vlans() {
        join_vlans(host, config, index)?;
    }
    Ok(())
}

/// Makes the port a member of its VLANs.
fn join_vlans(host: &mut Connection, config: &Config, index: u32) -> Result<(), Error> {
    if (config.vlan != 0 || !config.trunk.is_empty()) && !config.preserve_default_vlan {
        for id in port::vlans(host, index)? {
            port::delete_vlan(host, index, id)?;
        }
    }
    if config.vlan != 0 {
        port::add_vlan(host, index, config.vlan, Membership::Native)?;
    }
    for id in config.trunk.iter().filter(|id| **id != config.vlan) {
        port::add_vlan(host, index, *id, Membership::Tagged)?;
    }
    // A trunk without a VLAN of its own has the bridge's first as its native one.
    if config.vlan == 0 && !config.trunk.is_empty() {
        port::add_vlan(host, index, 1, Membership::Native)?;
    }
    Ok(())
}

/// The host's own port on the VLAN `config.vlan`, `BRIDGE.VLAN`, which has the gateways' addresses.
pub fn ensure_vlan_gateway(host: &mut Connection, config: &Config, bridge: &Link) -> Result<Link, Error> {
    let name = format!("{}.{}", bridge.name, config.vlan);
    if let Some(link) = link::find(host, &name)? {
        return Ok(link);
    }
    crate::plugin::check::interface_name(&name)?;
    let port = random_name()?;
    let veth = Veth {
        name: &port,
        peer: &name,
        netns: None,
        master: bridge.index,
        mtu: bridge.mtu,
        mac: Mac::random()?,
        peer_mac: Mac::random()?,
    };
    match link::add_veth(host, &veth) {
        Err(error) if error.is(Errno::EXIST.raw_os_error()) => return Ok(link::get(host, &name)?),
        made => made
            .map_err(|error| Error::from(error).context(format!("failed to create vlan gateway {name:?}")))?,
    }
    let port = link::get(host, &port)?;
    let joined = join_gateway(host, config, port.index, &name);
    if joined.is_err() {
        link::delete(host, port.index)?;
    }
    joined
}

fn join_gateway(host: &mut Connection, config: &Config, port: u32, name: &str) -> Result<Link, Error> {
    join_vlans(host, &Config { trunk: Default::default(), ..config.clone() }, port)?;
    let gateway = link::get(host, name)?;
    link::set_up(host, gateway.index)?;
    Ok(gateway)
}
