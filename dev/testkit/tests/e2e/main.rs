//! End to end: our programs as a person or another program uses them, against real registries and Go's own clients.

mod harness;
