//! A large real image: layers unpacked in parallel onto overlay make the tree that one after the other makes of plain files.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use testkit::needs;
use testkit::registry::Registry;

use crate::place::Place;

/// What a file is, without what only its file system decides.
#[derive(Debug, PartialEq, Eq)]
struct File {
    mode: u32,
    owner: (u32, u32),
    size: u64,
    modified: (i64, i64),
    device: u64,
    link: Option<std::path::PathBuf>,
}

fn walk(root: &Path, dir: &Path, tree: &mut BTreeMap<String, File>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let found = fs::symlink_metadata(&path).unwrap();
        let file = File {
            mode: found.mode(),
            owner: (found.uid(), found.gid()),
            size: if found.is_dir() { 0 } else { found.size() },
            modified: (found.mtime(), found.mtime_nsec()),
            device: found.rdev(),
            link: fs::read_link(&path).ok(),
        };
        tree.insert(path.strip_prefix(root).unwrap().to_string_lossy().into_owned(), file);
        if found.is_dir() {
            walk(root, &path, tree);
        }
    }
}

#[test]
fn parallel_layers_make_the_tree_that_sequential_ones_make() {
    needs!(root, overlayfs, debian_mirror, program "docker-registry");
    let registry = Registry::start();
    let reference = registry.push("debian", "v1", &testkit::debian::image());
    let trees = ["overlayfs", "native"].map(|snapshotter| {
        let place = Place::in_memory();
        let mut order = place.order(&reference, snapshotter);
        order.registry.limits = image::registry::Limits::default();
        let pulled = place.run(order).unwrap();
        let mut tree = BTreeMap::new();
        place.visit(snapshotter, pulled.unpacked[0].chain_id.as_ref().unwrap(), |root| {
            walk(root, root, &mut tree);
        });
        place.assert_clean();
        tree
    });
    let [parallel, sequential] = trees;
    assert!(parallel.len() > 10_000, "{} files", parallel.len());
    for (name, file) in &sequential {
        assert_eq!(parallel.get(name), Some(file), "{name}");
    }
    assert_eq!(parallel.len(), sequential.len());
}
