//! rtnetlink and nfnetlink: links, addresses, routes, queueing disciplines, connection tracking.
//!
//! A [`Connection`] belongs to the network namespace that its thread was in when it was opened and stays there, so
//! one plugin holds one of the host and one of the pod. Nothing here knows what a plugin is.
//!
//! Invariant: every answer is read with its lengths checked; a request is either acknowledged or an error.
//! Invariant: the calling thread's network namespace is never changed ([`inside`] uses a thread of its own).

pub mod address;
mod connection;
pub mod conntrack;
pub mod link;
pub mod mac;
pub mod message;
pub mod port;
pub mod qdisc;
pub mod route;

use std::os::fd::BorrowedFd;

pub use connection::{Connection, Error, Result};
pub use mac::Mac;
pub use sys::netlink::Protocol;

/// Runs `work` on a thread that has joined the network namespace `netns`; the calling thread stays where it is.
pub fn inside<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> sys::Result<T> {
    std::thread::scope(|scope| {
        let inside = std::thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, move || {
                sys::namespace::join(netns, sys::namespace::Kind::Network)?;
                Ok(work())
            })
            .map_err(|error| sys::Error::new(error.raw_os_error().unwrap_or(0), "clone(thread)"))?;
        match inside.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
