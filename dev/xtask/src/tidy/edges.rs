//! The table of crates: which may use which, and what must never be linked into them.
//!
//! The folders are layers, lowest first: base, kernel, runner, engine, edge. A crate uses only what its row lists, so
//! a new edge is a change of this table and needs a reason in ARCHITECTURE.md.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::Finding;

/// What one crate may do.
struct Row {
    /// Its name.
    name: &'static str,
    /// Crates of ours that it may name in its manifest.
    ours: &'static [&'static str],
    /// The only others it may name; `None` when any may be.
    theirs: Option<&'static [&'static str]>,
    /// What must not be linked into it, however far away.
    never: &'static [&'static str],
}

/// Asynchronous I/O and everything above it.
const ASYNC: &[&str] = &["tokio", "tonic", "hyper", "tower", "redb"];

const TABLE: &[Row] = &[
    Row { name: "spec", ours: &[], theirs: None, never: &["tokio", "hyper", "tonic", "rustix", "redb"] },
    Row { name: "api", ours: &["spec"], theirs: None, never: &["tokio", "hyper", "tonic", "rustix", "redb"] },
    // Apart from spec, which programs link that have no use for a parser of command lines.
    Row { name: "flags", ours: &[], theirs: Some(&["clap"]), never: &["tokio", "hyper", "tonic", "redb"] },
    Row { name: "sys", ours: &[], theirs: Some(&["rustix", "libc"]), never: &["tokio", "serde"] },
    Row { name: "net", ours: &["sys", "spec"], theirs: None, never: &["tokio", "tonic"] },
    Row { name: "node", ours: &["sys", "spec"], theirs: None, never: &["tokio", "tonic"] },
    Row {
        name: "runtime",
        ours: &["sys", "spec", "flags"],
        theirs: None,
        never: &["tokio", "prost", "tonic", "hyper", "redb"],
    },
    Row { name: "shim", ours: &["sys", "spec", "api", "runtime"], theirs: None, never: ASYNC },
    Row {
        name: "pause",
        ours: &["sys"],
        theirs: Some(&["rustix"]),
        never: &["spec", "serde", "tokio", "tonic", "hyper", "redb"],
    },
    Row { name: "model", ours: &["spec"], theirs: None, never: &["sys", "rustix", "hyper", "tonic", "redb"] },
    Row { name: "store", ours: &["model", "sys", "spec", "api"], theirs: None, never: &["tonic", "hyper"] },
    Row {
        name: "snapshot",
        ours: &["model", "sys", "spec", "api"],
        theirs: None,
        never: &["tonic", "hyper"],
    },
    Row { name: "image", ours: &["model", "sys", "spec", "api"], theirs: None, never: &["tonic", "redb"] },
    Row {
        name: "task",
        ours: &["model", "sys", "spec", "api", "shim"],
        theirs: None,
        never: &["tonic", "hyper", "redb"],
    },
    Row {
        name: "grpc",
        ours: &["model", "api", "spec"],
        theirs: None,
        never: &["store", "snapshot", "image", "task", "redb"],
    },
    Row {
        name: "cri",
        ours: &["model", "grpc", "net", "node", "sys", "spec", "api", "shim"],
        theirs: None,
        never: &["store", "snapshot", "image", "task", "redb"],
    },
    Row {
        name: "daemon",
        ours: &[
            "spec", "api", "flags", "sys", "net", "model", "store", "snapshot", "image", "task", "shim",
            "grpc", "cri",
        ],
        theirs: None,
        never: &["testkit"],
    },
    Row {
        name: "cli",
        ours: &["grpc", "model", "spec", "flags", "net", "node", "api", "sys", "shim"],
        theirs: None,
        never: &["daemon", "store", "snapshot", "image", "task", "redb", "testkit"],
    },
    Row { name: "testkit", ours: &[], theirs: None, never: &["tokio"] },
    // The bench is a client of CRI; testkit, which may not be asynchronous, is not.
    Row { name: "xtask", ours: &["testkit", "grpc", "api"], theirs: None, never: &[] },
    Row { name: "pages", ours: &["cli", "testkit"], theirs: None, never: &[] },
    Row {
        name: "fuzz",
        ours: &["spec", "model", "store", "snapshot", "image", "testkit"],
        theirs: None,
        never: &[],
    },
];

/// Packages and what they use, build and dev dependencies left out.
pub struct Graph {
    /// Names of the workspace's own packages.
    ours: BTreeSet<String>,
    /// For each package of ours, what its manifest names.
    named: BTreeMap<String, BTreeSet<String>>,
    /// For each package, by name, what is linked into it directly with the features in use.
    linked: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    /// Asks cargo.
    pub fn load(root: &Path) -> anyhow::Result<Self> {
        let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let output = Command::new("cargo")
            .args(["metadata", "--format-version", "1", "--filter-platform", &target])
            .current_dir(root)
            .output()
            .context("run cargo metadata")?;
        ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
        Self::parse(&serde_json::from_slice(&output.stdout)?)
    }

