//! What every part of the store shares: the database, the exchange, and the count of changes that collection waits for.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use api::Message;
use model::event::Exchange;
use spec::{Error, Namespace};

use crate::content::FileError;
use crate::db::{Db, DbError, ReadTx, WriteTx};
use crate::gc::Demand;

const DIRECTORY: &str = "io.containerd.metadata.v1.bolt";
const FILE: &str = "meta.redb";

/// Whether a transaction may leave something that nothing keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It only adds.
    Adds,
    /// It removes, so that a collection should follow.
    Removes,
}

/// The shared parts.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) db: Db,
    /// Changes since the last collection, and who waits for the next.
    pub(crate) demand: Arc<Demand>,
    events: Exchange,
}

impl Core {
    /// Opens the database below `root`.
    pub(crate) fn open(root: &Path, events: Exchange) -> Result<Self, Error> {
        let directory = root.join(DIRECTORY);
        fs::create_dir_all(&directory).map_err(|source| FileError::new("mkdir", &directory, source))?;
        let db = Db::open(&directory.join(FILE))?;
        Ok(Self { db, demand: Arc::default(), events })
    }

    /// Runs `work` on one unchanging state.
    pub(crate) fn read<T, E: From<DbError>>(
        &self,
        work: impl FnOnce(&ReadTx<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.db.read(work)
    }

    /// Runs `work` in a transaction of its own, durable on success.
    pub(crate) fn write<T>(
        &self,
        change: Change,
        work: impl FnOnce(&WriteTx<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let value = self.db.write(work)?;
        self.demand.changed(change == Change::Removes);
        Ok(value)
    }

    /// Publishes what a transaction did; called once it is durable.
    pub(crate) fn publish<M: Message + prost::Name>(&self, namespace: &Namespace, topic: &str, event: &M) {
        let any = api::encode_any(event);
        self.events.publish(namespace, topic, model::Any { type_url: any.type_url, value: any.value });
    }
}
