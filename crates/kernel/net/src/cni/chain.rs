//! A network's plugins, called one after the other.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use spec::error::{HasKind, Kind};

use super::list::{NetworkList, PluginConfig};
use super::{Attachment, Call, CallError, CniResult, Command, Error, NetworkConfig, Plugins};

/// Why a network's plugins did not do what they were asked for.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// A plugin did not.
    #[error("plugin type={plugin:?} name={network:?} failed ({verb})")]
    Plugin {
        /// The plugin.
        plugin: String,
        /// The network.
        network: String,
        /// What it was asked for.
        verb: &'static str,
        /// Why.
        source: Box<CallError>,
    },
    /// It gave no result to `ADD`.
    #[error("plugin type={plugin:?} name={network:?} gave no result")]
    NoResult {
        /// The plugin.
        plugin: String,
        /// The network.
        network: String,
    },
    /// What one plugin gave cannot be handed to the next.
    #[error("network {network:?}: the configuration of plugin type={plugin:?} cannot be made")]
    Config {
        /// The plugin.
        plugin: String,
        /// The network.
        network: String,
        /// Why.
        source: Error,
    },
}

impl HasKind for ChainError {
    fn kind(&self) -> Kind {
        match self {
            Self::Plugin { source, .. } => source.kind(),
            Self::NoResult { .. } => Kind::Unknown,
            Self::Config { source, .. } => source.kind(),
        }
    }
}

/// What a chain is run for.
#[derive(Clone, Debug)]
pub struct Runtime {
    /// The container.
    pub container_id: String,
    /// The interface.
    pub ifname: String,
    /// The namespace; none when it is gone.
    pub netns: Option<PathBuf>,
    /// `CNI_ARGS`.
    pub args: Vec<(String, String)>,
    /// Values of capabilities.
    pub capabilities: Map<String, Value>,
}

/// A network's plugins and how to call them.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a> {
    /// The network.
    pub list: &'a NetworkList,
    /// Where plugins are.
    pub plugins: &'a Plugins,
    /// Longest call of one plugin.
    pub each: Duration,
    /// When all of it is over.
    pub deadline: Instant,
}

impl Chain<'_> {
    /// Attaches: each plugin is given what the one before gave.
    pub fn add(&self, runtime: &Runtime) -> Result<CniResult, ChainError> {
        let mut previous = None;
        for entry in &self.list.plugins {
            let result = self.call(Command::Add, entry, runtime, previous.as_ref())?;
            previous = Some(result.ok_or_else(|| ChainError::NoResult {
                plugin: entry.plugin.clone(),
                network: self.list.name.clone(),
            })?);
        }
        Ok(previous.unwrap_or_default())
    }

    /// Detaches, last plugin first, until one fails: the first gives the address back, which the rules of a later one
    /// still lead to.
    pub fn del(&self, runtime: &Runtime, previous: Option<&CniResult>) -> Result<(), ChainError> {
        self.dels(runtime, previous).find(Result::is_err).unwrap_or(Ok(()))
    }

    /// Detaches, last plugin first, through every failure: for what was not attached whole, since a plugin that cannot
    /// attach may not be able to detach either.
    pub fn del_unfinished(&self, runtime: &Runtime) -> Vec<ChainError> {
        self.dels(runtime, None).filter_map(Result::err).collect()
    }

    fn dels(
        &self,
        runtime: &Runtime,
        previous: Option<&CniResult>,
    ) -> impl Iterator<Item = Result<(), ChainError>> {
        let previous = previous.filter(|_| self.list.version.has_check());
        let entries = self.list.plugins.iter().rev();
        entries.map(move |entry| self.call(Command::Del, entry, runtime, previous).map(drop))
    }

    /// Whether the attachment is as `previous` says.
    pub fn check(&self, runtime: &Runtime, previous: &CniResult) -> Result<(), ChainError> {
        if !self.list.has_check() {
            return Ok(());
        }
        for entry in &self.list.plugins {
            self.call(Command::Check, entry, runtime, Some(previous))?;
        }
        Ok(())
    }

    /// Whether attachments can be made.
    pub fn status(&self) -> Result<(), ChainError> {
        if !self.list.version.has_status() {
            return Ok(());
        }
        for entry in &self.list.plugins {
            self.call(Command::Status, entry, &Runtime::none(), None)?;
        }
        Ok(())
    }

    /// Frees what belongs to none of `valid`, through every failure.
    pub fn gc(&self, valid: &[Attachment]) -> Vec<ChainError> {
        if self.list.disable_gc || !self.list.version.has_status() {
            return Vec::new();
        }
        let mut failures = Vec::new();
        for entry in &self.list.plugins {
            let mut entry = entry.clone();
            for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
                entry.raw.insert(key.into(), json!(valid));
            }
            failures.extend(self.call(Command::Gc, &entry, &Runtime::none(), None).err());
        }
        failures
    }

    fn call(
        &self,
        command: Command,
        entry: &PluginConfig,
        runtime: &Runtime,
        previous: Option<&CniResult>,
    ) -> Result<Option<CniResult>, ChainError> {
        let (plugin, network) = (entry.plugin.clone(), self.list.name.clone());
        let config = self.list.config_for(entry, previous, &runtime.capabilities);
        let config: NetworkConfig = match config {
            Ok(config) => config,
            Err(source) => return Err(ChainError::Config { plugin, network, source }),
        };
        let call = Call {
            container_id: runtime.container_id.clone(),
            netns: runtime.netns.clone(),
            ifname: runtime.ifname.clone(),
            args: runtime.args.clone(),
            path: self.plugins.bin_dirs.clone(),
            config,
            deadline: self.deadline.min(spec::time::deadline(self.each)),
        };
        let verb = match command {
            Command::Add => "add",
            Command::Del => "delete",
            Command::Check => "check",
            Command::Status => "status",
            Command::Gc => "gc",
            Command::Version => "version",
        };
        self.plugins.call(command, &call).map_err(|source| ChainError::Plugin {
            plugin,
            network,
            verb,
            source: Box::new(source),
        })
    }
}

impl Runtime {
    /// Of a call that is about no container.
    fn none() -> Self {
        Self {
            container_id: String::new(),
            ifname: String::new(),
            netns: None,
            args: Vec::new(),
            capabilities: Map::new(),
        }
    }
}
