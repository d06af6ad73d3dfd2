//! Addresses of links.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::message::{Answer, Attributes, CREATE, EXCL, Message, address, u32_at};
use super::{Connection, Result};
use crate::cni::IpNet;

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;

/// `IFA_F_NODAD`
const NODAD: u32 = 0x02;
/// `IFA_F_DADFAILED`
const DAD_FAILED: u32 = 0x08;
/// `IFA_F_TENTATIVE`
const TENTATIVE: u32 = 0x40;

/// An address as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Index of its link.
    pub link: u32,
    /// The address and its network's prefix.
    pub net: IpNet,
    /// Its scope, in the kernel's numbers: 0 is the universe.
    pub scope: u8,
    flags: u32,
}

impl Address {
    fn read(answer: &Answer<'_>) -> Option<Self> {
        if answer.kind != RTM_NEWADDR {
            return None;
        }
        let attributes = Attributes(answer.payload.get(8..)?);
        // On point-to-point links the local address differs from the peer's.
        let own = attributes.get(IFA_LOCAL).or_else(|| attributes.get(IFA_ADDRESS))?;
        Some(Self {
            link: u32_at(answer.payload, 4)?,
            net: IpNet::new(address(own)?, *answer.payload.get(1)?)?,
            scope: *answer.payload.get(3)?,
            flags: attributes.u32(IFA_FLAGS).unwrap_or_else(|| answer.payload[2].into()),
        })
    }
}

/// Number of an address's family.
pub(super) fn family(of: IpAddr) -> u8 {
    if of.is_ipv4() { 2 } else { 10 }
}

/// `struct ifaddrmsg`.
fn header(family: u8, prefix: u8, link: u32) -> Vec<u8> {
    let mut bytes = vec![family, prefix, 0, 0];
    bytes.extend(link.to_ne_bytes());
    bytes
}

/// Whether IPv6 addresses are probed for duplicates before they can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detection {
    /// As the link's settings say.
    Kernel,
    /// Not for this one: its allocation is known to be unique, and it can be used at once.
    Skip,
}

/// Gives the link `link` the address `net`. Having it already is `EEXIST`.
pub fn add(connection: &mut Connection, link: u32, net: IpNet, detection: Detection) -> Result<()> {
    let mut message = Message::new(format!("add address {net}"), RTM_NEWADDR, CREATE | EXCL).header(&header(
        family(net.address),
        net.prefix,
        link,
    ));
    message.put_ip(IFA_LOCAL, net.address).put_ip(IFA_ADDRESS, net.address);
    if detection == Detection::Skip && !net.is_ipv4() {
        message.put_u32(IFA_FLAGS, NODAD);
    }
    if let (IpAddr::V4(address), true) = (net.address, net.prefix < 31) {
        let hosts = u32::MAX.checked_shr(net.prefix.into()).unwrap_or(0);
        message.put_ip(IFA_BROADCAST, IpAddr::V4((u32::from(address) | hosts).into()));
    }
    connection.execute(message)
}

/// Takes the address `net` from the link `link`.
pub fn delete(connection: &mut Connection, link: u32, net: IpNet) -> Result<()> {
    let mut message = Message::new(format!("delete address {net}"), RTM_DELADDR, 0).header(&header(
        family(net.address),
        net.prefix,
        link,
    ));
    message.put_ip(IFA_LOCAL, net.address).put_ip(IFA_ADDRESS, net.address);
    connection.execute(message)
}

/// The addresses of the link `link`, of both families.
pub fn list(connection: &mut Connection, link: u32) -> Result<Vec<Address>> {
    let message = Message::new("list addresses", RTM_GETADDR, 0).header(&header(0, 0, link));
    connection.dump(&message, |answer| Address::read(answer).filter(|address| address.link == link))
}

/// How waiting for duplicate detection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Every address can be used.
    Usable,
    /// Somebody else has this one.
    Duplicate(IpNet),
    /// Not before the deadline.
    Late,
}

/// Waits until no address of the link `link` is tentative.
pub fn settle(connection: &mut Connection, link: u32, deadline: Instant) -> Result<Settled> {
    loop {
        let addresses = list(connection, link)?;
        if let Some(address) = addresses.iter().find(|address| address.flags & DAD_FAILED != 0) {
            return Ok(Settled::Duplicate(address.net));
        }
        // Its own link-local address is nobody's to wait for.
        if addresses.iter().all(|address| address.flags & TENTATIVE == 0 || address.scope != 0) {
            return Ok(Settled::Usable);
        }
        if Instant::now() >= deadline {
            return Ok(Settled::Late);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
