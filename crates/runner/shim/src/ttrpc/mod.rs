//! ttrpc: containerd's small RPC for shims. A frame is a ten-byte header and a protobuf message.
//!
//! [`frame`] is pure and serves every end: the shim's server, the blocking [`client`] and the daemon's asynchronous one.

pub mod client;
pub mod frame;
pub mod message;

pub use client::Client;
pub use frame::{FrameError, FrameType, HEADER_LEN, Header, MAX_PAYLOAD};
