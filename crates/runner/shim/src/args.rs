//! The command line of a shim, with the flags and the syntax of Go's `flag` package: `-id x`, `--id x`, `-id=x`.

use std::path::PathBuf;

/// What the binary was asked to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// Serve tasks on the socket it inherited.
    #[default]
    Serve,
    /// Start a serving process and say where it listens.
    Start,
    /// Clean up after a shim that died.
    Delete,
}

/// The flags, as given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Args {
    /// What to do.
    pub action: Action,
    /// `-namespace`: the containerd namespace that owns the shim.
    pub namespace: String,
    /// `-id`: the task.
    pub id: String,
    /// `-address`: the daemon's gRPC socket.
    pub address: String,
    /// `-publish-binary`: accepted for old daemons and not used; events go over ttrpc.
    pub publish_binary: String,
    /// `-bundle`: the bundle, when it is not the working directory.
    pub bundle: Option<PathBuf>,
    /// `-socket`: the socket to serve, when none is inherited.
    pub socket: Option<PathBuf>,
    /// `-debug-socket`: accepted; this shim has no debug service.
    pub debug_socket: Option<PathBuf>,
    /// `-debug`: log more.
    pub debug: bool,
    /// `-v`: print the version.
    pub version: bool,
    /// `-info`: print what the shim can do.
    pub info: bool,
    /// Where events go, for a process that serves where it was started; no flag. The environment says it otherwise.
    pub events: Option<String>,
}

/// Why a command line makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    /// No such flag.
    #[error("flag provided but not defined: -{0}")]
    Unknown(String),
    /// The flag needs a value and the line ends.
    #[error("flag needs an argument: -{0}")]
    NoValue(String),
    /// A yes-or-no flag with another value.
    #[error("invalid boolean value {value:?} for -{flag}")]
    Boolean {
        /// The flag.
        flag: String,
        /// Its value.
        value: String,
    },
    /// The action is neither of the two.
    #[error("unknown action {0:?}")]
    Action(String),
}

impl Args {
    /// Reads the words after the program's name.
    ///
    /// # Errors
    /// See [`ArgsError`]; the texts are Go's.
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Self, ArgsError> {
        let mut args = Self::default();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let Some(flag) = word.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
                args.action = action(&word)?;
                break;
            };
            let flag = flag.strip_prefix('-').unwrap_or(flag);
            if flag.is_empty() {
                if let Some(word) = words.next() {
                    args.action = action(&word)?;
                }
                break;
            }
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            args.set(name, value, &mut words)?;
        }
        Ok(args)
    }

    fn set(
        &mut self,
        name: &str,
        value: Option<String>,
        rest: &mut impl Iterator<Item = String>,
    ) -> Result<(), ArgsError> {
        let switch = match name {
            "debug" => Some(&mut self.debug),
            "v" | "version" => Some(&mut self.version),
            "info" => Some(&mut self.info),
            _ => None,
        };
        if let Some(switch) = switch {
            *switch = match value.as_deref() {
                None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => true,
                Some("0" | "f" | "F" | "false" | "FALSE" | "False") => false,
                Some(other) => return Err(ArgsError::Boolean { flag: name.into(), value: other.into() }),
            };
            return Ok(());
        }
        if !["namespace", "id", "address", "publish-binary", "bundle", "socket", "debug-socket"]
            .contains(&name)
        {
            return Err(ArgsError::Unknown(name.into()));
        }
        let value = value.or_else(|| rest.next()).ok_or_else(|| ArgsError::NoValue(name.into()))?;
        let path = || (!value.is_empty()).then(|| PathBuf::from(&value));
        match name {
            "bundle" => self.bundle = path(),
            "socket" => self.socket = path(),
            "debug-socket" => self.debug_socket = path(),
            "namespace" => self.namespace = value,
            "id" => self.id = value,
            "address" => self.address = value,
            _ => self.publish_binary = value,
        }
        Ok(())
    }
}

fn action(word: &str) -> Result<Action, ArgsError> {
    match word {
        "" => Ok(Action::Serve),
        "start" => Ok(Action::Start),
        "delete" => Ok(Action::Delete),
        other => Err(ArgsError::Action(other.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, ArgsError> {
        Args::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn the_daemons_line_is_understood() {
        let line = "-namespace default -address /run/containerd/containerd.sock -publish-binary \
                    /usr/bin/containerd -id a -debug start";
        let args = parse(line).unwrap();
        assert_eq!((args.action, args.namespace.as_str(), args.id.as_str()), (Action::Start, "default", "a"));
        assert!(args.debug);
    }

    #[test]
    fn two_dashes_and_an_equals_sign_are_go_s_too() {
        let args = parse("--namespace=k8s.io -id=b -bundle /x delete").unwrap();
        assert_eq!((args.action, args.namespace.as_str()), (Action::Delete, "k8s.io"));
        assert_eq!(args.bundle, Some("/x".into()));
    }

    #[test]
    fn errors_are_go_s() {
        assert_eq!(parse("-nope").unwrap_err().to_string(), "flag provided but not defined: -nope");
        assert_eq!(parse("-id").unwrap_err().to_string(), "flag needs an argument: -id");
        assert_eq!(parse("stop").unwrap_err().to_string(), "unknown action \"stop\"");
    }
}
