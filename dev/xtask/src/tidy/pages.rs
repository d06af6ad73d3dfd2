//! ARCHITECTURE.md against the work tree: every crate and every dependency has its line there, and no other, and every
//! room on its walks is a file.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::Context as _;

use super::{Finding, manifest};

/// The page that is checked.
const PAGE: &str = "ARCHITECTURE.md";

/// Compares the page with the manifests.
pub fn check(root: &Path) -> anyhow::Result<Vec<Finding>> {
    let page = fs::read_to_string(root.join(PAGE)).context(PAGE)?;
    let workspace = fs::read_to_string(root.join("Cargo.toml")).context("Cargo.toml")?;
    let crates = crates(root)?;
    let mut findings = compare("crate", &crates, &rows(&page, "## Crates"));
    findings.extend(compare("dependency", &dependencies(&workspace), &rows(&page, "## Dependencies")));
    findings.extend(
        walks(&page)
            .into_iter()
            .filter(|room| !is_room(root, &crates, room))
            .map(|room| Finding::new(PAGE, format!("the walks pass {room}, which is no file"))),
    );
    for dir in &crates {
        let text = fs::read_to_string(manifest(root, dir))?;
        if !text.contains("[lints]\nworkspace = true") {
            findings.push(Finding::new(format!("{dir}/Cargo.toml"), "lacks `[lints] workspace = true`"));
        }
    }
    Ok(findings)
}

fn compare(what: &str, there: &BTreeSet<String>, told: &BTreeSet<String>) -> Vec<Finding> {
    let missing = there.difference(told).map(|name| format!("{what} `{name}` has no row"));
    let stale = told.difference(there).map(|name| format!("row `{name}`: there is no such {what}"));
    missing.chain(stale).map(|text| Finding::new(PAGE, text)).collect()
}

/// The rooms of the page's first block: words such as `task/create`, with `a/{b,c}` as `a/b` and `a/c`.
fn walks(page: &str) -> Vec<String> {
    let block = page.split("```").nth(1).unwrap_or_default();
    let words = block.split_whitespace().map(|word| word.trim_end_matches([',', ';']));
    let mut rooms = Vec::new();
    for word in words.filter(|word| word.contains('/')) {
        match word.split_once("/{") {
            Some((folder, names)) => {
                let names = names.trim_end_matches('}').split(',');
                rooms.extend(names.map(|name| format!("{folder}/{name}")));
            }
            None => rooms.push(word.to_owned()),
        }
    }
    rooms
}

/// Whether `crate/path` is a module of that crate.
fn is_room(root: &Path, crates: &BTreeSet<String>, room: &str) -> bool {
    let Some((name, path)) = room.split_once('/') else { return false };
    crates.iter().filter(|dir| dir.rsplit('/').next() == Some(name)).any(|dir| {
        let module = root.join(dir).join("src").join(path);
        module.with_extension("rs").is_file() || module.join("mod.rs").is_file()
    })
}

/// Folders with a manifest, two levels below `crates` and one below `dev`.
fn crates(root: &Path) -> anyhow::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut add = |dir: &Path| -> anyhow::Result<()> {
        for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
            let path = entry?.path();
            if path.join("Cargo.toml").is_file() {
                found.insert(path.strip_prefix(root)?.display().to_string());
            }
        }
        Ok(())
    };
    add(&root.join("dev"))?;
    for layer in fs::read_dir(root.join("crates"))? {
        let layer = layer?.path();
        if layer.is_dir() {
            add(&layer)?;
        }
    }
    Ok(found)
}

/// Names of the workspace's dependencies that are not its own crates.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let table = manifest.split_once("[workspace.dependencies]").map_or("", |(_, rest)| rest);
    let table = table.split("\n[").next().unwrap_or_default();
    table
        .lines()
        .filter(|line| !line.starts_with('#') && !line.contains("path ="))
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name.trim().to_owned())
        .collect()
}

/// The first word in backquotes of each table row below the heading; a row may name several, joined by commas.
fn rows(page: &str, heading: &str) -> BTreeSet<String> {
    let section = page.split_once(&format!("\n{heading}\n")).map_or("", |(_, rest)| rest);
    let section = section.split("\n## ").next().unwrap_or_default();
    section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(" |").next())
        .flat_map(|cell| cell.split(", "))
        .map(|name| name.trim_matches('`').to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_those_of_the_section() {
        let page = "\n## Crates\n\n| crate | is |\n|--|--|\n| `a/b` | x |\n| `c`, `d` | y |\n\n## Other\n| `e` | z |\n";
        assert_eq!(rows(page, "## Crates").into_iter().collect::<Vec<_>>(), ["a/b", "c", "d"]);
    }

    #[test]
    fn a_walk_passes_each_room_once() {
        let page = "# A\n```text\nX  cli/run -> task/{queue,owner};\n -- clone3 --> sys/mount -> move_mount(2)\n```\n";
        assert_eq!(walks(page), ["cli/run", "task/queue", "task/owner", "sys/mount"]);
    }

    #[test]
    fn own_crates_are_no_dependencies() {
        let text = "[workspace.dependencies]\n# ours\nspec = { path = \"x\" }\nlibc = \"0.2\"\n\n[lints]\na = \"b\"\n";
        assert_eq!(dependencies(text).into_iter().collect::<Vec<_>>(), ["libc"]);
    }
}
