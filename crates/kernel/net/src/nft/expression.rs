//! The expressions that rules are made of, as nf_tables encodes them.

use crate::netlink::message::Message;

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;

/// Where a verdict goes.
const VERDICT_REGISTER: u32 = 0;
/// Where a value is loaded, compared and taken from.
const FIRST: u32 = 1;
/// Where a second value is held at the same time.
const SECOND: u32 = 2;

/// Which header a payload is counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    Link = 0,
    Network = 1,
    Transport = 2,
}

/// What of a packet's surroundings is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meta {
    IifName = 6,
    OifName = 7,
    NfProto = 15,
    L4Proto = 16,
}

/// What of a packet's connection is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ct {
    State = 0,
    Status = 2,
}

/// One expression. Everything is loaded into, compared in and taken from the first register, except where said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expression {
    Meta(Meta),
    Ct(Ct),
    Payload {
        base: Base,
        offset: u32,
        length: u32,
    },
    /// The type of the destination's route.
    FibDestinationType,
    Mask(Vec<u8>),
    Compare {
        equal: bool,
        value: Vec<u8>,
    },
    Load(Vec<u8>),
    /// Into the second register.
    LoadSecond(Vec<u8>),
    /// To the address in the first and the port in the second register.
    Dnat {
        family: u32,
    },
    Masquerade,
    Verdict {
        code: i32,
        chain: Option<String>,
    },
}

impl Expression {
    fn name(&self) -> &'static str {
        match self {
            Self::Meta(_) => "meta",
            Self::Ct(_) => "ct",
            Self::Payload { .. } => "payload",
            Self::FibDestinationType => "fib",
            Self::Mask(_) => "bitwise",
            Self::Compare { .. } => "cmp",
            Self::Load(_) | Self::LoadSecond(_) | Self::Verdict { .. } => "immediate",
            Self::Dnat { .. } => "nat",
            Self::Masquerade => "masq",
        }
    }

    /// Appends the expression as one element of a list.
    pub(super) fn write(&self, list: &mut Message) {
        list.nest(NFTA_LIST_ELEM, |element| {
            element.put_str(NFTA_EXPR_NAME, self.name()).nest(NFTA_EXPR_DATA, |data| self.write_data(data));
        });
    }

    fn write_data(&self, data: &mut Message) {
        match self {
            // Destination register, key.
            Self::Meta(key) => drop(data.put_be32(1, FIRST).put_be32(2, *key as u32)),
            Self::Ct(key) => drop(data.put_be32(1, FIRST).put_be32(2, *key as u32)),
            // Destination register, base, offset, length.
            Self::Payload { base, offset, length } => {
                data.put_be32(1, FIRST).put_be32(2, *base as u32).put_be32(3, *offset).put_be32(4, *length);
            }
            // Destination register, result (NFT_FIB_RESULT_ADDRTYPE), flags (NFTA_FIB_F_DADDR).
            Self::FibDestinationType => drop(data.put_be32(1, FIRST).put_be32(2, 3).put_be32(3, 2)),
            // Source and destination register, length, mask, xor.
            Self::Mask(mask) => {
                data.put_be32(1, FIRST).put_be32(2, FIRST).put_be32(3, mask.len() as u32);
                value(data, 4, mask);
                value(data, 5, &vec![0; mask.len()]);
            }
            // Source register, operator, value.
            Self::Compare { equal, value: wanted } => {
                data.put_be32(1, FIRST).put_be32(2, u32::from(!equal));
                value(data, 3, wanted);
            }
            Self::Load(bytes) => {
                data.put_be32(1, FIRST);
                value(data, 2, bytes);
            }
            Self::LoadSecond(bytes) => {
                data.put_be32(1, SECOND);
                value(data, 2, bytes);
            }
            // Type (NFT_NAT_DNAT), family, register of the address, register of the port.
            Self::Dnat { family } => {
                data.put_be32(1, 1).put_be32(2, *family).put_be32(3, FIRST).put_be32(5, SECOND);
            }
            Self::Masquerade => {}
            Self::Verdict { code, chain } => {
                data.put_be32(1, VERDICT_REGISTER).nest(2, |outer| {
                    outer.nest(NFTA_DATA_VERDICT, |verdict| {
                        verdict.put_be32(1, *code as u32);
                        if let Some(chain) = chain {
                            verdict.put_str(2, chain);
                        }
                    });
                });
            }
        }
    }
}

fn value(data: &mut Message, kind: u16, bytes: &[u8]) {
    data.nest(kind, |nest| {
        nest.put(NFTA_DATA_VALUE, bytes);
    });
}
