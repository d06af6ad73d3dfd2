//! One call of a plugin: its command, its parameters, its configuration; and the trait of plugins in this process.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Instant;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use spec::json;

use super::{CniResult, Error, Version, code};

/// A command of `CNI_COMMAND`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Attach the container.
    Add,
    /// Detach it; succeeds when nothing is there.
    Del,
    /// Whether it is still attached as `ADD` left it.
    Check,
    /// Whether `ADD` can be served.
    Status,
    /// Free what belongs to no valid attachment.
    Gc,
    /// Which versions the plugin speaks.
    Version,
}

impl Command {
    /// The command as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Status => "STATUS",
            Self::Gc => "GC",
            Self::Version => "VERSION",
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Command {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        [Self::Add, Self::Del, Self::Check, Self::Status, Self::Gc, Self::Version]
            .into_iter()
            .find(|command| command.as_str() == text)
            .ok_or_else(|| Error::new(code::INVALID_ENVIRONMENT, format!("unknown CNI_COMMAND: {text}")))
    }
}

/// The key that names an attachment: one interface of one container.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attachment {
    /// The container (for Kubernetes the pod's sandbox).
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// The interface in it.
    pub ifname: String,
}

/// The configuration that a plugin reads from its standard input.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// Name of the network; empty only for `VERSION`.
    pub name: String,
    /// Name of the plugin.
    pub plugin: String,
    /// The version that it is written in and that the result must have.
    pub version: Version,
    /// Capabilities that the configuration turns on.
    pub capabilities: BTreeMap<String, bool>,
    /// What the plugins before this one gave, or for `DEL` and `CHECK` what `ADD` gave in the end.
    pub prev_result: Option<CniResult>,
    /// All of it, the fields above included.
    pub raw: Map<String, Value>,
}

/// The fields of every configuration.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    #[serde(default)]
    cni_version: Option<Version>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default, rename = "type")]
    plugin: Option<String>,
    #[serde(default)]
    capabilities: Option<BTreeMap<String, bool>>,
    #[serde(default)]
    prev_result: Option<Value>,
}

impl NetworkConfig {
    /// Reads a configuration.
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        let raw: Map<String, Value> = json::from_slice(text)
            .map_err(|error| Error::new(code::DECODING, format!("error parsing configuration: {error}")))?;
        Self::from_map(raw)
    }

    /// [`NetworkConfig::parse`] of an object.
    pub fn from_map(raw: Map<String, Value>) -> Result<Self, Error> {
        // The version first: of a configuration of the future nothing else is worth a word.
        let version = match json::field(&raw, "cniVersion").and_then(Value::as_str) {
            Some(text) => text.parse()?,
            None => Version::V0_1_0,
        };
        let fields: Fields = decode(&raw)?;
        let prev_result = match fields.prev_result {
            Some(value) => Some(
                CniResult::from_json(value, version)
                    .map_err(|error| error.context("could not parse prevResult"))?,
            ),
            None => None,
        };
        Ok(Self {
            name: fields.name.unwrap_or_default(),
            plugin: fields.plugin.unwrap_or_default(),
            version: fields.cni_version.unwrap_or(version),
            capabilities: fields.capabilities.unwrap_or_default(),
            prev_result,
            raw,
        })
    }

    /// The plugin's own fields.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Error> {
        decode(&self.raw)
    }

    /// What the runtime gave for the capability `name`, in `runtimeConfig`.
    pub fn runtime_config<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        match json::field(&self.raw, "runtimeConfig").and_then(|all| json::field(all.as_object()?, name)) {
            None => Ok(None),
            Some(value) => json::from_value(value)
                .map(Some)
                .map_err(|error| Error::new(code::DECODING, format!("runtimeConfig.{name}: {error}"))),
        }
    }

    /// Name of the address plugin, when the configuration has one.
    pub fn ipam(&self) -> Option<&str> {
        let section = json::field(&self.raw, "ipam")?.as_object()?;
        json::field(section, "type")?.as_str().filter(|name| !name.is_empty())
    }

    /// `GC`: the attachments that live; `None` when the caller did not say, and nothing may be freed.
    pub fn valid_attachments(&self) -> Result<Option<Vec<Attachment>>, Error> {
        // The specification says the first, its library wrote the second at first; both are sent and read.
        let keys = ["cni.dev/valid-attachments", "cni.dev/attachments"];
        match keys.into_iter().find_map(|key| json::field(&self.raw, key)) {
            None => Ok(None),
            Some(value) => json::from_value(value)
                .map(Some)
                .map_err(|error| Error::new(code::DECODING, format!("valid attachments: {error}"))),
        }
    }

    /// The configuration as it is handed to a plugin.
    pub fn to_bytes(&self) -> Vec<u8> {
        Value::Object(self.raw.clone()).to_string().into_bytes()
    }
}

fn decode<T: DeserializeOwned>(raw: &Map<String, Value>) -> Result<T, Error> {
    json::from_object(raw)
        .map_err(|error| Error::new(code::DECODING, format!("error parsing configuration: {error}")))
}

