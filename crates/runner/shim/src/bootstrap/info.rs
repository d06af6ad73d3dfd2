//! `-info` and `-v`: what this shim is and what its runtime can do.

use std::io::Read;

use api::containerd::types::{RuntimeInfo, RuntimeRequest, RuntimeVersion};
use api::{Any, Message};
use spec::error::Error;
use spec::version::REVISION;

use super::VERSION;
use crate::service::logs::CAPABILITY;
use crate::{driver, options};

/// The most that is read from standard input.
const MAX_INPUT: u64 = 10 << 20;

/// The type name under which Go's typeurl knows the features document.
const FEATURES_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// The text of `-v`.
///
/// # Errors
/// None; the type is that of the other actions.
pub fn version() -> Result<Vec<u8>, Error> {
    let text = format!("containerd-shim-runc-v2:\n  Version:  {VERSION}\n  Revision: {REVISION}\n\n");
    Ok(text.into_bytes())
}

/// Answers a `RuntimeRequest`, or bare options, on standard input with a binary `RuntimeInfo`.
///
/// # Errors
/// The input is neither, or its options are not runc's.
pub fn info(input: &mut dyn Read) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    input
        .take(MAX_INPUT)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::internal(format!("failed to read stdin: {error}")))?;
    let given = requested_options(&bytes)?;
    let options = options::decode(given.as_ref())?;
    let features = match driver::features(&options) {
        Ok(json) => Some(Any { type_url: FEATURES_TYPE.into(), value: json }),
        // Old runtimes have no such command; the daemon lists them without features.
        Err(_) => None,
    };
    let info = RuntimeInfo {
        name: "io.containerd.runc.v2".into(),
        version: Some(RuntimeVersion { version: VERSION.into(), revision: REVISION.into() }),
        options: given,
        features,
        annotations: [(CAPABILITY.to_owned(), "1".to_owned())].into(),
    };
    Ok(info.encode_to_vec())
}

/// The options: containerd writes them as an `Any`, and newer clients inside a request.
fn requested_options(bytes: &[u8]) -> Result<Option<Any>, Error> {
    if bytes.is_empty() {
        return Ok(None);
    }
    if let Ok(any) = Any::decode(bytes)
        && any.type_url.ends_with("Options")
    {
        return Ok(Some(any));
    }
    RuntimeRequest::decode(bytes)
        .map(|request| request.options)
        .map_err(|error| Error::invalid(format_args!("runtime request: {error}")))
}
