//! `firewall`: lets a pod's packets through the host, and keeps bridges apart where asked.
//!
//! Where iptables filters what the host forwards, only its own rules can accept a packet, so the rules go there, as the
//! standard plugin's do. Elsewhere they are in a table of nf_tables, `inet cni_firewall`.

mod iptables;
mod nftables;

use serde::Deserialize;

use super::masquerade::Backend;
use super::{Commands, check, config as common};
use crate::cni::{Call, CniResult, Error, IpNet, Version};

/// The plugin.
pub(super) struct Firewall;

/// Who may open connections to a pod on a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IngressPolicy {
    Open,
    SameBridge,
    Isolated,
}

struct Config {
    backend: Backend,
    policy: IngressPolicy,
    admin_chain: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Fields {
    backend: String,
    iptables_admin_chain_name: String,
    ingress_policy: String,
}

impl Config {
    fn read(call: &Call) -> Result<Self, Error> {
        let fields: Fields = common::decode(call)?;
        let policy = match fields.ingress_policy.as_str() {
            "" | "open" => IngressPolicy::Open,
            "same-bridge" => IngressPolicy::SameBridge,
            "isolated" => IngressPolicy::Isolated,
            other => return Err(Error::config(format!("unknown ingress policy: {other:?}"))),
        };
        let admin_chain = match fields.iptables_admin_chain_name.as_str() {
            "" => "CNI-ADMIN".to_owned(),
            name if is_chain(name) => name.to_owned(),
            name => return Err(Error::config(format!("invalid iptablesAdminChainName {name:?}"))),
        };
        let backend = match fields.backend.as_str() {
            // firewalld keeps its own rules in nf_tables; without it the same is done here.
            "" | "firewalld" if super::iptables::filters(true) || super::iptables::filters(false) => {
                Backend::Iptables
            }
            "" | "firewalld" => Backend::choose(None, "backend")?,
            other => Backend::choose(Some(other), "backend")?,
        };
        Ok(Self { backend, policy, admin_chain })
    }
}

fn is_chain(name: &str) -> bool {
    name.len() <= 28
        && !name.starts_with('-')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

impl Commands for Firewall {
    const SINCE: Version = Version::V0_4_0;

    fn add(&self, call: &Call) -> Result<CniResult, Error> {
        let config = Config::read(call)?;
        let previous = common::previous(call)?;
        let bridge = match config.policy {
            IngressPolicy::Open => None,
            IngressPolicy::SameBridge | IngressPolicy::Isolated => Some(bridge_of(&previous)?),
        };
        let nets: Vec<IpNet> = previous.ips.iter().map(|ip| ip.address).collect();
        let added = match config.backend {
            Backend::Nftables => nftables::add(call, &config, bridge, &nets),
            Backend::Iptables => iptables::add(call, &config, bridge, &nets),
        };
        match added {
            Ok(()) => Ok(previous),
            Err(error) => Err(match remove(call, &nets) {
                Ok(()) => error,
                Err(undo) => error.with_details(format!("undo: {undo}")),
            }),
        }
    }

    fn del(&self, call: &Call) -> Result<(), Error> {
        let previous = call.config.prev_result.as_ref();
        let nets: Vec<IpNet> = previous.iter().flat_map(|result| &result.ips).map(|ip| ip.address).collect();
        remove(call, &nets)
    }

    fn check(&self, call: &Call) -> Result<(), Error> {
        let config = Config::read(call)?;
        let previous = common::previous(call)?;
        let nets: Vec<IpNet> = previous.ips.iter().map(|ip| ip.address).collect();
        match config.backend {
            Backend::Nftables => nftables::check(call, &nets),
            Backend::Iptables => iptables::check(call, &config, &nets),
        }
    }

    fn status(&self, call: &Call) -> Result<(), Error> {
        Config::read(call).map(drop)
    }

    fn gc(&self, call: &Call) -> Result<(), Error> {
        match call.config.valid_attachments()? {
            Some(valid) => nftables::collect(call, &valid),
            None => Ok(()),
        }
    }
}

/// Removes the rules of both backends. The bridges' own stay: other pods may be on them.
fn remove(call: &Call, nets: &[IpNet]) -> Result<(), Error> {
    nftables::remove(call).and(iptables::remove(call, nets))
}

/// The bridge that the plugin before attached the pod to.
fn bridge_of(previous: &CniResult) -> Result<&str, Error> {
    let first =
        previous.interfaces.first().filter(|first| !first.name.is_empty() && first.sandbox.is_empty());
    let first = first.ok_or_else(|| {
        Error::config("interface needs to be set for an ingress policy, make sure to chain \"firewall\" plugin with \"bridge\"")
    })?;
    check::interface_name(&first.name)?;
    Ok(&first.name)
}
