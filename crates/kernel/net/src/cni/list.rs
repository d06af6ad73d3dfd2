//! A network's configuration: a list of plugins that are called one after the other.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};
use spec::error::{HasKind, Kind};
use spec::json;

use super::{CniResult, Error, NetworkConfig, Version, code, file, validate};

/// Most plugins of one network.
const MOST_PLUGINS: usize = 64;

/// Why a configuration is none.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file, or the directory of its plugins, cannot be read.
    #[error("cannot read it")]
    Read(#[source] io::Error),
    /// Not JSON, or not an object.
    #[error("error parsing configuration list")]
    Json(#[source] serde_json::Error),
    /// A field is of the wrong type or missing.
    #[error("error parsing configuration list: {field}: {wanted}")]
    Field {
        /// Which.
        field: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
    /// A plugin's configuration in the list or in its directory is wrong.
    #[error("failed to parse plugin config {plugin}")]
    Plugin {
        /// Its place in the list or the name of its file.
        plugin: String,
        /// Why.
        source: Error,
    },
    /// The version or the name is wrong.
    #[error("error parsing configuration list")]
    Invalid(#[source] Error),
    /// There is nothing to call.
    #[error("no plugins in list")]
    NoPlugins,
}

impl HasKind for ConfigError {
    fn kind(&self) -> Kind {
        match self {
            Self::Read(source) => Kind::from_errno(source.raw_os_error().unwrap_or(0)),
            Self::Json(_) | Self::Field { .. } | Self::Plugin { .. } | Self::Invalid(_) | Self::NoPlugins => {
                Kind::FailedPrecondition
            }
        }
    }
}

/// One plugin of a network.
#[derive(Clone, Debug)]
pub struct PluginConfig {
    /// Its name.
    pub plugin: String,
    /// Capabilities that it is given when the pod has them.
    pub capabilities: BTreeMap<String, bool>,
    /// Its configuration as it was written.
    pub raw: Map<String, Value>,
}

/// A network: its name and its plugins.
#[derive(Clone, Debug)]
pub struct NetworkList {
    /// Its name.
    pub name: String,
    /// The version that it is run with.
    pub version: Version,
    /// `CHECK` is not to be called.
    pub disable_check: bool,
    /// `GC` is not to be called.
    pub disable_gc: bool,
    /// The plugins, in the order of `ADD`.
    pub plugins: Vec<PluginConfig>,
    /// The configuration as it was written.
    pub source: String,
    /// The plugins in the list are all.
    only_inlined: bool,
    /// Whether plugins came from a directory of their own, which `source` does not show.
    scattered: bool,
}

impl NetworkList {
    /// Reads the file `path`: a list when it ends in `.conflist`, a single plugin otherwise.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let bytes = file::read(path).map_err(ConfigError::Read)?;
        if path.extension().is_none_or(|extension| extension != "conflist") {
            return Self::of_single(&bytes);
        }
        let mut list = Self::parse_part(&bytes)?;
        if !list.only_inlined {
            list.take_scattered(path)?;
        }
        list.filled()
    }

    /// Reads a list that stands alone.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        Self::parse_part(bytes)?.filled()
    }

    /// Reads the configuration of one plugin, which is its network's only one.
    pub fn of_single(bytes: &[u8]) -> Result<Self, ConfigError> {
        let raw: Map<String, Value> = json::from_slice(bytes).map_err(ConfigError::Json)?;
        let entry = PluginConfig::of("0".into(), raw.clone())?;
        let own = |name| json::field(&raw, name).and_then(Value::as_str).unwrap_or_default();
        let (name, version) = (own("name"), own("cniVersion"));
        let mut list = Map::new();
        list.insert("cniVersion".into(), version.into());
        list.insert("name".into(), name.into());
        list.insert("plugins".into(), vec![Value::Object(entry.raw)].into());
        Self::parse(Value::Object(list).to_string().as_bytes())
    }

    fn parse_part(bytes: &[u8]) -> Result<Self, ConfigError> {
        let raw: Map<String, Value> = json::from_slice(bytes).map_err(ConfigError::Json)?;
        let name = text(&raw, "name")?;
        validate::network_name(name).map_err(ConfigError::Invalid)?;
        let mut list = Self {
            name: name.to_owned(),
            version: negotiate(&raw)?,
            disable_check: flag(&raw, "disableCheck")?,
            disable_gc: flag(&raw, "disableGC")?,
            plugins: Vec::new(),
            source: String::from_utf8_lossy(bytes).into_owned(),
            only_inlined: flag(&raw, "loadOnlyInlinedPlugins")?,
            scattered: false,
        };
        let entries = match raw.get("plugins") {
            None if list.only_inlined => {
                return Err(ConfigError::Field {
                    field: "plugins",
                    wanted: "`loadOnlyInlinedPlugins` is true, and no 'plugins' key",
                });
            }
            None => return Ok(list),
            Some(Value::Array(entries)) if entries.is_empty() => return Err(ConfigError::NoPlugins),
            Some(Value::Array(entries)) if entries.len() <= MOST_PLUGINS => entries,
            Some(_) => {
                return Err(ConfigError::Field {
                    field: "plugins",
                    wanted: "must be an array of at most 64",
                });
            }
        };
        for (index, entry) in entries.iter().enumerate() {
            let Value::Object(entry) = entry else {
                return Err(ConfigError::Field { field: "plugins", wanted: "must hold objects" });
            };
            list.plugins.push(PluginConfig::of(index.to_string(), entry.clone())?);
        }
        Ok(list)
    }

    /// Adds the plugins of the directory beside the file `path` that is called after the network.
    fn take_scattered(&mut self, path: &Path) -> Result<(), ConfigError> {
        let dir = path.with_file_name(&self.name);
        for path in files(&dir, &["conf"]).map_err(ConfigError::Read)? {
            let plugin = path.display().to_string();
            let bytes = file::read(&path).map_err(ConfigError::Read)?;
            let raw = json::from_slice(&bytes).map_err(ConfigError::Json)?;
            self.plugins.push(PluginConfig::of(plugin, raw)?);
            self.scattered = true;
            if self.plugins.len() > MOST_PLUGINS {
                return Err(ConfigError::Field { field: "plugins", wanted: "must be at most 64" });
            }
        }
        Ok(())
    }

    fn filled(self) -> Result<Self, ConfigError> {
        if self.plugins.is_empty() { Err(ConfigError::NoPlugins) } else { Ok(self) }
    }

    /// The whole configuration in one text, from which [`NetworkList::parse`] gives the same network.
    pub fn to_text(&self) -> String {
        let Ok(mut raw) = serde_json::from_str::<Map<String, Value>>(&self.source) else {
            return self.source.clone();
        };
        if !self.scattered {
            return self.source.clone();
        }
        let plugins: Vec<_> = self.plugins.iter().map(|entry| Value::Object(entry.raw.clone())).collect();
        raw.insert("plugins".into(), plugins.into());
        raw.insert("loadOnlyInlinedPlugins".into(), true.into());
        Value::Object(raw).to_string()
    }

    /// Whether `CHECK` is called: its version has it, and nobody forbade it.
    pub fn has_check(&self) -> bool {
        self.version.has_check() && !self.disable_check
    }

    /// What the plugin `entry` of this network is given on its standard input.
    ///
    /// Of `capabilities` (what the pod has) it sees those that its own configuration turns on.
    pub fn config_for(
        &self,
        entry: &PluginConfig,
        previous: Option<&CniResult>,
        capabilities: &Map<String, Value>,
    ) -> Result<NetworkConfig, Error> {
        let mut raw = entry.raw.clone();
        raw.insert("cniVersion".into(), self.version.as_str().into());
        raw.insert("name".into(), self.name.as_str().into());
        if let Some(previous) = previous {
            raw.insert("prevResult".into(), previous.to_json(self.version)?);
        }
        let given: Map<String, Value> = capabilities
            .iter()
            .filter(|(name, _)| entry.capabilities.get(*name).copied().unwrap_or(false))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if !given.is_empty() {
            raw.insert("runtimeConfig".into(), Value::Object(given));
        }
        Ok(NetworkConfig {
            name: self.name.clone(),
            plugin: entry.plugin.clone(),
            version: self.version,
            capabilities: entry.capabilities.clone(),
            prev_result: previous.cloned(),
            raw,
        })
    }
}

/// The fields of a plugin's configuration that its caller reads.
#[derive(Deserialize)]
struct Fields {
    #[serde(default, rename = "type")]
    plugin: String,
    #[serde(default)]
    capabilities: BTreeMap<String, bool>,
}

impl PluginConfig {
    fn of(place: String, raw: Map<String, Value>) -> Result<Self, ConfigError> {
        let failed = |source| ConfigError::Plugin { plugin: place.clone(), source };
        let Fields { plugin, capabilities } =
            json::from_object(&raw).map_err(|error| failed(Error::new(code::DECODING, error.to_string())))?;
        validate::plugin_name(&plugin).map_err(failed)?;
        Ok(Self { plugin, capabilities, raw })
    }
}

/// Files of `dir` with one of `extensions`, in lexical order; none when there is no such directory.
pub fn files(dir: &Path, extensions: &[&str]) -> io::Result<Vec<std::path::PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        let fits = path.extension().and_then(|extension| extension.to_str());
        if fits.is_some_and(|extension| extensions.contains(&extension)) && !entry.file_type()?.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The newest version of `cniVersions` and `cniVersion` that is spoken here.
fn negotiate(raw: &Map<String, Value>) -> Result<Version, ConfigError> {
    let single = text(raw, "cniVersion")?;
    let Some(several) = raw.get("cniVersions") else { return single.parse().map_err(ConfigError::Invalid) };
    let wanted = ConfigError::Field { field: "cniVersions", wanted: "must be an array of versions" };
    let Value::Array(several) = several else { return Err(wanted) };
    let mut best: Option<Version> = None;
    for version in several {
        let Some(version) = version.as_str() else { return Err(wanted) };
        if !is_version(version) {
            return Err(wanted);
        }
        // Versions of the future are somebody else's; an empty list leaves the single one.
        best = best.max(version.parse().ok());
    }
    let own = raw.contains_key("cniVersion").then(|| single.parse().ok()).flatten();
    match best.max(own) {
        Some(version) => Ok(version),
        None => single.parse().map_err(ConfigError::Invalid),
    }
}

/// One to three numbers with dots between.
fn is_version(text: &str) -> bool {
    text.split('.').count() <= 3
        && text.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

fn text<'a>(raw: &'a Map<String, Value>, field: &'static str) -> Result<&'a str, ConfigError> {
    match raw.get(field) {
        None => Ok(""),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(ConfigError::Field { field, wanted: "must be a string" }),
    }
}

/// A boolean, which may be written as a string.
fn flag(raw: &Map<String, Value>, field: &'static str) -> Result<bool, ConfigError> {
    match raw.get(field) {
        None => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(_) => Err(ConfigError::Field { field, wanted: "must be true or false" }),
    }
}

#[cfg(test)]
#[path = "list_tests.rs"]
mod tests;
