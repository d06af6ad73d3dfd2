//! What can still be told of a container whose state file is damaged, so that it can be removed.
//!
//! Reads single values out of a text that is no document any more: the first process and the cgroup's directories.
//!
//! Invariant: nothing is believed that the kernel does not confirm: a process has the recorded start time, a directory
//! lies below a cgroup hierarchy.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use crate::cgroup::{Cgroup, Layout};
use crate::state::Process;

/// What is left of a record.
#[derive(Debug)]
pub(crate) struct Salvage {
    /// The first process, if it is alive.
    pub init: Option<i32>,
    /// Its cgroup, with the directories that could be told.
    pub cgroup: Cgroup,
}

impl Salvage {
    /// Reads what there is in `text`.
    pub fn read(text: &str, layout: &Layout) -> Self {
        let init = number(text, "init_process_pid").and_then(|pid| i32::try_from(pid).ok()).filter(|pid| {
            let start = number(text, "init_process_start");
            Process::read(*pid).is_some_and(|process| Some(process.start) == start && !process.is_dead)
        });
        let mut paths: BTreeMap<String, PathBuf> = object(text, "cgroup_paths").unwrap_or_default();
        paths.retain(|_, path| is_cgroup(path, layout));
        Self { init, cgroup: Cgroup::open(paths) }
    }
}

/// What follows the first `"key":`.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("\"{key}\":"))?;
    Some(rest.trim_start())
}

/// A number that is whole: something follows it.
fn number(text: &str, key: &str) -> Option<u64> {
    let rest = value(text, key)?;
    let end = rest.find(|character: char| !character.is_ascii_digit())?;
    rest[..end].parse().ok()
}

/// A flat object of texts that is whole.
fn object(text: &str, key: &str) -> Option<BTreeMap<String, PathBuf>> {
    let rest = value(text, key)?;
    serde_json::from_str(&rest[..=rest.find('}')?]).ok()
}

/// Whether `path` names a directory below a hierarchy, whose own root is everybody's.
fn is_cgroup(path: &Path, layout: &Layout) -> bool {
    layout.mounts.iter().filter_map(|(_, mount)| path.strip_prefix(mount).ok()).any(|below| {
        let mut components = below.components().peekable();
        components.peek().is_some() && components.all(|part| matches!(part, Component::Normal(_)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Mode;

    fn layout() -> Layout {
        let mounts = ["pids", "unified"].map(|name| (name.to_owned(), Path::new("/cg").join(name)));
        Layout { mode: Mode::Hybrid, mounts: mounts.into() }
    }

    #[test]
    fn a_cut_text_tells_what_came_before_the_cut() {
        let own = std::process::id();
        let start = Process::read(own.cast_signed()).unwrap().start;
        let text = format!(
            r#"{{"id":"a","init_process_pid":{own},"init_process_start":{start},"cgroup_paths":{{"pids":"/cg/pids/ns/a"}},"#
        );
        let whole = Salvage::read(&text, &layout());
        assert_eq!(whole.init, Some(own.cast_signed()));
        assert_eq!(whole.cgroup.paths()["pids"], Path::new("/cg/pids/ns/a"));
        let cut = Salvage::read(&text[..text.len() - 4], &layout());
        assert!(cut.init.is_some() && cut.cgroup.paths().is_empty());
        let later = text.replace("start\":", "start\":1");
        assert_eq!(Salvage::read(&later, &layout()).init, None, "another process of that number");
    }

    #[test]
    fn only_what_lies_below_a_hierarchy_is_a_cgroup() {
        let check = |path: &str, expected: bool| {
            let text = format!(r#""cgroup_paths": {{"pids":"{path}"}}"#);
            assert_eq!(!Salvage::read(&text, &layout()).cgroup.paths().is_empty(), expected, "{path}");
        };
        check("/cg/pids/a", true);
        check("/cg/unified/a/b", true);
        check("/cg/pids", false);
        check("/cg/pids/../../etc", false);
        check("/etc", false);
        check("cg/pids/a", false);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_harm(text in "[\"a-z_:{},/0-9é]{0,200}") {
            let text = format!("\"init_process_pid\":{text}\"cgroup_paths\":{text}");
            let found = Salvage::read(&text, &layout());
            proptest::prop_assert!(found.cgroup.paths().values().all(|path| path.starts_with("/cg")));
        }
    }
}
