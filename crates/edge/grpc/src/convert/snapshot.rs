//! Snapshots and mounts.

use api::containerd::services::snapshots::v1 as wire;
use api::containerd::types;
use model::Result;
use model::snapshot::{Info, Kind, Mount};

use super::{FromWire, ToWire, timestamp};

impl ToWire for Info {
    type Wire = wire::Info;

    fn to_wire(self) -> wire::Info {
        let kind = match self.kind {
            Kind::View => wire::Kind::View,
            Kind::Active => wire::Kind::Active,
            Kind::Committed => wire::Kind::Committed,
        };
        wire::Info {
            name: self.name,
            parent: self.parent,
            kind: kind.into(),
            created_at: Some(timestamp(self.created_at)),
            updated_at: Some(timestamp(self.updated_at)),
            labels: self.labels,
        }
    }
}

impl ToWire for Mount {
    type Wire = types::Mount;

    fn to_wire(self) -> types::Mount {
        types::Mount { r#type: self.kind, source: self.source, target: self.target, options: self.options }
    }
}

impl FromWire<types::Mount> for Mount {
    fn from_wire(wire: types::Mount) -> Result<Self> {
        Ok(Self { kind: wire.r#type, source: wire.source, target: wire.target, options: wire.options })
    }
}
