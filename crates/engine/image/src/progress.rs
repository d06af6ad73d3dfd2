//! What a transfer tells while it runs: a tree of content, each node with a state and its bytes.
//!
//! A transfer has one [`Tracker`]; downloads and extractions count into its nodes without blocking, and a ticker turns what
//! has changed into [`Event`]s a few times a second. The words are containerd's, so that a client renders either daemon.
//!
//! Invariant: counting never waits; only the ticker calls the sink.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::manifest::ref_key;
use spec::{Descriptor, Digest};

/// How often changes become events.
const TICK: Duration = Duration::from_millis(100);

/// One message of a transfer's progress.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// What happened: `waiting`, `downloading`, `complete`, `extracting`, ..., or a sentence about the whole transfer.
    pub event: String,
    /// The node: `layer-sha256:...`, or the image's name; empty for the transfer itself.
    pub name: String,
    /// The nodes that name this one; the image's name for the top.
    pub parents: Vec<String>,
    /// Bytes so far.
    pub progress: u64,
    /// Bytes in all.
    pub total: u64,
    /// What the node is.
    pub descriptor: Option<Descriptor>,
}

/// Takes the events; it must not block.
pub type Sink = Arc<dyn Fn(Event) + Send + Sync>;

/// The nodes of one transfer. Without a sink it counts for nobody.
pub struct Tracker {
    sink: Option<Sink>,
    root: String,
    moving: &'static str,
    nodes: Mutex<HashMap<Digest, Arc<Node>>>,
}

/// One piece of content on its way.
pub struct Node {
    descriptor: Descriptor,
    parents: Vec<String>,
    state: AtomicU8,
    told: AtomicU8,
    moved: AtomicU64,
    extracted: AtomicU64,
    told_bytes: AtomicU64,
}

const WAITING: u8 = 0;
const MOVING: u8 = 1;
const EXISTS: u8 = 2;
const COMPLETE: u8 = 3;
const EXTRACTING: u8 = 4;
const EXTRACTED: u8 = 5;
const UNTOLD: u8 = u8::MAX;

