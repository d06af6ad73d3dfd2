//! Generates tonic clients and servers for the gRPC services of `proto/`; the messages are those of the `api` crate.

use std::io;
use std::path::Path;

/// Services that travel over gRPC; the shim's travel over ttrpc.
const SERVICES: &[&str] = &[
    "containers",
    "content",
    "diff",
    "events",
    "images",
    "introspection",
    "leases",
    "mounts",
    "namespaces",
    "sandbox",
    "snapshots",
    "streaming",
    "tasks",
    "transfer",
    "version",
];

fn main() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let mut files: Vec<_> =
        SERVICES.iter().map(|name| root.join(format!("containerd/services/{name}/v1.proto"))).collect();
    files.push(root.join("runtime/v1.proto"));
    let set = protox::compile(&files, [&root]).map_err(io::Error::other)?;
    let mut builder = tonic_prost_build::configure().include_file("grpc.rs");
    for package in set.file.iter().filter_map(|file| file.package.as_deref()) {
        if !package.starts_with("google.protobuf") {
            builder =
                builder.extern_path(format!(".{package}"), format!("::api::{}", package.replace('.', "::")));
        }
    }
    builder.compile_fds(set)
}
