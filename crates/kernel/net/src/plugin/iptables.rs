//! The programs `iptables` and `ip6tables`, for configurations that ask for them and kernels without nf_tables.
//!
//! Chains of the program's nf_tables variant are looked up by netlink, and tables of the old one in `/proc`, so that
//! nothing is run to find that there is nothing to remove.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::masquerade::nftables;
use crate::cni::{Error, code};
use crate::netlink::Connection;
use crate::nft::{self, Family, Table};

/// Where distributions put it; a plugin's own PATH may be empty.
const DIRECTORIES: [&str; 6] =
    ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin", "/bin", "/usr/local/bin"];
/// Seconds that the program waits for its own lock.
const LOCK_SECONDS: &str = "5";
/// Longest output that is kept.
const OUTPUT_MAX: u64 = 1 << 20;
/// Longest chain that is searched for jumps.
const RULES_MAX: usize = 4096;

/// One of the two programs.
#[derive(Clone, Debug)]
pub struct Iptables {
    program: PathBuf,
    deadline: Instant,
}

impl Iptables {
    /// The program for a family; its runs end at `deadline`.
    pub fn find(ipv4: bool, deadline: Instant) -> Result<Self, Error> {
        let name = if ipv4 { "iptables" } else { "ip6tables" };
        let found = DIRECTORIES.iter().map(|dir| PathBuf::from(dir).join(name)).find(|path| path.exists());
        let program = found.ok_or_else(|| Error::internal(format!("failed to locate {name}")))?;
        Ok(Self { program, deadline })
    }

    /// Makes a chain unless it is there.
    pub fn ensure_chain(&self, table: &str, chain: &str) -> Result<(), Error> {
        if self.test(&["-t", table, "-S", chain, "1"])? {
            return Ok(());
        }
        let made = self.run(&["-t", table, "-N", chain]);
        // Another plugin may have been faster.
        if made.is_err() && self.test(&["-t", table, "-S", chain, "1"])? { Ok(()) } else { made.map(drop) }
    }

    /// Whether a chain has a rule.
    pub fn has(&self, table: &str, chain: &str, rule: &[&str]) -> Result<bool, Error> {
        self.test(&[&["-t", table, "-C", chain][..], rule].concat())
    }

    /// Appends a rule to a chain unless it is there.
    pub fn ensure(&self, table: &str, chain: &str, rule: &[&str]) -> Result<(), Error> {
        if self.has(table, chain, rule)? {
            return Ok(());
        }
        self.run(&[&["-t", table, "-A", chain][..], rule].concat()).map(drop)
    }

    /// Puts a rule before all others of a chain unless it is there.
    pub fn ensure_first(&self, table: &str, chain: &str, rule: &[&str]) -> Result<(), Error> {
        if self.has(table, chain, rule)? {
            return Ok(());
        }
        self.run(&[&["-t", table, "-I", chain, "1"][..], rule].concat()).map(drop)
    }

    /// Deletes a rule, if it is there.
    pub fn delete(&self, table: &str, chain: &str, rule: &[&str]) -> Result<(), Error> {
        if self.has(table, chain, rule)? {
            return self.run(&[&["-t", table, "-D", chain][..], rule].concat()).map(drop);
        }
        Ok(())
    }

    /// Deletes a chain and the rules of `callers` that jump to it.
    fn delete_chain(&self, table: &str, chain: &str, callers: &[&str]) -> Result<(), Error> {
        for caller in callers {
            let Ok(listing) = self.run(&["-t", table, "-S", caller]) else { continue };
            for line in listing.lines().take(RULES_MAX) {
                let Some(words) = words(line) else { continue };
                if jumps_to(&words, chain) {
                    let rule: Vec<&str> = words.iter().skip(2).map(String::as_str).collect();
                    self.run(&[&["-t", table, "-D", caller][..], &rule].concat())?;
                }
            }
        }
        self.run(&["-t", table, "-F", chain])?;
        self.run(&["-t", table, "-X", chain]).map(drop)
    }

    fn test(&self, args: &[&str]) -> Result<bool, Error> {
        self.start(args).map(|(status, _, _)| status.success())
    }

    fn run(&self, args: &[&str]) -> Result<String, Error> {
        let (status, out, err) = self.start(args)?;
        if status.success() {
            return Ok(out);
        }
        let text =
            format!("running [{} {}]: {status}: {}", self.program.display(), args.join(" "), err.trim());
        Err(Error::internal(text))
    }

