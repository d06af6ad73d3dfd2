//! Masquerading: what leaves a pod for somewhere outside of its network comes from the host.
//!
//! Table `inet cni_plugins_masquerade` of nf_tables, a rule for each address in the chain `masq_checks`, found again by
//! its comment; or, where that is asked for or nf_tables is missing, a chain for each pod in iptables' `nat`. Both are
//! laid out as the standard plugins lay them out.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use super::iptables::{self, Iptables};
use super::{config, hash};
use crate::cni::{Attachment, Call, Error, IpNet};
use crate::netlink::{Connection, Protocol};
use crate::nft::{self, Base, Batch, Family, Op, Rule, Table, Verdict};

const TABLE: Table = Table { family: Family::Inet, name: "cni_plugins_masquerade" };
const CHAIN: &str = "masq_checks";
const POSTROUTING: &str = "postrouting";
/// Prefix of the chains in iptables.
const CHAIN_PREFIX: &str = "CNI-";

/// Which of the kernel's packet filters is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// nf_tables, by netlink.
    Nftables,
    /// The program `iptables`.
    Iptables,
}

impl Backend {
    /// The one that `asked` names; nf_tables when it names none and the kernel has it.
    pub fn choose(asked: Option<&str>, key: &str) -> Result<Self, Error> {
        match asked {
            Some("nftables") => Ok(Self::Nftables),
            Some("iptables") => Ok(Self::Iptables),
            None | Some("") => Ok(if has_nftables() { Self::Nftables } else { Self::Iptables }),
            Some(other) => Err(Error::config(format!("unknown {key} {other:?}"))),
        }
    }
}

/// Whether the kernel has nf_tables. It is asked once: what it has it keeps, and every socket costs a close.
fn has_nftables() -> bool {
    static SUPPORTED: OnceLock<bool> = OnceLock::new();
    *SUPPORTED.get_or_init(|| {
        Connection::open(Protocol::Netfilter).is_ok_and(|mut connection| nft::is_supported(&mut connection))
    })
}

/// A connection to nf_tables, when the kernel has them.
pub fn nftables() -> Option<Connection> {
    if has_nftables() { Connection::open(Protocol::Netfilter).ok() } else { None }
}

/// Masquerades what the addresses `nets` send out of their networks.
pub fn setup(call: &Call, backend: Backend, nets: &[IpNet]) -> Result<(), Error> {
    match backend {
        Backend::Nftables => setup_nftables(call, nets),
        Backend::Iptables => setup_iptables(call, nets),
    }
}

fn setup_nftables(call: &Call, nets: &[IpNet]) -> Result<(), Error> {
    let mut connection = Connection::open(Protocol::Netfilter)?;
    let (network, instance) =
        (&call.config.name, instance(&call.config.name, &call.ifname, &call.container_id));
    let stale = nft::rules(&mut connection, TABLE, CHAIN)?;
    let mut batch = Batch::new(TABLE);
    let comment_of_table = "Masquerading for plugins from github.com/containernetworking/plugins";
    let chains = [(CHAIN, None), (POSTROUTING, Some(Base::NatPostrouting))];
    batch.lay_out(&mut connection, comment_of_table, &chains)?;
    let mut shared = Vec::new();
    for multicast in ["224.0.0.0/4", "ff00::/8"] {
        let multicast: IpNet = multicast.parse()?;
        let rule = Rule::new().family(multicast.is_ipv4()).destination(Op::Is, multicast);
        shared.push(rule.verdict(Verdict::Return));
    }
    shared.push(Rule::new().verdict(Verdict::Goto(CHAIN.into())));
    batch.settle_chain(&mut connection, POSTROUTING, &shared)?;
    for rule in
        stale.iter().filter(|rule| rule.comment.as_deref().is_some_and(|text| text.starts_with(&instance)))
    {
        batch.delete_rule(CHAIN, rule.handle);
    }
    let comment = comment(network, &call.ifname, &call.container_id);
    for net in nets {
        let source = IpNet { address: net.address, prefix: if net.is_ipv4() { 32 } else { 128 } };
        let rule = Rule::new()
            .family(net.is_ipv4())
            .source(Op::Is, source)
            .destination(Op::IsNot, *net)
            .masquerade()
            .comment(&comment);
        batch.add_rule(CHAIN, &rule);
    }
    Ok(batch.commit(&mut connection)?)
}

