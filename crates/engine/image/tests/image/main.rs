//! Transfers against real registries and bad peers, into the real stores.

#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod archive;
mod auth;
mod faults;
mod oracle;
mod place;
mod pull;
mod push;
mod tls;
