//! The `ipam` section of `host-local`.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;
use spec::json;

use super::range::{Range, RangeSet};
use crate::cni::{Call, Error, IpNet, Route, Version, code};
use crate::plugin::config::cni_arg;

/// Most ranges of a network, and most addresses asked for.
const MOST: usize = 256;

/// What a call says, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the network.
    pub network: String,
    /// The folder of every network.
    pub data_dir: PathBuf,
    /// A file of resolver settings to hand on.
    pub resolv_conf: Option<PathBuf>,
    /// Routes to hand on.
    pub routes: Vec<Route>,
    /// One address comes from each.
    pub ranges: Vec<RangeSet>,
    /// Addresses asked for.
    pub wanted: Vec<IpAddr>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Section {
    #[serde(default)]
    routes: Option<Vec<Route>>,
    #[serde(default)]
    data_dir: Option<PathBuf>,
    #[serde(default)]
    resolv_conf: Option<PathBuf>,
    #[serde(default)]
    ranges: Option<Vec<Vec<RangeText>>>,
    #[serde(default)]
    subnet: Option<String>,
    #[serde(default)]
    range_start: Option<String>,
    #[serde(default)]
    range_end: Option<String>,
    #[serde(default)]
    gateway: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RangeText {
    #[serde(default)]
    subnet: Option<String>,
    #[serde(default)]
    range_start: Option<String>,
    #[serde(default)]
    range_end: Option<String>,
    #[serde(default)]
    gateway: Option<String>,
}

impl RangeText {
    fn parse(&self) -> Result<Range, Error> {
        let subnet: IpNet = self.subnet.as_deref().unwrap_or_default().parse()?;
        let address = |text: &Option<String>| match text.as_deref() {
            None | Some("") => Ok(None),
            Some(text) => ip(text).map(Some),
        };
        Range::new(subnet, address(&self.range_start)?, address(&self.range_end)?, address(&self.gateway)?)
    }
}

impl Config {
    /// Reads a call.
    pub fn read(call: &Call) -> Result<Self, Error> {
        let Some(section) = json::field(&call.config.raw, "ipam") else {
            return Err(Error::config("IPAM config missing 'ipam' key"));
        };
        let section: Section = json::from_value(section)
            .map_err(|error| Error::new(code::DECODING, format!("failed to load ipam: {error}")))?;
        let mut texts: Vec<Vec<RangeText>> = call.config.runtime_config("ipRanges")?.unwrap_or_default();
        let Section { subnet, range_start, range_end, gateway, .. } = section;
        if subnet.is_some() {
            texts.push(vec![RangeText { subnet, range_start, range_end, gateway }]);
        }
        texts.extend(section.ranges.unwrap_or_default());
        if texts.is_empty() {
            return Err(Error::config("no IP ranges specified"));
        }
        if texts.iter().map(Vec::len).sum::<usize>() > MOST {
            return Err(Error::config(format!("more than {MOST} IP ranges")));
        }
        let mut ranges = Vec::new();
        for (index, set) in texts.iter().enumerate() {
            let set = set.iter().map(RangeText::parse).collect::<Result<Vec<_>, _>>().and_then(RangeSet::new);
            ranges.push(set.map_err(|error| error.context(format!("invalid range set {index}")))?);
        }
        check_sets(&ranges, call.config.version)?;
        Ok(Self {
            network: call.config.name.clone(),
            data_dir: section
                .data_dir
                .filter(|path| !path.as_os_str().is_empty())
                .unwrap_or_else(|| "/var/lib/cni/networks".into()),
            resolv_conf: section.resolv_conf.filter(|path| !path.as_os_str().is_empty()),
            routes: section.routes.unwrap_or_default(),
            ranges,
            wanted: wanted(call)?,
        })
    }
}

fn check_sets(sets: &[RangeSet], version: Version) -> Result<(), Error> {
    let of_ipv4 = sets.iter().filter(|set| set.is_ipv4()).count();
    if version < Version::V0_3_0 && (of_ipv4 > 1 || sets.len() - of_ipv4 > 1) {
        let text = format!("CNI version {version} does not support more than 1 address per family");
        return Err(Error::config(text));
    }
    for (index, set) in sets.iter().enumerate() {
        if let Some(other) = (index + 1..sets.len()).find(|other| set.overlaps(&sets[*other])) {
            return Err(Error::config(format!("range set {index} overlaps with {other}")));
        }
    }
    Ok(())
}

/// Addresses asked for in `CNI_ARGS`, in `args.cni.ips` and by the capability `ips`.
fn wanted(call: &Call) -> Result<Vec<IpAddr>, Error> {
    let mut texts: Vec<String> =
        call.arg("IP").filter(|text| !text.is_empty()).map(str::to_owned).into_iter().collect();
    let listed = cni_arg(call, "ips").and_then(Value::as_array).into_iter().flatten();
    texts.extend(listed.filter_map(Value::as_str).map(str::to_owned));
    texts.extend(call.config.runtime_config::<Vec<String>>("ips")?.unwrap_or_default());
    if texts.len() > MOST {
        return Err(Error::config(format!("more than {MOST} requested IPs")));
    }
    let mut wanted = Vec::new();
    for text in texts {
        let address = ip(text.split('/').next().unwrap_or_default())?;
        if !wanted.contains(&address) {
            wanted.push(address);
        }
    }
    Ok(wanted)
}

/// An address; one of IPv4 written as IPv6 is of IPv4.
fn ip(text: &str) -> Result<IpAddr, Error> {
    let address: IpAddr = text.parse().map_err(|_| Error::config(format!("invalid IP address {text:?}")))?;
    Ok(address.to_canonical())
}
