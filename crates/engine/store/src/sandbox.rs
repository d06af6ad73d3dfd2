//! Sandboxes: rows that say what containers share; and pods, which are a sandbox, a container and a lease of one id.

use std::sync::Arc;
use std::time::SystemTime;

use api::containerd::events::ContainerDelete;
use model::container::{Container, Runtime};
use model::filter::Filters;
use model::mask::{self, Mask};
use model::sandbox::{Sandbox, Sandboxes};
use model::{Cx, Result};
use spec::{Error, HasKind, Kind, Labels};

use crate::core::{Change, Core};
use crate::db::{Rows, WriteTx};
use crate::{container, lease, namespace, record, table};

/// Why a sandbox's record is not as asked. Clients match on these texts.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// There is none of this id.
    #[error("sandbox {0:?}: not found")]
    Missing(String),
    /// There is one.
    #[error("sandbox {0:?}: already exists")]
    Exists(String),
    /// A field of an update may not change.
    #[error("sandbox.Runtime.Name field is immutable: invalid argument")]
    Immutable,
    /// A mask names something that cannot change.
    #[error("cannot update {path:?} field on sandbox {id:?}: invalid argument")]
    Field {
        /// The path.
        path: String,
        /// The sandbox.
        id: String,
    },
}

impl HasKind for SandboxError {
    fn kind(&self) -> Kind {
        match self {
            Self::Missing(_) => Kind::NotFound,
            Self::Exists(_) => Kind::AlreadyExists,
            Self::Immutable | Self::Field { .. } => Kind::InvalidArgument,
        }
    }
}

/// The sandboxes of a store.
pub(crate) struct SandboxStore {
    core: Arc<Core>,
}

impl SandboxStore {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }
}

impl Sandboxes for SandboxStore {
    fn get(&self, cx: &Cx<'_>, id: &str) -> Result<Sandbox> {
        let namespace = cx.namespace()?.as_str();
        self.core.read(|rows| read(rows, namespace, id))
    }

    fn list(&self, cx: &Cx<'_>, filters: &Filters) -> Result<Vec<Sandbox>> {
        let below = table::prefix(&[cx.namespace()?.as_str()])?;
        self.core.read(|rows| {
            let mut found = Vec::new();
            record::scan(rows, table::SANDBOXES, &below, &mut |key, row| {
                let sandbox = from_row(table::last(key), row);
                if filters.matches(&sandbox) {
                    found.push(sandbox);
                }
            })?;
            Ok(found)
        })
    }

    fn create(&self, cx: &Cx<'_>, sandbox: &Sandbox) -> Result<Sandbox> {
        let namespace = cx.namespace()?;
        let sandbox = fresh(sandbox)?;
        self.core.write(Change::Adds, |tx| {
            namespace::ensure(tx, namespace)?;
            insert(tx, namespace.as_str(), &sandbox)
        })?;
        Ok(sandbox)
    }

    fn update(&self, cx: &Cx<'_>, sandbox: &Sandbox, mask: &Mask) -> Result<Sandbox> {
        let namespace = cx.namespace()?.as_str();
        self.core.write_and_tell(|tx| {
            let mut updated = read(tx, namespace, &sandbox.id)?;
            let stored = updated.labels.clone();
            apply(&mut updated, sandbox, mask)?;
            check(&updated)?;
            updated.updated_at = SystemTime::now();
            let key = table::key(&[namespace, &sandbox.id])?;
            record::put(tx, table::SANDBOXES, &key, &to_row(&updated))?;
            let change = Change::of_labels(&stored, &updated.labels);
            Ok((updated, change))
        })
    }

    fn delete(&self, cx: &Cx<'_>, id: &str) -> Result<()> {
        let key = table::key(&[cx.namespace()?.as_str(), id])?;
        self.core.write(Change::Removes, |tx| {
            if tx.remove(table::SANDBOXES, &key)? {
                return Ok(());
            }
            Err(SandboxError::Missing(id.to_owned()).into())
        })
    }

    fn create_pod(&self, cx: &Cx<'_>, sandbox: &Sandbox, container: &Container) -> Result<()> {
        let namespace = cx.namespace()?;
        let sandbox = fresh(sandbox)?;
        let container = container::fresh(container)?;
        self.core.write(Change::Adds, |tx| {
            namespace::ensure(tx, namespace)?;
            insert(tx, namespace.as_str(), &sandbox)?;
            container::insert(tx, namespace.as_str(), &container)?;
            // What the container runs on may have been made under it already.
            if lease::exists(tx, namespace.as_str(), &sandbox.id)? {
                return Ok(());
            }
            lease::insert(tx, namespace.as_str(), &sandbox.id, SystemTime::now(), &Labels::new())
        })?;
        container::tell_created(&self.core, namespace, &container);
        Ok(())
    }

