//! SPDY/3.1 as Kubernetes' clients speak it: many streams over one upgraded HTTP connection.

mod connection;
mod dictionary;
mod frame;
mod headers;

pub use connection::{Connection, Opened, serve};
