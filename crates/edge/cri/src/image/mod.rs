//! Images: pull, remove and look at them.

mod fs_info;
mod list;
mod pull;
mod remove;
mod status;
