//! Running a shim's program: `start`, `delete` and `-info`.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use api::containerd::runtime::bootstrap::v1::{BootstrapParams, Extension, LogLevel};
use api::containerd::task::v3::DeleteResponse;
use api::containerd::types::RuntimeInfo;
use api::{Any, Message};
use shim::bootstrap::{LIBRARY_PATH, STAY, Serves, clean_library_path};
use spec::{HasKind, Kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use crate::bootstrap::{self, Endpoint, EndpointError};
use crate::bundle::Bundle;
use crate::sealed::Sealed;
use crate::{Config, deadline};

/// The most that a shim's program may write to each of its outputs.
const MAX_OUTPUT: u64 = 1 << 20;

/// Why a shim's program did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The runtime's name says no program.
    #[error(
        "invalid runtime name {0}, correct runtime name should be either format like `io.containerd.runc.v2` or a full path to the binary: invalid argument"
    )]
    Name(String),
    /// A relative path.
    #[error("invalid custom binary path {0:?}: not absolute: invalid argument")]
    Relative(String),
    /// There is no such program.
    #[error("runtime {runtime:?} binary not installed {program:?}: file does not exist")]
    Missing {
        /// The runtime's name.
        runtime: String,
        /// The program looked for.
        program: String,
    },
    /// It could not be run.
    #[error("cannot run {} {action}", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// What it should do.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// It did not end in time and was killed.
    #[error("{} {action} did not end within {limit:?}: deadline exceeded", program.display())]
    Deadline {
        /// The program.
        program: PathBuf,
        /// What it should do.
        action: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// It ended with an error.
    #[error("{output}: {status}")]
    Failed {
        /// What it wrote to its standard error.
        output: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// Its answer does not say where it serves.
    #[error("invalid answer of {}", program.display())]
    Endpoint {
        /// The program.
        program: PathBuf,
        /// What is wrong with the answer.
        source: EndpointError,
    },
    /// Its answer is not the message that the action answers with.
    #[error("cannot decode the answer of {}: {reason}", program.display())]
    Decode {
        /// The program.
        program: PathBuf,
        /// What the decoder said.
        reason: String,
    },
}

impl HasKind for LaunchError {
    fn kind(&self) -> Kind {
        match self {
            Self::Name(_) | Self::Relative(_) => Kind::InvalidArgument,
            Self::Missing { .. } => Kind::NotFound,
            Self::Run { source, .. } => Kind::from_errno(source.raw_os_error().unwrap_or(0)),
            Self::Deadline { .. } => Kind::DeadlineExceeded,
            Self::Failed { .. } | Self::Decode { .. } => Kind::Unknown,
            Self::Endpoint { source, .. } => source.kind(),
        }
    }
}

/// Whether a shim's program complains that it knows no options of the type that is the container's id.
fn takes_id_for_type(output: &str, bundle: &Bundle) -> bool {
    output.contains(&format!("type with url {}:", bundle.id.as_str()))
}

/// Runs shims' programs for one daemon.
#[derive(Clone, Debug)]
pub struct Launcher {
    config: Arc<Config>,
    sealed: Sealed,
}

/// One run of a program.
struct Run<'a> {
    program: &'a Path,
    action: &'static str,
    namespace: &'a str,
    id: &'a str,
    dir: Option<&'a Path>,
    args: Vec<String>,
    input: Vec<u8>,
    limit: Duration,
    /// The program's sealed view, if it may go on to serve.
    view: Option<Arc<OwnedFd>>,
}

impl Launcher {
    /// A launcher for the daemon that `config` describes.
    pub fn new(config: Arc<Config>) -> Self {
        Self { config, sealed: Sealed::default() }
    }

    /// The program of a runtime: beside the daemon's own first, then on `PATH`; an absolute path is the program itself.
    ///
    /// # Errors
    /// The name says none, or there is none.
    pub fn find(&self, runtime: &str) -> Result<PathBuf, LaunchError> {
        let missing =
            |program: &str| LaunchError::Missing { runtime: runtime.into(), program: program.into() };
        if runtime.contains('/') {
            let path = Path::new(runtime);
            return match path.is_absolute() {
                false => Err(LaunchError::Relative(runtime.into())),
                true if path.is_file() => Ok(path.to_owned()),
                true => Err(missing(runtime)),
            };
        }
        let name = program_name(runtime).ok_or_else(|| LaunchError::Name(runtime.into()))?;
        self.program(&name).ok_or_else(|| missing(&name))
    }

