//! Queueing disciplines: a token bucket that shapes, what sorts packets by their destination in front of it, and the hook
//! that redirects what comes in.

use std::net::IpAddr;

use super::message::{Answer, Attributes, CREATE, EXCL, Message, u32_at};
use super::{Connection, Result};
use crate::cni::IpNet;

const RTM_NEWQDISC: u16 = 36;
const RTM_GETQDISC: u16 = 38;
const RTM_NEWTCLASS: u16 = 40;
const RTM_GETTCLASS: u16 = 42;
const RTM_NEWTFILTER: u16 = 44;

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_HTB_PARMS: u16 = 1;
const TCA_HTB_INIT: u16 = 2;
const TCA_HTB_RATE64: u16 = 6;
const TCA_HTB_CEIL64: u16 = 7;
const TCA_U32_CLASSID: u16 = 1;
const TCA_U32_SEL: u16 = 5;
const TCA_U32_ACT: u16 = 7;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_MIRRED_PARMS: u16 = 2;

/// `TC_H_ROOT`
const ROOT: u32 = 0xffff_ffff;
/// `TC_H_INGRESS`
const INGRESS: u32 = 0xffff_fff1;
/// The handle `ffff:` of an ingress discipline.
const INGRESS_HANDLE: u32 = 0xffff_0000;
/// The handle `1:`.
const FIRST: u32 = 0x1_0000;
/// The class of packets that are not shaped, below `1:`; this and what follows of classes is the standard plugin's.
const UNSHAPED_MINOR: u32 = 1;
/// The class of those that are.
const SHAPED_MINOR: u32 = 48;
/// The rate of packets that are not shaped, in bytes a second.
const UNCAPPED: u64 = 100_000_000_000;
/// What a class may send in its turn, in bytes: a few packets, whatever its rate.
const QUANTUM: u32 = 10_000;
/// `TC_LINKLAYER_ETHERNET`
const ETHERNET: u8 = 1;
/// Priorities of filters: one protocol has each of its own. The standard plugin's.
const PRIORITY_V4: u32 = 16;
const PRIORITY_V6: u32 = 15;
/// `ETH_P_IP`
const IPV4: u16 = 0x0800;
/// `ETH_P_IPV6`
const IPV6: u16 = 0x86dd;
/// Where the destination is in the header.
const DESTINATION_V4: i32 = 16;
const DESTINATION_V6: i32 = 24;
/// `ETH_P_ALL` in the network's order, as the lower half of `tcm_info` wants it.
const EVERY_PROTOCOL: u32 = 0x0300;
/// `TC_U32_TERMINAL`
const TERMINAL: u8 = 1;
/// `TC_ACT_STOLEN`
const STOLEN: u32 = 4;
/// `TCA_EGRESS_REDIR`
const EGRESS_REDIRECT: u32 = 1;

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBucket {
    /// Bytes a second.
    pub rate: u64,
    /// Bytes that may wait.
    pub limit_bytes: u32,
    /// Size of the bucket, in ticks of the scheduler's clock.
    pub buffer: u32,
}

impl TokenBucket {
    /// How long packets may wait for tokens.
    const LATENCY_US: u128 = 25_000;

    /// The bucket for `rate` and `burst` in bits, as the standard plugin computes it.
    pub fn of_bits(rate: u64, burst: u64) -> Self {
        let (rate, burst) = (rate / 8, burst / 8);
        let clamp = |number: u128| u32::try_from(number).unwrap_or(u32::MAX);
        let fill_us = clamp(u128::from(burst) * 1_000_000 / u128::from(rate.max(1)));
        Self {
            rate,
            limit_bytes: clamp(u128::from(rate) * Self::LATENCY_US / 1_000_000)
                .saturating_add(clamp(burst.into())),
            // PSCHED_SHIFT is 6 since Linux 2.6.31: a tick is 64 ns, 15.625 of them a microsecond.
            buffer: clamp(u128::from(fill_us) * 125 / 8),
        }
    }
}

/// A discipline as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qdisc {
    /// Index of its link.
    pub link: u32,
    /// `tbf`, `ingress`, ...
    pub kind: String,
    /// What a `tbf` has.
    pub bucket: Option<TokenBucket>,
}

