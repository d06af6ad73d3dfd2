//! `CHECK`: the bridge, the pair and the pod's addresses are as `ADD` left them.

use std::os::fd::AsFd as _;

use super::Config;
use crate::cni::{Call, Error, Interface};
use crate::netlink::link::{self, Link};
use crate::netlink::{Connection, Protocol, inside};
use crate::plugin::{interface, ipam, netns};

/// Compares what is there with the previous result.
pub fn check(call: &Call, config: &Config) -> Result<(), Error> {
    let Some(result) = &call.config.prev_result else {
        return Err(Error::config("Required prevResult missing"));
    };
    let netns = netns::open(call)?;
    if let Some(plugin) = &config.ipam {
        ipam::check(call, plugin)?;
    }
    let sandbox = call.netns.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    let named = |name: &str, sandbox: &str| {
        let found = result.interfaces.iter().find(|found| found.name == name && found.sandbox == sandbox);
        found.ok_or_else(|| Error::internal(format!("interface {name} is not in prevResult")))
    };
    let (bridge_before, pod_before) = (named(&config.bridge, "")?, named(&call.ifname, &sandbox)?);

    let mut host = Connection::open(Protocol::Route)?;
    let bridge = present(&mut host, bridge_before)?;
    if !bridge.is_kind("bridge") {
        return Err(Error::internal(format!("Interface {} does not have link type of bridge", bridge.name)));
    }
    if (bridge.promiscuity != 0) != config.promisc {
        let text = format!(
            "Bridge interface {} configured Promisc Mode {} doesn't match current state: {}",
            bridge.name, config.promisc, bridge.promiscuity
        );
        return Err(Error::internal(text));
    }
    let pod = inside(netns.as_fd(), || -> Result<Link, Error> {
        let mut connection = Connection::open(Protocol::Route)?;
        let pod = present(&mut connection, pod_before)?;
        interface::verify(&mut connection, &call.ifname, result)?;
        Ok(pod)
    })??;
    if !pod.is_kind("veth") {
        return Err(Error::internal(format!("Container interface {} not of type veth", pod.name)));
    }
    let port = pod.peer.map(|peer| link::find_index(&mut host, peer)).transpose()?.flatten();
    // The pair is one when each end names the other; the index alone could be of another namespace's link.
    let joined = port.is_some_and(|port| port.peer == Some(pod.index) && port.master == Some(bridge.index));
    if joined {
        return Ok(());
    }
    Err(Error::internal(format!("CNI veth created for bridge {} was not found", config.bridge)))
}

/// The link that `before` describes, with the address that it had.
fn present(connection: &mut Connection, before: &Interface) -> Result<Link, Error> {
    let link = link::find(connection, &before.name)?
        .ok_or_else(|| Error::internal(format!("Interface name {} not found", before.name)))?;
    if !before.mac.is_empty() && before.mac != link.mac_text() {
        return Err(Error::internal(format!("Interface {} Mac doesn't match: {}", link.name, before.mac)));
    }
    Ok(link)
}
