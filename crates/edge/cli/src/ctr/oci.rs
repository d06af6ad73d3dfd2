//! `ctr oci`.

use clap::Subcommand;
use spec::Platform;

use super::Global;
use crate::failure::{Failure, Result};
use crate::ui;

/// The group's commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// See the output of the default OCI spec
    Spec {
        /// Platform of the spec to print (Examples: 'linux/arm64')
        #[arg(long)]
        platform: Option<String>,
    },
}

impl Command {
    /// Runs the command; no daemon is asked.
    pub async fn run(self, global: &Global) -> Result {
        let Self::Spec { platform } = self;
        if let Some(text) = platform {
            let platform: Platform = text.parse().map_err(spec::Error::from)?;
            if platform.os != "linux" {
                return Err(Failure::new(format!("no default spec for {platform}: only linux is supported")));
            }
        }
        let spec = spec::runtime::default_unix_spec(&global.namespace, "");
        Ok(ui::json::print(&spec)?)
    }
}