impl Qdisc {
    fn read(answer: &Answer<'_>) -> Option<Self> {
        if answer.kind != RTM_NEWQDISC {
            return None;
        }
        let attributes = Attributes(answer.payload.get(20..)?);
        let kind = attributes.text(TCA_KIND)?;
        let options = attributes.nested(TCA_OPTIONS);
        let bucket = options.get(TCA_TBF_PARMS).filter(|_| kind == "tbf").and_then(|parms| {
            let rate64 =
                options.get(TCA_TBF_RATE64).and_then(|bytes| bytes.try_into().ok()).map(u64::from_ne_bytes);
            Some(TokenBucket {
                rate: rate64.or(u32_at(parms, 8).map(u64::from))?,
                limit_bytes: u32_at(parms, 24)?,
                buffer: u32_at(parms, 28)?,
            })
        });
        Some(Self { link: u32_at(answer.payload, 4)?, kind, bucket })
    }
}

/// `struct tcmsg`.
fn header(link: u32, handle: u32, parent: u32, info: u32) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    for number in [link, handle, parent, info] {
        bytes.extend(number.to_ne_bytes());
    }
    bytes
}

/// What of all packets is shaped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Subnets {
    /// All.
    #[default]
    All,
    /// Those to these networks.
    Only(Vec<IpNet>),
    /// Those to any other than these.
    But(Vec<IpNet>),
}

/// A class of packets: bytes a second, and the size of its bucket in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// Its number below the discipline's.
    minor: u32,
    /// Bytes a second.
    pub rate: u64,
    /// In ticks of the scheduler's clock.
    pub buffer: u32,
}

impl Class {
    fn read(answer: &Answer<'_>) -> Option<Self> {
        if answer.kind != RTM_NEWTCLASS {
            return None;
        }
        let options = Attributes(answer.payload.get(20..)?).nested(TCA_OPTIONS);
        let parms = options.get(TCA_HTB_PARMS)?;
        let rate64 =
            options.get(TCA_HTB_RATE64).and_then(|bytes| bytes.try_into().ok()).map(u64::from_ne_bytes);
        Some(Self {
            minor: u32_at(answer.payload, 8)? & 0xffff,
            rate: rate64.or(u32_at(parms, 8).map(u64::from))?,
            buffer: u32_at(parms, 24)?,
        })
    }
}

/// Shapes what leaves by the link `link` and is of `subnets`. `tc-tbf(8)`, `tc-htb(8)`.
pub fn shape(connection: &mut Connection, link: u32, bucket: TokenBucket, subnets: &Subnets) -> Result<()> {
    let (usual, sorted, networks) = match subnets {
        Subnets::All => return add_token_bucket(connection, link, bucket),
        Subnets::Only(networks) => (UNSHAPED_MINOR, SHAPED_MINOR, networks),
        Subnets::But(networks) => (SHAPED_MINOR, UNSHAPED_MINOR, networks),
    };
    add_sorter(connection, link, usual)?;
    let shaped = Class { minor: SHAPED_MINOR, rate: bucket.rate, buffer: bucket.buffer };
    add_class(connection, link, shaped, bucket.rate.saturating_mul(2))?;
    add_class(connection, link, Class { minor: UNSHAPED_MINOR, rate: UNCAPPED, buffer: 0 }, UNCAPPED)?;
    networks.iter().try_for_each(|network| sort(connection, link, network, FIRST | sorted))
}

/// The class of the packets that are shaped at the link `link`, if they are sorted there.
pub fn shaped_class(connection: &mut Connection, link: u32) -> Result<Option<Class>> {
    let message = Message::new("list classes", RTM_GETTCLASS, 0).header(&header(link, 0, 0, 0));
    let classes = connection.dump(&message, Class::read)?;
    Ok(classes.into_iter().find(|class| class.minor == SHAPED_MINOR))
}

