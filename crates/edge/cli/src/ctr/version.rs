//! `ctr version`.

use crate::client::Client;
use crate::failure::Result;
use crate::ui;

/// Flags of `ctr version`.
#[derive(clap::Args, Debug)]
pub struct Version {}

impl Version {
    /// Prints both versions.
    pub async fn run(self, client: &Client) -> Result {
        let own = spec::version::VERSION;
        ui::line("Client:")?;
        ui::line(format!("  Version:  {own}"))?;
        ui::line(format!("  Revision: {}", super::REVISION))?;
        ui::line("")?;
        let server = client.version().version(()).await?.into_inner();
        let info = client.introspection().server(()).await?.into_inner();
        ui::line("Server:")?;
        ui::line(format!("  Version:  {}", server.version))?;
        ui::line(format!("  Revision: {}", server.revision))?;
        ui::line(format!("  UUID: {}", info.uuid))?;
        if server.version != own {
            ui::say("WARNING: version mismatch");
        }
        Ok(())
    }
}
