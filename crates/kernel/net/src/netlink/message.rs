//! Netlink messages: written attribute by attribute, read with every length checked.

use std::borrow::Cow;
use std::net::IpAddr;

/// Length of `struct nlmsghdr`.
pub const HEADER: usize = 16;

/// `NLM_F_REQUEST`
const REQUEST: u16 = 1;
/// `NLM_F_ACK`
pub const ACK: u16 = 4;
/// `NLM_F_ROOT | NLM_F_MATCH`
pub const DUMP: u16 = 0x300;
/// `NLM_F_REPLACE`
pub const REPLACE: u16 = 0x100;
/// `NLM_F_EXCL`
pub const EXCL: u16 = 0x200;
/// `NLM_F_CREATE`
pub const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`
pub const APPEND: u16 = 0x800;
/// `NLA_F_NESTED`
const NESTED: u16 = 0x8000;
/// `NLA_TYPE_MASK`
const TYPE: u16 = 0x3fff;

/// A request that is being written.
#[derive(Clone, Debug)]
pub struct Message {
    what: Cow<'static, str>,
    bytes: Vec<u8>,
}

impl Message {
    /// A request of the type `kind`; `what` names it in errors: `add link veth0`.
    pub fn new(what: impl Into<Cow<'static, str>>, kind: u16, flags: u16) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend([0; 4]);
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((flags | REQUEST).to_ne_bytes());
        bytes.extend([0; 8]);
        Self { what: what.into(), bytes }
    }

    /// Adds flags to the header.
    pub fn flags(&mut self, more: u16) {
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | more;
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    }

    /// Appends the family's own header.
    #[must_use]
    pub fn header(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend(bytes);
        self.pad();
        self
    }

    /// Appends an attribute.
    pub fn put(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        // A value beyond 64 KiB cannot be said; the callers' texts and addresses are bounded far below.
        let value = &value[..value.len().min(usize::from(u16::MAX) - 4)];
        self.bytes.extend((value.len() as u16 + 4).to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.pad();
        self
    }

    /// Appends a number of one byte.
    pub fn put_u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.put(kind, &[value])
    }

    /// Appends a number in the machine's order.
    pub fn put_u16(&mut self, kind: u16, value: u16) -> &mut Self {
        self.put(kind, &value.to_ne_bytes())
    }

    /// Appends a number in the machine's order.
    pub fn put_u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_ne_bytes())
    }

    /// Appends a number in the network's order.
    pub fn put_be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_be_bytes())
    }

    /// Appends a number in the network's order.
    pub fn put_be64(&mut self, kind: u16, value: u64) -> &mut Self {
        self.put(kind, &value.to_be_bytes())
    }

    /// Appends a text with its final zero.
    pub fn put_str(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.put(kind, &bytes)
    }

    /// Appends an address: 4 or 16 bytes.
    pub fn put_ip(&mut self, kind: u16, value: IpAddr) -> &mut Self {
        self.put(kind, &octets(value))
    }

    /// Appends an attribute that holds what `fill` writes.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.nest_plain(kind | NESTED, fill)
    }

    /// [`Message::nest`] without the flag, for kernel interfaces older than it.
    pub fn nest_plain(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend(kind.to_ne_bytes());
        fill(self);
        let length = (self.bytes.len() - start).min(usize::from(u16::MAX)) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// Appends bytes as they are, padded: a nested family header.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend(bytes);
        self.pad();
        self
    }

    /// The finished message, numbered `sequence`.
    pub fn finish(mut self, sequence: u32) -> (Cow<'static, str>, Vec<u8>) {
        let length = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        (self.what, self.bytes)
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// The bytes of an address.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The address that 4 or 16 bytes are.
pub fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// One message of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Its type.
    pub kind: u16,
    /// Its flags.
    pub flags: u16,
    /// The number of the request that it answers.
    pub sequence: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

/// Takes the first message off `bytes`; `None` at their end, or where they are cut short.
pub fn next_answer<'a>(bytes: &mut &'a [u8]) -> Option<Answer<'a>> {
    let header = bytes.get(..HEADER)?;
    let length = u32_at(header, 0)? as usize;
    let payload = bytes.get(HEADER..length)?;
    let answer =
        Answer { kind: u16_at(header, 4)?, flags: u16_at(header, 6)?, sequence: u32_at(header, 8)?, payload };
    *bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some(answer)
}

/// Attributes in `bytes`, with their types stripped of flags. Ends at the first that is cut short.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Attributes<'a> {
    /// The value of the first attribute `kind`.
    pub fn get(self, kind: u16) -> Option<&'a [u8]> {
        self.into_iter().find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    /// The attributes nested in the attribute `kind`; none when it is missing.
    pub fn nested(self, kind: u16) -> Self {
        Self(self.get(kind).unwrap_or_default())
    }

    /// A number in the machine's order.
    pub fn u32(self, kind: u16) -> Option<u32> {
        u32_at(self.get(kind)?, 0)
    }

    /// A number in the network's order.
    pub fn be32(self, kind: u16) -> Option<u32> {
        self.get(kind)?.get(..4)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// A number in the network's order.
    pub fn be64(self, kind: u16) -> Option<u64> {
        self.get(kind)?.get(..8)?.try_into().ok().map(u64::from_be_bytes)
    }

    /// A number of one byte.
    pub fn u8(self, kind: u16) -> Option<u8> {
        self.get(kind)?.first().copied()
    }

    /// A text, up to its zero.
    pub fn text(self, kind: u16) -> Option<String> {
        let bytes = self.get(kind)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }
}

impl<'a> IntoIterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);
    type IntoIter = AttributeIter<'a>;

    fn into_iter(self) -> AttributeIter<'a> {
        AttributeIter(self.0)
    }
}

/// Walks [`Attributes`].
#[derive(Debug)]
pub struct AttributeIter<'a>(&'a [u8]);

impl<'a> Iterator for AttributeIter<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16_at(self.0, 0)?);
        let kind = u16_at(self.0, 2)? & TYPE;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// The number at `offset`, in the machine's order.
pub fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..offset + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

/// The number at `offset`, in the machine's order.
pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..offset + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut message = Message::new("test", 16, ACK).header(&[1, 2, 3, 4]);
        message.put_str(3, "eth0").put_u32(4, 1500).nest(18, |nest| {
            nest.put_str(1, "veth").put_u8(2, 7);
        });
        let (_, bytes) = message.finish(9);
        let mut rest = bytes.as_slice();
        let answer = next_answer(&mut rest).unwrap();
        assert_eq!((answer.kind, answer.flags, answer.sequence), (16, 5, 9));
        assert!(rest.is_empty());
        let attributes = Attributes(&answer.payload[4..]);
        assert_eq!(attributes.text(3).as_deref(), Some("eth0"));
        assert_eq!(attributes.u32(4), Some(1500));
        assert_eq!(attributes.nested(18).text(1).as_deref(), Some("veth"));
        assert_eq!(attributes.nested(18).u8(2), Some(7));
        assert_eq!(attributes.u32(5), None);
    }

    #[test]
    fn cut_bytes_end_the_walk_without_a_value() {
        let mut message = Message::new("test", 1, 0);
        message.put_u32(1, 5).put_str(2, "name");
        let (_, bytes) = message.finish(1);
        for end in 0..bytes.len() {
            let mut cut = &bytes[..end];
            assert!(next_answer(&mut cut).is_none(), "{end}");
            for (_, value) in Attributes(bytes.get(HEADER..end).unwrap_or_default()) {
                assert!(value.len() <= 5);
            }
        }
        // Lengths that lie: below the header, beyond the end.
        for lie in [0u16, 3, 200] {
            let mut bytes = lie.to_ne_bytes().to_vec();
            bytes.extend([1, 0, 0, 0, 0, 0]);
            assert_eq!(Attributes(&bytes).into_iter().count(), 0, "{lie}");
        }
    }
}
