//! What a pod's networks gave it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{CniResult, Dns, Error, Route, Version};

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceSetup {
    /// Its addresses, each with its gateway.
    pub ips: Vec<(IpAddr, Option<IpAddr>)>,
    /// Its hardware address.
    pub mac: String,
    /// Path of the namespace that holds it; empty on the host.
    pub sandbox: String,
    /// Its PCI address, for devices handed over.
    pub pci_id: String,
    /// Path of a socket, for interfaces that are one.
    pub socket_path: String,
}

/// Which of a pod's addresses is its first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IpPreference {
    /// One of IPv4.
    #[default]
    Ipv4,
    /// One of IPv6.
    Ipv6,
    /// The first that the plugins gave.
    Cni,
}

/// What all networks of a pod gave it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// Interfaces by name, those on the host included.
    pub interfaces: BTreeMap<String, InterfaceSetup>,
    /// Resolver settings, one for each network.
    pub dns: Vec<Dns>,
    /// Routes of every network.
    pub routes: Vec<Route>,
    /// The plugins' own results, one for each network, in the newest form.
    pub raw: Vec<Value>,
}

/// The interface that a pod's address is of.
pub(super) const FIRST: &str = "eth0";

impl Setup {
    /// Puts the results of a pod's networks together.
    pub(super) fn of(results: &[CniResult]) -> Result<Self, Error> {
        let mut setup = Self::default();
        setup.interfaces.insert(FIRST.into(), InterfaceSetup::default());
        for result in results {
            for interface in &result.interfaces {
                let known = setup.interfaces.entry(interface.name.clone()).or_default();
                known.mac.clone_from(&interface.mac);
                known.sandbox.clone_from(&interface.sandbox);
                known.pci_id.clone_from(&interface.pci_id);
                known.socket_path.clone_from(&interface.socket_path);
            }
            for ip in &result.ips {
                let interface = ip.interface.and_then(|index| result.interfaces.get(index));
                let name = interface.map_or(FIRST, |interface| &interface.name);
                let known = setup.interfaces.entry(name.to_owned()).or_default();
                known.ips.push((ip.address.address, ip.gateway));
            }
            setup.dns.push(result.dns.clone());
            setup.routes.extend(result.routes.iter().cloned());
            // Without an address the oldest forms cannot be written; the newest always can.
            setup.raw.push(result.to_json(Version::CURRENT)?);
        }
        Ok(setup)
    }

    /// The pod's first address and the others, in the order of preference; none when it was given none.
    pub fn pod_ips(&self, preference: IpPreference) -> Option<(IpAddr, Vec<IpAddr>)> {
        let mut ips: Vec<IpAddr> =
            self.interfaces.get(FIRST)?.ips.iter().map(|(address, _)| *address).collect();
        let first = match preference {
            IpPreference::Cni => 0,
            IpPreference::Ipv4 => ips.iter().position(IpAddr::is_ipv4).unwrap_or(0),
            IpPreference::Ipv6 => ips.iter().position(IpAddr::is_ipv6).unwrap_or(0),
        };
        if ips.is_empty() {
            return None;
        }
        let first = ips.remove(first);
        Some((first, ips))
    }

    /// As go-cni writes its result, which containerd shows in a pod's verbose status.
    pub fn to_json(&self) -> Value {
        let interfaces: serde_json::Map<String, Value> = self
            .interfaces
            .iter()
            .map(|(name, interface)| {
                let ips: Vec<Value> = interface
                    .ips
                    .iter()
                    .map(|(address, gateway)| {
                        json!({"IP": address, "Gateway": gateway.map(|gateway| gateway.to_string()).unwrap_or_default()})
                    })
                    .collect();
                let ips = if ips.is_empty() { Value::Null } else { ips.into() };
                let value = json!({
                    "IPConfigs": ips, "Mac": interface.mac, "Sandbox": interface.sandbox,
                    "PciID": interface.pci_id, "SocketPath": interface.socket_path,
                });
                (name.clone(), value)
            })
            .collect();
        json!({"Interfaces": interfaces, "DNS": self.dns, "Routes": self.routes})
    }
}
