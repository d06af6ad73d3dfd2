//! How a view of a driver fails by itself.

use spec::{HasKind, Kind};

/// Why a snapshot is not as asked. Clients match on these texts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The namespace has none of this key.
    #[error("snapshot {0} does not exist: not found")]
    Missing(String),
    /// The parent is missing.
    #[error("parent snapshot {0} does not exist: not found")]
    NoParent(String),
    /// The key is known.
    #[error("snapshot {0:?}: already exists")]
    Exists(String),
    /// The namespace has the snapshot that the label `snapshot.ref` asks for.
    #[error("target snapshot {0:?}: already exists")]
    Target(String),
    /// The driver has the snapshot that the label `snapshot.ref` asks for, and now so has the namespace.
    #[error("target snapshot {0:?} from snapshotter: already exists")]
    TargetInDriver(String),
    /// The driver says it has it, and shows none.
    #[error("target snapshot {0:?} in backend: not found")]
    NoTarget(String),
    /// The driver has it on something else.
    #[error("mismatched parent {parent} from target {target}: invalid argument")]
    Parent {
        /// The parent that was asked for.
        parent: String,
        /// The snapshot.
        target: String,
    },
    /// Others stand on it.
    #[error("cannot remove snapshot with child: failed precondition")]
    Child,
    /// The driver cannot give a parent at commit.
    #[error("snapshotter {0:?} cannot rebase a snapshot: not implemented")]
    NoRebase(String),
    /// A mask names something that cannot change.
    #[error("cannot update {path:?} field on snapshot {key:?}: invalid argument")]
    Field {
        /// The path.
        path: String,
        /// The snapshot.
        key: String,
    },
}

impl HasKind for SnapshotError {
    fn kind(&self) -> Kind {
        match self {
            Self::Missing(_) | Self::NoParent(_) | Self::NoTarget(_) => Kind::NotFound,
            Self::Exists(_) | Self::Target(_) | Self::TargetInDriver(_) => Kind::AlreadyExists,
            Self::Parent { .. } | Self::Field { .. } => Kind::InvalidArgument,
            Self::Child => Kind::FailedPrecondition,
            Self::NoRebase(_) => Kind::Unimplemented,
        }
    }
}