/// Puts two classes in front: packets go to that of the number `usual` unless a filter says otherwise.
fn add_sorter(connection: &mut Connection, link: u32, usual: u32) -> Result<()> {
    let mut message = Message::new(format!("add htb to link {link}"), RTM_NEWQDISC, CREATE | EXCL)
        .header(&header(link, FIRST, ROOT, 0));
    // struct tc_htb_glob: version, what divides a rate into a quantum, the usual class, and two figures of the kernel's.
    let options: Vec<u8> = [3, 10, usual, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
    message.put_str(TCA_KIND, "htb").nest_plain(TCA_OPTIONS, |nested| {
        nested.put(TCA_HTB_INIT, &options);
    });
    connection.execute(message)
}

fn add_class(connection: &mut Connection, link: u32, class: Class, ceil: u64) -> Result<()> {
    let handle = FIRST | class.minor;
    let what = format!("add class {:x}:{:x} to link {link}", FIRST >> 16, class.minor);
    let mut message =
        Message::new(what, RTM_NEWTCLASS, CREATE | EXCL).header(&header(link, handle, FIRST, 0));
    // struct tc_htb_opt: two struct tc_ratespec, the rate and the ceiling, both buckets, quantum, level and priority.
    let mut parms = Vec::new();
    for rate in [class.rate, ceil] {
        parms.extend([0, ETHERNET, 0, 0, 0, 0, 0, 0]);
        parms.extend(u32::try_from(rate).unwrap_or(u32::MAX).to_ne_bytes());
    }
    parms.extend([class.buffer, class.buffer, QUANTUM, 0, 0].into_iter().flat_map(u32::to_ne_bytes));
    message.put_str(TCA_KIND, "htb").nest_plain(TCA_OPTIONS, |options| {
        options.put(TCA_HTB_PARMS, &parms);
        for (kind, rate) in [(TCA_HTB_RATE64, class.rate), (TCA_HTB_CEIL64, ceil)] {
            if rate > u32::MAX.into() {
                options.put(kind, &rate.to_ne_bytes());
            }
        }
    });
    connection.execute(message)
}

/// Sends packets to `network` to `class`. `tc-u32(8)`.
fn sort(connection: &mut Connection, link: u32, network: &IpNet, class: u32) -> Result<()> {
    let (protocol, priority) = match network.address {
        IpAddr::V4(_) => (IPV4, PRIORITY_V4),
        IpAddr::V6(_) => (IPV6, PRIORITY_V6),
    };
    let what = format!("sort {network} at link {link}");
    let info = priority << 16 | u32::from(protocol.to_be());
    let mut message = Message::new(what, RTM_NEWTFILTER, CREATE | EXCL).header(&header(link, 0, FIRST, info));
    message.put_str(TCA_KIND, "u32").nest_plain(TCA_OPTIONS, |options| {
        options.put(TCA_U32_SEL, &selector(&destination(network))).put_u32(TCA_U32_CLASSID, class);
    });
    connection.execute(message)
}

/// A mask, the value below it, and where in the header.
type Key = ([u8; 4], [u8; 4], i32);

/// The keys of packets to `network`: words that any value fits are left out.
fn destination(network: &IpNet) -> Vec<Key> {
    let (bytes, begin) = match network.network() {
        IpAddr::V4(address) => (address.octets().to_vec(), DESTINATION_V4),
        IpAddr::V6(address) => (address.octets().to_vec(), DESTINATION_V6),
    };
    let words = bytes.as_chunks::<4>().0.iter().zip((0..).step_by(4));
    let keys = words.filter_map(|(value, at)| {
        let bits = u32::from(network.prefix).saturating_sub(at * 8).min(32);
        let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0).to_be_bytes();
        (bits > 0).then(|| (mask, *value, begin + i32::try_from(at).unwrap_or(0)))
    });
    keys.collect()
}

/// `struct tc_u32_sel` of `keys`; without any it matches everything.
fn selector(keys: &[Key]) -> Vec<u8> {
    let everything = [([0; 4], [0; 4], 0)];
    let keys = if keys.is_empty() { &everything } else { keys };
    let mut bytes = vec![0; 16];
    bytes[0] = TERMINAL;
    bytes[2] = keys.len() as u8;
    for (mask, value, at) in keys {
        bytes.extend(mask);
        bytes.extend(value);
        bytes.extend(at.to_ne_bytes());
        bytes.extend([0; 4]);
    }
    bytes
}

