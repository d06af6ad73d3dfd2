//! The rules in a table of nf_tables.
//!
//! ```text
//! table inet cni_firewall
//!   forward      jump isolation_1, jump pods
//!   isolation_1  iifname BRIDGE oifname != BRIDGE jump isolation_2;  isolated: iifname BRIDGE oifname BRIDGE drop
//!   isolation_2  oifname BRIDGE drop
//!   pods         ip daddr POD ct state established,related accept;  ip saddr POD accept
//! ```

use super::{Config, IngressPolicy};
use crate::cni::{Attachment, Call, Error, IpNet};
use crate::netlink::{Connection, Protocol};
use crate::nft::{self, Base, Batch, Family, Op, Rule, Table, Verdict};
use crate::plugin::masquerade::{comment, instance, is_stale, nftables};

const TABLE: Table = Table { family: Family::Inet, name: "cni_firewall" };
const FORWARD: &str = "forward";
const BETWEEN: &str = "isolation_1";
const INTO: &str = "isolation_2";
const PODS: &str = "pods";

/// Adds the pod's rules, and its bridge's.
pub fn add(call: &Call, config: &Config, bridge: Option<&str>, nets: &[IpNet]) -> Result<(), Error> {
    let mut connection = Connection::open(Protocol::Netfilter)?;
    let comment = comment(&call.config.name, &call.ifname, &call.container_id);
    let mut batch = Batch::new(TABLE);
    let chains = [(INTO, None), (BETWEEN, None), (PODS, None), (FORWARD, Some(Base::FilterForward))];
    batch.lay_out(&mut connection, "CNI firewall plugin", &chains)?;
    let jumps = [BETWEEN, PODS].map(|chain| Rule::new().verdict(Verdict::Jump(chain.into())));
    batch.settle_chain(&mut connection, FORWARD, &jumps)?;
    for net in nets {
        let pod = IpNet { address: net.address, prefix: if net.is_ipv4() { 32 } else { 128 } };
        let rule = || Rule::new().family(net.is_ipv4()).comment(&comment);
        batch
            .add_rule(
                PODS,
                &rule().destination(Op::Is, pod).established_or_related().verdict(Verdict::Accept),
            )
            .add_rule(PODS, &rule().source(Op::Is, pod).verdict(Verdict::Accept));
    }
    if let Some(bridge) = bridge {
        isolate(&mut connection, &mut batch, bridge, config.policy)?;
    }
    Ok(batch.commit(&mut connection)?)
}

/// The bridge's rules, once, as the policy has them.
fn isolate(
    connection: &mut Connection,
    batch: &mut Batch,
    bridge: &str,
    policy: IngressPolicy,
) -> Result<(), Error> {
    // The chains are shared by bridges, so the comment says whose rules and of which policy they are.
    let mark = format!("bridge {bridge} {policy:?}");
    let rule = || Rule::new().comment(&mark);
    let out = rule().input(Op::Is, bridge).output(Op::IsNot, bridge).verdict(Verdict::Jump(INTO.into()));
    let mut between = vec![out];
    if policy == IngressPolicy::Isolated {
        between.push(rule().input(Op::Is, bridge).output(Op::Is, bridge).verdict(Verdict::Drop));
    }
    let into = vec![rule().output(Op::Is, bridge).verdict(Verdict::Drop)];
    for (chain, wanted) in [(BETWEEN, between), (INTO, into)] {
        let found = nft::rules(connection, TABLE, chain)?;
        let prefix = format!("bridge {bridge} ");
        let of_bridge: Vec<_> = found
            .iter()
            .filter(|rule| rule.comment.as_deref().is_some_and(|comment| comment.starts_with(&prefix)))
            .collect();
        if of_bridge.len() == wanted.len()
            && of_bridge.iter().all(|rule| rule.comment.as_deref() == Some(&mark))
        {
            continue;
        }
        for rule in of_bridge {
            batch.delete_rule(chain, rule.handle);
        }
        for rule in &wanted {
            batch.add_rule(chain, rule);
        }
    }
    Ok(())
}

/// Whether the pod's rules are there: two for each address.
pub fn check(call: &Call, nets: &[IpNet]) -> Result<(), Error> {
    let mut connection = Connection::open(Protocol::Netfilter)?;
    let instance = instance(&call.config.name, &call.ifname, &call.container_id);
    let rules = nft::rules(&mut connection, TABLE, PODS)?;
    let is_ours =
        |rule: &&nft::Listed| rule.comment.as_deref().is_some_and(|text| text.starts_with(&instance));
    if rules.iter().filter(is_ours).count() < 2 * nets.len() {
        return Err(Error::internal(format!("expected firewall rules of {} not found", call.container_id)));
    }
    Ok(())
}

/// Removes the pod's rules.
pub fn remove(call: &Call) -> Result<(), Error> {
    let Some(mut connection) = nftables() else { return Ok(()) };
    let instance = instance(&call.config.name, &call.ifname, &call.container_id);
    let deleted =
        nft::delete_rules(&mut connection, TABLE, &[PODS], &|comment| comment.starts_with(&instance));
    nft::close_with_thread(connection);
    deleted?;
    Ok(())
}

/// Removes the rules of the network's pods that are gone.
pub fn collect(call: &Call, valid: &[Attachment]) -> Result<(), Error> {
    let Some(mut connection) = nftables() else { return Ok(()) };
    nft::delete_rules(&mut connection, TABLE, &[PODS], &is_stale(&call.config.name, valid))?;
    Ok(())
}
