//! Address plugins, called by the plugins that make interfaces.

use super::Commands as _;
use super::host_local::HostLocal;
use crate::cni::{self, Call, CniResult, Command, Error};

/// `host-local` is always ours: its leases are the same files whoever writes them.
const OURS: &str = "host-local";

/// Asks for addresses.
pub fn add(call: &Call, plugin: &str) -> Result<CniResult, Error> {
    if plugin == OURS {
        return HostLocal.add(call);
    }
    let result = cni::delegate(plugin, Command::Add, call)?;
    result.ok_or_else(|| Error::internal(format!("IPAM plugin {plugin:?} gave no result")))
}

/// Gives them back.
pub fn del(call: &Call, plugin: &str) -> Result<(), Error> {
    if plugin == OURS { HostLocal.del(call) } else { cni::delegate(plugin, Command::Del, call).map(drop) }
}

/// Whether they are still held.
pub fn check(call: &Call, plugin: &str) -> Result<(), Error> {
    if plugin == OURS { HostLocal.check(call) } else { cni::delegate(plugin, Command::Check, call).map(drop) }
}

/// Whether there can be some.
pub fn status(call: &Call, plugin: &str) -> Result<(), Error> {
    if plugin == OURS {
        HostLocal.status(call)
    } else {
        cni::delegate(plugin, Command::Status, call).map(drop)
    }
}

/// Gives back those of attachments that are gone.
pub fn gc(call: &Call, plugin: &str) -> Result<(), Error> {
    if plugin == OURS { HostLocal.gc(call) } else { cni::delegate(plugin, Command::Gc, call).map(drop) }
}
