//! Which cgroup driver the kubelet must use: the one that its pods are made with.

use std::path::Path;

use api::runtime::v1::CgroupDriver;

use crate::config::{Handler, Runtime};

/// The shim whose options say which driver it uses.
const RUNC: &str = "io.containerd.runc.v2";

/// The driver of the first handler that has one: the default handler, else the first of the others by name. Only where
/// none says anything does it depend on `systemd`, whether that manages the host's cgroups.
pub(super) fn of(runtime: &Runtime, systemd: bool) -> CgroupDriver {
    let default = runtime.runtimes.get(&runtime.default_runtime_name);
    let handlers = default.into_iter().chain(runtime.runtimes.values());
    let by_systemd = handlers.filter(|handler| is_runc(handler)).map(|handler| handler.systemd_cgroup).next();
    match by_systemd.unwrap_or(systemd) {
        true => CgroupDriver::Systemd,
        false => CgroupDriver::Cgroupfs,
    }
}

/// Whether a handler's shim takes runc's options; without any it uses cgroupfs.
fn is_runc(handler: &Handler) -> bool {
    handler.runtime_type == RUNC
}

/// Whether systemd is the first process here (`sd_booted(3)`).
pub(super) fn systemd_runs() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

#[cfg(test)]
mod tests {
    use super::CgroupDriver::{Cgroupfs, Systemd};
    use super::*;

    fn runtime(handlers: &[(&str, &str, bool)]) -> Runtime {
        let handler = |(name, kind, systemd_cgroup): &(&str, &str, bool)| {
            let handler = Handler {
                runtime_type: (*kind).to_owned(),
                systemd_cgroup: *systemd_cgroup,
                ..Handler::default()
            };
            ((*name).to_owned(), handler)
        };
        Runtime { runtimes: handlers.iter().map(handler).collect(), ..Runtime::default() }
    }

    #[test]
    fn what_pods_are_made_with_decides_and_the_host_only_where_nothing_does() {
        let kata = "io.containerd.kata.v2";
        type Case<'a> = (&'a [(&'a str, &'a str, bool)], CgroupDriver, CgroupDriver);
        let cases: [Case<'_>; 6] = [
            (&[("runc", RUNC, false)], Cgroupfs, Cgroupfs),
            (&[("runc", RUNC, true)], Systemd, Systemd),
            (&[("a", RUNC, true), ("runc", RUNC, false)], Cgroupfs, Cgroupfs),
            // The default handler says nothing: the first of the others that does.
            (
                &[("a", kata, false), ("b", RUNC, true), ("c", RUNC, false), ("runc", kata, false)],
                Systemd,
                Systemd,
            ),
            (&[("runc", kata, false)], Cgroupfs, Systemd),
            (&[], Cgroupfs, Systemd),
        ];
        for (handlers, without, with) in cases {
            let runtime = runtime(handlers);
            assert_eq!((of(&runtime, false), of(&runtime, true)), (without, with), "{handlers:?}");
        }
        assert_eq!(of(&Runtime::default(), true), Cgroupfs, "the default configuration");
    }
}
