//! Configuration and previous results, as every plugin reads them.

use serde::de::DeserializeOwned;
use serde_json::Value;
use spec::json;

use crate::cni::{Call, CniResult, Error, code};

/// The plugin's own fields.
pub fn decode<T: DeserializeOwned>(call: &Call) -> Result<T, Error> {
    json::from_object(&call.config.raw)
        .map_err(|error| Error::new(code::DECODING, format!("failed to load netconf: {error}")))
}

/// What the plugins before gave; a chained plugin cannot do without.
pub fn previous(call: &Call) -> Result<CniResult, Error> {
    call.config
        .prev_result
        .clone()
        .ok_or_else(|| Error::config("must be called as chained plugin: missing prevResult"))
}

/// The text at `args.cni.KEY`.
pub fn cni_arg<'a>(call: &'a Call, key: &str) -> Option<&'a Value> {
    let args = json::field(&call.config.raw, "args")?.as_object()?;
    json::field(json::field(args, "cni")?.as_object()?, key)
}

/// The hardware address asked for: by the capability, else by `args.cni`, else by `CNI_ARGS`.
pub fn wanted_mac(call: &Call) -> Result<Option<String>, Error> {
    if let Some(mac) = call.config.runtime_config::<String>("mac")?.filter(|mac| !mac.is_empty()) {
        return Ok(Some(mac));
    }
    let named = cni_arg(call, "mac").and_then(Value::as_str).filter(|mac| !mac.is_empty());
    Ok(named.or_else(|| call.arg("MAC").filter(|mac| !mac.is_empty())).map(str::to_owned))
}
