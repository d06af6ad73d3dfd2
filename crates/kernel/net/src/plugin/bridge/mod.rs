//! `bridge`: a veth pair between the pod and a bridge of the host.
//!
//! The pair is made by one request: its near end up and a port of the bridge, its far end in the pod's namespace under
//! its final name. Addresses and routes are set from a thread inside the pod.
//!
//! Invariant: the host's end is up and carries packets before `ADD` returns.

mod config;
mod gateway;
mod port;
mod spoof;
mod verify;

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use config::Config;

use super::{Commands, interface, ipam, masquerade, netns};
use crate::cni::{Call, CniResult, Error, Interface, IpNet, Version};
use crate::netlink::address::Detection;
use crate::netlink::link::{self, Link};
use crate::netlink::{Connection, Protocol, inside};

/// Longest wait for the port to carry packets.
const PORT_WAIT: Duration = Duration::from_secs(3);

/// The plugin.
pub(super) struct Bridge;

/// The steps of an `ADD` that are done.
#[derive(Debug, Default)]
struct Done {
    port: Option<u32>,
    spoof_check: bool,
    addresses: bool,
    masquerade: bool,
}

impl Commands for Bridge {
    const SINCE: Version = Version::V0_1_0;

    fn add(&self, call: &Call) -> Result<CniResult, Error> {
        let config = Config::read(call)?;
        let netns = netns::open(call)?;
        let mut host = Connection::open(Protocol::Route)?;
        let mut done = Done::default();
        match attach(call, &config, &netns, &mut host, &mut done) {
            Ok(result) => Ok(result),
            Err(error) => {
                let failures = undo(call, &config, &mut host, &done);
                Err(if failures.is_empty() { error } else { error.with_details(failures.join("; ")) })
            }
        }
    }

    fn del(&self, call: &Call) -> Result<(), Error> {
        let config = Config::read(call)?;
        let mut failures = Vec::new();
        let mut note = |done: Result<(), Error>| failures.extend(done.err());
        if let Some(netns) = netns::open_if_there(call)? {
            note(delete_interface(&netns, &call.ifname));
        }
        if let Some(plugin) = &config.ipam {
            note(ipam::del(call, plugin));
        }
        if config.mac_spoof_check {
            note(spoof::teardown(&call.container_id, &call.ifname));
        }
        // Whatever the configuration says today, rules of an earlier one go too.
        note(masquerade::teardown(call));
        let mut failures = failures.into_iter();
        match failures.next() {
            None => Ok(()),
            Some(first) => Err(failures.fold(first, |all, next| all.with_details(next))),
        }
    }

    fn check(&self, call: &Call) -> Result<(), Error> {
        verify::check(call, &Config::read(call)?)
    }

    fn status(&self, call: &Call) -> Result<(), Error> {
        match Config::read(call)?.ipam {
            Some(plugin) => ipam::status(call, &plugin),
            None => Ok(()),
        }
    }

    fn gc(&self, call: &Call) -> Result<(), Error> {
        let Some(valid) = call.config.valid_attachments()? else { return Ok(()) };
        let config = Config::read(call)?;
        masquerade::collect(call, &valid)?;
        match config.ipam {
            Some(plugin) => ipam::gc(call, &plugin),
            None => Ok(()),
        }
    }
}

