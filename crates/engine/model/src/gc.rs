//! Garbage collection's mark: which records nothing keeps.
//!
//! ```text
//! roots      leases that have not expired, with all they hold    images, unless expired      containers, sandboxes
//!            content and snapshots labelled gc.root              ingests before their end, or being written
//! edges      image -> target     snapshot -> parent     container -> snapshot     ingest -> expected content
//!            gc.ref.{content,image}[.x|/x], gc.ref.snapshot.<ss>[/x]: from the record to what the value names
//!            gc.bref.{container,content,image}[.x|/x], gc.bref.snapshot.<ss>[/x]: from what the value names to the record
//!            gc.cond.snapshot.<ss>[/x] = usedat<1h|key: to the snapshot while its gc.cond.value-usedat satisfies it
//! ```
//!
//! A lease labelled gc.flat keeps what it holds, the parents of its snapshots and the targets of its images, and follows
//! no label.
//!
//! Invariant: the result depends on the records and on `now` alone; who calls makes sure that no record changes
//! between this and the removal.
//! Invariant: containers and sandboxes are never garbage.

mod labels;
mod time;

use std::collections::HashMap;
use std::time::SystemTime;

use spec::label::{GC_EXPIRE, GC_FLAT};
use spec::{Error, Labels};

use crate::Cx;

pub use time::rfc3339;

/// Collects garbage when it is asked to.
pub trait Collector: Send + Sync {
    /// Waits for a collection that begins now.
    fn collect(&self, cx: &Cx<'_>) -> Result<(), Error>;
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A blob of a namespace, by digest.
    Content,
    /// A snapshot, by `<snapshotter>/<key>`.
    Snapshot,
    /// A container, by id.
    Container,
    /// A sandbox, by id.
    Sandbox,
    /// An image, by name.
    Image,
    /// An ingest, by reference.
    Ingest,
    /// A lease, by id.
    Lease,
}

/// A record as the mark sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The namespace it is in; edges never leave it.
    pub namespace: String,
    /// Its key among those of its kind.
    pub key: String,
    /// Its labels.
    pub labels: Labels,
    /// What it is and what it holds besides what its labels say.
    pub noun: Noun,
}

/// What a record is, and its edges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Noun {
    /// A blob.
    Content,
    /// A snapshot.
    Snapshot {
        /// The key of its parent, with the snapshotter's name.
        parent: Option<String>,
    },
    /// A container.
    Container {
        /// The key of its snapshot, with the snapshotter's name.
        snapshot: Option<String>,
    },
    /// A sandbox: it keeps what its labels name.
    Sandbox,
    /// An image.
    Image {
        /// The digest of its target.
        target: String,
    },
    /// An ingest.
    Ingest {
        /// Until when it is kept without a lease.
        expires_at: Option<SystemTime>,
        /// The blob of another namespace that it stands for.
        expected: Option<String>,
        /// Whether a writer has it open.
        open: bool,
    },
    /// A lease.
    Lease {
        /// What it holds.
        holds: Vec<(Kind, String)>,
    },
}

impl Noun {
    /// What the record is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Content => Kind::Content,
            Self::Snapshot { .. } => Kind::Snapshot,
            Self::Container { .. } => Kind::Container,
            Self::Sandbox => Kind::Sandbox,
            Self::Image { .. } => Kind::Image,
            Self::Ingest { .. } => Kind::Ingest,
            Self::Lease { .. } => Kind::Lease,
        }
    }
}

/// The records that nothing keeps at `now`, by position.
pub fn garbage(records: &[Record], now: SystemTime) -> Vec<usize> {
    let mut mark = Mark::new(records, now);
    mark.add_reverse_edges();
    mark.add_roots();
    mark.follow();
    (0..records.len()).filter(|at| mark.seen[*at] == Reach::default()).collect()
}

/// How a record was reached; both ways may apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reach {
    /// With everything that it refers to.
    whole: bool,
    /// From a flat lease.
    flat: bool,
}

struct Mark<'r> {
    records: &'r [Record],
    now: SystemTime,
    index: HashMap<(Kind, &'r str, &'r str), usize>,
    /// Edges that are written at their far end.
    reverse: HashMap<usize, Vec<usize>>,
    seen: Vec<Reach>,
    queue: Vec<(usize, bool)>,
}

