//! Containers: rows that say how to make a task.

use std::sync::Arc;
use std::time::SystemTime;

use api::containerd::events::container_create;
use api::containerd::events::{ContainerCreate, ContainerDelete, ContainerUpdate};
use model::container::{Container, Containers, Runtime};
use model::filter::Filters;
use model::mask::{self, Mask};
use model::{Cx, Result};
use spec::{Error, HasKind, Kind, Namespace};

use crate::core::{Change, Core};
use crate::db::{Rows, WriteTx};
use crate::{namespace, record, table};

/// Why a container's record is not as asked. Clients match on these texts.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// There is none of this id.
    #[error("container {id:?} in namespace {namespace:?}: not found")]
    Missing {
        /// The id.
        id: String,
        /// Where it was looked for.
        namespace: String,
    },
    /// There is one.
    #[error("container {0:?}: already exists")]
    Exists(String),
    /// A field that must not be empty is.
    #[error("{0} must be set: invalid argument")]
    Unset(&'static str),
    /// A field of an update may not change.
    #[error("{0} field is immutable: invalid argument")]
    Immutable(&'static str),
    /// A snapshot key without the snapshotter that knows it.
    #[error("container.Snapshotter must be set if container.SnapshotKey is set: invalid argument")]
    Snapshotter,
    /// An extension has no name.
    #[error("container.Extension keys must not be zero-length: invalid argument")]
    Extension,
    /// A mask names something that cannot change.
    #[error("cannot update {path:?} field on {id:?}: invalid argument")]
    Field {
        /// The path.
        path: String,
        /// The container.
        id: String,
    },
}

impl HasKind for ContainerError {
    fn kind(&self) -> Kind {
        match self {
            Self::Missing { .. } => Kind::NotFound,
            Self::Exists(_) => Kind::AlreadyExists,
            Self::Unset(_)
            | Self::Immutable(_)
            | Self::Snapshotter
            | Self::Extension
            | Self::Field { .. } => Kind::InvalidArgument,
        }
    }
}

/// The containers of a store.
pub(crate) struct ContainerStore {
    core: Arc<Core>,
}

impl ContainerStore {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }
}

impl Containers for ContainerStore {
    fn get(&self, cx: &Cx<'_>, id: &str) -> Result<Container> {
        let namespace = cx.namespace()?.as_str();
        self.core.read(|rows| read(rows, namespace, id))
    }

    fn list(&self, cx: &Cx<'_>, filters: &Filters) -> Result<Vec<Container>> {
        let below = table::prefix(&[cx.namespace()?.as_str()])?;
        self.core.read(|rows| {
            let mut found = Vec::new();
            record::scan(rows, table::CONTAINERS, &below, &mut |key, row| {
                let container = from_row(table::last(key), row);
                if filters.matches(&container) {
                    found.push(container);
                }
            })?;
            Ok(found)
        })
    }

    fn create(&self, cx: &Cx<'_>, container: &Container) -> Result<Container> {
        let namespace = cx.namespace()?;
        let container = fresh(container)?;
        self.core.write(Change::Adds, |tx| {
            namespace::ensure(tx, namespace)?;
            insert(tx, namespace.as_str(), &container)
        })?;
        tell_created(&self.core, namespace, &container);
        Ok(container)
    }

    fn update(&self, cx: &Cx<'_>, container: &Container, mask: &Mask) -> Result<Container> {
        let namespace = cx.namespace()?;
        if container.id.is_empty() {
            return Err(Error::invalid("must specify a container id"));
        }
        let key = table::key(&[namespace.as_str(), &container.id])?;
        let updated = self.core.write_and_tell(|tx| {
            let stored = read(tx, namespace.as_str(), &container.id)?;
            let mut updated = stored.clone();
            apply(&mut updated, container, mask)?;
            check(&updated).map_err(|error| error.context("update failed validation"))?;
            updated.updated_at = SystemTime::now();
            record::put(tx, table::CONTAINERS, &key, &to_row(&updated))?;
            let change = Change::of_labels(&stored.labels, &updated.labels)
                .or_removes(stored.snapshot_key != updated.snapshot_key);
            Ok((updated, change))
        })?;
        let event = ContainerUpdate {
            id: updated.id.clone(),
            image: updated.image.clone(),
            labels: updated.labels.clone(),
            snapshot_key: updated.snapshot_key.clone(),
        };
        self.core.publish(namespace, "/containers/update", &event);
        Ok(updated)
    }

    fn delete(&self, cx: &Cx<'_>, id: &str) -> Result<()> {
        let namespace = cx.namespace()?;
        let key = table::key(&[namespace.as_str(), id])?;
        self.core.write(Change::Removes, |tx| {
            if tx.remove(table::CONTAINERS, &key)? {
                return Ok(());
            }
            Err(missing(namespace.as_str(), id).into())
        })?;
        self.core.publish(namespace, "/containers/delete", &ContainerDelete { id: id.to_owned() });
        Ok(())
    }
}

/// A container as it is when it is made.
pub(crate) fn fresh(container: &Container) -> Result<Container, Error> {
    check(container).map_err(|error| error.context("create container failed validation"))?;
    let now = SystemTime::now();
    let labels = mask::without_empty(&container.labels);
    Ok(Container { created_at: now, updated_at: now, labels, ..container.clone() })
}

