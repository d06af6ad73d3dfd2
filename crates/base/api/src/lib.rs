//! Messages of containerd's interfaces, generated from `proto/` by `build.rs`.
//!
//! The module path is the protobuf package: `containerd.services.tasks.v1` is [`containerd::services::tasks::v1`].
//! This crate owns the wire's words and does no I/O; services over them live in `grpc` (tonic) and `shim` (ttrpc).
//!
//! Invariant: nothing here is written by hand but the conversions to and from `Any` and points in time.
#![allow(missing_docs, clippy::doc_lazy_continuation, clippy::doc_overindented_list_items)]

pub use prost::{DecodeError, Message, Name};
pub use prost_types::{Any, FieldMask, Timestamp};

mod any;
mod time;
pub use any::{decode_any, encode_any};
pub use time::{time, timestamp};

include!(concat!(env!("OUT_DIR"), "/api.rs"));
