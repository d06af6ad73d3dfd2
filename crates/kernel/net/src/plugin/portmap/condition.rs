//! Conditions in nf_tables' words, as far as they are about addresses and links: `ip saddr != 10.0.0.0/8`,
//! `iifname eth0`. Others are refused, never passed over.

use crate::cni::{Error, IpNet};
use crate::nft::{Op, Rule};

/// What a packet must have to be forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Comes from the network.
    Source(Op, IpNet),
    /// Goes to the network.
    Destination(Op, IpNet),
    /// Came in by the link.
    Input(Op, String),
    /// Goes out by the link.
    Output(Op, String),
}

impl Condition {
    /// Reads the words of a configuration, which may be one string or many.
    pub fn parse_all(words: &[String]) -> Result<Vec<Self>, Error> {
        let joined = words.join(" ");
        let mut words = joined.split_whitespace().peekable();
        let mut conditions = Vec::new();
        while let Some(word) = words.next() {
            let unknown = || Error::config(format!("condition {joined:?} is not supported: at {word:?}"));
            let field = match word {
                "ip" | "ip6" => words.next().ok_or_else(unknown)?,
                "meta" => words.next().ok_or_else(unknown)?,
                word => word,
            };
            let op = match words.peek() {
                Some(&"!=") => Op::IsNot,
                _ => Op::Is,
            };
            words.next_if(|word| matches!(*word, "==" | "!="));
            let value = words.next().ok_or_else(unknown)?;
            conditions.push(match (word, field) {
                ("ip" | "ip6", "saddr") => Self::Source(op, network(value, word == "ip")?),
                ("ip" | "ip6", "daddr") => Self::Destination(op, network(value, word == "ip")?),
                (_, "iifname") if !word.starts_with("ip") => Self::Input(op, link(value)?),
                (_, "oifname") if !word.starts_with("ip") => Self::Output(op, link(value)?),
                _ => return Err(unknown()),
            });
        }
        Ok(conditions)
    }

    /// Adds the match to a rule.
    pub fn add_to(&self, rule: Rule) -> Rule {
        match self {
            Self::Source(op, net) => rule.source(*op, *net),
            Self::Destination(op, net) => rule.destination(*op, *net),
            Self::Input(op, name) => rule.input(*op, name),
            Self::Output(op, name) => rule.output(*op, name),
        }
    }
}

fn network(text: &str, ipv4: bool) -> Result<IpNet, Error> {
    let net: IpNet = if text.contains('/') {
        text.parse()?
    } else {
        format!("{text}/{}", if ipv4 { 32 } else { 128 }).parse()?
    };
    if net.is_ipv4() == ipv4 { Ok(net) } else { Err(Error::config(format!("{text} is of the wrong family"))) }
}

fn link(text: &str) -> Result<String, Error> {
    let name = text.trim_matches('"');
    crate::plugin::check::interface_name(name)?;
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_or_refused() {
        let parse = |text: &str| Condition::parse_all(&[text.to_owned()]);
        assert_eq!(
            parse("ip saddr != 10.0.0.0/8 iifname \"eth0\"").unwrap(),
            [
                Condition::Source(Op::IsNot, "10.0.0.0/8".parse().unwrap()),
                Condition::Input(Op::Is, "eth0".into())
            ]
        );
        let words: Vec<String> = ["ip6", "daddr", "==", "fd00::1"].map(str::to_owned).to_vec();
        assert_eq!(
            Condition::parse_all(&words).unwrap(),
            [Condition::Destination(Op::Is, "fd00::1/128".parse().unwrap())]
        );
        for text in
            ["ip saddr", "ip ttl 5", "tcp dport 80", "ip saddr fd00::1", "iifname a/b", "ip iifname x"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
