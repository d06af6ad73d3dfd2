//! Images between registries, archives and the stores.
//!
//! [`pull`] brings an image from a [`registry`] into the content store and unpacks it on the way; [`push`] brings one back;
//! [`archive`] does the same with tar archives. [`progress`] is what a transfer tells, [`names`] what it records last.
//!
//! Invariant: nothing of an image is trusted but its digest: sizes are bounded, documents are of the kind they claim to be,
//! and a snapshot is committed only when digest and diff id hold.

pub mod archive;
mod fetch;
mod images;
mod labels;
pub mod names;
pub mod progress;
pub mod pull;
pub mod push;
pub mod registry;
pub mod remains;
mod services;
mod transfer;
mod unpack;
mod walk;

pub use services::{Services, Unpack, Verifier};
