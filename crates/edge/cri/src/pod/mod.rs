//! Pods: run, stop, remove and look at them.

mod list;
mod remove;
mod run;
mod status;
mod stop;
mod update;
