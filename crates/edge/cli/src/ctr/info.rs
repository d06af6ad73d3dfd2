//! `ctr info`.

use serde_json::json;

use crate::client::Client;
use crate::failure::Result;
use crate::ui;

/// Flags of `ctr info`.
#[derive(clap::Args, Debug)]
pub struct Info {}

impl Info {
    /// Prints what the daemon says of itself.
    pub async fn run(self, client: &Client) -> Result {
        let info = client.introspection().server(()).await?.into_inner();
        let deprecations: Vec<_> = info
            .deprecations
            .iter()
            .map(|warning| {
                json!({"id": warning.id, "message": warning.message, "last_occurrence": ui::quantity::rfc3339(warning.last_occurrence)})
            })
            .collect();
        ui::json::print(&json!({
            "server": {"uuid": info.uuid, "pid": info.pid, "pidns": info.pidns, "deprecations": deprecations}
        }))?;
        Ok(())
    }
}