    fn delete_pod(&self, cx: &Cx<'_>, id: &str) -> Result<()> {
        let namespace = cx.namespace()?;
        let key = table::key(&[namespace.as_str(), id])?;
        let had_container = self.core.write(Change::Removes, |tx| {
            tx.remove(table::SANDBOXES, &key)?;
            lease::remove(tx, namespace.as_str(), id)?;
            Ok(tx.remove(table::CONTAINERS, &key)?)
        })?;
        if had_container {
            self.core.publish(namespace, "/containers/delete", &ContainerDelete { id: id.to_owned() });
        }
        Ok(())
    }
}

fn read(rows: &dyn Rows, namespace: &str, id: &str) -> Result<Sandbox, Error> {
    let key = table::key(&[namespace, id])?;
    let row: Option<record::Sandbox> = record::get(rows, table::SANDBOXES, &key)?;
    Ok(from_row(id, row.ok_or_else(|| SandboxError::Missing(id.to_owned()))?))
}

/// A sandbox as it is when it is made.
fn fresh(sandbox: &Sandbox) -> Result<Sandbox, Error> {
    check(sandbox)?;
    let now = SystemTime::now();
    let labels = mask::without_empty(&sandbox.labels);
    Ok(Sandbox { created_at: now, updated_at: now, labels, ..sandbox.clone() })
}

fn insert(tx: &WriteTx<'_>, namespace: &str, sandbox: &Sandbox) -> Result<(), Error> {
    let key = table::key(&[namespace, &sandbox.id])?;
    if tx.has(table::SANDBOXES, &key)? {
        return Err(SandboxError::Exists(sandbox.id.clone()).into());
    }
    Ok(record::put(tx, table::SANDBOXES, &key, &to_row(sandbox))?)
}

/// Changes of `stored` what `mask` names to what `wanted` has.
fn apply(stored: &mut Sandbox, wanted: &Sandbox, mask: &Mask) -> Result<(), SandboxError> {
    if mask.is_all() {
        if stored.runtime.name != wanted.runtime.name {
            return Err(SandboxError::Immutable);
        }
        return ["labels", "extensions", "spec", "runtime"]
            .iter()
            .try_for_each(|field| apply_field(stored, wanted, field));
    }
    mask.paths().try_for_each(|path| apply_field(stored, wanted, path))
}

fn apply_field(stored: &mut Sandbox, wanted: &Sandbox, path: &str) -> Result<(), SandboxError> {
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
        "extensions" => stored.extensions.clone_from(&wanted.extensions),
        "spec" => stored.spec.clone_from(&wanted.spec),
        "runtime" => stored.runtime.clone_from(&wanted.runtime),
        _ => return Err(SandboxError::Field { path: path.to_owned(), id: stored.id.clone() }),
    }
    Ok(())
}

fn check(sandbox: &Sandbox) -> Result<(), Error> {
    let failed = |error: Error| error.context("failed to validate sandbox: invalid sandbox ID");
    spec::name::check_identifier(&sandbox.id).map_err(|error| failed(error.into()))?;
    spec::label::check_all(&sandbox.labels).map_err(|error| error.context("failed to validate sandbox"))
}

fn to_row(sandbox: &Sandbox) -> record::Sandbox {
    record::Sandbox {
        created: sandbox.created_at.into(),
        updated: sandbox.updated_at.into(),
        labels: sandbox.labels.clone(),
        runtime: sandbox.runtime.name.clone(),
        runtime_options: sandbox.runtime.options.as_ref().map(Into::into),
        spec: sandbox.spec.as_ref().map(Into::into),
        sandboxer: sandbox.sandboxer.clone(),
        extensions: sandbox.extensions.iter().map(|(name, any)| (name.clone(), any.into())).collect(),
    }
}

fn from_row(id: &str, row: record::Sandbox) -> Sandbox {
    Sandbox {
        id: id.to_owned(),
        runtime: Runtime { name: row.runtime, options: row.runtime_options.map(Into::into) },
        spec: row.spec.map(Into::into),
        sandboxer: row.sandboxer,
        labels: row.labels,
        extensions: row.extensions.into_iter().map(|(name, any)| (name, any.into())).collect(),
        created_at: row.created.into(),
        updated_at: row.updated.into(),
    }
}
