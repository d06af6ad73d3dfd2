//! Pods: run, stop, remove and look at them.

mod files;
mod handler;
mod list;
mod remove;
mod run;
mod status;
mod stop;
mod update;

pub use files::Files;
