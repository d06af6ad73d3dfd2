//! Ports of a bridge: hairpin, isolation, VLANs.

use std::collections::BTreeSet;

use super::message::{Attributes, Message, u16_at, u32_at};
use super::{Connection, Result};

const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;

const IFLA_PROTINFO: u16 = 12;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const IFLA_BRIDGE_FLAGS: u16 = 0;
const IFLA_BRIDGE_VLAN_INFO: u16 = 2;
/// `BRIDGE_FLAGS_MASTER`: the bridge's table, not the device's.
const MASTER: u16 = 1;
/// `BRIDGE_VLAN_INFO_PVID`
const PVID: u16 = 2;
/// `BRIDGE_VLAN_INFO_UNTAGGED`
const UNTAGGED: u16 = 4;
/// `RTEXT_FILTER_BRVLAN`
const WITH_VLANS: u32 = 2;
/// `PF_BRIDGE`
const FAMILY: u8 = 7;

/// `struct ifinfomsg`.
fn header(index: u32) -> Vec<u8> {
    let mut bytes = vec![FAMILY, 0, 0, 0];
    bytes.extend(index.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes
}

/// Lets the port `index` send packets back where they came from, or not.
pub fn set_hairpin(connection: &mut Connection, index: u32, on: bool) -> Result<()> {
    set(connection, index, "hairpin", IFLA_BRPORT_MODE, on)
}

/// Keeps the port `index` from speaking to other isolated ports, or not. Linux 4.18.
pub fn set_isolated(connection: &mut Connection, index: u32, on: bool) -> Result<()> {
    set(connection, index, "isolated", IFLA_BRPORT_ISOLATED, on)
}

fn set(connection: &mut Connection, index: u32, what: &str, option: u16, on: bool) -> Result<()> {
    let mut message =
        Message::new(format!("set {what} of port {index}"), RTM_SETLINK, 0).header(&header(index));
    message.nest(IFLA_PROTINFO, |info| {
        info.put_u8(option, on.into());
    });
    connection.execute(message)
}

/// Whether packets of a VLAN leave without its tag, and packets without one belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// The port's own VLAN.
    Native,
    /// One of those that a trunk carries.
    Tagged,
}

/// Makes the port `index` a member of the VLAN `id`.
pub fn add_vlan(connection: &mut Connection, index: u32, id: u16, membership: Membership) -> Result<()> {
    let flags = match membership {
        Membership::Native => PVID | UNTAGGED,
        Membership::Tagged => 0,
    };
    vlan(connection, format!("add VLAN {id} to port {index}"), RTM_SETLINK, index, flags, id)
}

/// Ends the membership of the port `index` in the VLAN `id`.
pub fn delete_vlan(connection: &mut Connection, index: u32, id: u16) -> Result<()> {
    vlan(connection, format!("delete VLAN {id} from port {index}"), RTM_DELLINK, index, 0, id)
}

fn vlan(connection: &mut Connection, what: String, kind: u16, index: u32, flags: u16, id: u16) -> Result<()> {
    let mut message = Message::new(what, kind, 0).header(&header(index));
    let [a, b] = flags.to_ne_bytes();
    let [c, d] = id.to_ne_bytes();
    message.nest_plain(IFLA_AF_SPEC, |spec| {
        spec.put_u16(IFLA_BRIDGE_FLAGS, MASTER).put(IFLA_BRIDGE_VLAN_INFO, &[a, b, c, d]);
    });
    connection.execute(message)
}

/// The VLANs that the port `index` is a member of.
pub fn vlans(connection: &mut Connection, index: u32) -> Result<BTreeSet<u16>> {
    let mut message = Message::new("list VLANs", RTM_GETLINK, 0).header(&header(0));
    message.put_u32(IFLA_EXT_MASK, WITH_VLANS);
    let ports = connection.dump(&message, |answer| {
        if u32_at(answer.payload, 4)? != index {
            return None;
        }
        let spec = Attributes(answer.payload.get(16..)?).nested(IFLA_AF_SPEC);
        let infos = spec.into_iter().filter(|(kind, _)| *kind == IFLA_BRIDGE_VLAN_INFO);
        Some(infos.filter_map(|(_, info)| u16_at(info, 2)).collect::<Vec<_>>())
    })?;
    Ok(ports.into_iter().flatten().collect())
}
