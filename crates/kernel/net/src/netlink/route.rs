//! Routes.

use std::net::IpAddr;

use rustix::io::Errno;

use super::address::family;
use super::message::{Answer, Attributes, CREATE, Message, address};
use super::{Connection, Result};
use crate::cni::IpNet;

const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_METRICS: u16 = 8;
const RTA_TABLE: u16 = 15;
const RTAX_MTU: u16 = 2;
const RTAX_ADVMSS: u16 = 8;

const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
/// `RT_TABLE_MAIN`
const MAIN: u32 = 254;
/// `RTM_F_CLONED`: an entry of a cache, not of a table.
const CLONED: u32 = 0x200;

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destination.
    pub dst: IpNet,
    /// Next hop; none when the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Index of the link.
    pub link: u32,
    /// Routing table; 0 is the main one.
    pub table: u32,
    /// Scope; none for the one that fits.
    pub scope: Option<u8>,
    /// Metric; 0 is the family's own.
    pub priority: u32,
    /// Path MTU; 0 when not set.
    pub mtu: u32,
    /// Maximal segment size; 0 when not set.
    pub advmss: u32,
}

impl Route {
    fn read(answer: &Answer<'_>) -> Option<Self> {
        let header = answer.payload.get(..12)?;
        if answer.kind != RTM_NEWROUTE || super::message::u32_at(header, 8)? & CLONED != 0 {
            return None;
        }
        let attributes = Attributes(answer.payload.get(12..)?);
        let unspecified: IpAddr = if header[0] == 2 { [0; 4].into() } else { [0; 16].into() };
        let dst = attributes.get(RTA_DST).and_then(address).unwrap_or(unspecified);
        let metrics = attributes.nested(RTA_METRICS);
        Some(Self {
            dst: IpNet::new(dst, header[1])?,
            gateway: attributes.get(RTA_GATEWAY).and_then(address),
            link: attributes.u32(RTA_OIF).unwrap_or_default(),
            table: attributes.u32(RTA_TABLE).unwrap_or_else(|| header[4].into()),
            scope: Some(header[6]),
            priority: attributes.u32(RTA_PRIORITY).unwrap_or_default(),
            mtu: metrics.u32(RTAX_MTU).unwrap_or_default(),
            advmss: metrics.u32(RTAX_ADVMSS).unwrap_or_default(),
        })
    }
}

/// `struct rtmsg`.
fn header(family: u8, prefix: u8, scope: u8) -> [u8; 12] {
    [family, prefix, 0, 0, 0, RTPROT_BOOT, scope, RTN_UNICAST, 0, 0, 0, 0]
}

/// Adds a route.
pub fn add(connection: &mut Connection, route: &Route) -> Result<()> {
    // IPv4 refuses a universal scope for what is on the link itself.
    let fitting =
        if route.gateway.is_none() && route.dst.is_ipv4() { RT_SCOPE_LINK } else { RT_SCOPE_UNIVERSE };
    let via = route.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
    let mut message = Message::new(format!("add route {}{via}", route.dst), RTM_NEWROUTE, CREATE)
        .header(&header(family(route.dst.address), route.dst.prefix, route.scope.unwrap_or(fitting)));
    if route.dst.prefix != 0 {
        message.put_ip(RTA_DST, route.dst.network());
    }
    message.put_u32(RTA_OIF, route.link);
    if let Some(gateway) = route.gateway {
        message.put_ip(RTA_GATEWAY, gateway);
    }
    if route.priority != 0 {
        message.put_u32(RTA_PRIORITY, route.priority);
    }
    message.put_u32(RTA_TABLE, if route.table == 0 { MAIN } else { route.table });
    if route.mtu != 0 || route.advmss != 0 {
        message.nest(RTA_METRICS, |metrics| {
            for (kind, value) in [(RTAX_MTU, route.mtu), (RTAX_ADVMSS, route.advmss)] {
                if value != 0 {
                    metrics.put_u32(kind, value);
                }
            }
        });
    }
    connection.execute(message)
}

/// Index of the link that packets to `to` leave by; none when there is no way.
pub fn link_to(connection: &mut Connection, to: IpAddr) -> Result<Option<u32>> {
    let bits = if to.is_ipv4() { 32 } else { 128 };
    let mut message = Message::new(format!("route to {to}"), RTM_GETROUTE, 0).header(&[
        family(to),
        bits,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ]);
    message.put_ip(RTA_DST, to);
    let found = connection.get(message, |answer| Attributes(answer.payload.get(12..)?).u32(RTA_OIF));
    match found {
        Ok(link) => Ok(Some(link)),
        Err(error) if [Errno::NETUNREACH, Errno::HOSTUNREACH].iter().any(|e| error.is(e.raw_os_error())) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Every route of `of`'s family, in every table.
pub fn list(connection: &mut Connection, of: IpAddr) -> Result<Vec<Route>> {
    let message =
        Message::new("list routes", RTM_GETROUTE, 0).header(&[family(of), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    connection.dump(&message, Route::read)
}
