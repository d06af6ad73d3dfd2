//! What a person types. `ctr` today: one file per group of commands, each command an `Args` and a `run`.
//!
//! A command speaks gRPC to the daemon and nothing else; [`ui`] is the only code that prints.
//!
//! Invariant: the CLI links no part of the engine; what it knows of images it computes from blobs it reads over gRPC.

pub mod client;
pub mod container;
pub mod ctr;
pub mod failure;
mod image;
mod process;
mod stdio;
mod stream;
pub mod ui;

pub use client::Client;
pub use failure::Failure;
