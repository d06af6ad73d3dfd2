//! What the compiler cannot check, checked: `cargo xtask tidy`.
//!
//! - [`edges`]: which crate may use which, and what a program must never link.
//! - [`source`]: module docs, file names, unsafe, sleeps in tests, words that stand for unfinished work.
//! - [`pages`]: ARCHITECTURE.md names every crate and every dependency.
//!
//! Each check is a function of text that answers with findings, so that its tests need no work tree.

mod code;
mod edges;
mod pages;
mod source;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

/// One thing to change: where, and what.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    place: String,
    text: String,
}

impl Finding {
    fn new(place: impl Into<String>, text: impl Into<String>) -> Self {
        Self { place: place.into(), text: text.into() }
    }
}

/// Runs every check and prints every finding.
pub fn run() -> anyhow::Result<()> {
    let root = testkit::place::workspace();
    let mut findings = edges::check(&edges::Graph::load(&root)?);
    let mut advice = Vec::new();
    for path in files(&root, "*.rs")? {
        let text = std::fs::read_to_string(root.join(&path)).with_context(|| format!("read {path}"))?;
        findings.extend(source::check(&path, &text));
        advice.extend(source::advise(&path, &text));
    }
    findings.extend(pages::check(&root)?);
    for finding in &advice {
        println!("advice: {}: {}", finding.place, finding.text);
    }
    for finding in &findings {
        println!("{}: {}", finding.place, finding.text);
    }
    if !findings.is_empty() {
        bail!("{} findings", findings.len());
    }
    println!("tidy");
    Ok(())
}

/// Files of the work tree that git knows or would add, by a pattern.
fn files(root: &std::path::Path, pattern: &str) -> anyhow::Result<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "--", pattern])
        .current_dir(root)
        .output()
        .context("run git")?;
    ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let list = String::from_utf8(output.stdout)?;
    // A file that was removed but not yet committed is still listed.
    Ok(list.lines().filter(|path| root.join(path).is_file()).map(str::to_owned).collect())
}

/// The manifest of a crate in the folder `dir`.
fn manifest(root: &std::path::Path, dir: &str) -> PathBuf {
    root.join(dir).join("Cargo.toml")
}
