//! The standard plugins: their configuration, their files, their rules, without their processes.
//!
//! Each keeps what containernetworking's plugin of that name keeps, where it keeps it: `host-local`'s leases, the
//! tables and comments of `portmap` and `bridge`, `tuning`'s backups. So a node changes from one to the other with its
//! pods running, and either's `DEL` removes what the other's `ADD` made.
//!
//! Called in this process through [`find`], or as a program through [`main`].
//!
//! Invariant: a plugin refuses before it has done anything whatever it can refuse.
//! Invariant: an `ADD` that fails takes back the steps that it did, and those alone.
//! Invariant: a `DEL` succeeds when there is nothing left to remove, and its namespace may be gone.

mod bandwidth;
mod bridge;
mod check;
mod config;
mod firewall;
mod hash;
mod host_local;
mod interface;
mod ipam;
mod iptables;
mod loopback;
mod main;
mod masquerade;
mod netns;
mod portmap;
mod sysctl;
mod tuning;

pub use main::main;

use crate::cni::{Call, CniResult, Command, Error, Plugin, Version, code};

/// Names of the plugins.
pub const NAMES: [&str; 7] =
    ["bandwidth", "bridge", "firewall", "host-local", "loopback", "portmap", "tuning"];

/// The plugin `name`, when it is one of ours.
pub fn find(name: &str) -> Option<&'static dyn Plugin> {
    Some(match name {
        "bandwidth" => &Standard(bandwidth::Bandwidth),
        "bridge" => &Standard(bridge::Bridge),
        "firewall" => &Standard(firewall::Firewall),
        "host-local" => &Standard(host_local::HostLocal),
        "loopback" => &Standard(loopback::Loopback),
        "portmap" => &Standard(portmap::Portmap),
        "tuning" => &Standard(tuning::Tuning),
        _ => return None,
    })
}

/// The commands of one plugin. Parameters and versions have been checked.
trait Commands: Send + Sync {
    /// The oldest version of the specification that it speaks.
    const SINCE: Version;

    /// Attaches the container.
    fn add(&self, call: &Call) -> Result<CniResult, Error>;
    /// Detaches it.
    fn del(&self, call: &Call) -> Result<(), Error>;
    /// Whether it is attached.
    fn check(&self, call: &Call) -> Result<(), Error>;
    /// Whether `add` can be served.
    fn status(&self, call: &Call) -> Result<(), Error>;
    /// Frees what belongs to no valid attachment.
    fn gc(&self, call: &Call) -> Result<(), Error>;
}

/// A plugin whose parameters are checked first.
struct Standard<T>(T);

impl<T: Commands> Plugin for Standard<T> {
    fn versions(&self) -> &'static [Version] {
        let first = Version::ALL.iter().position(|version| *version == T::SINCE).unwrap_or_default();
        VERSIONS.get(first..).unwrap_or_default()
    }

    fn run(&self, command: Command, call: &Call) -> Result<Option<CniResult>, Error> {
        check::call(command, call)?;
        if !self.versions().contains(&call.config.version) {
            return Err(Error::new(code::INCOMPATIBLE_VERSION, "incompatible CNI versions").with_details(
                format!(
                    "config is {:?}, plugin supports {:?}",
                    call.config.version.as_str(),
                    self.versions().iter().map(|version| version.as_str()).collect::<Vec<_>>()
                ),
            ));
        }
        match command {
            Command::Add => self.0.add(call).map(Some),
            Command::Del => self.0.del(call).map(|()| None),
            Command::Check => self.0.check(call).map(|()| None),
            Command::Status => self.0.status(call).map(|()| None),
            Command::Gc => self.0.gc(call).map(|()| None),
            Command::Version => Ok(None),
        }
    }
}

/// [`Version::ALL`] with an address of its own, so that parts of it can be handed out.
static VERSIONS: [Version; 7] = Version::ALL;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_and_speaks_the_newest_version() {
        for name in NAMES {
            let plugin = find(name).unwrap();
            assert_eq!(plugin.versions().last(), Some(&Version::CURRENT), "{name}");
        }
        assert!(find("ptp").is_none());
        assert_eq!(find("firewall").unwrap().versions().first(), Some(&Version::V0_4_0));
    }
}
