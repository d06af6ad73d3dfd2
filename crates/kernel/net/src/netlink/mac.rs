//! Hardware addresses.

use std::fmt;
use std::str::FromStr;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The address that six bytes are.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// A random address of the locally administered, unicast kind.
    ///
    /// Given at a link's making it is marked as chosen (`NET_ADDR_SET`), so that udev's address policy and a bridge
    /// that gains ports leave it alone.
    pub fn random() -> sys::Result<Self> {
        let mut bytes = [0; 6];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
            .map_err(|errno| sys::Error::new(errno.raw_os_error(), "getrandom(6)"))?;
        bytes[0] = bytes[0] & 0xfe | 0x02;
        Ok(Self(bytes))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("address {text}: invalid MAC address");
        let mut bytes = [0; 6];
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut parts = text.split(separator);
        for byte in &mut bytes {
            let part =
                parts.next().filter(|part| part.len() == 2 && part.bytes().all(|c| c.is_ascii_hexdigit()));
            *byte = part.and_then(|part| u8::from_str_radix(part, 16).ok()).ok_or_else(wrong)?;
        }
        if parts.next().is_some() { Err(wrong()) } else { Ok(Self(bytes)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for (text, wanted) in [
            ("02:00:5e:10:00:ff", Some("02:00:5e:10:00:ff")),
            ("02-00-5E-10-00-FF", Some("02:00:5e:10:00:ff")),
            ("02:00:5e:10:00", None),
            ("02:00:5e:10:00:ff:11", None),
            ("2:0:5e:10:0:ff", None),
            ("+2:00:5e:10:00:ff", None),
            ("", None),
        ] {
            assert_eq!(text.parse::<Mac>().ok().map(|mac| mac.to_string()).as_deref(), wanted, "{text}");
        }
        assert_eq!(Mac::random().unwrap().0[0] & 3, 2);
    }
}