/// Writes the row of a new container.
pub(crate) fn insert(tx: &WriteTx<'_>, namespace: &str, container: &Container) -> Result<(), Error> {
    let key = table::key(&[namespace, &container.id])?;
    if tx.has(table::CONTAINERS, &key)? {
        return Err(ContainerError::Exists(container.id.clone()).into());
    }
    Ok(record::put(tx, table::CONTAINERS, &key, &to_row(container))?)
}

/// Tells that `container` was made.
pub(crate) fn tell_created(core: &Core, namespace: &Namespace, container: &Container) {
    let runtime = &container.runtime;
    let options = runtime.options.clone();
    let event = ContainerCreate {
        id: container.id.clone(),
        image: container.image.clone(),
        runtime: Some(container_create::Runtime {
            name: runtime.name.clone(),
            options: options.map(|any| api::Any { type_url: any.type_url, value: any.value }),
        }),
    };
    core.publish(namespace, "/containers/create", &event);
}

fn missing(namespace: &str, id: &str) -> ContainerError {
    ContainerError::Missing { id: id.to_owned(), namespace: namespace.to_owned() }
}

fn read(rows: &dyn Rows, namespace: &str, id: &str) -> Result<Container, Error> {
    let key = table::key(&[namespace, id])?;
    let row: Option<record::Container> = record::get(rows, table::CONTAINERS, &key)?;
    Ok(from_row(id, row.ok_or_else(|| missing(namespace, id))?))
}

/// Changes of `stored` what `mask` names to what `wanted` has.
fn apply(stored: &mut Container, wanted: &Container, mask: &Mask) -> Result<(), ContainerError> {
    if mask.is_all() {
        if stored.snapshotter != wanted.snapshotter {
            return Err(ContainerError::Immutable("container.Snapshotter"));
        }
        if stored.runtime.name != wanted.runtime.name {
            return Err(ContainerError::Immutable("container.Runtime.Name"));
        }
        for field in ["labels", "spec", "extensions", "image", "snapshotkey"] {
            apply_field(stored, wanted, field)?;
        }
        return Ok(());
    }
    mask.paths().try_for_each(|path| apply_field(stored, wanted, path))
}

fn apply_field(stored: &mut Container, wanted: &Container, path: &str) -> Result<(), ContainerError> {
    if let Some(key) = path.strip_prefix("labels.") {
        mask::set_label(&mut stored.labels, &wanted.labels, key);
        return Ok(());
    }
    if let Some(key) = path.strip_prefix("extensions.") {
        match wanted.extensions.get(key) {
            Some(any) => stored.extensions.insert(key.to_owned(), any.clone()),
            None => stored.extensions.remove(key),
        };
        return Ok(());
    }
    match path {
        "labels" => stored.labels = mask::without_empty(&wanted.labels),
        "spec" => stored.spec.clone_from(&wanted.spec),
        "extensions" => stored.extensions.clone_from(&wanted.extensions),
        "image" => stored.image.clone_from(&wanted.image),
        "snapshotkey" => stored.snapshot_key.clone_from(&wanted.snapshot_key),
        _ => return Err(ContainerError::Field { path: path.to_owned(), id: stored.id.clone() }),
    }
    Ok(())
}

fn check(container: &Container) -> Result<(), Error> {
    spec::name::check_identifier(&container.id)
        .map_err(|error| Error::from(error).context("container.ID"))?;
    if container.extensions.contains_key("") {
        return Err(ContainerError::Extension.into());
    }
    spec::label::check_all(&container.labels).map_err(|error| error.context("containers.Labels"))?;
    if container.runtime.name.is_empty() {
        return Err(ContainerError::Unset("container.Runtime.Name").into());
    }
    if container.spec.is_none() {
        return Err(ContainerError::Unset("container.Spec").into());
    }
    if !container.snapshot_key.is_empty() && container.snapshotter.is_empty() {
        return Err(ContainerError::Snapshotter.into());
    }
    Ok(())
}

fn to_row(container: &Container) -> record::Container {
    record::Container {
        created: container.created_at.into(),
        updated: container.updated_at.into(),
        labels: container.labels.clone(),
        image: container.image.clone(),
        runtime: container.runtime.name.clone(),
        runtime_options: container.runtime.options.as_ref().map(Into::into),
        spec: container.spec.as_ref().map(Into::into),
        snapshotter: container.snapshotter.clone(),
        snapshot_key: container.snapshot_key.clone(),
        sandbox_id: container.sandbox_id.clone(),
        extensions: container.extensions.iter().map(|(name, any)| (name.clone(), any.into())).collect(),
    }
}

fn from_row(id: &str, row: record::Container) -> Container {
    Container {
        id: id.to_owned(),
        labels: row.labels,
        image: row.image,
        runtime: Runtime { name: row.runtime, options: row.runtime_options.map(Into::into) },
        spec: row.spec.map(Into::into),
        snapshotter: row.snapshotter,
        snapshot_key: row.snapshot_key,
        sandbox_id: row.sandbox_id,
        extensions: row.extensions.into_iter().map(|(name, any)| (name, any.into())).collect(),
        created_at: row.created.into(),
        updated_at: row.updated.into(),
    }
}
