//! A pod's record in the store: that of its sandbox container, with our own JSON in an extension.

use ::spec::runtime::Spec;
use ::spec::{Error, Labels, label};
use api::runtime::v1;
use model::container::{Container as Stored, Runtime};
use model::sandbox::Sandbox;
use model::{Any, Result};
use serde::{Deserialize, Serialize};

use crate::config::Handler;
use crate::state::PodRecord;

/// The label that tells sandboxes and containers apart.
const KIND: &str = "io.cri-containerd.kind";
/// The kind of a pod's sandbox.
const SANDBOX: &str = "sandbox";
/// The extension under which our JSON is kept; containerd's name for its own.
const EXTENSION: &str = "io.cri-containerd.sandbox.metadata";
/// Our JSON's type.
const RECORD_TYPE: &str = "berth.cri.v1.PodRecord";
/// The extension under which the resources are kept that the kubelet told later.
const TOLD: &str = "io.cri-containerd.sandbox.resources";
/// Their type.
const TOLD_TYPE: &str = "berth.cri.v1.PodResources";
/// How much of a pod's name is a label, in characters: a label is bounded.
const MAX_NAME_LABEL: usize = 512;
/// The type of a spec in an `Any`, as containerd's clients write it.
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

/// What a pod's root file system is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rootfs {
    /// The pause image's name; empty for the built-in one.
    pub image: String,
    /// The driver of its snapshot; empty when there is none.
    pub snapshotter: String,
}

/// The labels of a pod's sandbox: the kubelet's, and its kind.
///
/// # Errors
/// `InvalidArgument`: one is too long.
pub fn labels(record: &PodRecord) -> Result<Labels> {
    let mut labels: Labels = record.config.labels.clone().into_iter().collect();
    labels.insert(KIND.into(), SANDBOX.into());
    label::check_all(&labels)?;
    Ok(labels)
}

/// The record as the store keeps it.
///
/// # Errors
/// A label is too long.
pub fn stored(record: &PodRecord, handler: &Handler, rootfs: &Rootfs, spec: &Spec) -> Result<Stored> {
    let snapshot_key = if rootfs.snapshotter.is_empty() { String::new() } else { record.id.clone() };
    Ok(Stored {
        id: record.id.clone(),
        labels: labels(record)?,
        image: rootfs.image.clone(),
        runtime: Runtime { name: runtime_name(handler), options: handler.options.clone() },
        spec: Some(json(SPEC_TYPE, spec)?),
        snapshotter: rootfs.snapshotter.clone(),
        snapshot_key,
        sandbox_id: record.id.clone(),
        extensions: [extension(record)?].into(),
        created_at: std::time::UNIX_EPOCH,
        updated_at: std::time::UNIX_EPOCH,
    })
}

/// The pod in the store of sandboxes, where `ctr` and others look; `kept` is the record of its container.
pub fn sandbox(record: &PodRecord, handler: &Handler, kept: &Stored) -> Sandbox {
    let mut labels = kept.labels.clone();
    labels.insert("name".into(), record.name.chars().take(MAX_NAME_LABEL).collect());
    Sandbox {
        id: record.id.clone(),
        runtime: kept.runtime.clone(),
        spec: None,
        sandboxer: handler.sandboxer.clone(),
        labels,
        extensions: std::collections::BTreeMap::new(),
        created_at: std::time::UNIX_EPOCH,
        updated_at: std::time::UNIX_EPOCH,
    }
}

/// The shim of a handler: its path when it has one, else its type's name.
pub fn runtime_name(handler: &Handler) -> String {
    match handler.runtime_path.as_str() {
        "" => handler.runtime_type.clone(),
        path => path.to_owned(),
    }
}

/// Our JSON, as an extension.
///
/// # Errors
/// None that a record could have.
pub fn extension(record: &PodRecord) -> Result<(String, Any)> {
    Ok((EXTENSION.into(), json(RECORD_TYPE, record)?))
}

fn json(kind: &str, value: &impl serde::Serialize) -> Result<Any> {
    let bytes = serde_json::to_vec(value);
    let bytes = bytes.map_err(|error| Error::internal(format!("cannot write a pod's record: {error}")))?;
    Ok(Any { type_url: kind.into(), value: bytes })
}

/// The resources that the kubelet told after the pod was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Told {
    /// What the pod's containers may use together.
    pub resources: Option<v1::LinuxContainerResources>,
    /// What the runtime may use besides.
    pub overhead: Option<v1::LinuxContainerResources>,
}

/// `told`, as an extension of the pod's record.
///
/// # Errors
/// None that resources could have.
pub fn told(told: &Told) -> Result<(String, Any)> {
    Ok((TOLD.into(), json(TOLD_TYPE, told)?))
}

/// Reads back what the kubelet told; nothing of what is not there or cannot be read.
pub fn read_told(stored: &Stored) -> Told {
    let any = stored.extensions.get(TOLD).filter(|any| any.type_url == TOLD_TYPE);
    let read = any.map(|any| serde_json::from_slice(&any.value));
    read.transpose()
        .unwrap_or_else(|error| {
            tracing::warn!(id = %stored.id, %error, "the resources that a pod was told last are not readable");
            None
        })
        .unwrap_or_default()
}

/// Whether a record is of a pod's sandbox.
pub fn is_sandbox(stored: &Stored) -> bool {
    stored.labels.get(KIND).is_some_and(|kind| kind == SANDBOX)
}

/// Reads our JSON back.
///
/// # Errors
/// The record has none, or it is damaged.
pub fn read(stored: &Stored) -> Result<PodRecord> {
    let any = stored.extensions.get(EXTENSION).filter(|any| any.type_url == RECORD_TYPE);
    let any = any.ok_or_else(|| Error::not_found(format_args!("metadata extension {EXTENSION:?}")))?;
    let record: PodRecord = serde_json::from_slice(&any.value).map_err(|error| {
        Error::internal(format!("sandbox {}: cannot read its record: {error}", stored.id))
    })?;
    if record.id != stored.id {
        return Err(Error::internal(format!("sandbox {}: its record is of {:?}", stored.id, record.id)));
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kubelet_told_is_read_as_it_was_written_and_damage_is_nothing() {
        let mut kept =
            stored(&PodRecord::default(), &Handler::default(), &Rootfs::default(), &Spec::default()).unwrap();
        assert_eq!(read_told(&kept), Told::default());
        let limits = v1::LinuxContainerResources { cpu_shares: 7, ..v1::LinuxContainerResources::default() };
        let known = Told { resources: Some(limits), overhead: None };
        kept.extensions.extend([told(&known).unwrap()]);
        assert_eq!(read_told(&kept), known);
        kept.extensions.get_mut(TOLD).unwrap().value = b"{".to_vec();
        assert_eq!(read_told(&kept), Told::default());
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_only_by_its_own_id() {
        let record = PodRecord { id: "a".into(), name: "n".into(), ..PodRecord::default() };
        let mut kept = stored(&record, &Handler::default(), &Rootfs::default(), &Spec::default()).unwrap();
        assert!(is_sandbox(&kept));
        assert_eq!(kept.snapshot_key, "");
        assert_eq!(read(&kept).unwrap().name, "n");
        kept.id = "b".into();
        assert!(read(&kept).is_err());
    }
}
