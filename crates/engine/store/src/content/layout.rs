//! Where the files are: containerd's directories, and a place for dead ones.
//!
//! Invariant: a path is made of a digest or of the hash of a reference, never of a client's text.
//! Invariant: what dies is renamed into `trash/` first, so that no slow removal holds a lock; what a crash leaves there
//! goes at the next start.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use model::content::Status;
use ring::digest::SHA256;
use spec::Digest;
use spec::digest::Algorithm;

use super::FileError;

const DIRECTORY: &str = "io.containerd.content.v1.content";

/// The directories.
#[derive(Debug)]
pub(crate) struct Layout {
    blobs: PathBuf,
    ingests: PathBuf,
    trash: PathBuf,
    /// A number for the next name in `trash/`.
    dead: AtomicU64,
}

/// One ingest's directory.
#[derive(Debug)]
pub(super) struct IngestDir<'l> {
    layout: &'l Layout,
    path: PathBuf,
}

impl Layout {
    /// Makes what is missing below `root`, and removes what was dying.
    pub(super) fn open(root: &Path) -> Result<Self, FileError> {
        let directory = root.join(DIRECTORY);
        let layout = Self {
            blobs: directory.join("blobs"),
            ingests: directory.join("ingest"),
            trash: directory.join("trash"),
            dead: AtomicU64::new(0),
        };
        remove_tree(&layout.trash)?;
        for path in [&layout.blobs, &layout.ingests, &layout.trash] {
            fs::create_dir_all(path).map_err(|source| FileError::new("mkdir", path, source))?;
        }
        layout.make_algorithm(Algorithm::Sha256)?;
        sync_dir(&directory)?;
        sync_dir(root)?;
        Ok(layout)
    }

    /// Makes the directory of blobs of `algorithm`, durably.
    pub(super) fn make_algorithm(&self, algorithm: Algorithm) -> Result<(), FileError> {
        let path = self.blobs.join(algorithm.as_str());
        match fs::create_dir(&path) {
            Ok(()) => sync_dir(&self.blobs),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(source) => Err(FileError::new("mkdir", &path, source)),
        }
    }

    /// The blob's file.
    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.algorithm().as_str()).join(digest.hex())
    }

    /// Opens the blob's file, if there is one; with its length.
    pub(super) fn open_blob(&self, digest: &Digest) -> Result<Option<(File, u64)>, FileError> {
        let path = self.blob(digest);
        let opened = File::open(&path).and_then(|file| {
            let size = file.metadata()?.len();
            Ok((file, size))
        });
        match opened {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(FileError::new("open", &path, source)),
        }
    }

    /// The length of the blob's file, if there is one.
    pub(crate) fn blob_size(&self, digest: &Digest) -> Result<Option<u64>, FileError> {
        let path = self.blob(digest);
        match fs::metadata(&path) {
            Ok(found) => Ok(Some(found.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(FileError::new("stat", &path, source)),
        }
    }

    /// Flushes the directory that the blob's file is in.
    pub(super) fn sync_blobs(&self, digest: &Digest) -> Result<(), FileError> {
        sync_dir(&self.blobs.join(digest.algorithm().as_str()))
    }

    /// Every blob's file. A file whose name is no digest is not ours and not listed.
    pub(crate) fn list_blobs(&self) -> Result<Vec<Digest>, FileError> {
        let mut found = Vec::new();
        for algorithm in names(&self.blobs)? {
            for hex in names(&self.blobs.join(&algorithm))? {
                found.extend(Digest::from_str(&format!("{algorithm}:{hex}")));
            }
        }
        Ok(found)
    }

    /// The names of all ingests' directories.
    pub(crate) fn list_ingests(&self) -> Result<Vec<String>, FileError> {
        names(&self.ingests)
    }

    /// The name of the directory of the ingest `backend_ref`.
    pub(crate) fn ingest_name(backend_ref: &str) -> String {
        let hash = ring::digest::digest(&SHA256, backend_ref.as_bytes());
        hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The directory of the ingest `backend_ref`.
    pub(super) fn ingest(&self, backend_ref: &str) -> IngestDir<'_> {
        IngestDir { layout: self, path: self.ingests.join(Self::ingest_name(backend_ref)) }
    }

    /// Takes a blob's file out of the way; its length, if it was there. [`Layout::empty_trash`] removes it.
    pub(super) fn kill_blob(&self, digest: &Digest) -> Result<Option<u64>, FileError> {
        let size = self.blob_size(digest)?;
        Ok(if self.kill(&self.blob(digest))? { size } else { None })
    }

    /// Takes an ingest's directory out of the way by its name; whether it was there.
    pub(super) fn kill_ingest(&self, name: &str) -> Result<bool, FileError> {
        self.kill(&self.ingests.join(name))
    }

    fn kill(&self, path: &Path) -> Result<bool, FileError> {
        let number = self.dead.fetch_add(1, Ordering::Relaxed);
        match fs::rename(path, self.trash.join(number.to_string())) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(FileError::new("rename", path, source)),
        }
    }

    /// Removes what was taken out of the way.
    pub(super) fn empty_trash(&self) -> Result<(), FileError> {
        for name in names(&self.trash)? {
            let path = self.trash.join(name);
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            match removed {
                Ok(()) => {}
                // Two sweeps may meet here.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(FileError::new("unlink", &path, source)),
            }
        }
        Ok(())
    }
}

