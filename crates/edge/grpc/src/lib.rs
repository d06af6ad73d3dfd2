//! tonic clients and servers of containerd's gRPC services and of CRI, the channel that carries namespace and lease, and the
//! translations between the wire's words and the engine's.
//!
//! Invariant: this is the one place where an error kind becomes a gRPC code, and where one becomes a kind again.

pub mod authority;
pub mod channel;
pub mod convert;
pub mod deadline;
mod hpack;
pub mod proxy;
pub mod status;

#[allow(missing_docs, clippy::all)]
mod stub {
    include!(concat!(env!("OUT_DIR"), "/grpc.rs"));
}

pub use stub::{containerd, runtime};
