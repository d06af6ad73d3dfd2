//! The rows of the database: one byte of version, then a protobuf message.
//!
//! Version 1 is all there is. A field is only ever added, under a new number, so that an older program skips what a
//! newer one wrote; a change that an older program must not skip takes a new version, which the older one refuses.
//!
//! Invariant: a row that does not decode is an error that names it, never a default.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message;

use crate::db::{DbError, Rows, WriteTx};
use crate::table::{self, Table};

const VERSION: u8 = 1;

/// A moment: seconds since 1970 (before it: negative) and nanoseconds onward from there.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Time {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(uint32, tag = "2")]
    nanos: u32,
}

/// Of [`table::NAMESPACES`].
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Namespace {
    #[prost(btree_map = "string, string", tag = "1")]
    pub(crate) labels: BTreeMap<String, String>,
}

/// Of [`table::IMAGES`].
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Image {
    #[prost(message, required, tag = "1")]
    pub(crate) created: Time,
    #[prost(message, required, tag = "2")]
    pub(crate) updated: Time,
    #[prost(btree_map = "string, string", tag = "3")]
    pub(crate) labels: BTreeMap<String, String>,
    #[prost(string, tag = "4")]
    pub(crate) media_type: String,
    #[prost(string, tag = "5")]
    pub(crate) digest: String,
    #[prost(uint64, tag = "6")]
    pub(crate) size: u64,
    #[prost(btree_map = "string, string", tag = "7")]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// A message of another's type.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Any {
    #[prost(string, tag = "1")]
    pub(crate) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
}

/// Of [`table::CONTAINERS`].
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Container {
    #[prost(message, required, tag = "1")]
    pub(crate) created: Time,
    #[prost(message, required, tag = "2")]
    pub(crate) updated: Time,
    #[prost(btree_map = "string, string", tag = "3")]
    pub(crate) labels: BTreeMap<String, String>,
    #[prost(string, tag = "4")]
    pub(crate) image: String,
    #[prost(string, tag = "5")]
    pub(crate) runtime: String,
    #[prost(message, optional, tag = "6")]
    pub(crate) runtime_options: Option<Any>,
    #[prost(message, optional, tag = "7")]
    pub(crate) spec: Option<Any>,
    #[prost(string, tag = "8")]
    pub(crate) snapshotter: String,
    #[prost(string, tag = "9")]
    pub(crate) snapshot_key: String,
    #[prost(string, tag = "10")]
    pub(crate) sandbox_id: String,
    #[prost(btree_map = "string, message", tag = "11")]
    pub(crate) extensions: BTreeMap<String, Any>,
}

/// Of [`table::SANDBOXES`].
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Sandbox {
    #[prost(message, required, tag = "1")]
    pub(crate) created: Time,
    #[prost(message, required, tag = "2")]
    pub(crate) updated: Time,
    #[prost(btree_map = "string, string", tag = "3")]
    pub(crate) labels: BTreeMap<String, String>,
    #[prost(string, tag = "4")]
    pub(crate) runtime: String,
    #[prost(message, optional, tag = "5")]
    pub(crate) runtime_options: Option<Any>,
    #[prost(message, optional, tag = "6")]
    pub(crate) spec: Option<Any>,
    #[prost(string, tag = "7")]
    pub(crate) sandboxer: String,
    #[prost(btree_map = "string, message", tag = "8")]
    pub(crate) extensions: BTreeMap<String, Any>,
}

/// Of [`table::LEASES`].
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Lease {
    #[prost(message, required, tag = "1")]
    pub(crate) created: Time,
    #[prost(btree_map = "string, string", tag = "2")]
    pub(crate) labels: BTreeMap<String, String>,
}

/// Of [`table::BLOBS`].
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Blob {
    #[prost(message, required, tag = "1")]
    pub(crate) created: Time,
    #[prost(message, required, tag = "2")]
    pub(crate) updated: Time,
    #[prost(uint64, tag = "3")]
    pub(crate) size: u64,
    #[prost(btree_map = "string, string", tag = "4")]
    pub(crate) labels: BTreeMap<String, String>,
}

/// Of [`table::INGESTS`].
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Ingest {
    /// `<namespace>/<number>/<reference>`: the hash of this names its directory.
    #[prost(string, tag = "1")]
    pub(crate) backend_ref: String,
    /// Until when it lives without a lease.
    #[prost(message, optional, tag = "2")]
    pub(crate) expires_at: Option<Time>,
    /// The blob of another namespace that it stands for; it then has no directory.
    #[prost(string, tag = "3")]
    pub(crate) expected: String,
}