impl Node {
    /// Counts `bytes` more as moved.
    pub fn moved(&self, bytes: u64) {
        self.moved.fetch_add(bytes, Ordering::Relaxed);
        let _ = self.state.compare_exchange(WAITING, MOVING, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Sets how many bytes have moved, such as those of an earlier attempt.
    pub fn moved_to(&self, bytes: u64) {
        self.moved.store(bytes, Ordering::Relaxed);
        let _ = self.state.compare_exchange(WAITING, MOVING, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// How many bytes have moved.
    pub fn bytes(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// The content was there already.
    pub fn exists(&self) {
        self.state.fetch_max(EXISTS, Ordering::Relaxed);
    }

    /// The content has moved whole; nothing is said of what was there already.
    pub fn complete(&self) {
        for from in [WAITING, MOVING] {
            let _ = self.state.compare_exchange(from, COMPLETE, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Sets how many of its bytes have been extracted; told once it has moved whole.
    pub fn extracted_to(&self, bytes: u64) {
        self.extracted.store(bytes, Ordering::Relaxed);
        let state = self.state.load(Ordering::Relaxed);
        if matches!(state, EXISTS | COMPLETE) {
            let _ = self.state.compare_exchange(state, EXTRACTING, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// The content has been extracted whole.
    pub fn extracted(&self) {
        self.extracted.store(self.descriptor.size, Ordering::Relaxed);
        self.state.fetch_max(EXTRACTED, Ordering::Relaxed);
    }

    fn event(&self, word: &str, progress: u64) -> Event {
        Event {
            event: word.into(),
            name: ref_key(&self.descriptor),
            parents: self.parents.clone(),
            progress,
            total: self.descriptor.size,
            descriptor: Some(self.descriptor.clone()),
        }
    }

    /// The events of what has changed since the last call.
    fn changes(&self, moving: &str) -> Vec<Event> {
        let state = self.state.load(Ordering::Relaxed);
        let told = self.told.swap(state, Ordering::Relaxed);
        let size = self.descriptor.size;
        let mut events = Vec::new();
        if told == UNTOLD {
            events.push(self.event("waiting", 0));
        }
        // An extraction follows a download that nobody saw end between two ticks.
        let past = |step: u8| state >= step && (told == UNTOLD || told < step);
        match state {
            MOVING => {
                let moved = self.moved.load(Ordering::Relaxed).min(size);
                if self.told_bytes.swap(moved, Ordering::Relaxed) != moved || past(MOVING) {
                    events.push(self.event(moving, moved));
                }
            }
            EXISTS if past(EXISTS) => events.push(self.event("already exists", size)),
            COMPLETE if past(COMPLETE) => events.push(self.event("complete", size)),
            EXTRACTING => {
                if past(EXISTS) {
                    events.push(self.event("complete", size));
                }
                events.push(self.event("extracting", self.extracted.load(Ordering::Relaxed).min(size)));
            }
            EXTRACTED if past(EXTRACTED) => {
                if past(EXISTS) {
                    events.push(self.event("complete", size));
                }
                events.push(self.event("extracted", size));
            }
            _ => {}
        }
        events
    }
}

impl Tracker {
    /// A tracker of the transfer of `root`; `moving` is the word for content on its way: `downloading`, `uploading`.
    pub fn new(sink: Option<Sink>, root: &str, moving: &'static str) -> Arc<Self> {
        Arc::new(Self { sink, root: root.into(), moving, nodes: Mutex::default() })
    }

    /// Says something about the whole transfer, at once.
    pub fn say(&self, event: impl Into<String>) {
        self.tell(Event { event: event.into(), ..Event::default() });
    }

    /// Says something about one name, at once.
    pub fn say_of(&self, event: &str, name: &str, descriptor: &Descriptor) {
        let descriptor = Some(descriptor.clone());
        self.tell(Event { event: event.into(), name: name.into(), descriptor, ..Event::default() });
    }

    /// The node of `descriptor`, new below `parent` (or at the top) if it is not known yet.
    pub fn node(&self, descriptor: &Descriptor, parent: Option<&Descriptor>) -> Arc<Node> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            Arc::new(Node {
                descriptor: descriptor.clone(),
                parents: vec![parent.map_or_else(|| self.root.clone(), ref_key)],
                state: AtomicU8::new(WAITING),
                told: AtomicU8::new(UNTOLD),
                moved: AtomicU64::new(0),
                extracted: AtomicU64::new(0),
                told_bytes: AtomicU64::new(0),
            })
        };
        nodes.entry(descriptor.digest.clone()).or_insert_with(new).clone()
    }

    /// Turns changes into events until it is dropped.
    pub async fn tick(&self) {
        if self.sink.is_none() {
            return std::future::pending().await;
        }
        let mut ticker = tokio::time::interval(TICK);
        loop {
            ticker.tick().await;
            self.flush();
        }
    }

    /// Turns what has changed into events now.
    pub fn flush(&self) {
        let nodes: Vec<_> = {
            let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
            nodes.values().cloned().collect()
        };
        for event in nodes.iter().flat_map(|node| node.changes(self.moving)) {
            self.tell(event);
        }
    }

    fn tell(&self, event: Event) {
        if let Some(sink) = &self.sink {
            sink(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_tells_its_states_in_order_and_once() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let into = told.clone();
        let sink: Sink = Arc::new(move |event| into.lock().unwrap().push(event.event));
        let tracker = Tracker::new(Some(sink), "x", "downloading");
        let descriptor = Descriptor::new(spec::media::LAYER, model::manifest::sha256(b"a"), 10);
        let node = tracker.node(&descriptor, None);
        tracker.flush();
        node.moved(4);
        tracker.flush();
        tracker.flush();
        node.moved(6);
        node.complete();
        tracker.flush();
        node.extracted_to(3);
        tracker.flush();
        node.extracted();
        tracker.flush();
        tracker.flush();
        let told = told.lock().unwrap();
        assert_eq!(*told, ["waiting", "downloading", "complete", "extracting", "extracted"]);
    }
}
