//! What the daemon tells the `start` action, and in which form it wants the answer.
//!
//! containerd 2.3 writes a binary `BootstrapParams` to standard input and reads a binary `BootstrapResult`. Daemons
//! before it pass flags and environment, perhaps runc's options as an `Any`, and read a JSON object (2.0 to 2.2) or a
//! bare address line (1.x).

use std::io::Read;
use std::path::PathBuf;

use api::containerd::runc::v1::Options;
use api::containerd::runtime::bootstrap::v1::{BootstrapParams, BootstrapResult};
use api::{Any, Message, decode_any};
use serde::Serialize;
use spec::error::{Error, Kind};

use crate::args::Args;
use crate::options;
use crate::service::logs::CAPABILITY;

/// The most that is read from standard input, as containerd's own shim.
const MAX_INPUT: u64 = 10 << 20;

/// The socket directory of a daemon that does not name one.
const DEFAULT_SOCKET_DIR: &str = "/run/containerd/s";

/// The word of the reply that says whether the `start` action itself goes on to serve: a daemon that has executed a
/// sealed view of this program, and says so by [`STAY`], saves a process.
pub const IN_PLACE: &str = "berth.in-place";
/// The variable of the environment by which a daemon asks for it. It then waits for the end of the reply, not of the
/// process.
pub const STAY: &str = "BERTH_SHIM_STAY";

/// Where the shim serves that `start` tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serves {
    /// In another process.
    Apart,
    /// In this one.
    InPlace,
}

impl Serves {
    /// The value of [`IN_PLACE`].
    pub fn word(self) -> &'static str {
        match self {
            Self::Apart => "can",
            Self::InPlace => "does",
        }
    }
}

/// How the daemon wants to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A binary `BootstrapResult` (containerd 2.3).
    Binary,
    /// A JSON object (containerd 2.0 to 2.2).
    Json,
    /// The address alone (containerd 1.x).
    Line,
}

/// What `start` was told, whichever way.
#[derive(Debug)]
pub struct Params {
    /// The id of the first container or pod.
    pub id: String,
    /// The containerd namespace.
    pub namespace: String,
    /// The daemon's gRPC socket; part of the shim's own address.
    pub grpc_address: String,
    /// Where events go.
    pub ttrpc_address: String,
    /// Where the shim's socket is made.
    pub socket_dir: PathBuf,
    /// Whether the daemon named that directory.
    pub names_socket_dir: bool,
    /// Whether to log more.
    pub debug: bool,
    /// runc's options, if given.
    pub options: Options,
    /// How to answer.
    pub reply: Reply,
    /// Whether this process may go on to serve.
    pub may_stay: bool,
}

/// What the environment adds for daemons that send no parameters, or leave some out.
#[derive(Debug, Default)]
pub struct Environment {
    /// `TTRPC_ADDRESS`.
    pub ttrpc_address: String,
    /// `GRPC_ADDRESS`.
    pub grpc_address: String,
    /// `MAX_SHIM_VERSION`, when it is a number.
    pub max_version: Option<u32>,
    /// Whether there is [`STAY`].
    pub stay: bool,
}

impl Environment {
    /// Reads the process's own.
    pub fn current() -> Self {
        let get = |name| std::env::var(name).unwrap_or_default();
        Self {
            ttrpc_address: get("TTRPC_ADDRESS"),
            grpc_address: get("GRPC_ADDRESS"),
            max_version: get("MAX_SHIM_VERSION").parse().ok(),
            stay: !get(STAY).is_empty(),
        }
    }
}

impl Params {
    /// Reads everything a daemon says.
    ///
    /// # Errors
    /// Standard input cannot be read or is longer than any daemon's.
    pub fn read(args: &Args, environment: Environment, input: &mut dyn Read) -> Result<Self, Error> {
        let mut bytes = Vec::new();
        let count = input
            .take(MAX_INPUT + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| Error::internal(format!("failed to read stdin: {error}")))?;
        if count as u64 > MAX_INPUT {
            return Err(Error::worded(Kind::ResourceExhausted, "bootstrap parameters"));
        }
        match BootstrapParams::decode(bytes.as_slice()) {
            // An Any with options also decodes as parameters: its type name lands in the id.
            Ok(params) if params.instance_id == args.id && params.namespace == args.namespace => {
                Self::from_message(params, args, environment)
            }
            _ => Self::from_flags(&bytes, args, environment),
        }
    }

    fn from_message(params: BootstrapParams, args: &Args, environment: Environment) -> Result<Self, Error> {
        let mut options = Options::default();
        for value in params.extensions.iter().filter_map(|extension| extension.value.as_ref()) {
            if let Ok(Some(found)) = decode_any::<Options>(value) {
                options = found;
            }
        }
        let named = params.socket_dir.filter(|dir| !dir.is_empty());
        let flag = args.address.clone();
        Ok(Self {
            id: params.instance_id,
            namespace: params.namespace,
            grpc_address: first([params.containerd_grpc_address, flag, environment.grpc_address]),
            ttrpc_address: first([params.containerd_ttrpc_address, environment.ttrpc_address]),
            names_socket_dir: named.is_some(),
            socket_dir: named.unwrap_or_else(|| DEFAULT_SOCKET_DIR.into()).into(),
            debug: args.debug || params.log_level <= -4,
            options,
            reply: Reply::Binary,
            may_stay: environment.stay,
        })
    }

