//! Blobs and ingests.

use api::containerd::services::content::v1 as wire;
use model::content::{Info, Status};

use super::{ToWire, signed, timestamp};

impl ToWire for Info {
    type Wire = wire::Info;

    fn to_wire(self) -> wire::Info {
        wire::Info {
            digest: self.digest.as_str().into(),
            size: signed(self.size),
            created_at: Some(timestamp(self.created_at)),
            updated_at: Some(timestamp(self.updated_at)),
            labels: self.labels,
        }
    }
}

impl ToWire for Status {
    type Wire = wire::Status;

    fn to_wire(self) -> wire::Status {
        wire::Status {
            started_at: Some(timestamp(self.started_at)),
            updated_at: Some(timestamp(self.updated_at)),
            r#ref: self.reference,
            offset: signed(self.offset),
            total: signed(self.total),
            expected: self.expected.map(|digest| digest.as_str().into()).unwrap_or_default(),
        }
    }
}
