//! The pod's interface: given its addresses and routes, and compared with what it was given.
//!
//! Runs inside the pod's network namespace.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::sysctl;
use crate::cni::{CniResult, Error, IpConfig, Route};
use crate::netlink::address::{Detection, Settled};
use crate::netlink::{self, Connection, address, link, route};

/// Longest wait for duplicate detection.
const SETTLE: Duration = Duration::from_secs(5);

/// Gives the interface `name` the addresses and routes of `result`, and sets it up.
pub fn configure(
    connection: &mut Connection,
    name: &str,
    result: &CniResult,
    detection: Detection,
    deadline: Instant,
) -> Result<(), Error> {
    let link = link::get(connection, name)?;
    if detection == Detection::Kernel {
        sysctl::try_write(&["net", "ipv6", "conf", name, "enhanced_dad"], "1");
        sysctl::try_write(&["net", "ipv6", "conf", name, "accept_dad"], "1");
    } else {
        sysctl::try_write(&["net", "ipv6", "conf", name, "accept_dad"], "0");
    }
    sysctl::try_write(&["net", "ipv4", "conf", name, "arp_notify"], "1");
    if result.ips.iter().any(|ip| !ip.address.is_ipv4()) {
        enable_ipv6(name)?;
    }
    for ip in &result.ips {
        address::add(connection, link.index, ip.address, detection).map_err(|error| {
            Error::from(error).context(format!("failed to add IP addr {} to {name:?}", ip.address))
        })?;
    }
    link::set_up(connection, link.index)?;
    if detection == Detection::Kernel && result.ips.iter().any(|ip| !ip.address.is_ipv4()) {
        match address::settle(connection, link.index, deadline.min(Instant::now() + SETTLE))? {
            Settled::Usable => {}
            Settled::Duplicate(net) => {
                return Err(Error::internal(format!(
                    "failed to settle addresses for {name:?}: {net} is a duplicate"
                )));
            }
            Settled::Late => {
                return Err(Error::internal(format!(
                    "failed to settle addresses for {name:?}: still tentative"
                )));
            }
        }
    }
    for route in &result.routes {
        add_route(connection, link.index, route, &result.ips)?;
    }
    Ok(())
}

/// Images and runtimes turn IPv6 off by default; an address of it is a wish to have it.
fn enable_ipv6(name: &str) -> Result<(), Error> {
    for interface in ["lo", name] {
        let parts = ["net", "ipv6", "conf", interface, "disable_ipv6"];
        // A kernel without IPv6 has no such file; it will say so when it is given the address.
        if sysctl::read(&parts).is_ok_and(|value| value != "0") {
            sysctl::write(&parts, "0").map_err(|error| {
                error.context(format!("failed to enable IPv6 for interface {interface:?}"))
            })?;
        }
    }
    sysctl::try_write(&["net", "ipv6", "conf", name, "keep_addr_on_down"], "1");
    Ok(())
}

/// Adds a route; one without a next hop goes over the first gateway of its family.
fn add_route(connection: &mut Connection, link: u32, route: &Route, ips: &[IpConfig]) -> Result<(), Error> {
    let gateways = ips.iter().filter_map(|ip| ip.gateway);
    let gateway =
        route.gw.or_else(|| gateways.into_iter().find(|gateway| gateway.is_ipv4() == route.dst.is_ipv4()));
    let route = route::Route {
        dst: route.dst,
        gateway,
        link,
        table: route.table.unwrap_or_default(),
        scope: route.scope,
        priority: route.priority,
        mtu: route.mtu,
        advmss: route.advmss,
    };
    Ok(route::add(connection, &route)?)
}

/// Compares the interface `name` with the addresses and routes of `result`.
pub fn verify(connection: &mut Connection, name: &str, result: &CniResult) -> Result<(), Error> {
    let link = link::find(connection, name)?
        .ok_or_else(|| Error::internal(format!("Cannot find container link {name}")))?;
    let addresses = address::list(connection, link.index)?;
    for ip in &result.ips {
        if !addresses.iter().any(|address| address.net == ip.address) {
            return Err(Error::internal(format!("Failed to match addr {} on interface {name}", ip.address)));
        }
    }
    for ipv4 in [true, false] {
        let wanted: Vec<_> = result.routes.iter().filter(|route| route.dst.is_ipv4() == ipv4).collect();
        if wanted.is_empty() {
            continue;
        }
        let unspecified: IpAddr = if ipv4 { [0; 4].into() } else { [0; 16].into() };
        let found = route::list(connection, unspecified)?;
        for route in wanted {
            if !found.iter().any(|found| is_route(found, route)) {
                return Err(Error::internal(format!(
                    "Expected Route to {} not found in routing table",
                    route.dst
                )));
            }
        }
    }
    Ok(())
}

fn is_route(found: &netlink::route::Route, wanted: &Route) -> bool {
    let destination = found.dst.prefix == wanted.dst.prefix && found.dst.address == wanted.dst.network();
    // A default route may have been moved to another next hop by who owns the pod.
    destination && (wanted.dst.prefix == 0 || wanted.gw.is_none() || found.gateway == wanted.gw)
}
