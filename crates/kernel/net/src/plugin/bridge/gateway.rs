//! Gateways: which they are, and the bridge that has their addresses.

use std::net::IpAddr;

use rustix::io::Errno;

use super::{Config, port};
use crate::cni::{CniResult, Error, IpNet, Route};
use crate::netlink::Connection;
use crate::netlink::address::{self, Detection};
use crate::netlink::link::{self, Change, Link};
use crate::plugin::sysctl;

/// Index of the pod's interface in the result.
const POD_INTERFACE: usize = 2;

/// Completes what the address plugin gave: every address is the pod's, and has a gateway and a default route where
/// the configuration asks for them.
pub fn complete(result: &mut CniResult, config: &Config) {
    for index in 0..result.ips.len() {
        let ip = &mut result.ips[index];
        ip.interface = Some(POD_INTERFACE);
        if ip.gateway.is_none() && config.is_gateway {
            ip.gateway = Some(first_of(ip.address));
        }
        let gateway = ip.gateway;
        let everything = everything(ip.address.is_ipv4());
        let has_default = result.routes.iter().any(|route| route.dst == everything && route.gw.is_some());
        if config.is_default_gateway && !has_default {
            result.routes.push(Route::new(everything, gateway));
        }
    }
}

/// The network that holds every address of a family.
fn everything(ipv4: bool) -> IpNet {
    let address: IpAddr = if ipv4 { [0; 4].into() } else { [0; 16].into() };
    IpNet { address, prefix: 0 }
}

/// The first address of a network after its own.
fn first_of(net: IpNet) -> IpAddr {
    match net.network() {
        IpAddr::V4(network) => IpAddr::V4(u32::from(network).wrapping_add(1).into()),
        IpAddr::V6(network) => IpAddr::V6(u128::from(network).wrapping_add(1).into()),
    }
}

/// Gives the bridge the gateways' addresses and lets the host forward. Returns the VLAN's own link, if there is one.
pub fn setup(
    host: &mut Connection,
    config: &Config,
    bridge: &Link,
    result: &CniResult,
) -> Result<Option<Link>, Error> {
    let mut vlan = None;
    for ip in &result.ips {
        let Some(gateway) = ip.gateway else { continue };
        let holder = if config.vlan == 0 {
            bridge.clone()
        } else {
            let link = port::ensure_vlan_gateway(host, config, bridge)?;
            vlan = Some(link.clone());
            link
        };
        let net = IpNet { address: gateway, prefix: ip.address.prefix };
        ensure_address(host, &holder, net, config.force_address)?;
        sysctl::forward(net.is_ipv4())?;
    }
    Ok(vlan)
}

/// Gives `link` the address `net`, in place of those that contradict it if `force` allows.
fn ensure_address(host: &mut Connection, link: &Link, net: IpNet, force: bool) -> Result<(), Error> {
    for existing in address::list(host, link.index)? {
        let other = existing.net;
        if other == net {
            return Ok(());
        }
        if other.is_ipv4() != net.is_ipv4() {
            continue;
        }
        // IPv6 has room for several networks side by side; IPv4 here has one address.
        if net.is_ipv4() || other.contains(net.address) || net.contains(other.address) {
            if !force {
                return Err(Error::internal(format!(
                    "{:?} already has an IP address different from {net}",
                    link.name
                )));
            }
            address::delete(host, link.index, other)?;
        }
    }
    // The gateway is ours by configuration: waiting a second for objections would only delay the first pod.
    match address::add(host, link.index, net, Detection::Skip) {
        Err(error) if error.is(Errno::EXIST.raw_os_error()) => {}
        added => {
            added.map_err(|error| {
                Error::from(error).context(format!("could not add IP address to {:?}", link.name))
            })?;
        }
    }
    // A bridge whose address nobody chose takes the lowest of its ports', and changes it as pods come and go.
    Ok(link::change(host, link.index, &Change { mac: link.mac, ..Change::default() })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_address_is_the_gateways() {
        assert_eq!(first_of("10.1.2.3/16".parse().unwrap()), "10.1.0.1".parse::<IpAddr>().unwrap());
        assert_eq!(first_of("fd00:1::99/64".parse().unwrap()), "fd00:1::1".parse::<IpAddr>().unwrap());
    }
}
