//! The engine's nouns, traits and pure logic.
//!
//! Store, snapshotters, images and tasks implement and use the traits of this crate and never link each other; the
//! daemon joins them. No file and no socket is opened here.
//!
//! Invariant: a verb that blocks takes a [`Cx`], and only [`Ctx::blocking`] makes one, so async code cannot call it.

pub mod any;
pub mod container;
pub mod content;
pub mod ctx;
pub mod diff;
pub mod event;
pub mod filter;
pub mod gc;
pub mod image;
pub mod lease;
pub mod manifest;
pub mod mask;
pub mod namespace;
pub mod pull;
pub mod sandbox;
pub mod snapshot;
pub mod task;
pub mod undo;

pub use any::Any;
pub use ctx::{Ctx, Cx, Lane};
pub use filter::Filters;
pub use spec::{Error, HasKind, Kind, Labels, Result};
