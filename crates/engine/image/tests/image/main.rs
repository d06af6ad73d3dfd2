//! Transfers against real registries and bad peers, into the real stores.

mod archive;
mod auth;
mod faults;
mod place;
mod pull;
mod push;
