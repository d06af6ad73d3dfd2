//! Links: bridges, veth pairs, ifb devices; looked up, made, changed, deleted.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::message::{Answer, Attributes, CREATE, EXCL, Message, u32_at};
use super::{Connection, Error, Mac, Result};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_TXQLEN: u16 = 13;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_PROMISCUITY: u16 = 30;

const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_BR_VLAN_FILTERING: u16 = 7;
/// `RTEXT_FILTER_SKIP_STATS`
const SKIP_STATS: u32 = 8;

const IFF_UP: u32 = 0x1;
const IFF_PROMISC: u32 = 0x100;
const IFF_ALLMULTI: u32 = 0x200;
/// `IF_OPER_UP`
const OPER_UP: u8 = 6;

/// A link as it is now.
#[derive(Clone, Debug)]
pub struct Link {
    /// Its index in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address; none for links without one of six bytes.
    pub mac: Option<Mac>,
    /// Its MTU.
    pub mtu: u32,
    /// `IFF_*`.
    pub flags: u32,
    /// Index of the bridge that it is a port of.
    pub master: Option<u32>,
    /// For a veth the index of its peer, in the peer's namespace.
    pub peer: Option<u32>,
    /// `bridge`, `veth`, ...; none for physical devices.
    pub kind: Option<String>,
    /// `IF_OPER_*`.
    pub oper_state: u8,
    /// How many want it promiscuous.
    pub promiscuity: u32,
    /// Length of its transmit queue.
    pub tx_queue_len: u32,
}

impl Link {
    /// Whether it is administratively up.
    pub fn is_up(&self) -> bool {
        self.flags & IFF_UP != 0
    }

    /// Whether it takes every multicast packet.
    pub fn is_allmulti(&self) -> bool {
        self.flags & IFF_ALLMULTI != 0
    }

    /// Whether it is of `kind`.
    pub fn is_kind(&self, kind: &str) -> bool {
        self.kind.as_deref() == Some(kind)
    }

    /// Its hardware address as text, empty when it has none.
    pub fn mac_text(&self) -> String {
        self.mac.map(|mac| mac.to_string()).unwrap_or_default()
    }

    fn read(answer: &Answer<'_>) -> Option<Self> {
        if answer.kind != RTM_NEWLINK {
            return None;
        }
        let attributes = Attributes(answer.payload.get(16..)?);
        Some(Self {
            index: u32_at(answer.payload, 4)?,
            flags: u32_at(answer.payload, 8)?,
            name: attributes.text(IFLA_IFNAME)?,
            mac: attributes.get(IFLA_ADDRESS).and_then(Mac::from_bytes),
            mtu: attributes.u32(IFLA_MTU).unwrap_or_default(),
            master: attributes.u32(IFLA_MASTER),
            peer: attributes.u32(IFLA_LINK),
            kind: attributes.nested(IFLA_LINKINFO).text(IFLA_INFO_KIND),
            oper_state: attributes.u8(IFLA_OPERSTATE).unwrap_or_default(),
            promiscuity: attributes.u32(IFLA_PROMISCUITY).unwrap_or_default(),
            tx_queue_len: attributes.u32(IFLA_TXQLEN).unwrap_or_default(),
        })
    }
}

/// `struct ifinfomsg`.
fn header(index: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    for number in [index, flags, change] {
        bytes.extend(number.to_ne_bytes());
    }
    bytes
}

