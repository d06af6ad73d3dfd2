//! The servers: gRPC for clients, ttrpc for shims; both on unix sockets.

pub mod grpc;
pub mod ttrpc;
pub mod unix;
