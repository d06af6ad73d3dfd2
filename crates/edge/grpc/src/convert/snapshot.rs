//! Snapshots and mounts.

use std::time::SystemTime;

use api::containerd::services::snapshots::v1 as wire;
use api::containerd::types;
use model::snapshot::{Info, Kind, Mount};
use model::{Error, Result};

use super::{FromWire, ToWire, time, timestamp};

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

impl FromWire<wire::Info> for Info {
    fn from_wire(wire: wire::Info) -> Result<Self> {
        let kind = match wire.kind() {
            wire::Kind::View => Kind::View,
            wire::Kind::Active => Kind::Active,
            wire::Kind::Committed => Kind::Committed,
            wire::Kind::Unknown => {
                return Err(Error::invalid(format_args!("snapshot {:?} is of no kind", wire.name)));
            }
        };
        let at = |stamp| time(stamp).unwrap_or(SystemTime::UNIX_EPOCH);
        Ok(Self {
            kind,
            created_at: at(wire.created_at.as_ref()),
            updated_at: at(wire.updated_at.as_ref()),
            name: wire.name,
            parent: wire.parent,
            labels: wire.labels,
        })
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
