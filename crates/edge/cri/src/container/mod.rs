//! Containers: create, start, stop, remove and look at them.

mod checkpoint;
mod create;
mod exec_sync;
mod list;
mod log;
mod remove;
mod start;
mod status;
mod stop;
mod update;