impl IngestDir<'_> {
    /// Where the bytes are.
    pub(super) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// What the directory says of its ingest, if it is whole; the reference is the backend's.
    pub(super) fn status(&self) -> Result<Option<Status>, FileError> {
        let data = match fs::metadata(self.data()) {
            Ok(data) => data,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(FileError::new("stat", &self.data(), source)),
        };
        let text = |name: &str| fs::read_to_string(self.path.join(name)).ok();
        let time = |name: &str| text(name).and_then(|text| model::gc::rfc3339(text.trim()));
        let (Some(reference), Some(started_at)) = (text("ref"), time("startedat")) else { return Ok(None) };
        let written_at = data.modified().unwrap_or(started_at);
        Ok(Some(Status {
            reference,
            offset: data.len(),
            total: text("total").and_then(|text| text.trim().parse().ok()).unwrap_or(0),
            expected: None,
            started_at,
            updated_at: time("updatedat").map_or(written_at, |at| at.max(written_at)),
        }))
    }

    /// Makes the directory of a new ingest, in place of whatever is there.
    pub(super) fn create(&self, backend_ref: &str, total: u64) -> Result<(File, SystemTime), FileError> {
        self.layout.kill(&self.path)?;
        fs::create_dir(&self.path).map_err(|source| FileError::new("mkdir", &self.path, source))?;
        let now = SystemTime::now();
        let time = humantime::format_rfc3339_nanos(now).to_string();
        self.write("ref", backend_ref)?;
        self.write("startedat", &time)?;
        self.write("updatedat", &time)?;
        if total > 0 {
            self.write("total", &total.to_string())?;
        }
        Ok((self.open_data(true)?, now))
    }

    /// Opens the bytes for writing.
    pub(super) fn open_data(&self, create: bool) -> Result<File, FileError> {
        let path = self.data();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(create);
        options.open(&path).map_err(|source| FileError::new("open", &path, source))
    }

    /// Notes when it was last written.
    pub(super) fn touch(&self, at: SystemTime) -> Result<(), FileError> {
        self.write("updatedat", &humantime::format_rfc3339_nanos(at).to_string())
    }

    /// Removes the directory.
    pub(super) fn discard(&self) -> Result<(), FileError> {
        if self.layout.kill(&self.path)? { self.layout.empty_trash() } else { Ok(()) }
    }

    fn write(&self, name: &str, text: &str) -> Result<(), FileError> {
        let path = self.path.join(name);
        fs::write(&path, text).map_err(|source| FileError::new("write", &path, source))
    }
}

/// The digests of the blobs and the names of the ingests' directories below `root`, which may not be there at all.
pub(crate) fn found(root: &Path) -> Result<(BTreeSet<String>, BTreeSet<String>), FileError> {
    let directory = root.join(DIRECTORY);
    let below = |path: &Path| match names(path) {
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        listed => listed,
    };
    let mut blobs = BTreeSet::new();
    for algorithm in below(&directory.join("blobs"))? {
        for hex in names(&directory.join("blobs").join(&algorithm))? {
            blobs.extend(Digest::from_str(&format!("{algorithm}:{hex}")).map(|digest| digest.to_string()));
        }
    }
    Ok((blobs, below(&directory.join("ingest"))?.into_iter().collect()))
}

/// Flushes a directory, so that a rename in it survives a power cut.
pub(super) fn sync_dir(path: &Path) -> Result<(), FileError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(|source| FileError::new("fsync", path, source))
}

fn remove_tree(path: &Path) -> Result<(), FileError> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(FileError::new("remove", path, source)),
    }
}

/// The names in a directory that are text.
fn names(path: &Path) -> Result<Vec<String>, FileError> {
    let failed = |source| FileError::new("readdir", path, source);
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        names.extend(entry.map_err(failed)?.file_name().into_string());
    }
    Ok(names)
}
