//! What is thrown at: seeds, a step that makes inputs plausible again, and one run with its promises.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use model::Ctx;
use model::diff::{Apply, Differ as _};
use model::filter::{Fields, Filters};
use model::snapshot::Mount;
use snapshot::{Limits, Walking};
use spec::image::{ImageConfig, Index, Manifest};
use testkit::image::{Build, Image, Layer};
use testkit::tar::{Archive, Entry};

use crate::mutate::Random;

/// Every target.
pub const NAMES: [&str; 4] = ["tar", "manifest", "filter", "hosts"];

/// Makes an input plausible again after it was changed.
type Mend = fn(&mut Random, &mut [u8]);

/// Reads an input and tells the outcome.
type Read = dyn FnMut(&[u8]) -> String;

/// Something that reads what others wrote.
pub struct Target {
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Runs before each input, most of the time.
    pub mend: Mend,
    /// Panics when a promise is broken.
    pub run: Box<Read>,
}

/// The target of that name.
pub fn open(name: &str) -> Option<Target> {
    let nothing: Mend = |_, _| {};
    match name {
        "tar" => Some(Target { seeds: layers, mend: sum_up, run: Box::new(tar()) }),
        "manifest" => Some(Target { seeds: documents, mend: nothing, run: Box::new(manifest) }),
        "filter" => Some(Target { seeds: filters, mend: nothing, run: Box::new(filter) }),
        "hosts" => Some(Target { seeds: hosts_files, mend: nothing, run: Box::new(hosts) }),
        _ => None,
    }
}

/// Applies layers to a tree beside a file that must stay as it is.
fn tar() -> impl FnMut(&[u8]) -> String {
    let dir = testkit::place::temp();
    let store = store::Store::open(store::Config {
        root: dir.path().join("store"),
        sharing: store::Sharing::Shared,
        snapshotters: BTreeMap::new(),
        events: model::event::Exchange::default(),
    })
    .expect("open a store for the differ");
    let small =
        Limits { free_bytes: 32 << 20, most_bytes: 64 << 20, most_entries: 10_000, ..Limits::default() };
    let differ = Walking::new(store.content()).with_temporary(dir.path().join("tmp")).with_limits(small);
    let differ = Arc::new(differ);
    let (jail, tree) = (dir.path().join("jail"), dir.path().join("jail/tree"));
    fs::create_dir_all(&jail).expect("make the jail");
    fs::write(jail.join("canary"), "alive").expect("write the canary");
    move |bytes| {
        let _ = (&dir, &store);
        let _ = fs::remove_dir_all(&tree);
        fs::create_dir(&tree).expect("make the tree");
        let mount = Mount {
            kind: "bind".into(),
            source: tree.display().to_string(),
            target: String::new(),
            options: vec!["rw".into(), "rbind".into()],
        };
        let media_type = "application/vnd.oci.image.layer.v1.tar";
        let mut layer = bytes;
        let outcome = Ctx::background().on_this_thread(|cx| {
            differ.apply_stream(cx, media_type, &mut layer, &[mount], &Apply::default())
        });
        assert_eq!(
            fs::read_to_string(jail.join("canary")).ok().as_deref(),
            Some("alive"),
            "the canary lives"
        );
        let names: Vec<_> =
            fs::read_dir(&jail).expect("list the jail").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(names.len(), 2, "nothing came beside the tree: {names:?}");
        match outcome {
            Ok(applied) => format!("applied {}", applied.size),
            Err(error) => error.to_string(),
        }
    }
}

/// Makes the checksums of headers right again, so that what is behind them is reached; now and then it does not.
fn sum_up(random: &mut Random, input: &mut [u8]) {
    if random.below(8) == 0 {
        return;
    }
    for block in input.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
        block[148..156].fill(b' ');
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
}

