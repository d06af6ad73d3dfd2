//! Making a container: its spec from flags and image, its users from the image's files, its record and snapshot.

pub mod create;
pub mod flags;
pub mod network;
pub mod offer;
pub mod remap;
pub mod rootfs;
pub mod spec;
pub mod user;
