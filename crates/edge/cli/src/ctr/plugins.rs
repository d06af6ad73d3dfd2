//! `ctr plugins`.

use api::containerd::services::introspection::v1 as wire;
use api::containerd::types::{Platform, RuntimeInfo, RuntimeRequest};
use clap::Subcommand;
use serde_json::json;

use super::args;
use crate::client::Client;
use crate::failure::{Failure, Result};
use crate::ui::{self, Table};

/// The group's commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Lists containerd plugins
    #[command(visible_alias = "ls")]
    List {
        /// Print only the plugin ids
        #[arg(long, short)]
        quiet: bool,
        /// Print detailed information about each plugin
        #[arg(long, short)]
        detailed: bool,
        /// Filters
        filters: Vec<String>,
    },
    /// Display runtime info
    InspectRuntime {
        #[command(flatten)]
        runtime: args::Runtime,
    },
}

impl Command {
    /// Runs the command.
    pub async fn run(self, client: &Client) -> Result {
        match self {
            Self::List { quiet, detailed, filters } => {
                let request = wire::PluginsRequest { filters };
                let plugins = client.introspection().plugins(request).await?.into_inner().plugins;
                if quiet {
                    plugins.iter().try_for_each(|plugin| ui::line(&plugin.id))?;
                    return Ok(());
                }
                if detailed { details(&plugins) } else { list(&plugins) }
            }
            Self::InspectRuntime { runtime } => inspect(client, &runtime).await,
        }
    }
}

fn list(plugins: &[wire::Plugin]) -> Result {
    let mut table = Table::wide(["TYPE", "ID", "PLATFORMS", "STATUS"]);
    for plugin in plugins {
        let status = match &plugin.init_err {
            None => "ok",
            Some(error) if error.message.contains("skip plugin") => "skip",
            Some(_) => "error",
        };
        table.row([plugin.r#type.clone(), plugin.id.clone(), platforms(&plugin.platforms), status.into()]);
    }
    Ok(table.print()?)
}

fn details(plugins: &[wire::Plugin]) -> Result {
    for (index, plugin) in plugins.iter().enumerate() {
        if index > 0 {
            ui::line("")?;
        }
        ui::line(format!("Type:          {}", plugin.r#type))?;
        ui::line(format!("ID:            {}", plugin.id))?;
        if !plugin.requires.is_empty() {
            ui::line("Requires:")?;
            plugin.requires.iter().try_for_each(|required| ui::line(format!("               {required}")))?;
        }
        if !plugin.platforms.is_empty() {
            ui::line(format!("Platforms:     {}", platforms(&plugin.platforms)))?;
        }
        if !plugin.exports.is_empty() {
            ui::line("Exports:")?;
            let mut exports = plugin.exports.iter();
            exports.try_for_each(|(key, value)| ui::line(format!("               {key}      {value}")))?;
        }
        if !plugin.capabilities.is_empty() {
            ui::line(format!("Capabilities:  {}", plugin.capabilities.join(",")))?;
        }
        if let Some(error) = &plugin.init_err {
            ui::line("Error:")?;
            ui::line(format!("               Code:        {}", tonic::Code::from(error.code)))?;
            ui::line(format!("               Message:     {}", error.message))?;
        }
    }
    Ok(())
}

fn platforms(platforms: &[Platform]) -> String {
    if platforms.is_empty() {
        return "-".into();
    }
    let texts: Vec<_> = platforms
        .iter()
        .map(|p| {
            [&p.os, &p.architecture, &p.variant]
                .into_iter()
                .filter(|part| !part.is_empty())
                .cloned()
                .collect::<Vec<_>>()
                .join("/")
        })
        .collect();
    texts.join(",")
}

async fn inspect(client: &Client, runtime: &args::Runtime) -> Result {
    let request = RuntimeRequest { runtime_path: runtime.runtime.clone(), options: runtime.options()? };
    let request = wire::PluginInfoRequest {
        r#type: "io.containerd.runtime.v2".into(),
        id: "task".into(),
        options: Some(api::encode_any(&request)),
    };
    let response = client.introspection().plugin_info(request).await?.into_inner();
    let extra = response.extra.ok_or_else(|| Failure::new("the daemon said nothing about the runtime"))?;
    let info = api::decode_any::<RuntimeInfo>(&extra)
        .map_err(|error| Failure::new(error.to_string()))?
        .ok_or_else(|| Failure::new(format!("unexpected answer of type {}", extra.type_url)))?;
    let features =
        info.features.map(|any| serde_json::from_slice::<serde_json::Value>(&any.value).unwrap_or_default());
    let version = info.version.unwrap_or_default();
    ui::json::print(&json!({
        "Name": info.name,
        "Version": {"Version": version.version, "Revision": version.revision},
        "Options": info.options.map(|any| json!({"type_url": any.type_url})),
        "Features": features,
        "Annotations": info.annotations,
    }))?;
    Ok(())
}
