//! `tuning`: settings of the pod's namespace and interface, kept for `DEL` as they were.
//!
//! Invariant: only files below `/proc/sys/net` are written, from a thread inside the pod's namespace.

mod backup;
mod settings;

use std::os::fd::AsFd as _;

use backup::Backup;
use serde::Deserialize;
use serde_json::Value;

use super::{Commands, check, config as common, netns, sysctl};
use crate::cni::{Call, CniResult, Error, Version};
use crate::netlink::link::{self, Change, Link};
use crate::netlink::{Connection, Mac, Protocol, inside};

/// The plugin.
pub(super) struct Tuning;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Fields {
    data_dir: String,
    sysctl: serde_json::Map<String, Value>,
    mac: String,
    promisc: bool,
    mtu: u32,
    #[serde(rename = "txQLen")]
    tx_queue_len: Option<u32>,
    allmulti: Option<bool>,
}

/// What a call says, checked.
struct Config {
    backups: Backup,
    /// Names of settings below `/proc/sys`, in parts, with their values.
    settings: Vec<(Vec<String>, String)>,
    mac: Option<Mac>,
    promisc: bool,
    mtu: Option<u32>,
    tx_queue_len: Option<u32>,
    allmulti: Option<bool>,
}

impl Config {
    fn read(call: &Call) -> Result<Self, Error> {
        let mut fields: Fields = common::decode(call)?;
        if let Some(more) = common::cni_arg(call, "sysctl").and_then(Value::as_object) {
            fields.sysctl.extend(more.clone());
        }
        let number =
            |key| common::cni_arg(call, key).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
        let truth = |key| common::cni_arg(call, key).and_then(Value::as_bool);
        let mac = match common::cni_arg(call, "mac").and_then(Value::as_str) {
            Some(mac) => mac.to_owned(),
            None => common::wanted_mac(call)?.unwrap_or(fields.mac),
        };
        check::interface_name(&call.ifname)?;
        Ok(Self {
            backups: Backup::new(&fields.data_dir, call),
            settings: settings::read(&fields.sysctl, &call.ifname)?,
            mac: if mac.is_empty() { None } else { Some(mac.parse().map_err(Error::config)?) },
            promisc: truth("promisc").unwrap_or(fields.promisc),
            mtu: Some(number("mtu").unwrap_or(fields.mtu)).filter(|mtu| *mtu != 0),
            tx_queue_len: number("txQLen").or(fields.tx_queue_len),
            allmulti: truth("allmulti").or(fields.allmulti),
        })
    }

    fn changes_link(&self) -> bool {
        self.mac.is_some()
            || self.promisc
            || self.mtu.is_some()
            || self.tx_queue_len.is_some()
            || self.allmulti.is_some()
    }

    fn change(&self) -> Change {
        Change {
            promisc: self.promisc.then_some(true),
            allmulti: self.allmulti,
            mac: self.mac,
            mtu: self.mtu,
            tx_queue_len: self.tx_queue_len,
            ..Change::default()
        }
    }
}

impl Commands for Tuning {
    const SINCE: Version = Version::V0_1_0;

    fn add(&self, call: &Call) -> Result<CniResult, Error> {
        let config = Config::read(call)?;
        let mut result = common::previous(call)?;
        let netns = netns::open(call)?;
        inside(netns.as_fd(), || apply(call, &config))??;
        if let Some(mac) = config.mac {
            for interface in result.interfaces.iter_mut().filter(|found| found.name == call.ifname) {
                interface.mac = mac.to_string();
            }
        }
        Ok(result)
    }

    fn del(&self, call: &Call) -> Result<(), Error> {
        let fields: Fields = common::decode(call)?;
        let backups = Backup::new(&fields.data_dir, call);
        let restored = match netns::open_if_there(call)? {
            Some(netns) => inside(netns.as_fd(), || restore(call, &backups))?,
            None => Ok(()),
        };
        // The interface is about to go, and with it whatever could not be restored.
        if let Err(error) = restored {
            tracing::warn!(%error, container = call.container_id, "interface not restored");
        }
        backups.remove()
    }

