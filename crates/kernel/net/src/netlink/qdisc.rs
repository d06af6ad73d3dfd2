//! Queueing disciplines: a token bucket that shapes, and the hook that redirects what comes in.

use super::message::{Answer, Attributes, CREATE, EXCL, Message, u32_at};
use super::{Connection, Result};

const RTM_NEWQDISC: u16 = 36;
const RTM_GETQDISC: u16 = 38;
const RTM_NEWTFILTER: u16 = 44;

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
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

/// Shapes what leaves by the link `link`. `tc-tbf(8)`.
pub fn add_token_bucket(connection: &mut Connection, link: u32, bucket: TokenBucket) -> Result<()> {
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
    // struct tc_u32_sel with one key of a zero mask: it matches everything.
    let mut selector = vec![0; 32];
    selector[0] = TERMINAL;
    selector[2] = 1;
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
    fn buckets_are_the_standard_plugins() {
        // 1 Mbit/s with a burst of 80 kbit: 125000 B/s, 10000 B, filled in 80 ms.
        let bucket = TokenBucket::of_bits(1_000_000, 80_000);
        assert_eq!(bucket, TokenBucket { rate: 125_000, limit_bytes: 3125 + 10_000, buffer: 1_250_000 });
        // What overflows is cut, not wrapped.
        assert_eq!(TokenBucket::of_bits(8, u64::MAX).buffer, u32::MAX);
        assert_eq!(TokenBucket::of_bits(u64::MAX, 8).limit_bytes, u32::MAX);
    }
}