fn one(connection: &mut Connection, message: Message) -> Result<Option<Link>> {
    match connection.get(message, Link::read) {
        Ok(link) => Ok(Some(link)),
        Err(error) if error.is(rustix::io::Errno::NODEV.raw_os_error()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The link `name`, when there is one.
pub fn find(connection: &mut Connection, name: &str) -> Result<Option<Link>> {
    let mut message = Message::new(format!("look up link {name}"), RTM_GETLINK, 0).header(&header(0, 0, 0));
    message.put_str(IFLA_IFNAME, name).put_u32(IFLA_EXT_MASK, SKIP_STATS);
    one(connection, message)
}

/// The link of index `index`, when there is one.
pub fn find_index(connection: &mut Connection, index: u32) -> Result<Option<Link>> {
    let mut message =
        Message::new(format!("look up link {index}"), RTM_GETLINK, 0).header(&header(index, 0, 0));
    message.put_u32(IFLA_EXT_MASK, SKIP_STATS);
    one(connection, message)
}

/// The link `name`, which must exist.
pub fn get(connection: &mut Connection, name: &str) -> Result<Link> {
    find(connection, name)?.ok_or_else(|| Error::Refused {
        request: format!("look up link {name}"),
        errno: rustix::io::Errno::NODEV.raw_os_error(),
        text: None,
    })
}

/// Every link of the namespace.
pub fn list(connection: &mut Connection) -> Result<Vec<Link>> {
    let mut message = Message::new("list links", RTM_GETLINK, 0).header(&header(0, 0, 0));
    message.put_u32(IFLA_EXT_MASK, SKIP_STATS);
    connection.dump(&message, Link::read)
}

/// A veth pair to be made.
#[derive(Clone, Copy, Debug)]
pub struct Veth<'a> {
    /// Name of the end that stays.
    pub name: &'a str,
    /// Name of the end in the other namespace.
    pub peer: &'a str,
    /// The other namespace; none to keep both ends here.
    pub netns: Option<BorrowedFd<'a>>,
    /// The bridge that the end that stays becomes a port of.
    pub master: u32,
    /// MTU of both; 0 for the kernel's.
    pub mtu: u32,
    /// Address of the end that stays.
    pub mac: Mac,
    /// Address of the other end.
    pub peer_mac: Mac,
}

/// Makes a veth pair, its near end up and a port of its bridge, its far end down in its namespace: all or nothing.
///
/// `veth(4)`. Made in its namespace the far end is never seen, renamed or configured by what watches the host.
pub fn add_veth(connection: &mut Connection, veth: &Veth<'_>) -> Result<()> {
    let mut message = Message::new(format!("add veth {}", veth.name), RTM_NEWLINK, CREATE | EXCL)
        .header(&header(0, IFF_UP, IFF_UP));
    message.put_str(IFLA_IFNAME, veth.name).put_u32(IFLA_MASTER, veth.master).put(IFLA_ADDRESS, &veth.mac.0);
    if veth.mtu != 0 {
        message.put_u32(IFLA_MTU, veth.mtu);
    }
    message.nest(IFLA_LINKINFO, |info| {
        info.put_str(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |data| {
            data.nest(VETH_INFO_PEER, |peer| {
                peer.raw(&header(0, 0, 0))
                    .put_str(IFLA_IFNAME, veth.peer)
                    .put(IFLA_ADDRESS, &veth.peer_mac.0);
                if let Some(netns) = veth.netns {
                    peer.put_u32(IFLA_NET_NS_FD, netns.as_raw_fd() as u32);
                }
                if veth.mtu != 0 {
                    peer.put_u32(IFLA_MTU, veth.mtu);
                }
            });
        });
    });
    connection.execute(message)
}

/// Makes the bridge `name`, up. An address of its own keeps it from changing with its ports.
pub fn add_bridge(
    connection: &mut Connection,
    name: &str,
    mtu: u32,
    vlan_filtering: bool,
    mac: Mac,
) -> Result<()> {
    let mut message = Message::new(format!("add bridge {name}"), RTM_NEWLINK, CREATE | EXCL)
        .header(&header(0, IFF_UP, IFF_UP));
    message.put_str(IFLA_IFNAME, name).put(IFLA_ADDRESS, &mac.0);
    if mtu != 0 {
        message.put_u32(IFLA_MTU, mtu);
    }
    message.nest(IFLA_LINKINFO, |info| {
        info.put_str(IFLA_INFO_KIND, "bridge");
        if vlan_filtering {
            info.nest(IFLA_INFO_DATA, |data| {
                data.put_u8(IFLA_BR_VLAN_FILTERING, 1);
            });
        }
    });
    connection.execute(message)
}

/// Makes the intermediate functional block `name`, up: a device whose egress shapes another's ingress.
pub fn add_ifb(connection: &mut Connection, name: &str, mtu: u32) -> Result<()> {
    let mut message = Message::new(format!("add ifb {name}"), RTM_NEWLINK, CREATE | EXCL)
        .header(&header(0, IFF_UP, IFF_UP));
    message.put_str(IFLA_IFNAME, name).put_u32(IFLA_MTU, mtu).nest(IFLA_LINKINFO, |info| {
        info.put_str(IFLA_INFO_KIND, "ifb");
    });
    connection.execute(message)
}

/// Deletes the link of index `index`. One that is gone is deleted.
pub fn delete(connection: &mut Connection, index: u32) -> Result<()> {
    let message = Message::new(format!("delete link {index}"), RTM_DELLINK, 0).header(&header(index, 0, 0));
    match connection.execute(message) {
        Err(error) if error.is(rustix::io::Errno::NODEV.raw_os_error()) => Ok(()),
        done => done,
    }
}

/// What is to change on a link; all of it in one request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change {
    /// Up or down.
    pub up: Option<bool>,
    /// Takes every packet.
    pub promisc: Option<bool>,
    /// Takes every multicast packet.
    pub allmulti: Option<bool>,
    /// Its hardware address.
    pub mac: Option<Mac>,
    /// Its MTU.
    pub mtu: Option<u32>,
    /// Length of its transmit queue.
    pub tx_queue_len: Option<u32>,
    /// The bridge that it becomes a port of.
    pub master: Option<u32>,
}

/// Changes the link of index `index`.
pub fn change(connection: &mut Connection, index: u32, change: &Change) -> Result<()> {
    let (mut flags, mut mask) = (0, 0);
    for (wanted, bit) in [(change.up, IFF_UP), (change.promisc, IFF_PROMISC), (change.allmulti, IFF_ALLMULTI)]
    {
        if let Some(on) = wanted {
            mask |= bit;
            flags |= if on { bit } else { 0 };
        }
    }
    let mut message =
        Message::new(format!("change link {index}"), RTM_NEWLINK, 0).header(&header(index, flags, mask));
    if let Some(mac) = change.mac {
        message.put(IFLA_ADDRESS, &mac.0);
    }
    for (wanted, kind) in
        [(change.mtu, IFLA_MTU), (change.tx_queue_len, IFLA_TXQLEN), (change.master, IFLA_MASTER)]
    {
        if let Some(value) = wanted {
            message.put_u32(kind, value);
        }
    }
    connection.execute(message)
}

/// Sets the link of index `index` up.
pub fn set_up(connection: &mut Connection, index: u32) -> Result<()> {
    change(connection, index, &Change { up: Some(true), ..Change::default() })
}

/// Waits until the link of index `index` carries packets; a bridge forwards to a port only then. `None` at `deadline`.
///
/// The kernel tells carriers from a work queue, usually within a millisecond.
pub fn wait_until_running(
    connection: &mut Connection,
    index: u32,
    deadline: Instant,
) -> Result<Option<Link>> {
    let mut pause = Duration::from_micros(100);
    loop {
        match find_index(connection, index)? {
            Some(link) if link.oper_state == OPER_UP => return Ok(Some(link)),
            _ if Instant::now() >= deadline => return Ok(None),
            _ => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}
