//! What pods and containers use.

mod container;
mod metrics;
mod pod;
