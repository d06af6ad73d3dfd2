//! Containers and leases.

use std::time::UNIX_EPOCH;

use api::containerd::services::containers::v1 as wire;
use api::containerd::services::leases::v1 as leases;
use model::container::{Container, Runtime};
use model::lease::{Lease, Resource};
use model::{Any, Result};

use super::{FromWire, ToWire, time, timestamp};

impl ToWire for Container {
    type Wire = wire::Container;

    fn to_wire(self) -> wire::Container {
        wire::Container {
            id: self.id,
            labels: self.labels,
            image: self.image,
            runtime: Some(wire::container::Runtime {
                name: self.runtime.name,
                options: self.runtime.options.map(ToWire::to_wire),
            }),
            spec: self.spec.map(ToWire::to_wire),
            snapshotter: self.snapshotter,
            snapshot_key: self.snapshot_key,
            created_at: Some(timestamp(self.created_at)),
            updated_at: Some(timestamp(self.updated_at)),
            extensions: self.extensions.into_iter().map(|(key, any)| (key, any.to_wire())).collect(),
            sandbox: self.sandbox_id,
        }
    }
}

impl FromWire<wire::Container> for Container {
    fn from_wire(wire: wire::Container) -> Result<Self> {
        let runtime = wire.runtime.unwrap_or_default();
        let any = |any: Option<api::Any>| any.map(Any::from_wire).transpose();
        Ok(Self {
            id: wire.id,
            labels: wire.labels,
            image: wire.image,
            runtime: Runtime { name: runtime.name, options: any(runtime.options)? },
            spec: any(wire.spec)?,
            snapshotter: wire.snapshotter,
            snapshot_key: wire.snapshot_key,
            sandbox_id: wire.sandbox,
            extensions: wire
                .extensions
                .into_iter()
                .map(|(key, any)| Ok((key, Any::from_wire(any)?)))
                .collect::<Result<_>>()?,
            created_at: time(wire.created_at.as_ref()).unwrap_or(UNIX_EPOCH),
            updated_at: time(wire.updated_at.as_ref()).unwrap_or(UNIX_EPOCH),
        })
    }
}

impl ToWire for Lease {
    type Wire = leases::Lease;

    fn to_wire(self) -> leases::Lease {
        leases::Lease { id: self.id, created_at: Some(timestamp(self.created_at)), labels: self.labels }
    }
}

impl ToWire for Resource {
    type Wire = leases::Resource;

    fn to_wire(self) -> leases::Resource {
        leases::Resource { id: self.id, r#type: self.kind }
    }
}

impl FromWire<leases::Resource> for Resource {
    fn from_wire(wire: leases::Resource) -> Result<Self> {
        Ok(Self { id: wire.id, kind: wire.r#type })
    }
}
