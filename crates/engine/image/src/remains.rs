//! What a transfer that did not end well leaves to the next try: the content that it fetched, whole or in part.
//!
//! A transfer's own lease goes with it, and garbage collection would take the content. So what a failed pull has fetched
//! passes to a lease named after its reference, which ends after an hour or with the next pull of that reference.
//!
//! A daemon that died leaves the transfer's lease itself; [`adopt`] takes its half-made snapshots out of it.
//!
//! Invariant: only content is kept, never a snapshot: half of a tree is of no use to anybody.

use std::time::Duration;

use model::lease::{Leases, Resource};
use model::manifest::sha256;
use model::{Cx, Filters};
use spec::{Error, Kind, Labels, LeaseId, Result, label};

/// How long a transfer's lease lives when its daemon dies.
const TRANSFER: Duration = Duration::from_secs(24 * 3600);
/// How long fetched content waits for the next try.
const WAIT: Duration = Duration::from_secs(3600);
/// Marks the leases of transfers.
const MARK: &str = "io.berth.transfer";

/// Makes the lease of a transfer that begins.
pub(crate) fn begin(cx: &Cx<'_>, leases: &dyn Leases) -> Result<LeaseId> {
    let lease = leases.create(cx, None, &labels(TRANSFER))?;
    lease.id.parse().map_err(Error::from)
}

/// The lease that keeps content for the next try of `what`.
pub(crate) fn lease_for(what: &str) -> Result<LeaseId> {
    format!("retry-{}", &sha256(what.as_bytes()).hex()[..32]).parse().map_err(Error::from)
}

/// Passes what `from` holds of content to `to`, in place of what that has held.
pub(crate) fn keep(cx: &Cx<'_>, leases: &dyn Leases, from: &LeaseId, to: &LeaseId) -> Result<()> {
    let held = leases.resources(cx, from.as_str())?;
    let content: Vec<Resource> =
        held.into_iter().filter(|held| matches!(held.kind.as_str(), "content" | "ingests")).collect();
    if content.is_empty() {
        return Ok(());
    }
    // An older try's lease goes only when its content is held by the new one too; until then `from` holds all of it.
    let older = match leases.resources(cx, to.as_str()) {
        Ok(older) => older,
        Err(error) if error.kind() == Kind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    for held in older.iter().filter(|held| !content.contains(held)) {
        leases.add(cx, from.as_str(), held)?;
    }
    forget(cx, leases, to)?;
    match leases.create(cx, Some(to), &labels(WAIT)) {
        Err(error) if error.kind() != Kind::AlreadyExists => return Err(error),
        _ => {}
    }
    content.iter().chain(&older).try_for_each(|held| leases.add(cx, to.as_str(), held))
}

/// Ends the lease of an earlier try, if there is one.
pub(crate) fn forget(cx: &Cx<'_>, leases: &dyn Leases, lease: &LeaseId) -> Result<()> {
    match leases.delete(cx, lease.as_str()) {
        Err(error) if error.kind() != Kind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// For a daemon that starts: no transfer of this namespace is running, so what leases of transfers hold of half-made
/// snapshots is let go; their content stays until they end, for another try.
///
/// # Errors
/// What the lease store said.
pub fn adopt(cx: &Cx<'_>, leases: &dyn Leases) -> Result<()> {
    let all = leases.list(cx, &Filters::default())?;
    for lease in all.iter().filter(|lease| lease.labels.contains_key(MARK)) {
        for held in leases.resources(cx, &lease.id)? {
            if held.kind.starts_with("snapshots/") && held.id.starts_with("extract-") {
                leases.remove(cx, &lease.id, &held)?;
            }
        }
    }
    Ok(())
}

fn labels(life: Duration) -> Labels {
    let expires = humantime::format_rfc3339_seconds(spec::time::expiry(life)).to_string();
    Labels::from([(label::GC_EXPIRE.to_owned(), expires), (MARK.to_owned(), "true".to_owned())])
}
