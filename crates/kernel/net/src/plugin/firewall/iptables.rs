//! The rules in iptables' `filter`: `CNI-FORWARD` for pods, `CNI-ISOLATION-STAGE-1` and `-2` for bridges.

use super::{Config, IngressPolicy};
use crate::cni::{Call, Error, IpNet};
use crate::plugin::iptables::{Iptables, filters};

const TABLE: &str = "filter";
const PODS: &str = "CNI-FORWARD";
const BETWEEN: &str = "CNI-ISOLATION-STAGE-1";
const INTO: &str = "CNI-ISOLATION-STAGE-2";

/// The two rules of an address.
fn rules(address: &str) -> [Vec<&str>; 2] {
    [
        vec!["-d", address, "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "ACCEPT"],
        vec!["-s", address, "-j", "ACCEPT"],
    ]
}

fn single(net: &IpNet) -> String {
    format!("{}/{}", net.address, if net.is_ipv4() { 32 } else { 128 })
}

const POD_COMMENT: [&str; 4] = ["-m", "comment", "--comment", "CNI firewall plugin rules"];
const ADMIN_COMMENT: [&str; 4] = ["-m", "comment", "--comment", "CNI firewall plugin admin overrides"];

/// Adds the pod's rules, and its bridge's.
pub fn add(call: &Call, config: &Config, bridge: Option<&str>, nets: &[IpNet]) -> Result<(), Error> {
    for ipv4 in [true, false] {
        let of: Vec<&IpNet> = nets.iter().filter(|net| net.is_ipv4() == ipv4).collect();
        if of.is_empty() {
            continue;
        }
        let iptables = Iptables::find(ipv4, call.deadline)?;
        iptables.ensure_chain(TABLE, PODS)?;
        iptables.ensure_chain(TABLE, &config.admin_chain)?;
        iptables.ensure_first(TABLE, "FORWARD", &[&POD_COMMENT[..], &["-j", PODS]].concat())?;
        iptables.ensure_first(TABLE, PODS, &[&ADMIN_COMMENT[..], &["-j", &config.admin_chain]].concat())?;
        for net in of {
            for rule in rules(&single(net)) {
                iptables.ensure(TABLE, PODS, &rule)?;
            }
        }
        if let Some(bridge) = bridge {
            isolate(&iptables, bridge, config.policy)?;
        }
    }
    Ok(())
}

/// Drops what comes from another bridge, and from the same one if the policy says so.
fn isolate(iptables: &Iptables, bridge: &str, policy: IngressPolicy) -> Result<(), Error> {
    let name = if policy == IngressPolicy::Isolated { "isolated" } else { "same-bridge" };
    let text = format!("CNI firewall plugin rules (ingressPolicy: {name})");
    let policy_comment = ["-m", "comment", "--comment", text.as_str()];
    let comment =
        ["-m", "comment", "--comment", "CNI firewall plugin rules (ingressPolicy: same-bridge|isolated)"];
    let with = |rule: &[&'static str]| [rule, &comment[..]].concat();
    for chain in [BETWEEN, INTO] {
        iptables.ensure_chain(TABLE, chain)?;
    }
    // Before CNI-FORWARD, which would accept.
    iptables.ensure_first(TABLE, "FORWARD", &with(&["-j", BETWEEN]))?;
    let out = ["-i", bridge, "!", "-o", bridge, "-j", INTO];
    iptables.ensure_first(TABLE, BETWEEN, &[&out[..], &policy_comment].concat())?;
    if policy == IngressPolicy::Isolated {
        let within = ["-i", bridge, "-o", bridge, "-j", "DROP"];
        iptables.ensure_first(TABLE, BETWEEN, &[&within[..], &policy_comment].concat())?;
    }
    iptables.ensure(TABLE, BETWEEN, &with(&["-j", "RETURN"]))?;
    iptables.ensure_first(TABLE, INTO, &[&["-o", bridge, "-j", "DROP"][..], &comment].concat())?;
    iptables.ensure(TABLE, INTO, &with(&["-j", "RETURN"]))
}

/// Whether the pod's rules are there.
pub fn check(call: &Call, config: &Config, nets: &[IpNet]) -> Result<(), Error> {
    for net in nets {
        let iptables = Iptables::find(net.is_ipv4(), call.deadline)?;
        let jump = [&POD_COMMENT[..], &["-j", PODS]].concat();
        let admin = [&ADMIN_COMMENT[..], &["-j", &config.admin_chain]].concat();
        let address = single(net);
        let [to, from] = rules(&address);
        for (chain, rule) in [("FORWARD", jump), (PODS, admin), (PODS, to), (PODS, from)] {
            if !iptables.has(TABLE, chain, &rule)? {
                return Err(Error::internal(format!("expected {chain} rule [{}] not found", rule.join(" "))));
            }
        }
    }
    Ok(())
}

/// Removes the pod's rules.
pub fn remove(call: &Call, nets: &[IpNet]) -> Result<(), Error> {
    for net in nets.iter().filter(|net| filters(net.is_ipv4())) {
        let iptables = Iptables::find(net.is_ipv4(), call.deadline)?;
        for rule in rules(&single(net)) {
            iptables.delete(TABLE, PODS, &rule)?;
        }
    }
    Ok(())
}