    fn check(&self, call: &Call) -> Result<(), Error> {
        let config = Config::read(call)?;
        common::previous(call)?;
        let netns = netns::open(call)?;
        inside(netns.as_fd(), || verify(call, &config))?
    }

    fn status(&self, call: &Call) -> Result<(), Error> {
        Config::read(&Call { ifname: "eth0".into(), ..call.clone() }).map(drop)
    }

    fn gc(&self, call: &Call) -> Result<(), Error> {
        // Backups name a container and no network; another network's are not in the list.
        common::decode::<Fields>(call).map(drop)
    }
}

/// Inside the pod: sets everything; what was changed on the link goes back when a step fails.
fn apply(call: &Call, config: &Config) -> Result<(), Error> {
    for (parts, value) in &config.settings {
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        sysctl::write(&parts, value)?;
    }
    if !config.changes_link() {
        return Ok(());
    }
    let mut connection = Connection::open(Protocol::Route)?;
    let link = link::get(&mut connection, &call.ifname)?;
    config.backups.write(&before(config, &link))?;
    let changed = link::change(&mut connection, link.index, &config.change()).map_err(Error::from);
    changed.map_err(|error| match restore(call, &config.backups).and(config.backups.remove()) {
        Ok(()) => error,
        Err(undo) => error.with_details(format!("undo: {undo}")),
    })
}

/// What the link has now of what is going to change.
fn before(config: &Config, link: &Link) -> backup::Saved {
    backup::Saved {
        mac: config.mac.and(link.mac).map(|mac| mac.to_string()).unwrap_or_default(),
        promisc: config.promisc.then_some(link.promiscuity != 0),
        mtu: config.mtu.map_or(0, |_| link.mtu),
        allmulti: config.allmulti.map(|_| link.is_allmulti()),
        tx_queue_len: config.tx_queue_len.map(|_| link.tx_queue_len),
    }
}

/// Inside the pod: gives the link back what it had.
fn restore(call: &Call, backups: &Backup) -> Result<(), Error> {
    let Some(saved) = backups.read()? else { return Ok(()) };
    let mut connection = Connection::open(Protocol::Route)?;
    let Some(link) = link::find(&mut connection, &call.ifname)? else { return Ok(()) };
    let change = Change {
        mac: saved.mac.parse().ok(),
        promisc: saved.promisc,
        mtu: Some(saved.mtu).filter(|mtu| *mtu != 0),
        allmulti: saved.allmulti,
        tx_queue_len: saved.tx_queue_len,
        ..Change::default()
    };
    Ok(link::change(&mut connection, link.index, &change)?)
}

/// Inside the pod: compares everything.
fn verify(call: &Call, config: &Config) -> Result<(), Error> {
    for (parts, wanted) in &config.settings {
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let found = sysctl::read(&parts)?;
        if found != *wanted {
            let name = parts.join("/");
            let text =
                format!("Error: Tuning configured value of {name} is {wanted}, current value is {found}");
            return Err(Error::internal(text));
        }
    }
    let mut connection = Connection::open(Protocol::Route)?;
    let link = link::find(&mut connection, &call.ifname)?
        .ok_or_else(|| Error::internal(format!("Cannot find container link {}", call.ifname)))?;
    let wrong = if config.mac.is_some() && config.mac != link.mac {
        "Ethernet address"
    } else if config.promisc != (link.promiscuity != 0) {
        "promisc"
    } else if config.mtu.is_some_and(|mtu| mtu != link.mtu) {
        "MTU"
    } else if config.allmulti.is_some_and(|allmulti| allmulti != link.is_allmulti()) {
        "all-multicast mode"
    } else if config.tx_queue_len.is_some_and(|length| length != link.tx_queue_len) {
        "Transmit Queue Length"
    } else {
        return Ok(());
    };
    Err(Error::internal(format!(
        "Error: Tuning configured {wrong} of {} is not the current one",
        call.ifname
    )))
}
