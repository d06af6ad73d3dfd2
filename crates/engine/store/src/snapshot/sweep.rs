//! Removes the driver's snapshots that no record names.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use model::filter::Filters;
use model::{Cx, Result};
use spec::Kind;

use super::{Snapshots, rows};
use crate::db::DbError;

impl Snapshots {
    /// Removes unnamed snapshots, children before their parents, then what the driver left for later; how many.
    pub(crate) fn sweep(&self, cx: &Cx<'_>) -> Result<usize> {
        let exclusive = self.adopting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut removed = 0;
        for key in self.unnamed(cx)? {
            match self.driver.remove(cx, &key) {
                Ok(()) => removed += 1,
                Err(error) if error.kind() == Kind::NotFound => {}
                // A named child of an unnamed parent, or one that is mounted: the next sweep tries again.
                Err(error) => {
                    tracing::warn!(snapshotter = self.name, key, %error, "failed to remove snapshot");
                }
            }
        }
        drop(exclusive);
        match self.driver.cleanup(cx) {
            Err(error) if error.kind() != Kind::Unimplemented => Err(error),
            _ => Ok(removed),
        }
    }

    /// The driver's keys that no record names and nothing keeps, children before their parents.
    pub(crate) fn unnamed(&self, cx: &Cx<'_>) -> Result<Vec<String>> {
        let mut unnamed = self.without_record(cx)?;
        unnamed.retain(|key| !self.core.kept.has_snapshot(&self.name, key));
        Ok(unnamed)
    }

    /// The driver's keys that no record names, children before their parents.
    pub(crate) fn without_record(&self, cx: &Cx<'_>) -> Result<Vec<String>> {
        // In this order; see the invariant of the module above.
        let all = self.driver.list(cx, &Filters::default())?;
        let mut named = self.making.taken();
        named.extend(self.core.read::<_, DbError>(|tx| rows::driver_keys(tx, &self.name))?);
        let parents: BTreeMap<&str, &str> =
            all.iter().map(|info| (info.name.as_str(), info.parent.as_str())).collect();
        let depth = |key: &str| {
            let up = |key: &&str| parents.get(key).copied().filter(|parent| !parent.is_empty());
            // Bounded, should a driver ever show a circle.
            std::iter::successors(Some(key), up).take(parents.len() + 1).count()
        };
        let mut unnamed: Vec<(usize, &str)> = all
            .iter()
            .filter(|info| !named.contains(&info.name))
            .map(|info| (depth(&info.name), info.name.as_str()))
            .collect();
        unnamed.sort_by(|a, b| b.cmp(a));
        Ok(unnamed.into_iter().map(|(_, key)| key.to_owned()).collect())
    }
}
