//! tonic clients and servers of containerd's gRPC services, and the channel that carries namespace and lease.
#![allow(missing_docs)]

include!(concat!(env!("OUT_DIR"), "/grpc.rs"));
