//! What is known of pods and containers: in memory for every answer, on disk for the next daemon.
//!
//! ```text
//! names ──► reserved before anything is made, so that a retry of the kubelet cannot make a second one
//! Registry<Pod>, Registry<Container> ──► by id, or by the beginning of one
//! Pod, Container ──► record (never changes, kept with the container's record in the store)
//!                    state  (changes; whoever waits for a change watches it)
//!                    turn   (one changing verb at a time)
//! ```
//!
//! Invariant: state changes only by the holder of the `turn`, or by the one task that watches the process's exit.

mod container;
mod names;
mod pod;
mod registry;

pub use container::{Container, ContainerRecord, ContainerState, Phase};
pub use names::{Names, Reserved};
pub use pod::{Pod, PodPhase, PodRecord, PodState, Remains, namespaces};
pub use registry::{Registered, Registry};