/// Of [`table::SNAPSHOTS`].
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Snapshot {
    /// `<namespace>/<number>/<key>`: its key in the driver.
    #[prost(string, tag = "1")]
    pub(crate) driver_key: String,
    #[prost(string, tag = "2")]
    pub(crate) parent: String,
    #[prost(message, required, tag = "3")]
    pub(crate) created: Time,
    #[prost(message, required, tag = "4")]
    pub(crate) updated: Time,
    #[prost(btree_map = "string, string", tag = "5")]
    pub(crate) labels: BTreeMap<String, String>,
    /// The commit that the driver is asked for; a crash may leave it.
    #[prost(message, optional, tag = "6")]
    pub(crate) commit: Option<SnapshotCommit>,
}

/// What a committed snapshot's row shall be.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct SnapshotCommit {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) driver_key: String,
    #[prost(string, tag = "3")]
    pub(crate) parent: String,
    #[prost(btree_map = "string, string", tag = "4")]
    pub(crate) labels: BTreeMap<String, String>,
    /// The lease that shall hold it.
    #[prost(string, tag = "5")]
    pub(crate) lease: String,
}

/// Of [`table::SEQUENCES`] and [`table::JOURNAL`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Sequence {
    #[prost(uint64, tag = "1")]
    pub(crate) last: u64,
}

impl Time {
    /// This moment.
    pub(crate) fn now() -> Self {
        SystemTime::now().into()
    }
}

impl From<SystemTime> for Time {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(since) => Self { seconds: signed(since.as_secs()), nanos: since.subsec_nanos() },
            Err(before) => {
                let before = before.duration();
                match before.subsec_nanos() {
                    0 => Self { seconds: -signed(before.as_secs()), nanos: 0 },
                    nanos => Self { seconds: -signed(before.as_secs()) - 1, nanos: 1_000_000_000 - nanos },
                }
            }
        }
    }
}

fn signed(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

impl From<Time> for SystemTime {
    fn from(time: Time) -> Self {
        let seconds = Duration::from_secs(time.seconds.unsigned_abs());
        let whole =
            if time.seconds < 0 { UNIX_EPOCH.checked_sub(seconds) } else { UNIX_EPOCH.checked_add(seconds) };
        // A year that the system cannot count to is no year that the system wrote.
        whole.and_then(|at| at.checked_add(Duration::new(0, time.nanos))).unwrap_or(UNIX_EPOCH)
    }
}

impl From<&model::Any> for Any {
    fn from(any: &model::Any) -> Self {
        Self { type_url: any.type_url.clone(), value: any.value.clone() }
    }
}

impl From<Any> for model::Any {
    fn from(any: Any) -> Self {
        Self { type_url: any.type_url, value: any.value }
    }
}

/// The row `key` of `table`, if there is one.
pub(crate) fn get<R: Message + Default>(
    rows: &dyn Rows,
    table: Table,
    key: &[u8],
) -> Result<Option<R>, DbError> {
    rows.get(table, key)?.map(|bytes| decode(table, key, &bytes)).transpose()
}

/// Writes the row `key` of `table`.
pub(crate) fn put<R: Message>(tx: &WriteTx<'_>, table: Table, key: &[u8], row: &R) -> Result<(), DbError> {
    let mut bytes = Vec::with_capacity(row.encoded_len() + 1);
    bytes.push(VERSION);
    bytes.append(&mut row.encode_to_vec());
    tx.put(table, key, &bytes)
}

/// Every row of `table` whose key begins with `prefix`, in order.
pub(crate) fn scan<R: Message + Default>(
    rows: &dyn Rows,
    table: Table,
    prefix: &[u8],
    visit: &mut dyn FnMut(&[u8], R),
) -> Result<(), DbError> {
    rows.scan(table, prefix, &mut |key, bytes| {
        visit(key, decode(table, key, bytes)?);
        Ok(true)
    })
}

fn decode<R: Message + Default>(table: Table, key: &[u8], bytes: &[u8]) -> Result<R, DbError> {
    let wrong = |why: String| DbError::Row { table: table.0, key: table::parts(key).join("/"), why };
    match bytes.split_first() {
        Some((&VERSION, message)) => R::decode(message).map_err(|error| wrong(error.to_string())),
        Some((version, _)) => {
            Err(wrong(format!("its format has version {version}, this program knows {VERSION}")))
        }
        None => Err(wrong("it is empty".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_comes_back_as_it_was() {
        for time in [
            UNIX_EPOCH,
            UNIX_EPOCH + Duration::new(1_787_393_472, 123_456_789),
            UNIX_EPOCH - Duration::new(5, 0),
            UNIX_EPOCH - Duration::new(5, 1),
        ] {
            assert_eq!(SystemTime::from(Time::from(time)), time);
        }
    }

    #[test]
    fn a_row_that_does_not_decode_is_named() {
        let table = table::IMAGES;
        let error = decode::<Image>(table, b"ns\0app", &[9, 1, 2]).unwrap_err();
        assert_eq!(error.to_string(), "row images ns/app: its format has version 9, this program knows 1");
        assert!(decode::<Image>(table, b"ns\0app", &[]).is_err());
        assert!(decode::<Image>(table, b"ns\0app", &[1, 0xff]).is_err());
    }
}
