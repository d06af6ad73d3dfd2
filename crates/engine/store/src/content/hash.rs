//! Digests of data as it passes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use ring::digest::{Context, SHA256, SHA384, SHA512};
use spec::Digest;
use spec::digest::{Algorithm, ParseDigestError};

/// How much of a file is read at once.
const PIECE: usize = 1024 * 1024;

/// A digest that is not finished.
#[derive(Clone)]
pub(super) struct Hasher {
    algorithm: Algorithm,
    context: Context,
}

impl Hasher {
    pub(super) fn new(algorithm: Algorithm) -> Self {
        let function = match algorithm {
            Algorithm::Sha256 => &SHA256,
            Algorithm::Sha384 => &SHA384,
            Algorithm::Sha512 => &SHA512,
        };
        Self { algorithm, context: Context::new(function) }
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    /// The digest of what has passed so far.
    pub(super) fn digest(&self) -> Result<Digest, ParseDigestError> {
        Digest::from_bytes(self.algorithm, self.context.clone().finish().as_ref())
    }

    /// Adds the first `size` bytes of `file`; how many there were.
    pub(super) fn read(&mut self, file: &File, size: u64) -> io::Result<u64> {
        self.read_from(file, 0, size)
    }

    /// Adds up to `size` bytes of `file` from `start` on; how many there were.
    pub(super) fn read_from(&mut self, file: &File, start: u64, size: u64) -> io::Result<u64> {
        let mut buffer = vec![0; PIECE];
        let mut count = 0;
        while count < size {
            let wanted = usize::try_from(size - count).map_or(PIECE, |left| left.min(PIECE));
            match file.read_at(&mut buffer[..wanted], start + count) {
                Ok(0) => break,
                Ok(read) => {
                    self.update(&buffer[..read]);
                    count += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    }
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hasher({})", self.algorithm.as_str())
    }
}
