//! A tree, described: everything about every object that a layer can carry.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// What to leave out of a description.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// All times count.
    All,
    /// Directories' times do not.
    NotOfDirectories,
}

/// Every object below `root` by its path, as text that differs when anything of it does.
pub fn describe(root: &Path, times: Times) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut inodes = HashMap::new();
    visit(root, "", times, &mut inodes, &mut out);
    out
}

fn visit(
    root: &Path,
    path: &str,
    times: Times,
    inodes: &mut HashMap<u64, String>,
    out: &mut BTreeMap<String, String>,
) {
    let mut names: Vec<_> =
        std::fs::read_dir(root.join(path)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    for name in names {
        let inner = if path.is_empty() {
            name.to_string_lossy().into_owned()
        } else {
            format!("{path}/{}", name.to_string_lossy())
        };
        let full = root.join(path).join(&name);
        let stat = std::fs::symlink_metadata(&full).unwrap();
        let mut text = format!("{:o} {}:{}", stat.mode(), stat.uid(), stat.gid());
        if !stat.is_dir() || times == Times::All {
            text += &format!(" {}.{:09}", stat.mtime(), stat.mtime_nsec());
        }
        if stat.is_file() {
            let bytes = std::fs::read(&full).unwrap();
            let hash = ring::digest::digest(&ring::digest::SHA256, &bytes);
            text += &format!(" {} {:?}", bytes.len(), &hash.as_ref()[..6]);
            if stat.nlink() > 1 {
                match inodes.get(&stat.ino()) {
                    Some(first) => text += &format!(" ={first}"),
                    None => drop(inodes.insert(stat.ino(), inner.clone())),
                }
            }
        } else if stat.is_symlink() {
            text += &format!(" -> {}", std::fs::read_link(&full).unwrap().display());
        } else if stat.file_type().is_char_device() || stat.file_type().is_block_device() {
            text += &format!(" dev {:#x}", stat.rdev());
        }
        text += &attributes(&full);
        let is_dir = stat.is_dir();
        out.insert(inner.clone(), text);
        if is_dir {
            visit(root, &inner, times, inodes, out);
        }
    }
}

fn attributes(path: &Path) -> String {
    let (parent, name) = (path.parent().unwrap(), path.file_name().unwrap());
    let root = sys::path::Root::open_dir(parent).unwrap();
    let dir = std::os::fd::AsFd::as_fd(&root);
    let mut out = String::new();
    let mut names = sys::xattr::list_at(dir, name).unwrap();
    names.sort();
    for attribute in names {
        let attribute = OsStr::from_bytes(attribute.as_bytes());
        let value = sys::xattr::get_at(dir, name, attribute).unwrap().unwrap_or_default();
        out += &format!(" {}={}", attribute.display(), String::from_utf8_lossy(&value));
    }
    out
}

/// Asserts that two descriptions are equal, naming only what differs.
#[track_caller]
pub fn assert_same(what: &str, left: &BTreeMap<String, String>, right: &BTreeMap<String, String>) {
    let mut differences = Vec::new();
    for path in left.keys().chain(right.keys().filter(|path| !left.contains_key(*path))) {
        if left.get(path) != right.get(path) {
            differences.push(format!("{path}: {:?} | {:?}", left.get(path), right.get(path)));
        }
    }
    assert!(differences.is_empty(), "{what}:\n{}", differences.join("\n"));
}
