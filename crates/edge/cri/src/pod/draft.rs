//! The record of a pod beside its files: while it is made, since the store has it only once the pod has its network, and
//! afterwards for the case that the store loses it.
//!
//! ```text
//! <root>/io.containerd.grpc.v1.cri/sandboxes/<id>/record.json   of a pod that is being made
//! <root>/io.containerd.grpc.v1.cri/sandboxes/<id>/made.json     the same, once the pod is made
//! ```
//!
//! Invariant: nothing of a pod is outside of its own directories before its record is written. The next daemon lists a pod
//! that was not made, or not taken back whole, until the kubelet removes it; and gives back what a pod that was made has
//! left when the store has no record of it.
//! Invariant: a file that is torn is of a pod of which nothing else exists.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ::spec::Error;
use model::Result;

use super::files::Files;
use crate::state::PodRecord;

/// The most bytes that are read of one: more than a request has, written as JSON.
const MAX_BYTES: u64 = 64 << 20;

fn file(files: &Files) -> PathBuf {
    files.root.join("record.json")
}

fn made_file(files: &Files) -> PathBuf {
    files.root.join("made.json")
}

/// Keeps `record` in the pod's directory, which must be there.
///
/// # Errors
/// What the disk said.
pub(super) fn write(files: &Files, record: &PodRecord) -> Result<()> {
    let path = file(files);
    let bytes = serde_json::to_vec(record)
        .map_err(|error| Error::internal(format!("cannot write a pod's record: {error}")))?;
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    opened
        .and_then(|mut file| file.write_all(&bytes))
        .map_err(|error| Error::internal(format!("cannot write {}: {error}", path.display())))
}

/// Notes that the pod is made: the store has its record.
///
/// # Errors
/// What the disk said.
pub(super) fn finish(files: &Files) -> Result<()> {
    let path = file(files);
    fs::rename(&path, made_file(files))
        .map_err(|error| Error::internal(format!("cannot rename {}: {error}", path.display())))
}

/// The record of the pod `id` that was not made whole; none when its directory has no such file, or a torn one.
pub(crate) fn read(files: &Files, id: &str) -> Option<PodRecord> {
    record_in(&file(files), id)
}

/// The record of the pod `id` that was made.
pub(super) fn read_made(files: &Files, id: &str) -> Option<PodRecord> {
    record_in(&made_file(files), id)
}

fn record_in(path: &Path, id: &str) -> Option<PodRecord> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    let record: PodRecord = serde_json::from_slice(&bytes).ok()?;
    (record.id == id).then_some(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_is_read_whole_and_by_its_own_id() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files { root: dir.path().to_owned(), state: dir.path().to_owned() };
        assert!(read(&files, "a").is_none());
        let record = PodRecord {
            id: "a".into(),
            name: "n".into(),
            netns: Some("/run/netns/cni-x".into()),
            ..PodRecord::default()
        };
        write(&files, &record).unwrap();
        let found = read(&files, "a").unwrap();
        assert_eq!((found.name.as_str(), &found.netns), ("n", &record.netns));
        assert!(read(&files, "b").is_none());
        assert!(read_made(&files, "a").is_none());
        finish(&files).unwrap();
        assert!(read(&files, "a").is_none());
        assert_eq!(read_made(&files, "a").unwrap().name, "n");
        write(&files, &record).unwrap();
        let whole = fs::read(file(&files)).unwrap();
        fs::write(file(&files), &whole[..whole.len() - 1]).unwrap();
        assert!(read(&files, "a").is_none(), "it was torn");
    }
}
