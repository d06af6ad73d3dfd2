//! `host-local`: addresses from ranges, one file for each that is taken.
//!
//! ```text
//! /var/lib/cni/networks/NETWORK/
//!   lock                 flock(2), held by whoever reads or changes the rest
//!   10.1.0.7             "CONTAINER\r\nINTERFACE" while it is taken
//!   last_reserved_ip.0   the last address that the first range set gave, where the next search begins
//! ```
//!
//! The files, their content and the lock are those of the standard plugin, so both can serve one network in turn.
//!
//! Invariant: an address is given out at most once, however many processes ask at a time.
//! Invariant: a crash leaves an address free or taken by its container, never taken by nobody.

mod config;
mod range;
mod resolver;
mod store;

use std::net::IpAddr;

pub(super) use config::Config;
use range::RangeSet;
use store::{Locked, Owner, Store};

use super::Commands;
use crate::cni::{Call, CniResult, Error, IpConfig, Version};

/// The plugin.
pub(super) struct HostLocal;

impl Commands for HostLocal {
    const SINCE: Version = Version::V0_1_0;

    fn add(&self, call: &Call) -> Result<CniResult, Error> {
        let config = Config::read(call)?;
        let mut result = CniResult { routes: config.routes.clone(), ..CniResult::default() };
        if let Some(path) = &config.resolv_conf {
            result.dns = resolver::read(path)?;
        }
        let store = Store::open(&config)?;
        let locked = store.lock(call.deadline)?;
        let owner = Owner::of(call);
        match reserve_all(&config, &locked, &owner) {
            Ok(ips) => result.ips = ips,
            Err((taken, error)) => {
                let failed = taken.into_iter().filter_map(|address| locked.free(address).err());
                return Err(failed.fold(error, |error, undo| error.with_details(format!("undo: {undo}"))));
            }
        }
        Ok(result)
    }

    fn del(&self, call: &Call) -> Result<(), Error> {
        let config = Config::read(call)?;
        // A network that never gave an address has no directory, and none is made for it.
        let Some(store) = Store::open_if_there(&config)? else { return Ok(()) };
        store.lock(call.deadline)?.free_owned(&Owner::of(call))
    }

    fn check(&self, call: &Call) -> Result<(), Error> {
        let config = Config::read(call)?;
        let owner = Owner::of(call);
        let found = match Store::open_if_there(&config)? {
            Some(store) => !store.lock(call.deadline)?.owned(&owner)?.is_empty(),
            None => false,
        };
        if found {
            return Ok(());
        }
        let text = format!("host-local: Failed to find address added by container {}", call.container_id);
        Err(Error::internal(text))
    }

    fn status(&self, call: &Call) -> Result<(), Error> {
        // A full range is no reason to call the whole network unavailable: its containers run on.
        Config::read(call).map(drop)
    }

    fn gc(&self, call: &Call) -> Result<(), Error> {
        let Some(valid) = call.config.valid_attachments()? else { return Ok(()) };
        let config = Config::read(call)?;
        let Some(store) = Store::open_if_there(&config)? else { return Ok(()) };
        store.lock(call.deadline)?.free_all_but(&valid)
    }
}

/// An address of each range set, or those taken so far and why there are no more.
fn reserve_all(
    config: &Config,
    locked: &Locked<'_>,
    owner: &Owner,
) -> Result<Vec<IpConfig>, (Vec<IpAddr>, Error)> {
    let mut ips: Vec<IpConfig> = Vec::new();
    let mut wanted = config.wanted.clone();
    let taken = |ips: &[IpConfig]| ips.iter().map(|ip| ip.address.address).collect();
    let mut leases = locked.leases().map_err(|error| (Vec::new(), error))?;
    for (index, set) in config.ranges.iter().enumerate() {
        let asked = wanted.iter().position(|address| set.range_of(*address).is_some());
        let asked = asked.map(|position| wanted.remove(position));
        match reserve(locked, &mut leases, owner, index, set, asked) {
            Ok(ip) => ips.push(ip),
            Err(error) => {
                return Err((taken(&ips), error.context(format!("failed to allocate for range {index}"))));
            }
        }
    }
    if !wanted.is_empty() {
        let list: Vec<String> = wanted.iter().map(ToString::to_string).collect();
        let text = format!("failed to allocate all requested IPs: {}", list.join(" "));
        return Err((taken(&ips), Error::internal(text)));
    }
    Ok(ips)
}

/// One address of `set`, the range set number `index`.
fn reserve(
    locked: &Locked<'_>,
    leases: &mut store::Leases,
    owner: &Owner,
    index: usize,
    set: &RangeSet,
    asked: Option<IpAddr>,
) -> Result<IpConfig, Error> {
    let address = match asked {
        Some(address) => {
            let range = set
                .range_of(address)
                .ok_or_else(|| Error::internal(format!("{address} not in range set {set}")))?;
            if address == range.gateway {
                return Err(Error::internal(format!("requested ip {address} is subnet's gateway")));
            }
            if leases.is_taken(address) {
                let text = format!("requested IP address {address} is not available in range set {set}");
                return Err(Error::internal(text));
            }
            address
        }
        None => {
            if let Some(address) = leases.of(owner).find(|address| set.range_of(*address).is_some()) {
                let text = format!(
                    "{address} has been allocated to {}, duplicate allocation is not allowed",
                    owner.id()
                );
                return Err(Error::internal(text));
            }
            let last = locked.last_reserved(index);
            set.candidates(last)
                .find(|address| !leases.is_taken(*address))
                .ok_or_else(|| Error::internal(format!("no IP addresses available in range set: {set}")))?
        }
    };
    let range =
        set.range_of(address).ok_or_else(|| Error::internal(format!("{address} left range set {set}")))?;
    locked.take(address, owner, index)?;
    leases.add(address, owner);
    Ok(IpConfig { interface: None, address: range.with_prefix(address), gateway: Some(range.gateway) })
}

#[cfg(test)]
mod tests;
