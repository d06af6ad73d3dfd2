//! `bandwidth`: shapes what goes to a pod at the host's end of its pair, and what comes from it at an ifb device.

use std::os::fd::AsFd as _;

use serde::Deserialize;
use spec::json;

use super::{Commands, config as common, hash, netns};
use crate::cni::{Call, CniResult, Error, Interface, IpNet, Version};
use crate::netlink::link::{self, Link};
use crate::netlink::qdisc::{self, Subnets, TokenBucket};
use crate::netlink::{Connection, Protocol, inside};

/// The plugin.
pub(super) struct Bandwidth;

/// Bits a second, and bits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Limits {
    ingress_rate: u64,
    ingress_burst: u64,
    egress_rate: u64,
    egress_burst: u64,
    /// Destinations of packets that are not shaped.
    unshaped_subnets: Option<Vec<String>>,
    /// Destinations of the only packets that are.
    shaped_subnets: Option<Vec<String>>,
}

impl Limits {
    fn read(call: &Call) -> Result<Self, Error> {
        let keys = ["ingressRate", "ingressBurst", "egressRate", "egressBurst"];
        let fixed = keys.iter().any(|key| json::field(&call.config.raw, key).is_some());
        let own: Self = common::decode(call)?;
        let mut limits: Self = if fixed {
            own
        } else {
            let told: Self = call.config.runtime_config("bandwidth")?.unwrap_or_default();
            // The kubelet knows rates and the administrator subnets; the standard plugin would then shape nothing.
            Self {
                unshaped_subnets: own.unshaped_subnets.or(told.unshaped_subnets.clone()),
                shaped_subnets: own.shaped_subnets.or(told.shaped_subnets.clone()),
                ..told
            }
        };
        for subnets in [&mut limits.unshaped_subnets, &mut limits.shaped_subnets] {
            subnets.take_if(|subnets| subnets.is_empty());
        }
        limits.subnets()?;
        for (rate, burst) in
            [(limits.ingress_rate, limits.ingress_burst), (limits.egress_rate, limits.egress_burst)]
        {
            match (rate, burst) {
                (1.., 0) => return Err(Error::config("if rate is set, burst must also be set")),
                (0, 1..) => return Err(Error::config("if burst is set, rate must also be set")),
                (1..8, _) => return Err(Error::config(format!("invalid rate: {rate}"))),
                (_, burst) if burst / 8 >= u64::from(u32::MAX) => {
                    return Err(Error::config("burst cannot be more than 4GB"));
                }
                _ => {}
            }
        }
        Ok(limits)
    }

    /// Whether nothing is limited.
    fn is_none(&self) -> bool {
        (self.ingress_rate, self.egress_rate) == (0, 0)
    }

    /// Which packets are shaped.
    fn subnets(&self) -> Result<Subnets, Error> {
        let parse = |texts: &[String]| {
            let each = texts
                .iter()
                .map(|text| text.parse().map_err(|_| Error::config(format!("bad subnet {text:?} provided"))));
            each.collect::<Result<Vec<IpNet>, Error>>()
        };
        match (&self.unshaped_subnets, &self.shaped_subnets) {
            (Some(_), Some(_)) => Err(Error::config(
                "unshapedSubnets and shapedSubnets cannot be both specified, one of them should be discarded",
            )),
            (Some(but), None) => Ok(Subnets::But(parse(but)?)),
            (None, Some(only)) => Ok(Subnets::Only(parse(only)?)),
            (None, None) => Ok(Subnets::All),
        }
    }

    /// What shapes packets to the pod.
    fn ingress(&self) -> Option<TokenBucket> {
        (self.ingress_rate > 0).then(|| TokenBucket::of_bits(self.ingress_rate, self.ingress_burst))
    }

    /// What shapes packets from the pod.
    fn egress(&self) -> Option<TokenBucket> {
        (self.egress_rate > 0).then(|| TokenBucket::of_bits(self.egress_rate, self.egress_burst))
    }
}

impl Commands for Bandwidth {
    const SINCE: Version = Version::V0_3_0;

    fn add(&self, call: &Call) -> Result<CniResult, Error> {
        let limits = Limits::read(call)?;
        let mut result = common::previous(call)?;
        if limits.is_none() {
            return Ok(result);
        }
        let mut host = Connection::open(Protocol::Route)?;
        let port = host_end(call, &mut host, &result)?;
        if let Some(bucket) = limits.ingress() {
            qdisc::shape(&mut host, port.index, bucket, &limits.subnets()?)?;
        }
        if let Some(bucket) = limits.egress() {
            let name = device_name(call);
            link::add_ifb(&mut host, &name, port.mtu)?;
            match shape_egress(&mut host, &port, &name, (bucket, limits.subnets()?)) {
                Ok(device) => {
                    result.interfaces.push(Interface { mac: device.mac_text(), name, ..Interface::default() })
                }
                // The disciplines of the pair go with it; the device would stay.
                Err(error) => {
                    return Err(match delete_device(call) {
                        Ok(()) => error,
                        Err(undo) => error.with_details(format!("undo: {undo}")),
                    });
                }
            }
        }
        Ok(result)
    }

