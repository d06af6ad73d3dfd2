//! Sandboxes.

use std::time::UNIX_EPOCH;

use api::containerd::types;
use model::container::Runtime;
use model::sandbox::Sandbox;
use model::{Any, Result};

use super::{FromWire, ToWire, time, timestamp};

impl ToWire for Sandbox {
    type Wire = types::Sandbox;

    fn to_wire(self) -> types::Sandbox {
        types::Sandbox {
            sandbox_id: self.id,
            runtime: Some(types::sandbox::Runtime {
                name: self.runtime.name,
                options: self.runtime.options.map(ToWire::to_wire),
            }),
            spec: self.spec.map(ToWire::to_wire),
            labels: self.labels,
            created_at: Some(timestamp(self.created_at)),
            updated_at: Some(timestamp(self.updated_at)),
            extensions: self.extensions.into_iter().map(|(key, any)| (key, any.to_wire())).collect(),
            sandboxer: self.sandboxer,
        }
    }
}

impl FromWire<types::Sandbox> for Sandbox {
    fn from_wire(wire: types::Sandbox) -> Result<Self> {
        let runtime = wire.runtime.unwrap_or_default();
        let any = |any: Option<api::Any>| any.map(Any::from_wire).transpose();
        Ok(Self {
            id: wire.sandbox_id,
            runtime: Runtime { name: runtime.name, options: any(runtime.options)? },
            spec: any(wire.spec)?,
            sandboxer: wire.sandboxer,
            labels: wire.labels,
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
