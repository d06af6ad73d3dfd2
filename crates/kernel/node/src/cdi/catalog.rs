//! All devices of all directories, by their qualified names.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use ::spec::Result;
use ::spec::{Error, Kind};

use super::file::{self, Edits, File, Node};
use super::number::Number;

/// The most files of a directory that are read.
const MAX_FILES: usize = 1024;

/// The most trouble that an error tells of.
const MAX_TOLD: usize = 3;

/// The most bytes of trouble with one file.
const MAX_TROUBLE: usize = 512;

/// What all directories define.
#[derive(Debug, Default)]
struct Catalog {
    files: Vec<File>,
    /// Where a device is: its directory's number, its file, its place there.
    devices: BTreeMap<String, (usize, usize, usize)>,
    conflicts: BTreeSet<String>,
    /// What is wrong with files that could not be used.
    trouble: Vec<String>,
}

/// What a container with the devices `names` gets, in their order; what files leave open is taken from the host's own
/// devices. A later directory's device wins over an earlier one's.
///
/// # Errors
/// `NotFound`: a device is not defined, or more than once. A host's device is missing or another than its file says.
pub fn find(dirs: &[PathBuf], names: &[String]) -> Result<Edits> {
    let mut edits = Edits::default();
    if names.is_empty() {
        return Ok(edits);
    }
    let catalog = Catalog::read(dirs);
    for trouble in &catalog.trouble {
        tracing::warn!(%trouble, "a CDI specification is left out");
    }
    let mut seen = BTreeSet::new();
    let mut missing = Vec::new();
    for name in names {
        let place = catalog.devices.get(name).filter(|_| !catalog.conflicts.contains(name));
        let Some(&(_, file, device)) = place else {
            missing.push(name.as_str());
            continue;
        };
        let file_of = &catalog.files[file];
        if seen.insert(file) {
            edits.append(file_of.container_edits.as_ref().unwrap_or(&Edits::default()));
        }
        edits.append(&file_of.devices[device].container_edits);
    }
    if !missing.is_empty() {
        return Err(catalog.unresolvable(&missing));
    }
    for node in &mut edits.device_nodes {
        complete(node).map_err(|error| error.context("failed to inject CDI devices"))?;
    }
    Ok(edits)
}

/// The vendors of all devices.
pub fn vendors(dirs: &[PathBuf]) -> BTreeSet<String> {
    let catalog = Catalog::read(dirs);
    let vendor = |name: &String| name.split_once('/').map(|(vendor, _)| vendor.to_owned());
    catalog.devices.keys().filter_map(vendor).collect()
}

impl Catalog {
    fn read(dirs: &[PathBuf]) -> Self {
        let mut catalog = Self::default();
        for (rank, dir) in dirs.iter().enumerate() {
            match files(dir) {
                Ok(paths) => paths.iter().for_each(|path| catalog.add(rank, path)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => catalog.trouble.push(format!("{}: {error}", dir.display())),
            }
        }
        catalog
    }

    fn add(&mut self, rank: usize, path: &Path) {
        let read = crate::read_file(path, file::MAX_BYTES).map_err(|error| error.to_string());
        let json = path.extension().is_some_and(|extension| extension == "json");
        let file = match read.and_then(|bytes| file::parse(&bytes, json)) {
            Ok(file) => file,
            Err(mut error) => {
                error.truncate(error.floor_char_boundary(MAX_TROUBLE));
                self.trouble.push(format!("{}: {error}", path.display()));
                return;
            }
        };
        let at = self.files.len();
        for (place, device) in file.devices.iter().enumerate() {
            let name = file.qualified(device);
            match self.devices.get(&name) {
                Some((other, ..)) if *other == rank => {
                    let trouble = format!("{}: conflicting device {name:?}", path.display());
                    self.trouble.push(trouble);
                    self.conflicts.insert(name);
                }
                _ => {
                    self.conflicts.remove(&name);
                    self.devices.insert(name, (rank, at, place));
                }
            }
        }
        self.files.push(file);
    }

    fn unresolvable(&self, missing: &[&str]) -> Error {
        let mut text =
            format!("CDI device injection failed: unresolvable CDI devices {}", missing.join(", "));
        if !self.trouble.is_empty() {
            let told: Vec<_> = self.trouble.iter().take(MAX_TOLD).map(String::as_str).collect();
            text.push_str(&format!(" (left out: {})", told.join("; ")));
        }
        Error::new(Kind::NotFound, text)
    }
}

/// The files of a directory that count, sorted.
fn files(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        let counts = path.extension().is_some_and(|extension| extension == "json" || extension == "yaml");
        if counts && !entry.file_type()?.is_dir() {
            found.push(path);
        }
        if found.len() > MAX_FILES {
            return Err(std::io::Error::other(format!("more than {MAX_FILES} files")));
        }
    }
    found.sort();
    Ok(found)
}

