//! What is there: rules with their comments, chains.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::{Batch, Rule};
use crate::netlink::message::{Answer, Attributes, Message};
use crate::netlink::{Connection, Error, Result};

pub(super) const NFTA_RULE_TABLE: u16 = 1;
pub(super) const NFTA_RULE_CHAIN: u16 = 2;
pub(super) const NFTA_RULE_HANDLE: u16 = 3;
pub(super) const NFTA_RULE_USERDATA: u16 = 7;
/// `NFTNL_UDATA_RULE_COMMENT`, and the same number for tables and chains.
pub(super) const COMMENT: u8 = 0;

const NEWRULE: u16 = 6;
const GETRULE: u16 = 7;
const GETCHAIN: u16 = 4;
const GETGEN: u16 = 16;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;

/// How often rules that others delete at the same moment are listed anew.
const ATTEMPTS: usize = 8;

/// The family of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Both IPv4 and IPv6.
    Inet = 1,
    /// IPv4.
    Ip = 2,
    /// Packets on bridges.
    Bridge = 7,
    /// IPv6.
    Ip6 = 10,
}

impl Family {
    /// The family of IPv4, or of IPv6.
    pub fn of(ipv4: bool) -> Self {
        if ipv4 { Self::Ip } else { Self::Ip6 }
    }
}

/// A table, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its family.
    pub family: Family,
    /// Its name.
    pub name: &'static str,
}

impl Table {
    /// A request of nf_tables about this table's family.
    pub(super) fn message(self, what: String, kind: u16, flags: u16) -> Message {
        Message::new(what, 10 << 8 | kind, flags).header(&[self.family as u8, 0, 0, 0])
    }
}

/// A rule that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its number in its table.
    pub handle: u64,
    /// Its comment.
    pub comment: Option<String>,
}

impl Listed {
    fn read(answer: &Answer<'_>, chain: &str) -> Option<Self> {
        if answer.kind != 10 << 8 | NEWRULE {
            return None;
        }
        let attributes = Attributes(answer.payload.get(4..)?);
        // Kernels before 5.x do not filter by chain.
        if attributes.text(NFTA_RULE_CHAIN)? != chain {
            return None;
        }
        let comment = attributes.get(NFTA_RULE_USERDATA).and_then(comment);
        Some(Self { handle: attributes.be64(NFTA_RULE_HANDLE)?, comment })
    }
}

/// The comment in user data: entries of type, length and value.
fn comment(mut bytes: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = bytes {
        let value = rest.get(..usize::from(*length))?;
        if *kind == COMMENT {
            let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
            return Some(String::from_utf8_lossy(&value[..end]).into_owned());
        }
        bytes = &rest[value.len()..];
    }
    None
}

/// Whether the kernel has nf_tables.
pub fn is_supported(connection: &mut Connection) -> bool {
    let message = Table { family: Family::Inet, name: "" }.message("probe nf_tables".into(), GETGEN, 0);
    connection.execute(message).is_ok()
}

/// The rules of `chain`, in order; none when there is no such chain.
pub fn rules(connection: &mut Connection, table: Table, chain: &str) -> Result<Vec<Listed>> {
    let mut message = table.message(format!("list rules of {} {chain}", table.name), GETRULE, 0);
    message.put_str(NFTA_RULE_TABLE, table.name).put_str(NFTA_RULE_CHAIN, chain);
    match connection.dump(&message, |answer| Listed::read(answer, chain)) {
        Err(error) if is_absent(&error) => Ok(Vec::new()),
        listed => listed,
    }
}

/// Whether there is a chain `chain` in `table`.
pub fn chain_exists(connection: &mut Connection, table: Table, chain: &str) -> Result<bool> {
    let mut message = table.message(format!("look up chain {chain}"), GETCHAIN, 0);
    message.put_str(NFTA_CHAIN_TABLE, table.name).put_str(NFTA_CHAIN_NAME, chain);
    match connection.execute(message) {
        Ok(()) => Ok(true),
        Err(error) if is_absent(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Names of the chains of `table`; none when there is no such table.
pub(super) fn chains(connection: &mut Connection, table: Table) -> Result<BTreeSet<String>> {
    let message = table.message(format!("list chains of {}", table.name), GETCHAIN, 0);
    let names = connection.dump(&message, |answer| {
        let attributes = Attributes(answer.payload.get(4..)?);
        let ours = answer.payload.first() == Some(&(table.family as u8))
            && attributes.text(NFTA_CHAIN_TABLE)? == table.name;
        ours.then(|| attributes.text(NFTA_CHAIN_NAME)).flatten()
    })?;
    Ok(names.into_iter().collect())
}

/// Which rules are meant, by their comments.
pub type Comments<'a> = dyn Fn(&str) -> bool + 'a;

thread_local! {
    /// Connections whose end is put off to the thread's.
    static CLOSING: RefCell<Vec<Connection>> = const { RefCell::new(Vec::new()) };
}

/// Closes a connection by which something was deleted, when the thread ends.
///
/// The kernel makes whoever closes a socket of nf_tables wait, for tens of milliseconds, until what was deleted is
/// freed. A plugin's thread ends after it has answered, and nobody waits for it.
pub fn close_with_thread(connection: Connection) {
    CLOSING.with_borrow_mut(|closing| closing.push(connection));
}

/// Deletes the rules of `chains` whose comment is `meant`; those that are gone already are deleted. Says how many.
pub fn delete_rules(
    connection: &mut Connection,
    table: Table,
    chains: &[&str],
    meant: &Comments<'_>,
) -> Result<usize> {
    let mut attempt = 1;
    loop {
        let mut batch = Batch::new(table);
        let mut count = 0;
        for chain in chains {
            for rule in rules(connection, table, chain)? {
                if rule.comment.as_deref().is_some_and(meant) {
                    batch.delete_rule(chain, rule.handle);
                    count += 1;
                }
            }
        }
        if count == 0 {
            return Ok(0);
        }
        match batch.commit(connection) {
            Ok(()) => return Ok(count),
            // Somebody else deleted one of them between list and batch, and none of ours went.
            Err(error) if is_absent(&error) && attempt < ATTEMPTS => attempt += 1,
            Err(error) => return Err(error),
        }
    }
}

fn is_absent(error: &Error) -> bool {
    error.is(rustix::io::Errno::NOENT.raw_os_error())
}

impl Rule {
    /// User data that holds the comment.
    pub(super) fn user_data(&self) -> Option<Vec<u8>> {
        self.comment.as_deref().map(user_data)
    }
}

/// User data of a rule, table or chain with a comment. It is cut to what one byte of length can say.
pub(super) fn user_data(comment: &str) -> Vec<u8> {
    let text = &comment.as_bytes()[..comment.len().min(127)];
    let mut bytes = vec![COMMENT, text.len() as u8 + 1];
    bytes.extend(text);
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_found_among_other_entries() {
        let mut data = vec![5, 2, 1, 1];
        data.extend(user_data("pod-a"));
        assert_eq!(comment(&data).as_deref(), Some("pod-a"));
        assert_eq!(comment(&[0, 200, b'a']), None);
        assert_eq!(comment(&[]), None);
    }
}
