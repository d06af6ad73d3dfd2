//! Changes of one table, applied together.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::rule::Rule;
use super::table::{
    NFTA_RULE_CHAIN, NFTA_RULE_HANDLE, NFTA_RULE_TABLE, NFTA_RULE_USERDATA, Table, chains as chains_of,
    rules as listed, user_data,
};
use crate::netlink::message::{APPEND, CREATE, Message};
use crate::netlink::{Connection, Result};

const NEWTABLE: u16 = 0;
const NEWCHAIN: u16 = 3;
const DELCHAIN: u16 = 5;
const NEWRULE: u16 = 6;
const DELRULE: u16 = 8;
/// `NFNL_MSG_BATCH_BEGIN`
const BEGIN: u16 = 16;
/// `NFNL_MSG_BATCH_END`
const END: u16 = 17;
/// `NFNL_SUBSYS_NFTABLES`, in the network's order, in the header of a batch.
const SUBSYSTEM: [u8; 4] = [0, 0, 0, 10];

const NFTA_TABLE_NAME: u16 = 1;
const NFTA_TABLE_FLAGS: u16 = 2;
const NFTA_TABLE_USERDATA: u16 = 6;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
/// `NF_ACCEPT`
const ACCEPT: u32 = 1;

/// Where a chain is called from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// Destinations of packets that come in.
    NatPrerouting,
    /// Destinations of packets that this host makes.
    NatOutput,
    /// Sources of packets that leave.
    NatPostrouting,
    /// Packets that pass through.
    FilterForward,
    /// Frames that a bridge takes in.
    BridgePrerouting,
}

impl Base {
    /// Type, hook and priority.
    fn hook(self) -> (&'static str, u32, i32) {
        match self {
            Self::NatPrerouting => ("nat", 0, -100),
            Self::NatOutput => ("nat", 3, -100),
            Self::NatPostrouting => ("nat", 4, 100),
            Self::FilterForward => ("filter", 2, 0),
            Self::BridgePrerouting => ("filter", 0, -300),
        }
    }
}

/// Changes that are being collected.
#[derive(Debug)]
pub struct Batch {
    table: Table,
    messages: Vec<Message>,
}

impl Batch {
    /// No changes of `table` yet.
    pub fn new(table: Table) -> Self {
        Self { table, messages: Vec::new() }
    }

    /// Makes the table and those of its chains that are not there; one with a [`Base`] is called by the kernel.
    ///
    /// Adding a chain that exists would be as right, but counts as a change of it, and the kernel makes whoever closes
    /// a socket of nf_tables wait, for tens of milliseconds, until what a change replaced is freed.
    pub fn lay_out(
        &mut self,
        connection: &mut Connection,
        comment: &str,
        chains: &[(&str, Option<Base>)],
    ) -> Result<&mut Self> {
        let there = chains_of(connection, self.table)?;
        if there.is_empty() {
            self.add_table(comment);
        }
        for (name, base) in chains.iter().filter(|(name, _)| !there.contains(*name)) {
            match base {
                Some(base) => self.add_base_chain(name, *base),
                None => self.add_chain(name),
            };
        }
        Ok(self)
    }

    /// Makes the table, unless it is there.
    fn add_table(&mut self, comment: &str) -> &mut Self {
        let mut message = self.table.message(format!("add table {}", self.table.name), NEWTABLE, CREATE);
        message
            .put_str(NFTA_TABLE_NAME, self.table.name)
            .put_be32(NFTA_TABLE_FLAGS, 0)
            .put(NFTA_TABLE_USERDATA, &user_data(comment));
        self.push(message)
    }

    /// Makes a chain that others jump to, unless it is there.
    fn add_chain(&mut self, name: &str) -> &mut Self {
        let message = self.chain(format!("add chain {name}"), NEWCHAIN, CREATE, name);
        self.push(message)
    }