fn layers() -> Vec<Vec<u8>> {
    let long = "d/".repeat(80);
    vec![
        Archive::new().dir("a/", 0o755).file("a/b", 0o644, b"text").symlink("a/c", "../..").finish(),
        Archive::new()
            .file("x", 0o4755, &[1; 1500])
            .hardlink("y", "x", 0o644)
            .char_device("z", 0o600, 1, 3)
            .finish_bare(),
        Archive::new().dir("d/", 0o700).whiteout("d/gone").opaque("d").fifo("d/f", 0o644).finish(),
        Archive::new().symlink("door", "/tmp").file("door/x", 0o644, b"x").whiteout("door/y").finish(),
        Archive::new().file(&format!("{long}f"), 0o644, b"deep").symlink("l", &long).finish(),
        Archive::new()
            .entry(&Entry {
                xattrs: &[
                    ("user.a", b"1"),
                    ("security.capability", b"\x01\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
                ],
                pax: &[("mtime", "1.5"), ("uid", "70000"), ("GNU.sparse.major", "1")],
                ..Entry::new(b'0', "tagged")
            })
            .entry(&Entry { link: "x", ..Entry::new(b'L', "././@LongLink") })
            .finish(),
        Archive::new()
            .entry(&Entry {
                pax: &[("GNU.sparse.map", "0,2,9,2"), ("GNU.sparse.size", "20")],
                data: b"text",
                ..Entry::new(b'0', "listed")
            })
            .entry(&Entry {
                pax: &[("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "600")],
                data: &[&b"1\n500\n4\n"[..], &[0; 503], b"text"].concat(),
                ..Entry::new(b'0', "lined")
            })
            .finish(),
        Vec::new(),
    ]
}

/// Reads a document as each of the three that a registry serves, and writes back what it understood.
fn manifest(bytes: &[u8]) -> String {
    let text = |result: Result<String, serde_json::Error>| result.unwrap_or_else(|error| error.to_string());
    let manifest = spec::json::from_slice::<Manifest>(bytes);
    if let Ok(manifest) = &manifest {
        let again = serde_json::to_vec(manifest).expect("what was read can be written");
        spec::json::from_slice::<Manifest>(&again).expect("and read again");
    }
    let outcomes = [
        text(manifest.map(|manifest| format!("manifest of {} layers", manifest.layers.len()))),
        text(
            spec::json::from_slice::<Index>(bytes).map(|index| format!("index of {}", index.manifests.len())),
        ),
        text(spec::json::from_slice::<ImageConfig>(bytes).map(|_| "config".to_owned())),
    ];
    let name = std::str::from_utf8(bytes).unwrap_or_default();
    if let Ok(reference) = name.parse::<spec::Reference>() {
        let again: spec::Reference = reference.to_string().parse().expect("a reference can be read back");
        assert_eq!(again, reference, "and is the same");
    }
    outcomes.join("; ")
}

fn documents() -> Vec<Vec<u8>> {
    let image = Build::new().layer(Layer::plain(Archive::new().finish())).cmd(&["sh"]).build();
    let index = Image::index(vec![image.clone()]);
    let mut seeds: Vec<_> = index.manifests.into_iter().map(|blob| blob.bytes).collect();
    seeds.extend(image.blobs.last().map(|blob| blob.bytes.clone()));
    seeds.push(b"docker.io/library/busybox:latest".to_vec());
    seeds.push(
        b"localhost:5000/a/b@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
            .to_vec(),
    );
    seeds
}

/// A record with the fields that filters name.
struct Record;

impl Fields for Record {
    fn field(&self, path: &[&str]) -> Option<&str> {
        match path {
            ["name"] => Some("docker.io/library/busybox:latest"),
            ["labels", "a.b/c"] => Some("d"),
            ["target", "digest"] => Some("sha256:0"),
            _ => None,
        }
    }
}

/// Parses a filter and asks it about a record.
fn filter(bytes: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(bytes) else { return "no text".into() };
    match Filters::parse(&[text]) {
        Ok(filters) => format!("passes: {}", filters.matches(&Record)),
        Err(error) => error.to_string(),
    }
}

fn filters() -> Vec<Vec<u8>> {
    [
        "name==busybox",
        "labels.\"a.b/c\"==d,name~=/^docker/",
        "target.digest!=\"x\\\"y\"",
        "name~=|a(b|c)*|",
        "labels",
        "",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// Parses a hosts.toml; an error names a line.
fn hosts(bytes: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(bytes) else { return "no text".into() };
    match image::registry::hosts::parse(text) {
        Ok(hosts) => format!("{} mirrors", hosts.mirrors.len()),
        Err(error) => error.to_string(),
    }
}

fn hosts_files() -> Vec<Vec<u8>> {
    [
        "server = \"https://registry.example\"\n[host.\"https://mirror.example\"]\n  capabilities = [\"pull\", \"resolve\"]\n",
        "[host.\"http://10.0.0.7:5000/v2/x\"]\n  override_path = true\n  skip_verify = true\n  dial_timeout = \"5s\"\n",
        "ca = \"a.pem\"\nclient = [[\"a\", \"b\"], [\"c\", \"\"]]\n[header]\n  x = [\"1\", \"2\"]\n",
        "[host.mirror]\n",
        "",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