    fn parse(metadata: &Value) -> anyhow::Result<Self> {
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let members: BTreeSet<_> = list(&metadata["workspace_members"]).iter().map(text).collect();
        let names: BTreeMap<_, _> = list(&metadata["packages"])
            .iter()
            .map(|package| (text(&package["id"]), text(&package["name"])))
            .collect();
        ensure!(!names.is_empty(), "cargo metadata lists no package");
        let mut graph = Self { ours: BTreeSet::new(), named: BTreeMap::new(), linked: BTreeMap::new() };
        for package in
            list(&metadata["packages"]).iter().filter(|package| members.contains(&text(&package["id"])))
        {
            let normal =
                list(&package["dependencies"]).into_iter().filter(|dependency| dependency["kind"].is_null());
            graph.ours.insert(text(&package["name"]));
            graph
                .named
                .insert(text(&package["name"]), normal.map(|dependency| text(&dependency["name"])).collect());
        }
        for node in list(&metadata["resolve"]["nodes"]) {
            let uses = graph.linked.entry(names[&text(&node["id"])].clone()).or_default();
            for dependency in list(&node["deps"]) {
                if list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null()) {
                    uses.insert(names[&text(&dependency["pkg"])].clone());
                }
            }
        }
        Ok(graph)
    }

    /// The shortest chain from `from` to `to`, both ends included.
    fn chain(&self, from: &str, to: &str) -> Option<Vec<String>> {
        let mut chains = vec![vec![from.to_owned()]];
        let mut seen = BTreeSet::new();
        while !chains.is_empty() {
            let mut longer = Vec::new();
            for chain in chains {
                let Some(next) = chain.last().and_then(|last| self.linked.get(last)) else { continue };
                for name in next {
                    let mut chain = chain.clone();
                    chain.push(name.clone());
                    if name == to {
                        return Some(chain);
                    }
                    if seen.insert(name.clone()) {
                        longer.push(chain);
                    }
                }
            }
            chains = longer;
        }
        None
    }
}

/// Holds the graph against the table.
pub fn check(graph: &Graph) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in &graph.ours {
        let Some(row) = TABLE.iter().find(|row| row.name == name) else {
            findings.push(Finding::new(name, "has no row in the table of xtask/src/tidy/edges.rs"));
            continue;
        };
        for used in &graph.named[name] {
            let ours = graph.ours.contains(used);
            if ours && !row.ours.contains(&used.as_str()) {
                findings.push(Finding::new(name, format!("may not use {used}")));
            }
            if !ours && row.theirs.is_some_and(|list| !list.contains(&used.as_str())) {
                findings.push(Finding::new(
                    name,
                    format!("may use {} and nothing else, but uses {used}", join(row)),
                ));
            }
        }
        for never in row.never {
            if let Some(chain) = graph.chain(name, never) {
                findings.push(Finding::new(name, format!("must never link {never}: {}", chain.join(" -> "))));
            }
        }
    }
    findings
}

fn join(row: &Row) -> String {
    row.theirs.unwrap_or_default().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(&str, &str)], ours: &[&str]) -> Graph {
        let mut linked = BTreeMap::<String, BTreeSet<String>>::new();
        for (from, to) in edges {
            linked.entry((*from).into()).or_default().insert((*to).into());
        }
        let ours: BTreeSet<String> = ours.iter().map(|name| (*name).to_owned()).collect();
        let named =
            ours.iter().map(|name| (name.clone(), linked.get(name).cloned().unwrap_or_default())).collect();
        Graph { ours, named, linked }
    }

    #[track_caller]
    fn texts(graph: &Graph) -> Vec<String> {
        check(graph).into_iter().map(|finding| format!("{}: {}", finding.place, finding.text)).collect()
    }

    #[test]
    fn an_edge_that_the_table_lacks_is_found() {
        let graph = graph(&[("store", "image"), ("store", "model")], &["store", "image", "model"]);
        assert_eq!(texts(&graph), ["store: may not use image"]);
    }

    #[test]
    fn a_far_link_is_found_with_its_chain() {
        let graph = graph(&[("shim", "a"), ("a", "b"), ("b", "tokio")], &["shim"]);
        assert_eq!(texts(&graph), ["shim: must never link tokio: shim -> a -> b -> tokio"]);
    }

    #[test]
    fn sys_uses_two_crates_only() {
        let graph = graph(&[("sys", "libc"), ("sys", "bitflags")], &["sys"]);
        assert_eq!(texts(&graph), ["sys: may use rustix, libc and nothing else, but uses bitflags"]);
    }

    #[test]
    fn a_crate_without_a_row_is_found() {
        assert_eq!(texts(&graph(&[], &["stowaway"])).len(), 1);
    }

    #[test]
    fn rows_name_only_lower_or_sibling_crates_once() {
        let names: Vec<_> = TABLE.iter().map(|row| row.name).collect();
        let distinct: BTreeSet<_> = names.iter().collect();
        assert_eq!(names.len(), distinct.len());
    }
}
