//! Ranges of addresses, and the order in which they are searched.

use std::fmt;
use std::net::IpAddr;

use crate::cni::{Error, IpNet};

/// A range of one subnet; both ends can be given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The subnet, as its own address.
    pub subnet: IpNet,
    /// First address.
    pub start: IpAddr,
    /// Last address.
    pub end: IpAddr,
    /// Never given out.
    pub gateway: IpAddr,
}

impl Range {
    /// A range of `subnet`, with the standard plugin's defaults for what is not said.
    pub fn new(
        subnet: IpNet,
        start: Option<IpAddr>,
        end: Option<IpAddr>,
        gateway: Option<IpAddr>,
    ) -> Result<Self, Error> {
        let bits = if subnet.is_ipv4() { 32 } else { 128 };
        if subnet.prefix > bits - 2 {
            return Err(Error::config(format!("Network {subnet} too small to allocate from")));
        }
        if subnet.address != subnet.network() {
            return Err(Error::config(format!(
                "Network has host bits set. For a subnet mask of length {} the network address is {}",
                subnet.prefix,
                subnet.network()
            )));
        }
        let first = number(subnet.network());
        let hosts = (1u128 << (bits - 1 - subnet.prefix)) - 1 + (1u128 << (bits - 1 - subnet.prefix));
        // The last address of an IPv4 subnet is its broadcast address.
        let last = first + hosts - u128::from(subnet.is_ipv4());
        for (what, address) in [("RangeStart", start), ("RangeEnd", end)] {
            if let Some(address) = address.filter(|address| !subnet.contains(*address)) {
                return Err(Error::config(format!("{what} {address} not in network {subnet}")));
            }
        }
        if gateway.is_some_and(|gateway| gateway.is_ipv4() != subnet.is_ipv4()) {
            return Err(Error::config(format!("gateway is not of network {subnet}'s family")));
        }
        let at = |number| address(number, subnet.is_ipv4());
        let range = Self {
            subnet,
            start: start.unwrap_or_else(|| at(first + 1)),
            end: end.unwrap_or_else(|| at(last)),
            gateway: gateway.unwrap_or_else(|| at(first + 1)),
        };
        if number(range.start) > number(range.end) {
            return Err(Error::config(format!(
                "RangeEnd {} is before RangeStart {}",
                range.end, range.start
            )));
        }
        Ok(range)
    }

    fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.subnet.is_ipv4()
            && (number(self.start)..=number(self.end)).contains(&number(address))
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.start) || other.contains(self.start)
    }

    /// `address` with the subnet's prefix.
    pub fn with_prefix(&self, address: IpAddr) -> IpNet {
        IpNet { address, prefix: self.subnet.prefix }
    }

    /// The addresses from `first` to `last`, both included.
    fn walk(&self, first: u128, last: u128) -> impl Iterator<Item = IpAddr> + use<> {
        let (ipv4, gateway) = (self.subnet.is_ipv4(), self.gateway);
        (first..=last).map(move |number| address(number, ipv4)).filter(move |address| *address != gateway)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}

/// Ranges of one family that together serve one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeSet(Vec<Range>);

impl RangeSet {
    /// A set of ranges that are of one family and do not overlap.
    pub fn new(ranges: Vec<Range>) -> Result<Self, Error> {
        let Some(first) = ranges.first() else { return Err(Error::config("empty range set")) };
        if ranges.iter().any(|range| range.subnet.is_ipv4() != first.subnet.is_ipv4()) {
            return Err(Error::config("mixed address families"));
        }
        for (index, range) in ranges.iter().enumerate() {
            if let Some(other) = ranges[index + 1..].iter().find(|other| range.overlaps(other)) {
                return Err(Error::config(format!("subnets {range} and {other} overlap")));
            }
        }
        Ok(Self(ranges))
    }

    /// Whether it is of IPv4.
    pub fn is_ipv4(&self) -> bool {
        self.0.first().is_some_and(|range| range.subnet.is_ipv4())
    }

    /// The range that `address` lies in.
    pub fn range_of(&self, address: IpAddr) -> Option<&Range> {
        self.0.iter().find(|range| range.contains(address))
    }

