//! Results as JSON, in every version of the specification.
//!
//! A result from outside is somebody's output: it is read leniently where Go's library is (`null` and `""` are
//! nothing), and refused where an address or an index makes no sense.

use std::net::IpAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use spec::json;

use super::result::{CniResult, Dns, Interface, IpConfig, IpNet, Route};
use super::{Error, Version, code};

/// An address; `null` and `""` are none.
pub fn address<'de, D: Deserializer<'de>>(from: D) -> Result<Option<IpAddr>, D::Error> {
    match Option::<String>::deserialize(from)? {
        Some(text) if !text.is_empty() => text.parse().map(Some).map_err(serde::de::Error::custom),
        _ => Ok(None),
    }
}

/// Whether a number goes without saying.
pub fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The forms of 0.3.0 to 1.1.0, which differ in what they write.
#[derive(Deserialize)]
struct Modern {
    #[serde(default)]
    interfaces: Vec<Interface>,
    #[serde(default)]
    ips: Vec<IpConfig>,
    #[serde(default)]
    routes: Vec<Route>,
    #[serde(default)]
    dns: Dns,
}

/// The form of 0.1.0 and 0.2.0: at most one address of each family.
#[derive(Deserialize)]
struct Old {
    #[serde(default)]
    ip4: Option<OldIp>,
    #[serde(default)]
    ip6: Option<OldIp>,
    #[serde(default)]
    dns: Dns,
}

#[derive(Serialize, Deserialize)]
struct OldIp {
    ip: IpNet,
    #[serde(default, deserialize_with = "address", skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Route>,
}

impl CniResult {
    /// Reads a result. One that names no version is of the version `otherwise`, that of the configuration.
    pub fn parse(text: &[u8], otherwise: Version) -> Result<Self, Error> {
        let value: Value = json::from_slice(text)
            .map_err(|error| Error::new(code::DECODING, format!("result is not JSON: {error}")))?;
        Self::from_json(value, otherwise)
    }

    /// [`CniResult::parse`] of a value. `null` is an empty result, as Go's library takes it.
    pub fn from_json(value: Value, otherwise: Version) -> Result<Self, Error> {
        let value = match value {
            Value::Null => Map::new(),
            Value::Object(object) => object,
            _ => return Err(Error::new(code::DECODING, "result is no JSON object")),
        };
        let version = match json::field(&value, "cniVersion").and_then(Value::as_str) {
            None | Some("") => otherwise,
            Some(text) => text.parse()?,
        };
        let result = if version >= Version::V0_3_0 {
            let Modern { interfaces, ips, routes, dns } = read(&value, version)?;
            Self { interfaces, ips, routes, dns }
        } else {
            let Old { ip4, ip6, dns } = read(&value, version)?;
            let mut result = Self { dns, ..Self::default() };
            for old in [ip4, ip6].into_iter().flatten() {
                result.ips.push(IpConfig { interface: None, address: old.ip, gateway: old.gateway });
                result.routes.extend(old.routes);
            }
            result
        };
        let most = result.interfaces.len();
        match result.ips.iter().find(|ip| ip.interface.is_some_and(|index| index >= most)) {
            Some(ip) => Err(Error::new(
                code::DECODING,
                format!("address {} is of interface {:?}, but there are {most}", ip.address, ip.interface),
            )),
            None => Ok(result),
        }
    }

    /// Writes the result in the form of `version`. Fails only for 0.1.0 and 0.2.0, which need an address.
    pub fn to_json(&self, version: Version) -> Result<Value, Error> {
        let mut out = Map::new();
        out.insert("cniVersion".into(), version.as_str().into());
        if version < Version::V0_3_0 {
            self.write_old(&mut out)?;
        } else {
            self.write_modern(&mut out, version)?;
        }
        // Until 1.0.0 an empty object is written too.
        if version < Version::V1_0_0 || !self.dns.is_empty() {
            out.insert("dns".into(), write(&self.dns)?);
        }
        Ok(Value::Object(out))
    }

    fn write_modern(&self, out: &mut Map<String, Value>, version: Version) -> Result<(), Error> {
        let classic = version < Version::V1_0_0;
        if !self.interfaces.is_empty() {
            let mut interfaces = write(&self.interfaces)?;
            for interface in interfaces.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut)
            {
                if classic {
                    interface.retain(|key, _| matches!(key.as_str(), "name" | "mac" | "sandbox"));
                }
            }
            out.insert("interfaces".into(), interfaces);
        }
        if !self.ips.is_empty() {
            let mut ips = write(&self.ips)?;
            let pairs =
                ips.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut).zip(&self.ips);
            for (json, ip) in pairs {
                if classic {
                    let family = if ip.address.is_ipv4() { "4" } else { "6" };
                    json.insert("version".into(), family.into());
                }
            }
            out.insert("ips".into(), ips);
        }
        if !self.routes.is_empty() {
            out.insert("routes".into(), write(&self.routes)?);
        }
        Ok(())
    }

    /// The first address of each family, with the plain routes of that family.
    fn write_old(&self, out: &mut Map<String, Value>) -> Result<(), Error> {
        for (key, ipv4) in [("ip4", true), ("ip6", false)] {
            let Some(ip) = self.ips.iter().find(|ip| ip.address.is_ipv4() == ipv4) else { continue };
            let routes = self.routes.iter().filter(|route| route.dst.is_ipv4() == ipv4);
            let old = OldIp {
                ip: ip.address,
                gateway: ip.gateway,
                routes: routes.map(|route| Route::new(route.dst, route.gw)).collect(),
            };
            out.insert(key.into(), write(&old)?);
        }
        if self.ips.is_empty() {
            return Err(Error::internal("cannot convert: no valid IP addresses"));
        }
        Ok(())
    }
}

fn read<T: DeserializeOwned>(value: &Map<String, Value>, version: Version) -> Result<T, Error> {
    json::from_object(value)
        .map_err(|error| Error::new(code::DECODING, format!("result of version {version}: {error}")))
}

fn write(value: &impl Serialize) -> Result<Value, Error> {
    serde_json::to_value(value).map_err(Error::internal)
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
