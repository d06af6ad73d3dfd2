//! Volumes that an image defines: directories of the container's own, mounted where the kubelet mounts nothing.

use std::path::{Component, Path};

use ::spec::{Error, ImageConfig};
use api::runtime::v1;
use model::Result;

use super::{io_failed, new_id};

/// The most volumes that an image may define.
const MAX: usize = 256;

/// The places of volumes that the image wants and the kubelet mounts nothing at.
///
/// # Errors
/// `InvalidArgument`: a place is no path inside the container, or there are too many.
pub(super) fn wanted(image: &ImageConfig, mounts: &[v1::Mount]) -> Result<Vec<String>> {
    let volumes = &image.config.volumes;
    if volumes.len() > MAX {
        return Err(Error::invalid(format!("the image defines more than {MAX} volumes")));
    }
    let mut places = Vec::new();
    for place in volumes.keys() {
        let inside = Path::new(place).components().all(|part| !matches!(part, Component::ParentDir));
        if place.len() > 4096 || place.contains('\0') || !inside || Path::new(place).components().count() < 2
        {
            return Err(Error::invalid(format!("the image's volume {place:?} is no path in a container")));
        }
        let taken = |mount: &v1::Mount| {
            Path::new(&mount.container_path).components().eq(Path::new(place).components())
        };
        if !mounts.iter().any(taken) {
            places.push(if place.starts_with('/') { place.clone() } else { format!("/{place}") });
        }
    }
    Ok(places)
}

/// Makes a directory for each.
///
/// # Errors
/// What the disk said.
pub(super) fn make(root: &Path, places: &[String]) -> Result<Vec<v1::Mount>> {
    let mut mounts = Vec::new();
    for place in places {
        let dir = root.join(new_id()?);
        std::fs::create_dir_all(&dir)
            .map_err(|error| io_failed(format_args!("cannot make {}", dir.display()), &error))?;
        mounts.push(v1::Mount {
            container_path: place.clone(),
            host_path: dir.display().to_string(),
            selinux_relabel: true,
            ..v1::Mount::default()
        });
    }
    Ok(mounts)
}
