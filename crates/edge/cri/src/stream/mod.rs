//! Streams: exec, attach and port-forward.

mod attach;
mod exec;
mod port_forward;
