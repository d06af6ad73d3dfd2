//! Containers, for real: the `runc` of this workspace with busybox root file systems on this machine's kernel.
#![allow(clippy::unwrap_used)] // a test that cannot go on says where

mod bundle;
mod command_line;
mod escape;
mod failure;
mod hooks;
mod isolation;
mod joining;
mod life;
mod mounts;
mod old_kernel;
mod profile;
mod program;
mod racing;
mod rootless;
mod systemd;
mod terminal;