    /// Makes a chain that the kernel calls, unless it is there.
    fn add_base_chain(&mut self, name: &str, base: Base) -> &mut Self {
        let mut message = self.chain(format!("add chain {name}"), NEWCHAIN, CREATE, name);
        let (kind, hook, priority) = base.hook();
        message
            .nest(NFTA_CHAIN_HOOK, |nest| {
                nest.put_be32(NFTA_HOOK_HOOKNUM, hook).put_be32(NFTA_HOOK_PRIORITY, priority as u32);
            })
            .put_be32(NFTA_CHAIN_POLICY, ACCEPT)
            .put_str(NFTA_CHAIN_TYPE, kind);
        self.push(message)
    }

    /// Deletes a chain, which must be there and which nothing may jump to.
    pub fn delete_chain(&mut self, name: &str) -> &mut Self {
        let message = self.chain(format!("delete chain {name}"), DELCHAIN, 0, name);
        self.push(message)
    }

    /// Deletes every rule of a chain.
    pub fn flush_chain(&mut self, name: &str) -> &mut Self {
        let message = self.rule(format!("flush chain {name}"), DELRULE, 0, name);
        self.push(message)
    }

    /// Gives a chain these rules and no others, and leaves it alone when it has them.
    ///
    /// They carry a comment that tells them from others. Flushing on every occasion would cost what adding a chain
    /// that exists would.
    pub fn settle_chain(
        &mut self,
        connection: &mut Connection,
        name: &str,
        rules: &[Rule],
    ) -> Result<&mut Self> {
        let mut hasher = DefaultHasher::new();
        format!("{rules:?}").hash(&mut hasher);
        let comment = format!("layout {:016x}", hasher.finish());
        let found = listed(connection, self.table, name)?;
        if found.len() == rules.len() && found.iter().all(|rule| rule.comment.as_deref() == Some(&comment)) {
            return Ok(self);
        }
        if !found.is_empty() {
            self.flush_chain(name);
        }
        for rule in rules {
            self.add_rule(name, &rule.clone().comment(&comment));
        }
        Ok(self)
    }

    /// Adds a rule to a chain's end.
    pub fn add_rule(&mut self, chain: &str, rule: &Rule) -> &mut Self {
        self.new_rule(chain, rule, CREATE | APPEND)
    }

    /// Adds a rule to a chain's beginning.
    pub fn insert_rule(&mut self, chain: &str, rule: &Rule) -> &mut Self {
        self.new_rule(chain, rule, CREATE)
    }

    /// Deletes the rule `handle` of a chain.
    pub fn delete_rule(&mut self, chain: &str, handle: u64) -> &mut Self {
        let mut message = self.rule(format!("delete rule {handle} of {chain}"), DELRULE, 0, chain);
        message.put_be64(NFTA_RULE_HANDLE, handle);
        self.push(message)
    }

    /// Applies all of it.
    pub fn commit(self, connection: &mut Connection) -> Result<()> {
        if self.messages.is_empty() {
            return Ok(());
        }
        let begin = Message::new("begin batch", BEGIN, 0).header(&SUBSYSTEM);
        let end = Message::new("end batch", END, 0).header(&SUBSYSTEM);
        connection.batch(begin, self.messages, end)
    }

    fn push(&mut self, message: Message) -> &mut Self {
        self.messages.push(message);
        self
    }

    fn chain(&self, what: String, kind: u16, flags: u16, name: &str) -> Message {
        let mut message = self.table.message(what, kind, flags);
        message.put_str(NFTA_CHAIN_TABLE, self.table.name).put_str(NFTA_CHAIN_NAME, name);
        message
    }

    fn rule(&self, what: String, kind: u16, flags: u16, chain: &str) -> Message {
        let mut message = self.table.message(what, kind, flags);
        message.put_str(NFTA_RULE_TABLE, self.table.name).put_str(NFTA_RULE_CHAIN, chain);
        message
    }

    fn new_rule(&mut self, chain: &str, rule: &Rule, flags: u16) -> &mut Self {
        let mut message = self.rule(format!("add rule to {chain}"), NEWRULE, flags, chain);
        message.nest(NFTA_RULE_EXPRESSIONS, |list| {
            for expression in &rule.expressions {
                expression.write(list);
            }
        });
        if let Some(data) = rule.user_data() {
            message.put(NFTA_RULE_USERDATA, &data);
        }
        self.push(message)
    }
}
