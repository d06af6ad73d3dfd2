//! `loopback`: the pod's `lo`, up.

use std::os::fd::AsFd as _;

use super::{Commands, netns};
use crate::cni::{Call, CniResult, Error, Interface, IpConfig, Version};
use crate::netlink::{Connection, Protocol, address, inside, link};

/// The plugin.
pub(super) struct Loopback;

/// Whatever name the runtime gives, this is the interface.
const NAME: &str = "lo";

impl Commands for Loopback {
    const SINCE: Version = Version::V0_1_0;

    fn add(&self, call: &Call) -> Result<CniResult, Error> {
        let netns = netns::open(call)?;
        let addresses = inside(netns.as_fd(), || -> Result<_, Error> {
            let mut connection = Connection::open(Protocol::Route)?;
            let lo = link::get(&mut connection, NAME)?;
            link::set_up(&mut connection, lo.index)?;
            Ok(address::list(&mut connection, lo.index)?)
        })??;
        if let Some(wrong) = addresses.iter().find(|address| !address.net.address.is_loopback()) {
            let text = format!("loopback interface found with non-loopback address {}", wrong.net.address);
            return Err(Error::internal(text));
        }
        if let Some(previous) = &call.config.prev_result {
            return Ok(previous.clone());
        }
        let sandbox = call.netns.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        let first = |ipv4: bool| addresses.iter().find(|address| address.net.is_ipv4() == ipv4);
        let ips = [first(true), first(false)].into_iter().flatten();
        Ok(CniResult {
            interfaces: vec![Interface {
                name: NAME.into(),
                mac: "00:00:00:00:00:00".into(),
                sandbox,
                ..Interface::default()
            }],
            ips: ips.map(|ip| IpConfig { interface: Some(0), address: ip.net, gateway: None }).collect(),
            ..CniResult::default()
        })
    }

    fn del(&self, call: &Call) -> Result<(), Error> {
        let Some(netns) = netns::open_if_there(call)? else { return Ok(()) };
        inside(netns.as_fd(), || -> Result<(), Error> {
            let mut connection = Connection::open(Protocol::Route)?;
            let lo = link::get(&mut connection, NAME)?;
            let down = link::Change { up: Some(false), ..link::Change::default() };
            Ok(link::change(&mut connection, lo.index, &down)?)
        })?
    }

    fn check(&self, call: &Call) -> Result<(), Error> {
        let netns = netns::open(call)?;
        let lo = inside(netns.as_fd(), || -> Result<_, Error> {
            Ok(link::get(&mut Connection::open(Protocol::Route)?, NAME)?)
        })??;
        if lo.is_up() { Ok(()) } else { Err(Error::internal("loopback interface is down")) }
    }

    fn status(&self, _: &Call) -> Result<(), Error> {
        Ok(())
    }

    fn gc(&self, _: &Call) -> Result<(), Error> {
        Ok(())
    }
}