    /// Whether an address lies in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().any(|range| other.0.iter().any(|theirs| range.overlaps(theirs)))
    }

    /// Every address but the gateways, once: from the one after `last` on to the end, then from the beginning to it.
    ///
    /// Beginning after the last one given keeps an address that was just freed out of use for as long as possible.
    pub fn candidates(&self, last: Option<IpAddr>) -> Box<dyn Iterator<Item = IpAddr> + '_> {
        let position = last.and_then(|last| self.0.iter().position(|range| range.contains(last)));
        let (Some(position), Some(last)) = (position, last) else {
            return Box::new(
                self.0.iter().flat_map(|range| range.walk(number(range.start), number(range.end))),
            );
        };
        let (before, from) = self.0.split_at(position);
        let (current, after) = from.split_at(1);
        let last = number(last);
        let rest =
            current.iter().flat_map(move |range| range.walk(last.saturating_add(1), number(range.end)));
        let others = after.iter().chain(before);
        let others = others.flat_map(|range| range.walk(number(range.start), number(range.end)));
        let start = current.iter().flat_map(move |range| range.walk(number(range.start), last));
        Box::new(rest.chain(others).chain(start))
    }
}

impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            write!(f, "{}{range}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

fn address(number: u128, ipv4: bool) -> IpAddr {
    if ipv4 { IpAddr::V4((number as u32).into()) } else { IpAddr::V6(number.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(subnet: &str, start: Option<&str>, end: Option<&str>) -> Result<Range, Error> {
        let parse = |text: &str| text.parse().unwrap();
        Range::new(subnet.parse().unwrap(), start.map(parse), end.map(parse), None)
    }

    #[test]
    fn defaults_are_the_standard_plugins() {
        for (subnet, wanted) in [
            ("10.0.0.0/24", "10.0.0.1-10.0.0.254"),
            ("10.0.0.0/30", "10.0.0.1-10.0.0.2"),
            ("2001:db8:1::/64", "2001:db8:1::1-2001:db8:1:0:ffff:ffff:ffff:ffff"),
            ("0.0.0.0/0", "0.0.0.1-255.255.255.254"),
            ("::/0", "::1-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ] {
            assert_eq!(range(subnet, None, None).unwrap().to_string(), wanted, "{subnet}");
        }
    }

    #[test]
    fn ranges_that_make_no_sense_are_refused() {
        for (subnet, start, end) in [
            ("10.0.0.0/31", None, None),
            ("2001:db8::/127", None, None),
            ("10.0.0.1/24", None, None),
            ("10.0.0.0/24", Some("10.0.1.1"), None),
            ("10.0.0.0/24", None, Some("2001:db8::1")),
            ("10.0.0.0/24", Some("10.0.0.9"), Some("10.0.0.5")),
        ] {
            assert!(range(subnet, start, end).is_err(), "{subnet} {start:?} {end:?}");
        }
        let one = || range("10.0.0.0/24", None, None).unwrap();
        assert!(RangeSet::new(vec![]).is_err());
        assert!(RangeSet::new(vec![one(), one()]).is_err());
        assert!(RangeSet::new(vec![one(), range("2001:db8::/64", None, None).unwrap()]).is_err());
    }

    #[test]
    fn every_address_is_a_candidate_once_from_the_last_on() {
        let set = RangeSet::new(vec![
            range("10.0.0.0/29", None, None).unwrap(),
            range("10.0.1.0/29", Some("10.0.1.4"), Some("10.0.1.5")).unwrap(),
        ])
        .unwrap();
        let list = |last: Option<&str>| -> Vec<String> {
            set.candidates(last.map(|text| text.parse().unwrap()))
                .map(|address| address.to_string())
                .collect()
        };
        let all = ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.1.4", "10.0.1.5"];
        assert_eq!(list(None), all);
        assert_eq!(list(Some("10.9.9.9")), all);
        assert_eq!(list(Some("10.0.1.5")), all);
        let turned = |by: usize| [&all[by..], &all[..by]].concat();
        assert_eq!(list(Some("10.0.0.3")), turned(2));
        assert_eq!(list(Some("10.0.0.6")), turned(5));
        assert_eq!(list(Some("10.0.1.4")), turned(6));
    }
}
