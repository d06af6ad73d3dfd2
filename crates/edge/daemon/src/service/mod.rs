//! The gRPC services, one file each: decode, call the engine, encode.
//!
//! Invariant: no decision is made here; whatever can be wrong about a request is found by `grpc::convert` or the engine.

pub mod containers;
pub mod content;
pub mod diff;
pub mod events;
pub mod images;
pub mod introspection;
pub mod leases;
pub mod namespaces;
pub mod sandboxes;
pub mod snapshots;
pub mod streaming;
pub mod tasks;
pub mod transfer;
pub mod version;
mod write;

use std::sync::Arc;

use model::{Ctx, Cx, Lane, Result};

use crate::engine::Engine;

/// Makes the service types, each a handle of the engine.
macro_rules! services {
    ($($(#[$doc:meta])* $name:ident)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone)]
            pub struct $name(pub(crate) Arc<Engine>);
        )*
    };
}

services! {
    /// `containerd.services.containers.v1.Containers`
    Containers
    /// `containerd.services.content.v1.Content`
    Content
    /// `containerd.services.diff.v1.Diff`
    Diff
    /// `containerd.services.events.v1.Events`
    Events
    /// `containerd.services.images.v1.Images`
    Images
    /// `containerd.services.introspection.v1.Introspection`
    Introspection
    /// `containerd.services.leases.v1.Leases`
    Leases
    /// `containerd.services.namespaces.v1.Namespaces`
    Namespaces
    /// `containerd.services.sandbox.v1.Store`
    Sandboxes
    /// `containerd.services.snapshots.v1.Snapshots`
    Snapshots
    /// `containerd.services.streaming.v1.Streaming`
    Streaming
    /// `containerd.services.tasks.v1.Tasks`
    Tasks
    /// `containerd.services.transfer.v1.Transfer`
    Transfer
}

/// `containerd.services.version.v1.Version`
#[derive(Clone)]
pub struct Version;

/// Runs `work` with the engine on a thread that may block on the disk.
async fn on_disk<T, F>(engine: &Arc<Engine>, ctx: &Ctx, work: F) -> Result<T>
where
    F: FnOnce(&Engine, &Cx<'_>) -> Result<T> + Send + 'static,
    T: Send + 'static,
{
    let engine = Arc::clone(engine);
    ctx.attended(ctx.blocking(Lane::Disk, move |cx| work(&engine, cx))).await
}

/// Waits for a garbage collection, as a `sync` deletion does.
async fn collect(engine: &Arc<Engine>, ctx: &Ctx) -> Result<()> {
    let engine = Arc::clone(engine);
    ctx.attended(ctx.blocking(Lane::Wait, move |cx| engine.store.wait_for_gc(cx).map(drop))).await
}
