//! Images: rows that name a descriptor.

use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use api::containerd::services::images::v1::{ImageCreate, ImageDelete, ImageUpdate};
use model::filter::Filters;
use model::image::{Delete, Image, Images};
use model::mask::{self, Mask};
use model::{Cx, Result};
use spec::{Descriptor, Digest, Error, HasKind, Kind};

use crate::core::{Change, Core};
use crate::db::{Rows, WriteTx};
use crate::{lease, namespace, record, table};

/// Why an image is not as asked. Clients match on these texts.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// There is none of this name.
    #[error("image {0:?}: not found")]
    Missing(String),
    /// There is one.
    #[error("image {0:?}: already exists")]
    Exists(String),
    /// The name is empty.
    #[error("image name must not be empty: invalid argument")]
    Name,
    /// The name is empty, in an update.
    #[error("image name is required for update: invalid argument")]
    UpdateName,
    /// The target has no bytes.
    #[error("target.Size must be greater than zero: invalid argument")]
    Size,
    /// The target has no type.
    #[error("target.MediaType must be set: invalid argument")]
    MediaType,
    /// A mask names something that no image has.
    #[error("cannot update {path:?} field on image {name:?}: invalid argument")]
    Field {
        /// The path.
        path: String,
        /// The image.
        name: String,
    },
    /// It names something else than the caller thinks.
    #[error("image {name:?} has target {found}, not {wanted}: not found")]
    Target {
        /// The image.
        name: String,
        /// What it names.
        found: Digest,
        /// What the caller thinks.
        wanted: Digest,
    },
    /// Its row names no digest.
    #[error("image {name:?} has the target {digest:?}, which is no digest")]
    Damaged {
        /// The image.
        name: String,
        /// What the row says.
        digest: String,
    },
}

impl HasKind for ImageError {
    fn kind(&self) -> Kind {
        match self {
            Self::Missing(_) | Self::Target { .. } => Kind::NotFound,
            Self::Exists(_) => Kind::AlreadyExists,
            Self::Name | Self::UpdateName | Self::Size | Self::MediaType | Self::Field { .. } => {
                Kind::InvalidArgument
            }
            Self::Damaged { .. } => Kind::DataLoss,
        }
    }
}

/// The images of a store.
pub(crate) struct ImageStore {
    core: Arc<Core>,
}

impl ImageStore {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }
}

impl Images for ImageStore {
    fn get(&self, cx: &Cx<'_>, name: &str) -> Result<Image> {
        let key = table::key(&[cx.namespace()?.as_str(), name])?;
        self.core.read(|rows| read(rows, &key, name))
    }

    fn list(&self, cx: &Cx<'_>, filters: &Filters) -> Result<Vec<Image>> {
        let below = table::prefix(&[cx.namespace()?.as_str()])?;
        self.core.read(|rows| {
            let mut found = Vec::new();
            record::scan(rows, table::IMAGES, &below, &mut |key, row| {
                found.push(from_row(table::last(key), row));
            })?;
            let images: Vec<Image> = found.into_iter().collect::<Result<_, _>>()?;
            Ok(images.into_iter().filter(|image| filters.matches(image)).collect())
        })
    }

    fn create(&self, cx: &Cx<'_>, image: &Image, epoch: Option<SystemTime>) -> Result<Image> {
        let namespace = cx.namespace()?;
        check(image)?;
        let now = epoch.unwrap_or_else(SystemTime::now);
        let labels = mask::without_empty(&image.labels);
        let image = Image { created_at: now, updated_at: now, labels, ..image.clone() };
        let key = table::key(&[namespace.as_str(), &image.name])?;
        self.core.write(Change::Adds, |tx| {
            namespace::ensure(tx, namespace)?;
            hold(tx, cx, &image)?;
            if tx.has(table::IMAGES, &key)? {
                return Err(ImageError::Exists(image.name.clone()).into());
            }
            Ok(record::put(tx, table::IMAGES, &key, &to_row(&image))?)
        })?;
        let event = ImageCreate { name: image.name.clone(), labels: image.labels.clone() };
        self.core.publish(namespace, "/images/create", &event);
        Ok(image)
    }

