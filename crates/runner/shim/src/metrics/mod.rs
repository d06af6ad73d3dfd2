//! Use of resources: the runtime's figures as containerd's metrics messages of either cgroup version.

mod v1;
mod v2;

use api::{Any, encode_any};
use runtime::cgroup::{Cgroup, Stats};
use spec::error::Error;

/// The metrics of `cgroup`.
///
/// # Errors
/// The cgroup is gone.
pub fn of(cgroup: &Cgroup) -> Result<Any, Error> {
    Ok(match cgroup.stats()? {
        Stats::V1(stats) => encode_any(&v1::metrics(&stats)),
        Stats::V2(stats) => encode_any(&v2::metrics(&stats)),
    })
}
