//! Images, descriptors and platforms.

use std::time::UNIX_EPOCH;

use api::containerd::services::images::v1 as wire;
use api::containerd::types;
use model::image::Image;
use model::{Error, Result};
use spec::{Descriptor, Platform};

use super::{FromWire, ToWire, digest, required, signed, time, timestamp, unsigned};

impl ToWire for Image {
    type Wire = wire::Image;

    fn to_wire(self) -> wire::Image {
        wire::Image {
            name: self.name,
            labels: self.labels,
            target: Some(self.target.to_wire()),
            created_at: Some(timestamp(self.created_at)),
            updated_at: Some(timestamp(self.updated_at)),
        }
    }
}

impl FromWire<wire::Image> for Image {
    fn from_wire(wire: wire::Image) -> Result<Self> {
        if wire.name.is_empty() {
            return Err(Error::invalid("image name must not be empty"));
        }
        Ok(Self {
            name: wire.name,
            labels: wire.labels,
            target: Descriptor::from_wire(required(wire.target, "image target")?)?,
            created_at: time(wire.created_at.as_ref()).unwrap_or(UNIX_EPOCH),
            updated_at: time(wire.updated_at.as_ref()).unwrap_or(UNIX_EPOCH),
        })
    }
}

impl ToWire for Descriptor {
    type Wire = types::Descriptor;

    fn to_wire(self) -> types::Descriptor {
        types::Descriptor {
            media_type: self.media_type,
            digest: self.digest.as_str().into(),
            size: signed(self.size),
            annotations: self.annotations,
        }
    }
}

impl FromWire<types::Descriptor> for Descriptor {
    fn from_wire(wire: types::Descriptor) -> Result<Self> {
        let mut descriptor =
            Self::new(wire.media_type, digest(&wire.digest)?, unsigned(wire.size, "descriptor size")?);
        descriptor.annotations = wire.annotations;
        Ok(descriptor)
    }
}

impl ToWire for Platform {
    type Wire = types::Platform;

    fn to_wire(self) -> types::Platform {
        types::Platform {
            os: self.os,
            architecture: self.architecture,
            variant: self.variant,
            os_version: self.os_version,
            os_features: self.os_features,
        }
    }
}

impl FromWire<types::Platform> for Platform {
    fn from_wire(wire: types::Platform) -> Result<Self> {
        Ok(Self {
            os: wire.os,
            architecture: wire.architecture,
            variant: wire.variant,
            os_version: wire.os_version,
            os_features: wire.os_features,
        })
    }
}
