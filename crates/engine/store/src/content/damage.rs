//! Blobs whose bytes are no longer those of their digest.

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use model::{Cx, Result};
use spec::Digest;

use super::hash::Hasher;
use super::{Contents, FileError};

/// How much is hashed before the request is looked at again, in bytes.
const CHUNK_SIZE: u64 = 64 << 20;

impl Contents {
    /// Removes the blob's file unless its bytes are those of `digest`; whether it did, or there was none.
    pub(crate) fn discard_unless_whole(&self, cx: &Cx<'_>, digest: &Digest) -> Result<bool> {
        let Some((file, size)) = self.layout.open_blob(digest)? else { return Ok(true) };
        if self.is_whole(cx, digest, &file, size)? {
            return Ok(false);
        }
        let _one_at_a_time = self.digests.take(cx, vec![digest.to_string()])?;
        // A writer may have put good bytes in its place meanwhile.
        match self.layout.open_blob(digest)? {
            Some((now, _)) if inode(&now) == inode(&file) => {}
            _ => return Ok(true),
        }
        tracing::warn!(%digest, "the bytes of a blob are damaged: they are removed, to be fetched again");
        self.layout.kill_blob(digest)?;
        self.layout.empty_trash()?;
        Ok(true)
    }

    fn is_whole(&self, cx: &Cx<'_>, digest: &Digest, file: &File, size: u64) -> Result<bool> {
        let mut hasher = Hasher::new(digest.algorithm());
        let mut offset = 0;
        while offset < size {
            cx.check()?;
            match hasher.read_from(file, offset, CHUNK_SIZE.min(size - offset)) {
                Ok(0) => return Ok(false),
                Ok(count) => offset += count,
                // A sector that cannot be read is as damaged as one that reads wrong.
                Err(error) if error.raw_os_error() == Some(EIO) => return Ok(false),
                Err(source) => return Err(FileError::new("read", &self.layout.blob(digest), source).into()),
            }
        }
        Ok(hasher.digest()? == *digest)
    }
}

/// Error number of a disk that cannot read.
const EIO: i32 = 5;

/// Device and number of a file; none when the disk cannot say.
fn inode(file: &File) -> Option<(u64, u64)> {
    file.metadata().ok().map(|found| (found.dev(), found.ino()))
}
