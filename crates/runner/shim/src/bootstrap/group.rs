//! Which shim a container belongs to: its own, or that of its pod.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use spec::error::{HasKind, Kind};

/// The annotations that name a group; the first one present counts.
const GROUP_ANNOTATIONS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];

/// Why a bundle's group is unknown.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// There is no `config.json` to read.
    #[error("open config.json")]
    Read(#[source] std::io::Error),
    /// It is not JSON.
    #[error("parse config.json")]
    Parse(#[source] serde_json::Error),
}

impl HasKind for GroupError {
    fn kind(&self) -> Kind {
        match self {
            Self::Read(source) => Kind::from_errno(source.raw_os_error().unwrap_or(0)),
            Self::Parse(_) => Kind::InvalidArgument,
        }
    }
}

/// The only part of the document that matters here.
#[derive(Deserialize)]
struct Annotated {
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

/// The group of the container in `bundle`: named by an annotation, or the container's own `id`.
///
/// # Errors
/// See [`GroupError`].
pub fn group(bundle: &Path, id: &str) -> Result<String, GroupError> {
    let mut json = Vec::new();
    File::open(bundle.join("config.json"))
        .and_then(|file| file.take(spec::runtime::MAX_CONFIG_BYTES).read_to_end(&mut json))
        .map_err(GroupError::Read)?;
    let annotated: Annotated = spec::json::first_from_slice(&json).map_err(GroupError::Parse)?;
    let annotations = annotated.annotations.unwrap_or_default();
    let named = GROUP_ANNOTATIONS.iter().find_map(|name| annotations.get(*name));
    Ok(named.map_or_else(|| id.to_owned(), Clone::clone))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group_of(json: &str) -> String {
        let bundle = tempfile::tempdir().unwrap();
        std::fs::write(bundle.path().join("config.json"), json).unwrap();
        group(bundle.path(), "own").unwrap()
    }

    #[test]
    fn the_first_annotation_counts() {
        assert_eq!(group_of(r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod"}}"#), "pod");
        let both =
            r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod","io.containerd.runc.v2.group":"g"}}"#;
        assert_eq!(group_of(both), "g");
        assert_eq!(group_of(r#"{"annotations":null,"ociVersion":"1.0.2"}"#), "own");
    }
}