impl<'r> Mark<'r> {
    fn new(records: &'r [Record], now: SystemTime) -> Self {
        let index = records
            .iter()
            .enumerate()
            .map(|(at, record)| ((record.noun.kind(), record.namespace.as_str(), record.key.as_str()), at))
            .collect();
        let seen = vec![Reach::default(); records.len()];
        Self { records, now, index, reverse: HashMap::new(), seen, queue: Vec::new() }
    }

    fn find(&self, from: usize, kind: Kind, key: &str) -> Option<usize> {
        self.index.get(&(kind, self.records[from].namespace.as_str(), key)).copied()
    }

    fn add_reverse_edges(&mut self) {
        let records = self.records;
        for (at, record) in records.iter().enumerate() {
            for (kind, key) in labels::back_references(&record.labels) {
                if let Some(owner) = self.find(at, kind, &key) {
                    self.reverse.entry(owner).or_default().push(at);
                }
            }
            if !matches!(record.noun.kind(), Kind::Content | Kind::Image) {
                continue;
            }
            for condition in labels::conditions(&record.labels) {
                let Some(snapshot) = self.find(at, Kind::Snapshot, &condition.snapshot) else { continue };
                if condition.holds(&records[snapshot].labels, self.now) {
                    self.reverse.entry(at).or_default().push(snapshot);
                }
            }
        }
    }

    fn add_roots(&mut self) {
        let records = self.records;
        for (at, record) in records.iter().enumerate() {
            match &record.noun {
                Noun::Lease { holds } => {
                    if self.is_expired(&record.labels) {
                        continue;
                    }
                    self.reach(at, false);
                    let flat = record.labels.contains_key(GC_FLAT);
                    for (kind, key) in holds {
                        self.reach_key(at, *kind, key, flat);
                    }
                }
                Noun::Image { .. } if !self.is_expired(&record.labels) => self.reach(at, false),
                Noun::Container { .. } | Noun::Sandbox => self.reach(at, false),
                Noun::Ingest { expires_at, open, .. }
                    if *open || expires_at.is_some_and(|end| end >= self.now) =>
                {
                    self.reach(at, false);
                }
                Noun::Content | Noun::Snapshot { .. } if labels::is_root(&record.labels) => {
                    self.reach(at, false);
                }
                Noun::Image { .. } | Noun::Ingest { .. } | Noun::Content | Noun::Snapshot { .. } => {}
            }
        }
    }

    /// A label that is no time is no end, as containerd has it.
    fn is_expired(&self, labels: &Labels) -> bool {
        labels.get(GC_EXPIRE).and_then(|text| rfc3339(text)).is_some_and(|end| self.now > end)
    }

    fn follow(&mut self) {
        let records = self.records;
        while let Some((at, flat)) = self.queue.pop() {
            let record = &records[at];
            if !flat {
                for other in self.reverse.remove(&at).unwrap_or_default() {
                    self.reach(other, false);
                }
            }
            match &record.noun {
                Noun::Snapshot { parent: Some(parent) } => self.reach_key(at, Kind::Snapshot, parent, flat),
                Noun::Container { snapshot: Some(key) } => self.reach_key(at, Kind::Snapshot, key, false),
                Noun::Image { target } => self.reach_key(at, Kind::Content, target, flat),
                Noun::Ingest { expected: Some(digest), .. } => {
                    self.reach_key(at, Kind::Content, digest, false);
                }
                Noun::Content
                | Noun::Snapshot { parent: None }
                | Noun::Container { snapshot: None }
                | Noun::Sandbox
                | Noun::Ingest { expected: None, .. }
                | Noun::Lease { .. } => {}
            }
            if !flat && follows_labels(record.noun.kind()) {
                for (kind, key) in labels::references(&record.labels) {
                    self.reach_key(at, kind, &key, false);
                }
            }
        }
    }

    fn reach_key(&mut self, from: usize, kind: Kind, key: &str, flat: bool) {
        if let Some(at) = self.find(from, kind, key) {
            self.reach(at, flat);
        }
    }

    fn reach(&mut self, at: usize, flat: bool) {
        let seen = &mut self.seen[at];
        let way = if flat { &mut seen.flat } else { &mut seen.whole };
        if !std::mem::replace(way, true) {
            self.queue.push((at, flat));
        }
    }
}

fn follows_labels(kind: Kind) -> bool {
    match kind {
        Kind::Content | Kind::Snapshot | Kind::Container | Kind::Sandbox | Kind::Image => true,
        Kind::Ingest | Kind::Lease => false,
    }
}

#[cfg(test)]
mod tests;