fn setup_iptables(call: &Call, nets: &[IpNet]) -> Result<(), Error> {
    let chain = hash::chain(CHAIN_PREFIX, &call.config.name, &call.container_id);
    let comment = iptables_comment(call);
    let comment = ["-m", "comment", "--comment", comment.as_str()];
    for net in nets {
        let iptables = Iptables::find(net.is_ipv4(), call.deadline)?;
        let (within, source) = (format!("{}/{}", net.network(), net.prefix), net.address.to_string());
        let multicast = if net.is_ipv4() { "224.0.0.0/4" } else { "ff00::/8" };
        iptables.ensure_chain("nat", &chain)?;
        iptables.ensure("nat", &chain, &[&["-d", &within, "-j", "ACCEPT"][..], &comment].concat())?;
        iptables.ensure(
            "nat",
            &chain,
            &[&["!", "-d", multicast, "-j", "MASQUERADE"][..], &comment].concat(),
        )?;
        iptables.ensure("nat", "POSTROUTING", &[&["-s", &source, "-j", &chain][..], &comment].concat())?;
    }
    Ok(())
}

/// Removes what either way of masquerading left of an attachment, whoever made it and with whatever configuration.
pub fn teardown(call: &Call) -> Result<(), Error> {
    let instance = instance(&call.config.name, &call.ifname, &call.container_id);
    let mut connection = nftables();
    let chain = hash::chain(CHAIN_PREFIX, &call.config.name, &call.container_id);
    let removed = iptables::remove_chain(&mut connection, "nat", &chain, &["POSTROUTING"], call.deadline);
    if let Some(mut connection) = connection {
        let deleted =
            nft::delete_rules(&mut connection, TABLE, &[CHAIN], &|comment| comment.starts_with(&instance));
        nft::close_with_thread(connection);
        deleted?;
    }
    removed
}

/// Removes the rules of a network's attachments that are gone.
pub fn collect(call: &Call, valid: &[Attachment]) -> Result<(), Error> {
    let Some(mut connection) = nftables() else { return Ok(()) };
    nft::delete_rules(&mut connection, TABLE, &[CHAIN], &is_stale(&call.config.name, valid))?;
    Ok(())
}

/// Whether a comment is of an attachment of `network` that is none of `valid`.
pub fn is_stale(network: &str, valid: &[Attachment]) -> impl Fn(&str) -> bool {
    let prefix = format!("{}-", hash::name(16, "", network));
    let valid: BTreeSet<String> = valid
        .iter()
        .map(|attachment| instance(network, &attachment.ifname, &attachment.container_id))
        .collect();
    move |comment| {
        comment.starts_with(&prefix)
            && !comment.split(',').next().is_some_and(|instance| valid.contains(instance))
    }
}

/// What the comments of an attachment begin with.
pub fn instance(network: &str, ifname: &str, container_id: &str) -> String {
    format!("{}-{}", hash::name(16, "", network), hash::name(16, "", &format!("{ifname}:{container_id}")))
}

/// The comment of an attachment's rules.
pub fn comment(network: &str, ifname: &str, container_id: &str) -> String {
    let instance = instance(network, ifname, container_id);
    format!("{instance}, net: {network}, if: {ifname}, id: {container_id}")
}

fn iptables_comment(call: &Call) -> String {
    format!("name: {:?} id: {:?}", call.config.name, call.container_id)
}

/// The configuration's `ipMasqBackend`, checked.
pub fn backend(call: &Call) -> Result<Backend, Error> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Fields {
        #[serde(default)]
        ip_masq_backend: Option<String>,
    }
    Backend::choose(config::decode::<Fields>(call)?.ip_masq_backend.as_deref(), "ipmasq backend")
}