    fn update(&self, cx: &Cx<'_>, image: &Image, mask: &Mask, epoch: Option<SystemTime>) -> Result<Image> {
        let namespace = cx.namespace()?;
        if image.name.is_empty() {
            return Err(ImageError::UpdateName.into());
        }
        let key = table::key(&[namespace.as_str(), &image.name])?;
        let updated = self.core.write_and_tell(|tx| {
            let stored = read(tx, &key, &image.name)?;
            let mut updated = stored.clone();
            apply(&mut updated, image, mask)?;
            check(&updated)?;
            hold(tx, cx, &updated)?;
            updated.updated_at = epoch.unwrap_or_else(SystemTime::now);
            record::put(tx, table::IMAGES, &key, &to_row(&updated))?;
            let change = Change::of_labels(&stored.labels, &updated.labels)
                .or_removes(stored.target.digest != updated.target.digest);
            Ok((updated, change))
        })?;
        let event = ImageUpdate { name: updated.name.clone(), labels: updated.labels.clone() };
        self.core.publish(namespace, "/images/update", &event);
        Ok(updated)
    }

    fn delete(&self, cx: &Cx<'_>, name: &str, delete: &Delete) -> Result<()> {
        let namespace = cx.namespace()?;
        let key = table::key(&[namespace.as_str(), name])?;
        self.core.write(Change::Removes, |tx| {
            if let Some(target) = &delete.target {
                let found = read(tx, &key, name)?.target.digest;
                if found != target.digest {
                    let wanted = target.digest.clone();
                    return Err(ImageError::Target { name: name.to_owned(), found, wanted }.into());
                }
            }
            if !tx.remove(table::IMAGES, &key)? {
                return Err(ImageError::Missing(name.to_owned()).into());
            }
            lease::release(tx, cx, lease::IMAGES, name)
        })?;
        let event = ImageDelete { name: name.to_owned() };
        self.core.publish(namespace, "/images/delete", &event);
        Ok(())
    }
}

/// The image in the row `key`.
fn read(rows: &dyn Rows, key: &[u8], name: &str) -> Result<Image, Error> {
    let row: Option<record::Image> = record::get(rows, table::IMAGES, key)?;
    let row = row.ok_or_else(|| ImageError::Missing(name.to_owned()))?;
    Ok(from_row(name, row)?)
}

/// An image is a root; only one that expires needs its lease.
fn hold(tx: &WriteTx<'_>, cx: &Cx<'_>, image: &Image) -> Result<(), Error> {
    if image.labels.contains_key(spec::label::GC_EXPIRE) {
        lease::hold(tx, cx, lease::IMAGES, &image.name)?;
    }
    Ok(())
}

/// Changes of `stored` what `mask` names to what `wanted` has.
fn apply(stored: &mut Image, wanted: &Image, mask: &Mask) -> Result<(), ImageError> {
    if mask.is_all() {
        stored.labels = mask::without_empty(&wanted.labels);
        stored.target = wanted.target.clone();
        return Ok(());
    }
    for path in mask.paths() {
        if let Some(key) = path.strip_prefix("labels.") {
            mask::set_label(&mut stored.labels, &wanted.labels, key);
            continue;
        }
        if let Some(key) = path.strip_prefix("annotations.") {
            mask::set_label(&mut stored.target.annotations, &wanted.target.annotations, key);
            continue;
        }
        match path {
            "labels" => stored.labels = mask::without_empty(&wanted.labels),
            "annotations" => stored.target.annotations.clone_from(&wanted.target.annotations),
            "target" => stored.target = wanted.target.clone(),
            _ => {
                return Err(ImageError::Field { path: path.to_owned(), name: stored.name.clone() });
            }
        }
    }
    Ok(())
}

fn check(image: &Image) -> Result<(), Error> {
    if image.name.is_empty() {
        return Err(ImageError::Name.into());
    }
    spec::label::check_all(&image.labels).map_err(|error| error.context("image.Labels"))?;
    if image.target.size == 0 {
        return Err(ImageError::Size.into());
    }
    if image.target.media_type.is_empty() {
        return Err(ImageError::MediaType.into());
    }
    Ok(())
}

fn to_row(image: &Image) -> record::Image {
    record::Image {
        created: image.created_at.into(),
        updated: image.updated_at.into(),
        labels: image.labels.clone(),
        media_type: image.target.media_type.clone(),
        digest: image.target.digest.to_string(),
        size: image.target.size,
        annotations: image.target.annotations.clone(),
    }
}

fn from_row(name: &str, row: record::Image) -> Result<Image, ImageError> {
    let Ok(digest) = Digest::from_str(&row.digest) else {
        return Err(ImageError::Damaged { name: name.to_owned(), digest: row.digest });
    };
    let mut target = Descriptor::new(row.media_type, digest, row.size);
    target.annotations = row.annotations;
    Ok(Image {
        name: name.to_owned(),
        labels: row.labels,
        target,
        created_at: row.created.into(),
        updated_at: row.updated.into(),
    })
}