/// The parameters of one call.
#[derive(Clone, Debug)]
pub struct Call {
    /// `CNI_CONTAINERID`; empty for `STATUS`, `GC` and `VERSION`.
    pub container_id: String,
    /// `CNI_NETNS`; none when the namespace is gone, and for `STATUS`, `GC` and `VERSION`.
    pub netns: Option<PathBuf>,
    /// `CNI_IFNAME`; empty for `STATUS`, `GC` and `VERSION`.
    pub ifname: String,
    /// `CNI_ARGS`, in order.
    pub args: Vec<(String, String)>,
    /// `CNI_PATH`: where plugins are found.
    pub path: Vec<PathBuf>,
    /// Standard input.
    pub config: NetworkConfig,
    /// When the caller stops waiting.
    pub deadline: Instant,
}

impl Call {
    /// The value of the argument `name` in `CNI_ARGS`.
    pub fn arg(&self, name: &str) -> Option<&str> {
        self.args.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// A plugin that runs in this process.
pub trait Plugin: Send + Sync {
    /// Versions of the specification that it speaks.
    fn versions(&self) -> &'static [Version] {
        &Version::ALL
    }

    /// Carries out `command`, which is never [`Command::Version`]. A result is for [`Command::Add`] alone.
    ///
    /// Runs on a thread of its own, which the caller may leave behind at the deadline; the thread's namespaces are its
    /// to change.
    fn run(&self, command: Command, call: &Call) -> Result<Option<CniResult>, Error>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<NetworkConfig, Error> {
        NetworkConfig::parse(text.as_bytes())
    }

    #[test]
    fn a_configuration_keeps_what_it_does_not_know() {
        let config = config(
            r#"{"cniVersion":"1.0.0","name":"n","type":"bridge","isGateway":true,"ipam":{"type":"host-local"},
                "capabilities":{"portMappings":true},"runtimeConfig":{"mac":"00:11:22:33:44:55"},"dns":null}"#,
        )
        .unwrap();
        assert_eq!((config.name.as_str(), config.plugin.as_str()), ("n", "bridge"));
        assert_eq!(config.version, Version::V1_0_0);
        assert_eq!(config.ipam(), Some("host-local"));
        assert_eq!(config.raw["isGateway"], Value::Bool(true));
        let mac: Option<String> = config.runtime_config("mac").unwrap();
        assert_eq!(mac.as_deref(), Some("00:11:22:33:44:55"));
        assert_eq!(config.runtime_config::<String>("dns").unwrap(), None);
        assert_eq!(NetworkConfig::parse(&config.to_bytes()).unwrap().raw, config.raw);
    }

    #[test]
    fn keys_in_another_case_are_read() {
        let config = config(
            r#"{"CNIVersion":"0.4.0","Name":"n","Type":"bridge","IPAM":{"Type":"host-local"},"Capabilities":{"ips":true},
                "RuntimeConfig":{"IPs":["10.0.0.2"]},"PrevResult":{"Interfaces":[{"Name":"eth0","MAC":null}],
                "IPs":[{"Address":"10.0.0.2/24","Gateway":"10.0.0.1","Interface":0}],"Routes":null}}"#,
        )
        .unwrap();
        assert_eq!((config.name.as_str(), config.plugin.as_str()), ("n", "bridge"));
        assert_eq!((config.version, config.ipam()), (Version::V0_4_0, Some("host-local")));
        assert_eq!(config.runtime_config::<Vec<String>>("ips").unwrap().unwrap(), ["10.0.0.2"]);
        let previous = config.prev_result.unwrap();
        assert_eq!((previous.interfaces[0].name.as_str(), previous.ips[0].interface), ("eth0", Some(0)));
    }

    #[test]
    fn a_previous_result_without_version_is_of_the_configurations() {
        let text =
            r#"{"cniVersion":"0.2.0","name":"n","type":"t","prevResult":{"ip4":{"ip":"10.0.0.2/24"}}}"#;
        let previous = config(text).unwrap().prev_result.unwrap();
        assert_eq!(previous.ips[0].address.to_string(), "10.0.0.2/24");
    }

    #[test]
    fn no_list_of_valid_attachments_is_not_an_empty_one() {
        assert_eq!(config(r#"{"name":"n"}"#).unwrap().valid_attachments().unwrap(), None);
        let text = r#"{"name":"n","cni.dev/attachments":[{"containerID":"a","ifname":"eth0"}]}"#;
        let valid = config(text).unwrap().valid_attachments().unwrap().unwrap();
        assert_eq!(valid, [Attachment { container_id: "a".into(), ifname: "eth0".into() }]);
        assert_eq!(
            config(r#"{"cni.dev/valid-attachments":[]}"#).unwrap().valid_attachments().unwrap(),
            Some(vec![])
        );
    }

    #[test]
    fn what_is_wrong_has_the_specifications_code() {
        for (text, wanted) in [
            ("[]", code::DECODING),
            (r#"{"name":5}"#, code::DECODING),
            (r#"{"cniVersion":"9.0.0","name":5}"#, code::INCOMPATIBLE_VERSION),
            (r#"{"cniVersion":"1.0.0","prevResult":{"ips":[{"address":"nonsense"}]}}"#, code::DECODING),
        ] {
            assert_eq!(config(text).unwrap_err().code, wanted, "{text}");
        }
    }
}
