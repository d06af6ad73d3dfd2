//! Rules: matches in their order, then what to do.

use std::net::IpAddr;

use super::expression::{Base, Ct, Expression, Meta};
use crate::cni::IpNet;
use crate::netlink::Mac;
use crate::netlink::message::octets;

/// Longest comment that nf_tables' user data holds, its zero included.
const COMMENT_MAX: usize = 128;
/// `IFNAMSIZ`
const NAME_SIZE: usize = 16;
/// `RTN_LOCAL`
const LOCAL: u32 = 2;
/// `IPS_DST_NAT`
const DESTINATION_TRANSLATED: u32 = 0x20;
/// Bits of `ct state established,related`.
const ESTABLISHED_OR_RELATED: u32 = 0x6;

/// Whether a match wants the value or anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `==`
    Is,
    /// `!=`
    IsNot,
}

/// Where a packet goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// On to the next hook.
    Accept,
    /// Nowhere.
    Drop,
    /// Back to the chain that jumped here.
    Return,
    /// Through this chain, then on.
    Jump(String),
    /// Through this chain, and not back.
    Goto(String),
}

/// A rule that is being written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    pub(super) expressions: Vec<Expression>,
    pub(super) comment: Option<String>,
}

impl Rule {
    /// A rule that matches everything and does nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The comment that the rule is found by.
    #[must_use]
    pub fn comment(mut self, text: &str) -> Self {
        let mut end = text.len().min(COMMENT_MAX - 1);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.comment = Some(text[..end].to_owned());
        self
    }

    /// Whether `found` is this rule's comment, which may have been cut.
    pub fn has_comment(&self, found: Option<&str>) -> bool {
        found.is_some() && self.comment.as_deref() == found
    }

    /// Matches packets of IPv4, or of IPv6; needed before addresses in tables of the family `inet`.
    #[must_use]
    pub fn family(self, ipv4: bool) -> Self {
        self.load(Expression::Meta(Meta::NfProto)).compare(Op::Is, vec![if ipv4 { 2 } else { 10 }])
    }

    /// Matches the transport protocol.
    #[must_use]
    pub fn protocol(self, number: u8) -> Self {
        self.load(Expression::Meta(Meta::L4Proto)).compare(Op::Is, vec![number])
    }

    /// Matches the destination port. Follows [`Rule::protocol`].
    #[must_use]
    pub fn destination_port(self, port: u16) -> Self {
        self.load(Expression::Payload { base: Base::Transport, offset: 2, length: 2 })
            .compare(Op::Is, port.to_be_bytes().to_vec())
    }

    /// Matches the source address.
    #[must_use]
    pub fn source(self, op: Op, net: IpNet) -> Self {
        self.address(op, net, if net.is_ipv4() { 12 } else { 8 })
    }

    /// Matches the destination address.
    #[must_use]
    pub fn destination(self, op: Op, net: IpNet) -> Self {
        self.address(op, net, if net.is_ipv4() { 16 } else { 24 })
    }

    /// Matches the source's Ethernet address.
    #[must_use]
    pub fn source_mac(self, mac: Mac) -> Self {
        self.load(Expression::Payload { base: Base::Link, offset: 6, length: 6 })
            .compare(Op::Is, mac.0.to_vec())
    }

    /// Matches the link that the packet came in by.
    #[must_use]
    pub fn input(self, op: Op, name: &str) -> Self {
        self.load(Expression::Meta(Meta::IifName)).compare(op, padded(name))
    }

    /// Matches the link that the packet goes out by.
    #[must_use]
    pub fn output(self, op: Op, name: &str) -> Self {
        self.load(Expression::Meta(Meta::OifName)).compare(op, padded(name))
    }

    /// Matches packets for an address of this host: `fib daddr type local`.
    #[must_use]
    pub fn to_this_host(self) -> Self {
        self.load(Expression::FibDestinationType).compare(Op::Is, LOCAL.to_ne_bytes().to_vec())
    }

    /// Matches packets whose destination was translated: `ct status dnat`.
    #[must_use]
    pub fn translated(self) -> Self {
        self.bits(Ct::Status, DESTINATION_TRANSLATED)
    }

    /// Matches `ct state established,related`.
    #[must_use]
    pub fn established_or_related(self) -> Self {
        self.bits(Ct::State, ESTABLISHED_OR_RELATED)
    }

    /// Ends the rule: the packet goes to `address` and `port` instead.
    #[must_use]
    pub fn dnat(self, address: IpAddr, port: u16) -> Self {
        self.load(Expression::Load(octets(address)))
            .load(Expression::LoadSecond(port.to_be_bytes().to_vec()))
            .load(Expression::Dnat { family: if address.is_ipv4() { 2 } else { 10 } })
    }

    /// Ends the rule: the packet comes from the address of the link that it leaves by.
    #[must_use]
    pub fn masquerade(self) -> Self {
        self.load(Expression::Masquerade)
    }

    /// Ends the rule.
    #[must_use]
    pub fn verdict(self, verdict: Verdict) -> Self {
        let (code, chain) = match verdict {
            Verdict::Drop => (0, None),
            Verdict::Accept => (1, None),
            Verdict::Jump(chain) => (-3, Some(chain)),
            Verdict::Goto(chain) => (-4, Some(chain)),
            Verdict::Return => (-5, None),
        };
        self.load(Expression::Verdict { code, chain })
    }

    fn load(mut self, expression: Expression) -> Self {
        self.expressions.push(expression);
        self
    }

    fn compare(self, op: Op, value: Vec<u8>) -> Self {
        self.load(Expression::Compare { equal: op == Op::Is, value })
    }

    fn bits(self, key: Ct, wanted: u32) -> Self {
        self.load(Expression::Ct(key))
            .load(Expression::Mask(wanted.to_ne_bytes().to_vec()))
            .compare(Op::IsNot, vec![0; 4])
    }

    fn address(self, op: Op, net: IpNet, offset: u32) -> Self {
        let bytes = octets(net.network());
        let length = bytes.len() as u32;
        // Nothing lies outside of a network without a prefix, and everything inside.
        if net.prefix == 0 && op == Op::Is {
            return self;
        }
        let loaded = self.load(Expression::Payload { base: Base::Network, offset, length });
        let whole = u32::from(net.prefix) == length * 8;
        let masked =
            if whole { loaded } else { loaded.load(Expression::Mask(mask(net.prefix, bytes.len()))) };
        masked.compare(op, bytes)
    }
}

/// The mask of a prefix, `length` bytes long.
fn mask(prefix: u8, length: usize) -> Vec<u8> {
    (0..length)
        .map(|index| {
            let bits = usize::from(prefix).saturating_sub(index * 8).min(8);
            (0xff00u16 >> bits) as u8
        })
        .collect()
}

/// A link's name as the kernel compares it: all 16 bytes.
fn padded(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes()[..name.len().min(NAME_SIZE - 1)].to_vec();
    bytes.resize(NAME_SIZE, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_prefixes() {
        assert_eq!(mask(24, 4), [255, 255, 255, 0]);
        assert_eq!(mask(20, 4), [255, 255, 240, 0]);
        assert_eq!(mask(0, 4), [0; 4]);
        assert_eq!(mask(127, 16)[15], 0xfe);
    }

    #[test]
    fn comments_are_cut_between_characters() {
        let rule = Rule::new().comment(&"é".repeat(100));
        assert_eq!(rule.comment.unwrap().len(), 126);
    }
}