    fn del(&self, call: &Call) -> Result<(), Error> {
        delete_device(call)
    }

    fn check(&self, call: &Call) -> Result<(), Error> {
        let limits = Limits::read(call)?;
        let result = common::previous(call)?;
        if limits.is_none() {
            return Ok(());
        }
        let mut host = Connection::open(Protocol::Route)?;
        let port = host_end(call, &mut host, &result)?;
        if let Some(wanted) = limits.ingress() {
            has_bucket(&mut host, &port, wanted, &limits.subnets()?)?;
        }
        if let Some(wanted) = limits.egress() {
            let device = link::get(&mut host, &device_name(call))?;
            has_bucket(&mut host, &device, wanted, &limits.subnets()?)?;
        }
        Ok(())
    }

    fn status(&self, call: &Call) -> Result<(), Error> {
        Limits::read(call).map(drop)
    }

    fn gc(&self, _: &Call) -> Result<(), Error> {
        // A device's name is a hash: whose it was cannot be read from it.
        Ok(())
    }
}

fn device_name(call: &Call) -> String {
    hash::name(15, "bwp", &format!("{}{}", call.config.name, call.container_id))
}

fn delete_device(call: &Call) -> Result<(), Error> {
    let mut host = Connection::open(Protocol::Route)?;
    match link::find(&mut host, &device_name(call))? {
        Some(device) => Ok(link::delete(&mut host, device.index)?),
        None => Ok(()),
    }
}

fn shape_egress(
    host: &mut Connection,
    port: &Link,
    name: &str,
    (bucket, subnets): (TokenBucket, Subnets),
) -> Result<Link, Error> {
    let device = link::get(host, name)?;
    qdisc::redirect_ingress(host, port.index, device.index)?;
    qdisc::shape(host, device.index, bucket, &subnets)?;
    Ok(device)
}

/// The host's end of the pod's pair, which a plugin before must have made.
fn host_end(call: &Call, host: &mut Connection, result: &CniResult) -> Result<Link, Error> {
    let netns = netns::open(call)?;
    let pod = inside(netns.as_fd(), || -> Result<Link, Error> {
        Ok(link::get(&mut Connection::open(Protocol::Route)?, &call.ifname)?)
    })??;
    let peer = pod.peer.filter(|_| pod.is_kind("veth"));
    let peer =
        peer.ok_or_else(|| Error::internal(format!("container interface {} has no veth peer", call.ifname)))?;
    let port = link::find_index(host, peer)?.filter(|port| {
        port.peer == Some(pod.index)
            && result.interfaces.iter().any(|found| found.sandbox.is_empty() && found.name == port.name)
    });
    port.ok_or_else(|| Error::internal("no veth peer of container interface found in host ns"))
}

fn has_bucket(
    host: &mut Connection,
    link: &Link,
    wanted: TokenBucket,
    subnets: &Subnets,
) -> Result<(), Error> {
    if *subnets != Subnets::All {
        return match qdisc::shaped_class(host, link.index)? {
            None => Err(Error::internal(format!("Failed to find the shaped class of {}", link.name))),
            Some(found) if found.rate != wanted.rate => Err(Error::internal("Rate doesn't match")),
            Some(found) if found.buffer != wanted.buffer => Err(Error::internal("Buffer doesn't match")),
            Some(_) => Ok(()),
        };
    }
    match qdisc::list(host, link.index)?.iter().find_map(|qdisc| qdisc.bucket) {
        None => Err(Error::internal(format!("Failed to find qdisc of {}", link.name))),
        Some(found) if found.rate != wanted.rate => Err(Error::internal("Rate doesn't match")),
        Some(found) if found.limit_bytes != wanted.limit_bytes => Err(Error::internal("Limit doesn't match")),
        Some(found) if found.buffer != wanted.buffer => Err(Error::internal("Buffer doesn't match")),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cni::NetworkConfig;

    fn call(config: Value) -> Call {
        Call {
            container_id: "pod".into(),
            netns: None,
            ifname: "eth0".into(),
            args: Vec::new(),
            path: Vec::new(),
            config: NetworkConfig::parse(config.to_string().as_bytes()).unwrap(),
            deadline: std::time::Instant::now(),
        }
    }

    #[test]
    fn limits_in_another_case_are_read() {
        let rates =
            json!({"IngressRate": 8000, "IngressBurst": 9000, "EgressRate": 0, "unshapedSubnets": null});
        let mut config = json!({"cniVersion": "1.0.0", "name": "n", "type": "bandwidth"});
        config["runtimeConfig"] = json!({"bandwidth": rates});
        let limits = Limits::read(&call(config.clone())).unwrap();
        assert_eq!((limits.ingress_rate, limits.ingress_burst, limits.egress_rate), (8000, 9000, 0));
        // Limits of the configuration itself come before those of the runtime, in any spelling.
        config["INGRESSRATE"] = json!(16000);
        config["ingressburst"] = json!(16000);
        assert_eq!(Limits::read(&call(config)).unwrap().ingress_rate, 16000);
    }
}
