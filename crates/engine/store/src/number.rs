//! Numbers that make the keys of snapshots and ingests unique for ever.
//!
//! They are given out of blocks; only the end of a block is recorded, so that most of them cost no flush. What a restart
//! leaves of a block is never used.
//!
//! Invariant: a number is given out only when a number not below it is durable.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use spec::Error;

use crate::db::Db;
use crate::record::{self, Sequence};
use crate::table;

/// How many numbers one flush is good for.
const BLOCK: u64 = 64;

/// What is left of each namespace's block.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    left: Mutex<HashMap<String, Range<u64>>>,
    /// Given out before there were records.
    used: u64,
}

impl Numbers {
    /// Numbers that are all above `used`.
    pub(crate) fn above(used: u64) -> Self {
        Self { left: Mutex::default(), used }
    }

    /// The next number of `namespace`. Never called inside a transaction.
    pub(crate) fn next(&self, db: &Db, namespace: &str) -> Result<u64, Error> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = left.get_mut(namespace).and_then(Iterator::next) {
            return Ok(number);
        }
        let key = table::key(&[namespace])?;
        let last = db.write(|tx| {
            let last =
                record::get::<Sequence>(tx, table::SEQUENCES, &key)?.unwrap_or_default().last.max(self.used);
            record::put(tx, table::SEQUENCES, &key, &Sequence { last: last + BLOCK })?;
            Ok(last)
        })?;
        left.insert(namespace.to_owned(), last + 2..last + BLOCK + 1);
        Ok(last + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_comes_twice() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meta.redb");
        let mut last = 0;
        for _ in 0..3 {
            let db = Db::open(&path, &mut |_, _| Ok(())).unwrap();
            let numbers = Numbers::default();
            for _ in 0..150 {
                let number = numbers.next(&db, "one").unwrap();
                assert!(number > last);
                last = number;
            }
            assert!(numbers.next(&db, "two").unwrap() < last);
            assert_eq!(Numbers::above(1 << 40).next(&db, "three").unwrap() >> 40, 1);
        }
    }
}
