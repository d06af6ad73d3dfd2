//! Compiles `proto/` into Rust messages with protox, so that a fresh machine needs no `protoc`.

use std::io;
use std::path::{Path, PathBuf};

fn main() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let mut files = Vec::new();
    collect(&root, &mut files)?;
    files.sort();
    let set = protox::compile(&files, [&root]).map_err(io::Error::other)?;
    let mut config = prost_build::Config::new();
    config.btree_map(["."]);
    config.enable_type_names();
    // Records and the verbose answers of CRI are JSON.
    config.type_attribute(".runtime.v1", "#[derive(serde::Serialize, serde::Deserialize)]");
    config.message_attribute(".runtime.v1", "#[serde(default)]");
    config.include_file("api.rs");
    config.compile_fds(set)
}

/// Finds every `.proto` file below `dir`.
fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|ext| ext == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
