//! Pods' networks: namespaces, the CNI library and the standard plugins.
//!
//! Everything here blocks and takes a deadline; callers on an async runtime cross `model`'s bridge first.

pub mod cni;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod plugin;
