//! libcni's cache: for each attachment what it was made with, so that it can be taken down when the configuration has
//! changed or is gone.
//!
//! ```text
//! /var/lib/cni/results/NETWORK-CONTAINER-INTERFACE   {"kind":"cniCacheV1", ...}, mode 0600
//! ```

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::chain::Runtime;
use super::list::NetworkList;
use super::{CniResult, Version, file};

const KIND: &str = "cniCacheV1";
/// Most files that are looked through.
const MOST: usize = 100_000;

/// One file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    kind: String,
    #[serde(rename = "containerId")]
    pub container_id: String,
    /// The list, in base64 as Go writes bytes.
    #[serde(default)]
    config: Option<String>,
    #[serde(rename = "ifName")]
    pub ifname: String,
    #[serde(rename = "networkName")]
    pub network: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub netns: String,
    #[serde(rename = "cniArgs", default, skip_serializing_if = "Option::is_none")]
    args: Option<Vec<(String, String)>>,
    #[serde(rename = "capabilityArgs", default, skip_serializing_if = "Option::is_none")]
    capabilities: Option<Map<String, Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
}

impl Entry {
    /// What is to be remembered of an attachment.
    pub fn new(
        list: &NetworkList,
        container_id: &str,
        ifname: &str,
        netns: Option<&Path>,
        args: Vec<(String, String)>,
        capabilities: Map<String, Value>,
        result: Option<Value>,
    ) -> Self {
        Self {
            kind: KIND.into(),
            container_id: container_id.into(),
            config: Some(STANDARD.encode(list.to_text())),
            ifname: ifname.into(),
            network: list.name.clone(),
            netns: netns.map(|path| path.display().to_string()).unwrap_or_default(),
            args: Some(args),
            capabilities: Some(capabilities),
            result,
        }
    }

    /// The list that it was made with; none when the file holds none that can be read.
    pub fn list(&self) -> Option<NetworkList> {
        let bytes = STANDARD.decode(self.config.as_ref()?).ok()?;
        // A single plugin's configuration is remembered as it was.
        NetworkList::parse(&bytes).or_else(|_| NetworkList::of_single(&bytes)).ok()
    }

    /// What the list was run for, in `netns`.
    pub fn runtime(&self, netns: Option<PathBuf>) -> Runtime {
        Runtime {
            container_id: self.container_id.clone(),
            ifname: self.ifname.clone(),
            netns,
            args: self.args.clone().unwrap_or_default(),
            capabilities: self.capabilities.clone().unwrap_or_default(),
        }
    }

    /// Whether every plugin of the network had attached it when it was remembered.
    pub fn is_whole(&self) -> bool {
        self.result.is_some()
    }

    /// What `ADD` gave.
    pub fn result(&self, version: Version) -> Option<CniResult> {
        CniResult::from_json(self.result.clone()?, version).ok()
    }
}

/// The folder of results.
#[derive(Clone, Debug)]
pub struct Cache {
    dir: PathBuf,
}

impl Cache {
    /// The folder `results` in `dir`, which need not exist.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.join("results") }
    }

    fn path(&self, network: &str, container_id: &str, ifname: &str) -> PathBuf {
        self.dir.join(format!("{network}-{container_id}-{ifname}"))
    }

    /// Remembers an attachment.
    pub fn write(&self, entry: &Entry) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let json = serde_json::to_vec(entry)?;
        file::write(&self.path(&entry.network, &entry.container_id, &entry.ifname), &json, 0o600)
    }

    /// Forgets an attachment.
    pub fn forget(&self, entry: &Entry) -> io::Result<()> {
        match fs::remove_file(self.path(&entry.network, &entry.container_id, &entry.ifname)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Every attachment that is remembered. Files that are no memory of ours are passed over.
    pub fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut paths = Vec::new();
        match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
            Ok(entries) => {
                for entry in entries.take(MOST) {
                    paths.push(entry?.path());
                }
            }
        }
        paths.sort();
        Ok(paths.iter().filter_map(|path| read(path)).collect())
    }

    /// [`Cache::entries`] of one container.
    pub fn of_container(&self, container_id: &str) -> io::Result<Vec<Entry>> {
        let part = format!("-{container_id}-");
        let mut found = Vec::new();
        match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
            Ok(entries) => {
                for entry in entries.take(MOST) {
                    let path = entry?.path();
                    // The name says enough to leave the others' files closed.
                    if path.file_name().is_some_and(|name| name.to_string_lossy().contains(&part)) {
                        found.extend(read(&path).filter(|entry| entry.container_id == container_id));
                    }
                }
            }
        }
        found.sort_by(|a, b| (&a.network, &a.ifname).cmp(&(&b.network, &b.ifname)));
        Ok(found)
    }
}

fn read(path: &Path) -> Option<Entry> {
    if path.file_name()?.to_string_lossy().starts_with(file::UNFINISHED) {
        return None;
    }
    let entry: Entry = spec::json::from_slice(&file::read(path).ok()?).ok()?;
    // What is in the file becomes paths and environments again.
    let sound = entry.kind == KIND
        && super::validate::network_name(&entry.network).is_ok()
        && super::validate::container_id(&entry.container_id).is_ok()
        && super::validate::interface_name(&entry.ifname).is_ok();
    sound.then_some(entry)
}
