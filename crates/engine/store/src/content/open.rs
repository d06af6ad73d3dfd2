//! Who writes which ingest right now, and how far they are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use model::content::Status;

use super::ContentError;

type Key = (String, String);

/// The open ingests of all namespaces.
#[derive(Debug, Default)]
pub(super) struct Writers {
    open: Mutex<HashMap<Key, Writer>>,
}

#[derive(Debug)]
struct Writer {
    since: Instant,
    status: Option<Status>,
}

/// The right to write one ingest; it ends when this drops.
#[derive(Debug)]
pub(super) struct Turn {
    writers: Arc<Writers>,
    key: Key,
}

impl Writers {
    /// Takes the ingest `reference` of `namespace`, unless another has it.
    pub(super) fn take(self: &Arc<Self>, namespace: &str, reference: &str) -> Result<Turn, ContentError> {
        let key = (namespace.to_owned(), reference.to_owned());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = open.get(&key) {
            let held = writer.since.elapsed();
            return Err(ContentError::Locked { reference: reference.to_owned(), held });
        }
        open.insert(key.clone(), Writer { since: Instant::now(), status: None });
        Ok(Turn { writers: Arc::clone(self), key })
    }

    pub(super) fn is_open(&self, namespace: &str, reference: &str) -> bool {
        let key = (namespace.to_owned(), reference.to_owned());
        self.open.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&key)
    }

    /// How far the writer of an ingest is, if it has one that has begun.
    pub(super) fn status(&self, namespace: &str, reference: &str) -> Option<Status> {
        let key = (namespace.to_owned(), reference.to_owned());
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(&key).and_then(|writer| writer.status.clone())
    }
}

impl Turn {
    /// Says where the writer begins.
    pub(super) fn begin(&self, status: Status) {
        self.change(|writer| writer.status = Some(status));
    }

    /// Says how far the writer is.
    pub(super) fn advance(&self, offset: u64, at: SystemTime) {
        self.change(|writer| {
            if let Some(status) = &mut writer.status {
                status.offset = offset;
                status.updated_at = at;
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Writer)) {
        let mut open = self.writers.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = open.get_mut(&self.key) {
            change(writer);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.writers.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}