fn add_token_bucket(connection: &mut Connection, link: u32, bucket: TokenBucket) -> Result<()> {
    let mut message = Message::new(format!("add tbf to link {link}"), RTM_NEWQDISC, CREATE | EXCL)
        .header(&header(link, FIRST, ROOT, 0));
    // struct tc_tbf_qopt: two struct tc_ratespec whose last four bytes are the rate, then limit, buffer and MTU.
    let mut parms = vec![0; 36];
    let short = u32::try_from(bucket.rate).unwrap_or(u32::MAX);
    parms[8..12].copy_from_slice(&short.to_ne_bytes());
    parms[24..28].copy_from_slice(&bucket.limit_bytes.to_ne_bytes());
    parms[28..32].copy_from_slice(&bucket.buffer.to_ne_bytes());
    message.put_str(TCA_KIND, "tbf").nest_plain(TCA_OPTIONS, |options| {
        options.put(TCA_TBF_PARMS, &parms);
        if bucket.rate > u32::MAX.into() {
            options.put(TCA_TBF_RATE64, &bucket.rate.to_ne_bytes());
        }
    });
    connection.execute(message)
}

/// Sends all that comes in by the link `link` out by the link `to`. `tc-mirred(8)`.
pub fn redirect_ingress(connection: &mut Connection, link: u32, to: u32) -> Result<()> {
    let mut message = Message::new(format!("add ingress to link {link}"), RTM_NEWQDISC, CREATE | EXCL)
        .header(&header(link, INGRESS_HANDLE, INGRESS, 0));
    message.put_str(TCA_KIND, "ingress");
    connection.execute(message)?;

    let mut message = Message::new(format!("redirect link {link} to {to}"), RTM_NEWTFILTER, CREATE | EXCL)
        .header(&header(link, 0, INGRESS_HANDLE, 1 << 16 | EVERY_PROTOCOL));
    let selector = selector(&[]);
    let mut mirred = Vec::new();
    for number in [0, 0, STOLEN, 0, 0, EGRESS_REDIRECT, to] {
        mirred.extend(number.to_ne_bytes());
    }
    message.put_str(TCA_KIND, "u32").nest_plain(TCA_OPTIONS, |options| {
        options.put(TCA_U32_SEL, &selector).put_u32(TCA_U32_CLASSID, FIRST | 1).nest_plain(
            TCA_U32_ACT,
            |actions| {
                actions.nest_plain(1, |action| {
                    action.put_str(TCA_ACT_KIND, "mirred").nest_plain(TCA_ACT_OPTIONS, |options| {
                        options.put(TCA_MIRRED_PARMS, &mirred);
                    });
                });
            },
        );
    });
    connection.execute(message)
}

/// The disciplines of the link `link`.
pub fn list(connection: &mut Connection, link: u32) -> Result<Vec<Qdisc>> {
    let message = Message::new("list qdiscs", RTM_GETQDISC, 0).header(&header(link, 0, 0, 0));
    connection.dump(&message, |answer| Qdisc::read(answer).filter(|qdisc| qdisc.link == link))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_as_many_words_as_its_prefix_has() {
        let keys = |text: &str| destination(&text.parse().unwrap());
        assert_eq!(keys("10.1.2.3/9"), [([255, 128, 0, 0], [10, 0, 0, 0], 16)]);
        assert_eq!(keys("10.1.2.3/32"), [([255; 4], [10, 1, 2, 3], 16)]);
        assert_eq!(keys("0.0.0.0/0"), []);
        assert_eq!(
            keys("fd00:1:2::/48"),
            [([255; 4], [0xfd, 0, 0, 1], 24), ([255, 255, 0, 0], [0, 2, 0, 0], 28)]
        );
        assert_eq!(keys("::/0"), []);
        let [one, none] = [selector(&keys("10.0.0.0/8")), selector(&[])];
        assert_eq!((one.len(), one[2], none.len(), none[2]), (32, 1, 32, 1));
    }

    #[test]
    fn buckets_are_the_standard_plugins() {
        // 1 Mbit/s with a burst of 80 kbit: 125000 B/s, 10000 B, filled in 80 ms.
        let bucket = TokenBucket::of_bits(1_000_000, 80_000);
        assert_eq!(bucket, TokenBucket { rate: 125_000, limit_bytes: 3125 + 10_000, buffer: 1_250_000 });
        // What overflows is cut, not wrapped.
        assert_eq!(TokenBucket::of_bits(8, u64::MAX).buffer, u32::MAX);
        assert_eq!(TokenBucket::of_bits(u64::MAX, 8).limit_bytes, u32::MAX);
    }
}
