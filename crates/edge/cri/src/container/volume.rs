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
        let mut parts = Path::new(place).components();
        let inside = parts.clone().all(|part| !matches!(part, Component::ParentDir));
        let named = parts.any(|part| matches!(part, Component::Normal(_)));
        if place.len() > 4096 || place.contains('\0') || !inside || !named {
            return Err(Error::invalid(format!("the image's volume {place:?} is no path in a container")));
        }
        // A relative one is below the root, as containerd has it.
        let place = if place.starts_with('/') { place.clone() } else { format!("/{place}") };
        let taken = |mount: &v1::Mount| {
            Path::new(&mount.container_path).components().eq(Path::new(&place).components())
        };
        if !mounts.iter().any(taken) {
            places.push(place);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn wants(places: &[&str], mounted: &[&str]) -> Result<Vec<String>> {
        let mut image = ImageConfig::default();
        image.config.volumes = places.iter().map(|&place| (place.to_owned(), Default::default())).collect();
        let mount = |path: &&str| v1::Mount { container_path: (*path).into(), ..v1::Mount::default() };
        wanted(&image, &mounted.iter().map(mount).collect::<Vec<_>>())
    }

    #[test]
    fn a_volume_is_a_place_below_the_root_where_nothing_else_is_mounted() {
        assert_eq!(wants(&["/data", "logs", "/a/./b/"], &[]).unwrap(), ["/a/./b/", "/data", "/logs"]);
        assert_eq!(wants(&["/data", "logs", "/a/./b/"], &["/a/b", "/data/", "/logs"]).unwrap(), [""; 0]);
        let long = "/x".repeat(3000);
        for place in ["", "/", ".", "/.", "..", "/a/../b", "a\0b", &long] {
            assert!(wants(&[place], &[]).is_err(), "{place:?}");
        }
    }
}
