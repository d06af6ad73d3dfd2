//! Leases on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Config;
use crate::cni::{Attachment, Call, Error, code};

/// Between the two lines of a lease.
const LINE_BREAK: &str = "\r\n";
/// Longest lease: two names and their separator.
const LEASE_MAX: u64 = 1024;
/// Longest pause between two attempts to get the lock.
const PAUSE_MAX: Duration = Duration::from_millis(2);
/// Written first and renamed, so that no crash leaves a lease without an owner. Only who holds the lock writes it.
const UNFINISHED: &str = ".unfinished";

/// Whose a lease is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    id: String,
    ifname: String,
}

impl Owner {
    /// The attachment of a call.
    pub fn of(call: &Call) -> Self {
        Self { id: call.container_id.trim().to_owned(), ifname: call.ifname.clone() }
    }

    /// The container.
    pub fn id(&self) -> &str {
        &self.id
    }

    fn text(&self) -> String {
        format!("{}{LINE_BREAK}{}", self.id, self.ifname)
    }
}

/// Which addresses are taken, and by whom: each lease's text without blanks around it.
#[derive(Debug, Default)]
pub struct Leases(BTreeMap<IpAddr, String>);

impl Leases {
    /// Whether `address` is taken.
    pub fn is_taken(&self, address: IpAddr) -> bool {
        self.0.contains_key(&address)
    }

    /// The addresses of `owner`, those included that an old version took for the whole container.
    pub fn of(&self, owner: &Owner) -> impl Iterator<Item = IpAddr> {
        let text = owner.text();
        self.0
            .iter()
            .filter(move |(_, found)| **found == text || **found == owner.id)
            .map(|(address, _)| *address)
    }

    /// Notes that `owner` took `address`.
    pub fn add(&mut self, address: IpAddr, owner: &Owner) {
        self.0.insert(address, owner.text());
    }
}

/// The folder of one network.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    lock: File,
}

impl Store {
    /// Opens the network's folder, and makes it if need be.
    pub fn open(config: &Config) -> Result<Self, Error> {
        let dir = config.data_dir.join(&config.network);
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&dir)
            .map_err(|error| failed("create", &dir, &error))?;
        let path = dir.join("lock");
        let lock =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(&path);
        Ok(Self { lock: lock.map_err(|error| failed("open", &path, &error))?, dir })
    }

    /// [`Store::open`] of a folder that exists.
    pub fn open_if_there(config: &Config) -> Result<Option<Self>, Error> {
        let dir = config.data_dir.join(&config.network);
        match dir.try_exists() {
            Ok(false) => Ok(None),
            Ok(true) => Self::open(config).map(Some),
            Err(error) => Err(failed("look up", &dir, &error)),
        }
    }

    /// Waits for the lock. `flock(2)` has no limit of its own, so it is tried until `deadline`.
    pub fn lock(&self, deadline: Instant) -> Result<Locked<'_>, Error> {
        let mut pause = Duration::from_micros(50);
        loop {
            match self.lock.try_lock() {
                Ok(()) => return Ok(Locked { store: self }),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(pause),
                Err(TryLockError::WouldBlock) => {
                    let text = format!("{} is locked by another process", self.dir.join("lock").display());
                    return Err(Error::new(code::TRY_AGAIN, text));
                }
                Err(TryLockError::Error(error)) => return Err(failed("lock", &self.dir, &error)),
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// A network's folder while its lock is held.
#[derive(Debug)]
pub struct Locked<'a> {
    store: &'a Store,
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // The descriptor's end would release it too; failing to is no worse.
        if let Err(error) = self.store.lock.unlock() {
            tracing::warn!(%error, "lock of host-local not released");
        }
    }
}

impl Locked<'_> {
    /// Every lease.
    pub fn leases(&self) -> Result<Leases, Error> {
        let dir = &self.store.dir;
        let mut leases = BTreeMap::new();
        for entry in fs::read_dir(dir).map_err(|error| failed("read", dir, &error))? {
            let entry = entry.map_err(|error| failed("read", dir, &error))?;
            let name = entry.file_name();
            let Some(address) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            // A lease that cannot be read is taken all the same.
            leases.insert(address, read(&entry.path()).unwrap_or_default());
        }
        Ok(Leases(leases))
    }

    /// The addresses of `owner`; those of its whole container only when there are no others.
    pub fn owned(&self, owner: &Owner) -> Result<Vec<IpAddr>, Error> {
        let leases = self.leases()?;
        for text in [owner.text(), owner.id.clone()] {
            let of: Vec<IpAddr> =
                leases.0.iter().filter(|(_, found)| **found == text).map(|(address, _)| *address).collect();
            if !of.is_empty() {
                return Ok(of);
            }
        }
        Ok(Vec::new())
    }

    /// The address that the range set number `index` gave last.
    pub fn last_reserved(&self, index: usize) -> Option<IpAddr> {
        read(&self.store.dir.join(format!("last_reserved_ip.{index}")))?.parse().ok()
    }

    /// Takes `address` for `owner`.
    pub fn take(&self, address: IpAddr, owner: &Owner, index: usize) -> Result<(), Error> {
        self.write(&address.to_string(), &owner.text())?;
        let noted = self.write(&format!("last_reserved_ip.{index}"), &address.to_string());
        if noted.is_err() {
            self.free(address)?;
        }
        noted
    }

    /// Frees `address`.
    pub fn free(&self, address: IpAddr) -> Result<(), Error> {
        let path = self.store.dir.join(address.to_string());
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("remove", &path, &error)),
            _ => Ok(()),
        }
    }

    /// Frees the addresses of `owner`: all of them, whatever fails.
    pub fn free_owned(&self, owner: &Owner) -> Result<(), Error> {
        self.free_each(self.owned(owner)?)
    }

    /// Frees every address that belongs to none of the attachments `valid`.
    pub fn free_all_but(&self, valid: &[Attachment]) -> Result<(), Error> {
        let mut texts = BTreeSet::new();
        for attachment in valid {
            let owner =
                Owner { id: attachment.container_id.trim().to_owned(), ifname: attachment.ifname.clone() };
            texts.insert(owner.text());
            texts.insert(owner.id);
        }
        let leases = self.leases()?.0;
        self.free_each(
            leases
                .into_iter()
                .filter(|(_, text)| !texts.contains(text))
                .map(|(address, _)| address)
                .collect(),
        )
    }

    fn free_each(&self, addresses: Vec<IpAddr>) -> Result<(), Error> {
        let failures: Vec<String> = addresses
            .into_iter()
            .filter_map(|address| self.free(address).err())
            .map(|error| error.msg)
            .collect();
        if failures.is_empty() { Ok(()) } else { Err(Error::io(failures.join("; "))) }
    }

    /// Writes a whole file or none.
    fn write(&self, name: &str, text: &str) -> Result<(), Error> {
        let unfinished = self.store.dir.join(UNFINISHED);
        let path = self.store.dir.join(name);
        let written = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&unfinished)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .and_then(|()| fs::rename(&unfinished, &path));
        written.map_err(|error| failed("write", &path, &error))
    }
}

/// A short file's text without blanks around it.
fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(LEASE_MAX).read_to_string(&mut text).ok()?;
    Some(text.trim().to_owned())
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::io(format!("{what} {}: {error}", path.display()))
}
