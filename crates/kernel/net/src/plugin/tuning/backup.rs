//! What an interface had before: a small file for each, where the standard plugin keeps its own.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cni::{Call, Error};

/// Longest file that is read.
const MOST: u64 = 64 << 10;

/// What is saved of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Hardware address, when it is going to change.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Whether it took every packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promisc: Option<bool>,
    /// MTU, when it is going to change.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub mtu: u32,
    /// Whether it took every multicast packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allmulti: Option<bool>,
    /// Length of its transmit queue.
    #[serde(default, rename = "txQLen", skip_serializing_if = "Option::is_none")]
    pub tx_queue_len: Option<u32>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The file of one interface of one container.
#[derive(Debug)]
pub struct Backup {
    dir: PathBuf,
    file: PathBuf,
}

impl Backup {
    /// The file of a call's interface in `dir`, or in the folder of every network.
    pub fn new(dir: &str, call: &Call) -> Self {
        let dir = PathBuf::from(if dir.is_empty() { "/run/cni/tuning" } else { dir });
        Self { file: dir.join(format!("{}_{}.json", call.container_id, call.ifname)), dir }
    }

    /// Saves `saved`.
    pub fn write(&self, saved: &Saved) -> Result<(), Error> {
        let json = serde_json::to_vec(saved).map_err(Error::internal)?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
            .and_then(|()| {
                OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&self.file)
            })
            .and_then(|mut file| file.write_all(&json))
            .map_err(|error| Error::io(format!("failed to save file {}: {error}", self.file.display())))
    }

    /// What was saved; `None` without a file, or with one that makes no sense.
    pub fn read(&self) -> Result<Option<Saved>, Error> {
        let mut json = Vec::new();
        match File::open(&self.file).and_then(|file| file.take(MOST).read_to_end(&mut json)) {
            Ok(_) => Ok(serde_json::from_slice(&json).ok()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(format!("failed to open file {}: {error}", self.file.display()))),
        }
    }

    /// Removes the file, if it is there.
    pub fn remove(&self) -> Result<(), Error> {
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(Error::io(format!("failed to remove file {}: {error}", self.file.display())))
            }
            _ => Ok(()),
        }
    }
}
