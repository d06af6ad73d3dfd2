//! `containerd-shim-runc-v2`.

fn main() {}