    fn start(&self, args: &[&str]) -> Result<(ExitStatus, String, String), Error> {
        let failed =
            |error: std::io::Error| Error::internal(format!("run {}: {error}", self.program.display()));
        let mut child = Command::new(&self.program)
            .args(["-w", LOCK_SECONDS])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let read = |stream: Option<Box<dyn std::io::Read + Send>>| {
            std::thread::spawn(move || {
                let mut text = Vec::new();
                // What cannot be read is missing from a message, and no more.
                let _ = stream.map(|stream| stream.take(OUTPUT_MAX).read_to_end(&mut text));
                String::from_utf8_lossy(&text).into_owned()
            })
        };
        let (out, err) = (read(out.map(|o| Box::new(o) as _)), read(err.map(|e| Box::new(e) as _)));
        let status = wait(&mut child, self.deadline).map_err(failed)?;
        let (out, err) = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
        match status {
            Some(status) => Ok((status, out, err)),
            None => {
                Err(Error::new(code::TRY_AGAIN, format!("{} did not end in time", self.program.display())))
            }
        }
    }
}

/// Waits for a program until `deadline`, then kills it.
fn wait(child: &mut Child, deadline: Instant) -> std::io::Result<Option<ExitStatus>> {
    let mut pause = Duration::from_micros(200);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// Removes the chain `chain` and every jump to it from `callers`, of both families, if there is such a chain.
///
/// `connection` is to nf_tables, where the kernel has them.
pub fn remove_chain(
    connection: &mut Option<Connection>,
    table: &'static str,
    chain: &str,
    callers: &[&str],
    deadline: Instant,
) -> Result<(), Error> {
    for ipv4 in [true, false] {
        if may_exist(connection.as_mut(), ipv4, table, chain)? {
            let iptables = Iptables::find(ipv4, deadline)?;
            if iptables.test(&["-t", table, "-S", chain, "1"])? {
                iptables.delete_chain(table, chain, callers)?;
            }
        }
    }
    Ok(())
}

/// Whether iptables, in either of its variants, may have the chain.
fn may_exist(
    connection: Option<&mut Connection>,
    ipv4: bool,
    table: &'static str,
    chain: &str,
) -> Result<bool, Error> {
    if let Some(connection) = connection {
        let table = Table { family: Family::of(ipv4), name: table };
        if nft::chain_exists(connection, table, chain)? {
            return Ok(true);
        }
    }
    Ok(has_old_table(ipv4, table))
}

/// Whether the old variant has the table in this network namespace.
fn has_old_table(ipv4: bool, table: &str) -> bool {
    let file = if ipv4 { "ip_tables_names" } else { "ip6_tables_names" };
    std::fs::read_to_string(format!("/proc/thread-self/net/{file}"))
        .is_ok_and(|names| names.lines().any(|name| name == table))
}

/// Whether packets pass through a chain of iptables' `filter` here: then only a rule of it can accept them.
pub fn filters(ipv4: bool) -> bool {
    let table = Table { family: Family::of(ipv4), name: "filter" };
    nftables()
        .is_some_and(|mut connection| nft::chain_exists(&mut connection, table, "FORWARD").unwrap_or(false))
        || has_old_table(ipv4, "filter")
}

fn jumps_to(words: &[String], chain: &str) -> bool {
    words.first().is_some_and(|word| word == "-A")
        && words.windows(2).any(|pair| pair[0] == "-j" && pair[1] == chain)
}

/// The words of a rule as `iptables -S` prints it, quotes and backslashes undone.
fn words(line: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut started, mut quoted) = (Vec::new(), String::new(), false, false);
    let mut chars = line.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => word.push(chars.next()?),
            '"' => quoted = !quoted,
            ' ' if !quoted => {
                if started {
                    words.push(std::mem::take(&mut word));
                }
                started = false;
                continue;
            }
            other => word.push(other),
        }
        started = true;
    }
    if started {
        words.push(word);
    }
    (!quoted).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_rule_becomes_its_words() {
        let line = r#"-A POSTROUTING -s 10.0.0.2/32 -m comment --comment "name: \"n\" id: \"a\"" -j CNI-x"#;
        let words = words(line).unwrap();
        assert_eq!(words[7], r#"name: "n" id: "a""#);
        assert!(jumps_to(&words, "CNI-x"));
        assert!(!jumps_to(&words, "CNI"));
        assert_eq!(super::words(r#"-A "x"#), None);
    }
}