/// Every step of an `ADD`; what is done is noted in `done`.
fn attach(
    call: &Call,
    config: &Config,
    netns: &OwnedFd,
    host: &mut Connection,
    done: &mut Done,
) -> Result<CniResult, Error> {
    let bridge = port::ensure_bridge(host, config)?;
    let ends = port::add_veth(host, config, &bridge, netns.as_fd(), &call.ifname)?;
    done.port = Some(ends.index);
    port::set_up(host, config, ends.index)?;
    if config.mac_spoof_check {
        done.spoof_check = true;
        spoof::setup(&ends.name, ends.pod_mac, &call.container_id, &call.ifname)?;
    }
    let mut result = CniResult::default();
    let mut vlan_gateway = None;
    if let Some(plugin) = &config.ipam {
        result = ipam::add(call, plugin)?;
        done.addresses = true;
        if result.ips.is_empty() {
            return Err(Error::internal("IPAM plugin returned missing IP config"));
        }
        gateway::complete(&mut result, config);
        configure(call, config, netns, &result)?;
        if config.is_gateway {
            vlan_gateway = gateway::setup(host, config, &bridge, &result)?;
        }
        if let Some(backend) = config.masquerade {
            done.masquerade = true;
            let nets: Vec<IpNet> = result.ips.iter().map(|ip| ip.address).collect();
            masquerade::setup(call, backend, &nets)?;
        }
    } else if !config.disable_interface {
        inside(netns.as_fd(), || -> Result<(), Error> {
            let mut connection = Connection::open(Protocol::Route)?;
            let link = link::get(&mut connection, &call.ifname)?;
            Ok(link::set_up(&mut connection, link.index)?)
        })??;
    }
    let port = running_port(call, config, host, ends.index)?;
    let bridge = link::get(host, &config.bridge)?;
    let pod = Interface {
        name: call.ifname.clone(),
        mac: ends.pod_mac.to_string(),
        sandbox: call.netns.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
        ..Interface::default()
    };
    result.interfaces = vec![on_host(&bridge), on_host(&port), pod];
    result.interfaces.extend(vlan_gateway.as_ref().map(on_host));
    if !config.dns.is_empty() {
        result.dns = config.dns.clone();
    }
    Ok(result)
}

/// Gives the pod's interface what the address plugin gave.
fn configure(call: &Call, config: &Config, netns: &OwnedFd, result: &CniResult) -> Result<(), Error> {
    let detection = if config.duplicate_detection { Detection::Kernel } else { Detection::Skip };
    inside(netns.as_fd(), || {
        let mut connection = Connection::open(Protocol::Route)?;
        interface::configure(&mut connection, &call.ifname, result, detection, call.deadline)
    })?
}

/// The host's end, once the bridge forwards to it.
fn running_port(call: &Call, config: &Config, host: &mut Connection, index: u32) -> Result<Link, Error> {
    let found = if config.disable_interface {
        link::find_index(host, index)?
    } else {
        link::wait_until_running(host, index, call.deadline.min(Instant::now() + PORT_WAIT))?
    };
    found.ok_or_else(|| Error::internal(format!("bridge port in error state: port {index} does not come up")))
}

fn on_host(link: &Link) -> Interface {
    Interface { name: link.name.clone(), mac: link.mac_text(), ..Interface::default() }
}

/// Takes back what is `done`, newest first, and says what could not be.
fn undo(call: &Call, config: &Config, host: &mut Connection, done: &Done) -> Vec<String> {
    let mut failures = Vec::new();
    let mut note = |what: &str, result: Result<(), Error>| {
        failures.extend(result.err().map(|error| format!("undo {what}: {error}")));
    };
    if done.masquerade {
        note("masquerade", masquerade::teardown(call));
    }
    if let Some(plugin) = config.ipam.as_deref().filter(|_| done.addresses) {
        note("addresses", ipam::del(call, plugin));
    }
    if done.spoof_check {
        note("MAC spoof check", spoof::teardown(&call.container_id, &call.ifname));
    }
    if let Some(index) = done.port {
        // The far end goes with the near one.
        note("veth", link::delete(host, index).map_err(Error::from));
    }
    failures
}

/// Deletes the pod's interface, if it is there.
fn delete_interface(netns: &OwnedFd, name: &str) -> Result<(), Error> {
    inside(netns.as_fd(), || -> Result<(), Error> {
        let mut connection = Connection::open(Protocol::Route)?;
        match link::find(&mut connection, name)? {
            Some(link) => Ok(link::delete(&mut connection, link.index)?),
            None => Ok(()),
        }
    })?
}