    /// The program `name`: beside the daemon's own first, then on `PATH`.
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        let beside = self.config.program.parent().map(Path::to_owned);
        let path = std::env::var_os("PATH").unwrap_or_default();
        beside
            .into_iter()
            .chain(std::env::split_paths(&path))
            .filter(|dir| dir.is_absolute())
            .map(|dir| dir.join(name))
            .find(|candidate| candidate.is_file())
    }

    /// Starts the shim of `bundle` and learns how to reach it.
    ///
    /// # Errors
    /// See [`LaunchError`].
    pub async fn start(
        &self,
        program: &Path,
        bundle: &Bundle,
        options: Option<Any>,
    ) -> Result<Endpoint, LaunchError> {
        let config = &self.config;
        let old_input = options.as_ref().map(Message::encode_to_vec).unwrap_or_default();
        let params = BootstrapParams {
            instance_id: bundle.id.as_str().into(),
            namespace: bundle.namespace.as_str().into(),
            log_level: if config.debug { LogLevel::Debug } else { LogLevel::Info }.into(),
            containerd_version: ::spec::version::VERSION.into(),
            containerd_ttrpc_address: config.ttrpc_address.clone(),
            containerd_grpc_address: config.grpc_address.clone(),
            containerd_binary: config.program.to_string_lossy().into_owned(),
            extensions: options.map(|value| Extension { value: Some(value) }).into_iter().collect(),
            socket_dir: Some(config.socket_dir.to_string_lossy().into_owned()),
        };
        let run = |input, view| Run {
            program,
            action: "start",
            namespace: bundle.namespace.as_str(),
            id: bundle.id.as_str(),
            dir: Some(&bundle.path),
            args: config.debug.then(|| "-debug".into()).into_iter().collect(),
            input,
            limit: deadline::START_SHIM,
            view,
        };
        let view = self.sealed.view(program);
        let sealed = view.is_some();
        let output = match self.run(run(params.encode_to_vec(), view)).await {
            // Older shims read the options alone there, and so took the id for the options' type. They have done
            // nothing yet.
            Err(LaunchError::Failed { output, .. }) if takes_id_for_type(&output, bundle) => {
                self.run(run(old_input, None)).await?
            }
            // Nothing has run. The program itself may do where its view does not.
            Err(LaunchError::Run { .. }) if sealed => {
                self.sealed.forget();
                self.run(run(params.encode_to_vec(), None)).await?
            }
            outcome => outcome?,
        };
        if !sealed && bootstrap::serves(&output).is_some() {
            self.sealed.seal(program);
        }
        Endpoint::parse(&output).map_err(|source| LaunchError::Endpoint { program: program.into(), source })
    }

    /// Has the shim's program kill and delete the container of `bundle`, whose shim is gone.
    ///
    /// # Errors
    /// See [`LaunchError`].
    pub async fn delete(&self, program: &Path, bundle: &Bundle) -> Result<DeleteResponse, LaunchError> {
        let run = Run {
            program,
            action: "delete",
            namespace: bundle.namespace.as_str(),
            id: bundle.id.as_str(),
            dir: Some(&bundle.path),
            args: vec!["-bundle".into(), bundle.path.to_string_lossy().into_owned()],
            input: Vec::new(),
            limit: self.config.deadlines.cleanup,
            view: None,
        };
        let output = self.run(run).await?;
        DeleteResponse::decode(output.as_slice())
            .map_err(|error| LaunchError::Decode { program: program.into(), reason: error.to_string() })
    }

    /// Asks a shim's program what it is and what its runtime can do.
    ///
    /// # Errors
    /// See [`LaunchError`].
    pub async fn info(&self, runtime: &str, options: Option<Any>) -> Result<RuntimeInfo, LaunchError> {
        let program = self.find(runtime)?;
        let run = Run {
            program: &program,
            action: "-info",
            namespace: "",
            id: "",
            dir: None,
            args: Vec::new(),
            input: options.map(|options| options.encode_to_vec()).unwrap_or_default(),
            limit: deadline::CALL,
            view: None,
        };
        let output = self.run(run).await?;
        RuntimeInfo::decode(output.as_slice())
            .map_err(|error| LaunchError::Decode { program: program.clone(), reason: error.to_string() })
    }

    async fn run(&self, run: Run<'_>) -> Result<Vec<u8>, LaunchError> {
        let deadline =
            LaunchError::Deadline { program: run.program.into(), action: run.action, limit: run.limit };
        let limit = run.limit;
        // The program is killed when the future is dropped, by the deadline too.
        tokio::time::timeout(limit, self.finish(run)).await.map_err(|_| deadline)?
    }

    async fn finish(&self, run: Run<'_>) -> Result<Vec<u8>, LaunchError> {
        let failed = |source| LaunchError::Run { program: run.program.into(), action: run.action, source };
        let mut held = Held { child: self.command(&run).spawn().map_err(failed)?, dies: true };
        let child = &mut held.child;
        let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let feed = async {
            if let Some(mut input) = input {
                // A program that does not read what it is told says so itself.
                let _unread = input.write_all(&run.input).await;
            }
        };
        let ((), output, errors) = tokio::join!(feed, read(output), read(errors));
        if run.view.is_some() && bootstrap::serves(&output) == Some(Serves::InPlace) {
            // tokio reaps it once it has ended.
            held.dies = false;
            return Ok(output);
        }
        let status = held.child.wait().await.map_err(failed)?;
        if !status.success() {
            let text = String::from_utf8_lossy(&errors).trim().to_owned();
            return Err(LaunchError::Failed { output: text, status });
        }
        Ok(output)
    }

    fn command(&self, run: &Run<'_>) -> Command {
        let config = &self.config;
        let mut command = match &run.view {
            None => Command::new(run.program),
            Some(view) => {
                let mut command = Command::new(format!("/proc/self/fd/{}", view.as_raw_fd()));
                command.arg0(run.program).env(STAY, "1");
                command
            }
        };
        if run.action == "-info" {
            command.arg("-info");
        } else {
            // In the order that a serving shim of containerd's has, which this process may become.
            command.args(["-namespace", run.namespace, "-id", run.id, "-address", &config.grpc_address]);
            command.arg("-publish-binary").arg(&config.program).args(&run.args).arg(run.action);
        }
        command
            .env("NAMESPACE", run.namespace)
            .env("GRPC_ADDRESS", &config.grpc_address)
            .env("TTRPC_ADDRESS", &config.ttrpc_address)
            .env("MAX_SHIM_VERSION", "3")
            .env("GOMAXPROCS", "4")
            .env_remove("NOTIFY_SOCKET")
            .envs(config.env.iter().filter_map(|pair| pair.split_once('=')))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if run.view.is_some() {
            // The process that goes on to serve keeps its environment.
            let own = std::env::var(LIBRARY_PATH).ok();
            let told =
                config.env.iter().rev().find_map(|pair| pair.strip_prefix(LIBRARY_PATH)?.strip_prefix('='));
            match told.or(own.as_deref()).and_then(clean_library_path) {
                Some(path) => command.env(LIBRARY_PATH, path),
                None => command.env_remove(LIBRARY_PATH),
            };
        }
        if let Some(dir) = run.dir {
            command.current_dir(dir);
        }
        command
    }
}

