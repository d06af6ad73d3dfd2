//! `containerd recover`: makes lost records again, while no daemon runs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use model::container::{Container, Runtime};
use model::event::Exchange;
use model::snapshot::Snapshotter;
use model::{Any, Result};
use snapshot::{Native, Overlay};
use spec::{Kind, Labels};
use store::recover::{Bundle, LEASE, Recovered};
use store::{Sharing, Store};

use crate::config::Settings;
use crate::daemon::{native_root, overlay_config};
use crate::lock::Lock;

/// The directory of all bundles, below the state directory.
const TASKS: &str = "io.containerd.runtime.v2.task";
/// The type of a container's runtime spec.
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
/// The runtime of a bundle: which one it was, only its record said.
const RUNTIME: &str = "io.containerd.runc.v2";
/// The longest spec that is read, in bytes.
const MAX_SPEC: u64 = 16 << 20;

/// Recovers, and tells what was done.
///
/// # Errors
/// A daemon runs, or a store or a driver does not open.
pub fn run(settings: &Settings) -> Result<String> {
    let _lock = Lock::take(&settings.root)?;
    let mut text = String::new();
    let config = overlay_config(settings);
    let records = config.root.join("metadata.redb");
    let overlay = Arc::new(open(&mut text, &records, || Overlay::open(config.clone()))?);
    let root = native_root(settings);
    let native = Arc::new(open(&mut text, &root.join("metadata.redb"), || Native::open(&root))?);
    let drivers: BTreeMap<String, Arc<dyn Snapshotter>> = BTreeMap::from([
        ("overlayfs".to_owned(), Arc::<Overlay>::clone(&overlay) as _),
        ("native".to_owned(), Arc::<Native>::clone(&native) as _),
    ]);
    let config = store::Config {
        root: settings.root.clone(),
        sharing: if settings.isolated { Sharing::Isolated } else { Sharing::Shared },
        snapshotters: drivers,
        events: Exchange::default(),
    };
    let records = settings.root.join("io.containerd.metadata.v1.bolt/meta.redb");
    let store = open(&mut text, &records, || Store::open(config.clone()))?;
    let notices = [store.restored(), overlay.origin().notice(), native.origin().notice()];
    for notice in notices.into_iter().flatten() {
        line(&mut text, &notice);
    }
    let done = store.recover(&bundles(&settings.state.join(TASKS)))?;
    tell(&mut text, &done);
    for path in overlay.set_aside()?.into_iter().chain(native.set_aside()?) {
        line(&mut text, &format!("set aside, for you to look at and to delete: {}", path.display()));
    }
    if text.is_empty() {
        line(&mut text, "nothing to recover");
    }
    Ok(text)
}

/// Opens what has its records in `database`; one that is damaged and has no second copy is set aside first.
fn open<T>(text: &mut String, database: &Path, open: impl Fn() -> Result<T>) -> Result<T> {
    let error = match open() {
        Err(error) if error.kind() == Kind::DataLoss => error,
        done => return done,
    };
    let aside = database.with_extension("redb.damaged");
    if fs::rename(database, &aside).is_err() {
        return Err(error);
    }
    line(text, &format!("{error}; set aside as {}", aside.display()));
    open()
}

fn line(text: &mut String, words: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{words}");
}

fn tell(text: &mut String, done: &Recovered) {
    for (driver, lost) in &done.lost_snapshots {
        for key in lost {
            line(
                text,
                &format!(
                    "snapshotter {driver}: the record of lost snapshot {key} is dropped; pull its image again"
                ),
            );
        }
    }
    for digest in &done.lost_blobs {
        line(text, &format!("blob {digest} is damaged or missing; pull its image again"));
    }
    if done.snapshots + done.blobs > 0 {
        line(
            text,
            &format!(
                "recorded again: {} snapshots, {} blobs; lease {LEASE:?} of each namespace holds them until you delete it",
                done.snapshots, done.blobs
            ),
        );
    }
    for container in &done.containers {
        line(text, &format!("recorded again from its bundle: container {container}"));
    }
    for left in &done.left {
        line(text, &format!("left as it is: {left}"));
    }
}

/// The bundles that a container's record can be made of.
fn bundles(tasks: &Path) -> Vec<Bundle> {
    let mut found = Vec::new();
    for (namespace, path) in entries(tasks) {
        let Ok(namespace) = namespace.parse::<spec::Namespace>() else { continue };
        for (id, path) in entries(&path) {
            let Some(spec) = spec(&path.join("config.json")) else { continue };
            let container = container(id, spec);
            found.push(Bundle { namespace: namespace.clone(), container });
        }
    }
    found
}

/// Visible entries of a directory; none when it is not there.
fn entries(dir: &Path) -> Vec<(String, std::path::PathBuf)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())));
    named.filter(|(name, _)| !name.starts_with('.')).collect()
}

/// A spec that is JSON.
fn spec(path: &Path) -> Option<Vec<u8>> {
    let length = fs::metadata(path).ok()?.len();
    let bytes = if length <= MAX_SPEC { fs::read(path).ok()? } else { return None };
    serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&bytes).is_ok().then_some(bytes)
}

fn container(id: String, spec: Vec<u8>) -> Container {
    Container {
        id,
        labels: Labels::new(),
        image: String::new(),
        runtime: Runtime { name: RUNTIME.to_owned(), options: None },
        spec: Some(Any { type_url: SPEC_TYPE.to_owned(), value: spec }),
        snapshotter: String::new(),
        snapshot_key: String::new(),
        sandbox_id: String::new(),
        extensions: BTreeMap::new(),
        created_at: UNIX_EPOCH,
        updated_at: UNIX_EPOCH,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_bundles_become_containers() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("default/one/config.json", "{\"ociVersion\":\"1.2.0\"}");
        write("default/cut/config.json", "{\"oci");
        write("default/.gone/config.json", "{}");
        write("default/empty/work", "");
        write("odd name!/one/config.json", "{}");
        let found = bundles(dir.path());
        let names: Vec<_> =
            found.iter().map(|one| (one.namespace.as_str(), one.container.id.as_str())).collect();
        assert_eq!(names, [("default", "one")]);
        assert!(bundles(&dir.path().join("absent")).is_empty());
    }
}