/// Fills in what a file does not say of a device node.
fn complete(node: &mut Node) -> Result<()> {
    let said = !node.kind.is_empty() && (node.major.0 != 0 || node.kind == "p");
    let path = if node.host_path.is_empty() { &node.path } else { &node.host_path };
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        // The vendor said all that is needed.
        Err(_) if said => return Ok(()),
        Err(error) => {
            let kind = error.raw_os_error().map_or(Kind::Internal, Kind::from_errno);
            return Err(Error::new(kind, format!("failed to stat CDI host device {path:?}: {error}")));
        }
    };
    let kind = metadata.file_type();
    let kind = match () {
        () if kind.is_block_device() => "b",
        () if kind.is_char_device() => "c",
        () if kind.is_fifo() => "p",
        () if said => return Ok(()),
        () => return Err(Error::invalid(format_args!("CDI host device {path:?} is not a device node"))),
    };
    node.file_mode.get_or_insert(Number(i64::from(metadata.mode() & 0o7777)));
    if said {
        return Ok(());
    }
    if !(node.kind.is_empty() || node.kind == kind || node.kind == "u" && kind == "c") {
        return Err(Error::invalid(format_args!(
            "CDI device ({:?}, {path:?}), host type mismatch ({}, {kind})",
            node.path, node.kind
        )));
    }
    let (major, minor) = sys::path::at::device_parts(metadata.rdev());
    node.kind = kind.into();
    (node.major, node.minor) = (Number(major.into()), Number(minor.into()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, variable: &str) -> String {
        format!(
            "cdiVersion: 0.6.0\nkind: v.com/gpu\ncontainerEdits: {{env: [ALL={variable}]}}\ndevices:\n\
             - name: \"{name}\"\n  containerEdits:\n    env: [ONE={variable}]\n    deviceNodes: [{{path: /dev/null}}]\n"
        )
    }

    fn found(dirs: &[&tempfile::TempDir], names: &[&str]) -> Result<Edits> {
        let dirs: Vec<_> = dirs.iter().map(|dir| dir.path().to_owned()).collect();
        find(&dirs, &names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn devices_are_found_in_order_and_the_host_fills_them_in() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.yaml"), device("a", "1")).unwrap();
        std::fs::write(dir.path().join("b.yaml"), device("b", "2")).unwrap();
        std::fs::write(dir.path().join("c.txt"), "nothing").unwrap();
        std::fs::create_dir(dir.path().join("d.yaml")).unwrap();
        let edits = found(&[&dir], &["v.com/gpu=b", "v.com/gpu=a"]).unwrap();
        assert_eq!(edits.env, ["ALL=2", "ONE=2", "ALL=1", "ONE=1"]);
        let node = &edits.device_nodes[0];
        assert_eq!((node.kind.as_str(), node.major, node.minor), ("c", Number(1), Number(3)));
        assert_eq!(node.file_mode, Some(Number(0o666)));
        assert_eq!(found(&[], &[]).unwrap(), Edits::default());
        assert!(found(&[], &["v.com/gpu=a"]).is_err());
    }

    #[test]
    fn later_directories_win_and_conflicts_are_no_device() {
        let (low, high) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(low.path().join("a.yaml"), device("a", "low")).unwrap();
        std::fs::write(low.path().join("b.yaml"), device("a", "twice")).unwrap();
        let error = found(&[&low], &["v.com/gpu=a"]).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(error.text().contains("unresolvable CDI devices v.com/gpu=a"), "{error}");
        assert!(error.text().contains("conflicting device"), "{error}");
        std::fs::write(high.path().join("a.yaml"), device("a", "high")).unwrap();
        assert_eq!(found(&[&low, &high], &["v.com/gpu=a"]).unwrap().env, ["ALL=high", "ONE=high"]);
    }

    #[test]
    fn a_bad_file_takes_no_other_away_and_is_told_of() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.yaml"), device("a", "1")).unwrap();
        std::fs::write(dir.path().join("b.json"), "{").unwrap();
        std::fs::write(dir.path().join("c.yaml"), "cdiVersion: 9.9.9\nkind: v.com/x\ndevices: []").unwrap();
        std::fs::File::create(dir.path().join("d.yaml")).unwrap().set_len(5 << 20).unwrap();
        std::os::unix::fs::symlink("/dev/zero", dir.path().join("e.yaml")).unwrap();
        assert!(found(&[&dir], &["v.com/gpu=a"]).is_ok());
        let error = found(&[&dir], &["v.com/gpu=z"]).unwrap_err();
        assert!(error.text().contains("b.json: "), "{error}");
    }

    #[test]
    fn what_is_no_device_of_the_host_is_refused_unless_it_is_described() {
        let node = |path: &str, kind: &str, major| Node {
            path: path.into(),
            kind: kind.into(),
            major: Number(major),
            ..Node::default()
        };
        for (path, kind, major, fine) in [
            ("/dev/null", "", 0, true),
            ("/dev/null", "b", 0, false),
            ("/dev/nothing", "", 0, false),
            ("/dev/nothing", "c", 195, true),
            ("/etc", "", 0, false),
        ] {
            assert_eq!(complete(&mut node(path, kind, major)).is_ok(), fine, "{path} {kind} {major}");
        }
    }
}