/// A program that runs. Unlike with `kill_on_drop`, one may still be let live.
struct Held {
    child: Child,
    dies: bool,
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.dies {
            // One that has ended needs no signal.
            let _ended = self.child.start_kill();
        }
    }
}

/// Reads an output to its end, or as much of it as counts.
async fn read(output: Option<impl tokio::io::AsyncRead + Unpin>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(output) = output {
        // What was read before an error is what there is.
        let _ended = output.take(MAX_OUTPUT).read_to_end(&mut bytes).await;
    }
    bytes
}

/// `io.containerd.runc.v2` is `containerd-shim-runc-v2`: the last two words count.
fn program_name(runtime: &str) -> Option<String> {
    let mut words = runtime.rsplit('.');
    let (version, name) = (words.next()?, words.next()?);
    let fine = |word: &str| {
        !word.is_empty()
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    (fine(version) && fine(name)).then(|| format!("containerd-shim-{name}-{version}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_names_its_program() {
        assert_eq!(program_name("io.containerd.runc.v2").as_deref(), Some("containerd-shim-runc-v2"));
        assert_eq!(program_name("kata.v2").as_deref(), Some("containerd-shim-kata-v2"));
        for bad in ["", "runc", "a..", "io.containerd.", "a.b c.v2"] {
            assert_eq!(program_name(bad), None, "{bad}");
        }
    }
}
