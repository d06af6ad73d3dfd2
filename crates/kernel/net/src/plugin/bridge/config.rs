//! The configuration of `bridge`.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::cni::{Call, Dns, Error};
use crate::netlink::Mac;
use crate::plugin::masquerade::{self, Backend};
use crate::plugin::{check, config};

/// Largest VLAN.
const VLAN_MAX: i64 = 4094;
/// Largest MTU that a veth pair takes.
const MTU_MAX: u32 = 65535;

/// What a call says, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the bridge.
    pub bridge: String,
    /// The bridge has the gateways' addresses.
    pub is_gateway: bool,
    /// The pod's default route goes over it.
    pub is_default_gateway: bool,
    /// Another address of the bridge is replaced.
    pub force_address: bool,
    /// What leaves the network comes from the host.
    pub masquerade: Option<Backend>,
    /// MTU; 0 for the kernel's.
    pub mtu: u32,
    /// Packets may go back to the port that they came from.
    pub hairpin: bool,
    /// The bridge takes every packet.
    pub promisc: bool,
    /// The pod's VLAN; 0 for none.
    pub vlan: u16,
    /// VLANs that reach the pod with their tags.
    pub trunk: BTreeSet<u16>,
    /// Whether a trunk is configured, even an empty one.
    pub has_trunk: bool,
    /// Ports keep the VLAN that the bridge gives them.
    pub preserve_default_vlan: bool,
    /// Only the pod's own hardware address may send.
    pub mac_spoof_check: bool,
    /// Addresses of IPv6 are probed for duplicates.
    pub duplicate_detection: bool,
    /// The pod's interface stays down.
    pub disable_interface: bool,
    /// The port does not speak to other isolated ports.
    pub isolation: bool,
    /// The pod's hardware address.
    pub mac: Option<Mac>,
    /// Name of the address plugin.
    pub ipam: Option<String>,
    /// Resolver settings that replace the address plugin's.
    pub dns: Dns,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Fields {
    bridge: String,
    is_gateway: bool,
    is_default_gateway: bool,
    force_address: bool,
    ip_masq: bool,
    mtu: u32,
    hairpin_mode: bool,
    promisc_mode: bool,
    vlan: i64,
    vlan_trunk: Option<Vec<Trunk>>,
    preserve_default_vlan: bool,
    macspoofchk: bool,
    enabledad: bool,
    disable_container_interface: bool,
    port_isolation: bool,
    dns: Dns,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            bridge: "cni0".into(),
            is_gateway: false,
            is_default_gateway: false,
            force_address: false,
            ip_masq: false,
            mtu: 0,
            hairpin_mode: false,
            promisc_mode: false,
            vlan: 0,
            vlan_trunk: None,
            preserve_default_vlan: false,
            macspoofchk: false,
            enabledad: false,
            disable_container_interface: false,
            port_isolation: false,
            dns: Dns::default(),
        }
    }
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Trunk {
    #[serde(rename = "minID")]
    min: Option<i64>,
    #[serde(rename = "maxID")]
    max: Option<i64>,
    id: Option<i64>,
}

impl Config {
    /// Reads a call.
    pub fn read(call: &Call) -> Result<Self, Error> {
        let fields: Fields = config::decode(call)?;
        let ipam = call.config.ipam().map(str::to_owned);
        check::interface_name(&fields.bridge)
            .map_err(|error| Error::config(format!("bridge: {}", error.msg)))?;
        if !(0..=VLAN_MAX).contains(&fields.vlan) {
            return Err(Error::config(format!(
                "invalid VLAN ID {} (must be between 0 and 4094)",
                fields.vlan
            )));
        }
        if fields.mtu > MTU_MAX {
            return Err(Error::config(format!("invalid MTU {}", fields.mtu)));
        }
        if ipam.is_some() && fields.disable_container_interface {
            return Err(Error::config("cannot use IPAM when DisableContainerInterface flag is set"));
        }
        if fields.hairpin_mode && fields.promisc_mode {
            return Err(Error::config("cannot set hairpin mode and promiscuous mode at the same time"));
        }
        let mac = config::wanted_mac(call)?.map(|text| text.parse().map_err(Error::config)).transpose()?;
        Ok(Self {
            bridge: fields.bridge,
            is_gateway: fields.is_gateway || fields.is_default_gateway,
            is_default_gateway: fields.is_default_gateway,
            force_address: fields.force_address,
            masquerade: if fields.ip_masq { Some(masquerade::backend(call)?) } else { None },
            mtu: fields.mtu,
            hairpin: fields.hairpin_mode,
            promisc: fields.promisc_mode,
            vlan: fields.vlan as u16,
            trunk: trunk(fields.vlan_trunk.as_deref().unwrap_or_default())?,
            has_trunk: fields.vlan_trunk.is_some(),
            preserve_default_vlan: fields.preserve_default_vlan,
            mac_spoof_check: fields.macspoofchk,
            duplicate_detection: fields.enabledad,
            disable_interface: fields.disable_container_interface,
            isolation: fields.port_isolation,
            mac,
            ipam,
            dns: fields.dns,
        })
    }

    /// Whether the bridge must tell VLANs apart.
    pub fn filters_vlans(&self) -> bool {
        self.vlan != 0 || self.has_trunk
    }
}

/// The VLANs of a trunk: ranges and single ones.
fn trunk(items: &[Trunk]) -> Result<BTreeSet<u16>, Error> {
    let id = |number: i64, what: &str| match u16::try_from(number) {
        Ok(id) if (1..=VLAN_MAX).contains(&number) => Ok(id),
        _ => Err(Error::config(format!("incorrect trunk {what} parameter"))),
    };
    let mut vlans = BTreeSet::new();
    for item in items {
        match (item.min, item.max) {
            (Some(min), Some(max)) => {
                let (first, last) = (id(min, "minID")?, id(max, "maxID")?);
                if last < first {
                    return Err(Error::config("minID is greater than maxID in trunk parameter"));
                }
                vlans.extend(first..=last);
            }
            (None, None) => {}
            (min, _) => {
                let missing = if min.is_none() { "minID" } else { "maxID" };
                let text =
                    format!("minID and maxID should be configured simultaneously, {missing} is missing");
                return Err(Error::config(text));
            }
        }
        if let Some(number) = item.id {
            vlans.insert(id(number, "id")?);
        }
    }
    Ok(vlans)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trunks_are_checked() {
        let trunk_of = |text: &str| trunk(&serde_json::from_str::<Vec<Trunk>>(text).unwrap());
        let vlans = trunk_of(r#"[{"id": 7}, {"minID": 3, "maxID": 5}, {"id": 4}]"#).unwrap();
        assert_eq!(vlans.into_iter().collect::<Vec<_>>(), [3, 4, 5, 7]);
        for text in [
            r#"[{"id": 0}]"#,
            r#"[{"id": 4095}]"#,
            r#"[{"minID": 5, "maxID": 3}]"#,
            r#"[{"minID": 5}]"#,
            r#"[{"maxID": 5}]"#,
            r#"[{"minID": -1, "maxID": 70000}]"#,
        ] {
            assert!(trunk_of(text).is_err(), "{text}");
        }
    }
}
