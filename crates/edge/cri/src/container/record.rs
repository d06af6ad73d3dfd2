//! A container's record in the store: what ctr and other clients see, and our own JSON with it.

use ::spec::runtime::Spec;
use ::spec::{Error, Labels, label};
use api::runtime::v1;
use model::container::Container as Stored;
use model::{Any, Result};

use crate::state::ContainerRecord;

/// The label that tells sandboxes and containers apart.
pub(crate) const KIND: &str = "io.cri-containerd.kind";
/// The kind of a container that is no sandbox.
pub(crate) const CONTAINER: &str = "container";
/// Labels of containerd's own: an image must not give them to a container, whatever it says.
const RESERVED: [&str; 2] = ["containerd.io/", "io.cri-containerd."];
/// The extension under which our JSON is kept; containerd's name for its own.
const EXTENSION: &str = "io.cri-containerd.container.metadata";
/// Our JSON's type.
const RECORD_TYPE: &str = "berth.cri.v1.ContainerRecord";
/// The type of a spec in an `Any`, as containerd's clients write it.
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

/// The labels of a container: the image's that mean nothing to containerd, the kubelet's over them, and its kind.
///
/// A label of an image that is too long is left out, since an image must not keep its containers from being made.
pub(super) fn labels(config: &v1::ContainerConfig, image: &Labels) -> Result<Labels> {
    let harmless = image.iter().filter(|(key, value)| {
        !RESERVED.iter().any(|prefix| key.starts_with(prefix)) && label::check(key, value).is_ok()
    });
    let mut labels: Labels = harmless.map(|(key, value)| (key.clone(), value.clone())).collect();
    labels.extend(config.labels.clone());
    labels.insert(KIND.into(), CONTAINER.into());
    label::check_all(&labels)?;
    Ok(labels)
}

/// Writes our JSON.
pub(super) fn extension(record: &ContainerRecord) -> Result<(String, Any)> {
    let value = serde_json::to_vec(record);
    let value =
        value.map_err(|error| Error::internal(format!("cannot write a container's record: {error}")))?;
    Ok((EXTENSION.into(), Any { type_url: RECORD_TYPE.into(), value }))
}

/// Reads our JSON back.
///
/// # Errors
/// The record has none, or it is damaged.
pub(super) fn read(stored: &Stored) -> Result<ContainerRecord> {
    let any = stored.extensions.get(EXTENSION).filter(|any| any.type_url == RECORD_TYPE);
    let any = any.ok_or_else(|| Error::not_found(format_args!("metadata extension {EXTENSION:?}")))?;
    let record: ContainerRecord = serde_json::from_slice(&any.value).map_err(|error| {
        Error::internal(format!("container {}: cannot read its record: {error}", stored.id))
    })?;
    if record.id != stored.id {
        return Err(Error::internal(format!("container {}: its record is of {:?}", stored.id, record.id)));
    }
    Ok(record)
}

/// A spec as the store keeps it.
pub(super) fn spec_any(spec: &Spec) -> Result<Any> {
    let value = serde_json::to_vec(spec);
    let value = value.map_err(|error| Error::internal(format!("cannot write a runtime spec: {error}")))?;
    Ok(Any { type_url: SPEC_TYPE.into(), value })
}

/// The spec of a record, as it was written.
pub(super) fn spec_json(stored: &Stored) -> Result<Vec<u8>> {
    let any = stored.spec.as_ref();
    let any = any.ok_or_else(|| Error::internal(format!("container {} has no runtime spec", stored.id)))?;
    Ok(any.value.clone())
}

/// The spec of a record.
pub(super) fn spec(stored: &Stored) -> Result<Spec> {
    let any = stored.spec.as_ref();
    let any = any.ok_or_else(|| Error::internal(format!("container {} has no runtime spec", stored.id)))?;
    serde_json::from_slice(&any.value).map_err(|error| {
        Error::internal(format!("container {}: cannot read its runtime spec: {error}", stored.id))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_gives_no_label_that_containerd_acts_on() {
        let image: Labels = [
            ("containerd.io/gc.root", "x"),
            ("io.cri-containerd.kind", "sandbox"),
            ("io.cri-containerd.image", "managed"),
            ("maintainer", "somebody"),
            ("app", "the image's"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
        let config = v1::ContainerConfig {
            labels: [("app".to_owned(), "the kubelet's".to_owned())].into(),
            ..v1::ContainerConfig::default()
        };
        let wanted: Labels = [(KIND, CONTAINER), ("app", "the kubelet's"), ("maintainer", "somebody")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        assert_eq!(labels(&config, &image).unwrap(), wanted);
    }

    #[test]
    fn a_label_that_is_too_long_is_refused_from_the_kubelet_and_left_out_from_an_image() {
        let long: Labels = [("a".to_owned(), "b".repeat(label::MAX_LABEL))].into();
        assert_eq!(labels(&v1::ContainerConfig::default(), &long).unwrap().len(), 1);
        let config = v1::ContainerConfig { labels: long, ..v1::ContainerConfig::default() };
        assert!(labels(&config, &Labels::new()).is_err());
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let record = ContainerRecord { id: "a".into(), name: "n".into(), ..ContainerRecord::default() };
        let mut stored = Stored {
            id: "a".into(),
            labels: Labels::new(),
            image: String::new(),
            runtime: model::container::Runtime::default(),
            spec: None,
            snapshotter: String::new(),
            snapshot_key: String::new(),
            sandbox_id: String::new(),
            extensions: [extension(&record).unwrap()].into(),
            created_at: std::time::UNIX_EPOCH,
            updated_at: std::time::UNIX_EPOCH,
        };
        assert_eq!(read(&stored).unwrap().name, "n");
        stored.id = "b".into();
        assert!(read(&stored).is_err());
    }
}