    fn from_flags(input: &[u8], args: &Args, environment: Environment) -> Result<Self, Error> {
        let options = match Any::decode(input) {
            Ok(any) => options::decode(Some(&any)).unwrap_or_default(),
            Err(_) => Options::default(),
        };
        let grpc_address = first([args.address.clone(), environment.grpc_address]);
        Ok(Self {
            id: args.id.clone(),
            namespace: args.namespace.clone(),
            grpc_address,
            ttrpc_address: environment.ttrpc_address,
            socket_dir: DEFAULT_SOCKET_DIR.into(),
            names_socket_dir: false,
            debug: args.debug,
            options,
            reply: if environment.max_version.is_some_and(|max| max >= 3) {
                Reply::Json
            } else {
                Reply::Line
            },
            may_stay: false,
        })
    }
}

/// The first address that is given.
fn first<const COUNT: usize>(addresses: [String; COUNT]) -> String {
    addresses.into_iter().find(|address| !address.is_empty()).unwrap_or_default()
}

/// The JSON form of the reply.
#[derive(Serialize)]
struct Json<'a> {
    version: u32,
    address: &'a str,
    protocol: &'a str,
}

impl Reply {
    /// Says that the shim serves ttrpc at `address`, and, where there is room for it, whether it writes logs and where
    /// it serves.
    pub fn encode(self, address: &str, writes_logs: bool, serves: Serves) -> Vec<u8> {
        match self {
            Self::Binary => {
                let capability = writes_logs.then(|| (CAPABILITY.into(), "1".into()));
                let in_place = (IN_PLACE.into(), serves.word().into());
                let result = BootstrapResult {
                    version: 3,
                    address: address.into(),
                    protocol: "ttrpc".into(),
                    metadata: capability.into_iter().chain([in_place]).collect(),
                    ..BootstrapResult::default()
                };
                result.encode_to_vec()
            }
            // Three plain fields cannot fail to encode; an empty reply would be refused by the daemon.
            Self::Json => {
                serde_json::to_vec(&Json { version: 3, address, protocol: "ttrpc" }).unwrap_or_default()
            }
            Self::Line => address.as_bytes().to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::containerd::runtime::bootstrap::v1::Extension;
    use api::encode_any;

    fn args() -> Args {
        Args { id: "a".into(), namespace: "ns".into(), address: "/sock".into(), ..Args::default() }
    }

    #[test]
    fn binary_parameters_ask_for_a_binary_reply() {
        let options = Options { shim_cgroup: "/shims".into(), ..Options::default() };
        let message = BootstrapParams {
            instance_id: "a".into(),
            namespace: "ns".into(),
            containerd_grpc_address: "/grpc".into(),
            socket_dir: Some("/sockets".into()),
            extensions: vec![Extension { value: Some(encode_any(&options)) }],
            ..BootstrapParams::default()
        };
        let bytes = message.encode_to_vec();
        let params = Params::read(&args(), Environment::default(), &mut bytes.as_slice()).unwrap();
        assert_eq!((params.reply, params.grpc_address.as_str()), (Reply::Binary, "/grpc"));
        assert_eq!((params.options, params.names_socket_dir), (options, true));
    }

    #[test]
    fn addresses_that_parameters_leave_out_are_those_of_the_environment() {
        let message =
            BootstrapParams { instance_id: "a".into(), namespace: "ns".into(), ..BootstrapParams::default() };
        let environment = || Environment {
            ttrpc_address: "/events".into(),
            grpc_address: "/grpc".into(),
            ..Environment::default()
        };
        let read = |args: &Args, message: &BootstrapParams| {
            let params = Params::read(args, environment(), &mut message.encode_to_vec().as_slice()).unwrap();
            assert_eq!(params.reply, Reply::Binary);
            (params.grpc_address, params.ttrpc_address)
        };
        assert_eq!(read(&args(), &message), ("/sock".into(), "/events".into()));
        let no_flag = Args { address: String::new(), ..args() };
        assert_eq!(read(&no_flag, &message), ("/grpc".into(), "/events".into()));
        let named = BootstrapParams { containerd_ttrpc_address: "/named".into(), ..message };
        assert_eq!(read(&args(), &named).1, "/named");
    }

    #[test]
    fn options_on_stdin_are_not_taken_for_parameters() {
        let options = Options { binary_name: "crun".into(), ..Options::default() };
        let bytes = encode_any(&options).encode_to_vec();
        let environment = Environment { max_version: Some(3), ..Environment::default() };
        let params = Params::read(&args(), environment, &mut bytes.as_slice()).unwrap();
        assert_eq!((params.reply, params.options), (Reply::Json, options));
        assert_eq!(params.grpc_address, "/sock");
    }

    #[test]
    fn an_old_daemon_gets_the_bare_address() {
        let params = Params::read(&args(), Environment::default(), &mut [].as_slice()).unwrap();
        assert_eq!(params.reply, Reply::Line);
        assert_eq!(params.reply.encode("unix:///x", true, Serves::Apart), b"unix:///x");
    }

    #[test]
    fn the_json_reply_has_three_fields() {
        let json = String::from_utf8(Reply::Json.encode("unix:///x", true, Serves::Apart)).unwrap();
        assert_eq!(json, r#"{"version":3,"address":"unix:///x","protocol":"ttrpc"}"#);
    }
}
