//! The parameters of a call, checked as CNI's library checks them before a plugin sees them.

pub use crate::cni::validate::interface_name;
use crate::cni::validate::{container_id, network_name};
use crate::cni::{Call, Command, Error, Version, code};

/// Refuses a call whose parameters are missing, malformed or dangerous.
pub fn call(command: Command, call: &Call) -> Result<(), Error> {
    if command == Command::Version {
        return Ok(());
    }
    network_name(&call.config.name)?;
    let wanted = match command {
        Command::Check => Some(Version::V0_4_0),
        Command::Status | Command::Gc => Some(Version::V1_1_0),
        Command::Add | Command::Del | Command::Version => None,
    };
    if wanted.is_some_and(|wanted| call.config.version < wanted) {
        let text = format!("config version does not allow {command}");
        return Err(Error::new(code::INCOMPATIBLE_VERSION, text));
    }
    if matches!(command, Command::Add | Command::Del | Command::Check) {
        container_id(&call.container_id)?;
        interface_name(&call.ifname)?;
        if command != Command::Del && call.netns.is_none() {
            return Err(Error::new(code::INVALID_ENVIRONMENT, "required env variables [CNI_NETNS] missing"));
        }
    }
    Ok(())
}
