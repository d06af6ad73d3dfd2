//! Runs the commands that a document asks for at fixed points of a container's life.
//!
//! Each gets the state document on stdin. Its output is kept (the end of it) for the error text. Hooks of one point
//! run one after the other; the first failure ends the run.
//!
//! Invariant: a hook that outlives its time is killed and waited for, so none is left behind as a child. Processes
//! that a hook put into the background are its own affair.

mod run;

use std::ffi::{CString, OsStr};
use std::io::PipeReader;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use spec::error::{HasKind, Kind};
use spec::runtime::{Hook, State};

use crate::ongoing::complete;
pub use run::Run;

/// Time limit of a hook that sets none: the specification has no limit, but the shim that waits serves other
/// containers.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);

/// The point of a container's life, by its name in the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Deprecated twin of [`Point::CreateRuntime`].
    Prestart,
    /// Namespaces made; in the runtime's namespaces.
    CreateRuntime,
    /// Mounts made; in the container's namespaces.
    CreateContainer,
    /// Before the program; in the container's namespaces.
    StartContainer,
    /// The program runs; in the runtime's namespaces.
    Poststart,
    /// The container is gone; in the runtime's namespaces.
    Poststop,
}

impl Point {
    /// Every point, in the order of a container's life.
    pub const ALL: [Self; 6] = [
        Self::Prestart,
        Self::CreateRuntime,
        Self::CreateContainer,
        Self::StartContainer,
        Self::Poststart,
        Self::Poststop,
    ];

    /// The name in the document.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }
}

/// Why a hook did not do its part.
#[derive(Debug, thiserror::Error)]
#[error("error running {point} hook #{number}: {reason}", point = .point.name())]
pub struct HookError {
    /// The point at which it ran.
    pub point: Point,
    /// Its number there, from 0.
    pub number: usize,
    /// What went wrong.
    pub reason: Reason,
}

/// What went wrong with one hook.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// Relative paths would depend on the working directory.
    #[error("{0:?} is not an absolute path")]
    Relative(String),
    /// It could not be run.
    #[error("fork/exec {path}: {source}")]
    Start {
        /// Its path.
        path: String,
        /// Why not.
        source: sys::Error,
    },
    /// It ran and failed.
    #[error("{status}, output: {output}")]
    Failed {
        /// `exit status 1` or `signal: 9`.
        status: String,
        /// The end of its output.
        output: String,
    },
    /// It took too long and was killed.
    #[error("hook ran past specified timeout of {:.1}s", .0.as_secs_f64())]
    Timeout(Duration),
    /// It could not be watched.
    #[error("{0}")]
    System(#[from] sys::Error),
}

impl HasKind for HookError {
    fn kind(&self) -> Kind {
        match &self.reason {
            Reason::Relative(_) => Kind::InvalidArgument,
            Reason::Start { source, .. } | Reason::System(source) => Kind::from_errno(source.errno()),
            Reason::Failed { .. } => Kind::Unknown,
            Reason::Timeout(_) => Kind::DeadlineExceeded,
        }
    }
}

/// What a hook finds that its document does not set.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Environment of a hook without `env`; `None` is the caller's.
    pub env: Option<Vec<CString>>,
    /// Working directory; `None` is the caller's.
    pub cwd: Option<PathBuf>,
}

impl Surroundings {
    /// In the runtime's namespaces: the caller's environment, in the caller's directory.
    pub fn of_caller() -> Self {
        Self::default()
    }

    /// In the runtime's namespaces: the caller's environment, in `cwd`.
    pub fn of_bundle(cwd: &Path) -> Self {
        Self { env: None, cwd: Some(cwd.to_owned()) }
    }

    /// In the container, where the caller's environment is a secret of the host: `env`, in the current directory.
    pub fn of_container(env: Vec<CString>) -> Self {
        Self { env: Some(env), cwd: None }
    }
}

/// The longest time that `hooks` may take together.
pub fn time_limit(hooks: &[Hook]) -> Duration {
    hooks.iter().map(limit_of).fold(Duration::ZERO, Duration::saturating_add)
}

/// The time limit of one hook. One that is not above zero ends the hook at once, as in runc.
fn limit_of(hook: &Hook) -> Duration {
    hook.timeout
        .map_or(DEFAULT_TIMEOUT, |seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
}

/// Runs the hooks of `point` in order, with `state` on their stdin.
pub fn run(hooks: &[Hook], state: &State, point: Point, around: Surroundings) -> Result<(), HookError> {
    complete(Run::new(hooks.to_vec(), state, point, around))
}

fn start(hook: &Hook, document: OwnedFd, around: &Surroundings) -> Result<(Child, PipeReader), Reason> {
    if !Path::new(&hook.path).is_absolute() {
        return Err(Reason::Relative(hook.path.clone()));
    }
    let (output, writer) = std::io::pipe().map_err(|error| system(&error, "pipe2"))?;
    let mut command = Command::new(&hook.path);
    command.stdin(document).stderr(writer.try_clone().map_err(|error| system(&error, "dup"))?).stdout(writer);
    if let Some((name, args)) = hook.args.split_first() {
        command.arg0(name).args(args);
    }
    match &around.env {
        _ if !hook.env.is_empty() => {
            command.env_clear().envs(hook.env.iter().filter_map(|variable| variable.split_once('=')));
        }
        Some(default) => {
            command.env_clear().envs(default.iter().filter_map(|variable| pair(variable.as_bytes())));
        }
        None => {}
    }
    if let Some(cwd) = &around.cwd {
        command.current_dir(cwd);
    }
    // The shim reads its signals, so it blocks them; a hook gets none of that.
    let child = sys::event::start_unblocked(&mut command)
        .spawn()
        .map_err(|error| Reason::Start { path: hook.path.clone(), source: system(&error, "execve") })?;
    Ok((child, output))
}

/// Name and value of an environment variable.
fn pair(variable: &[u8]) -> Option<(&OsStr, &OsStr)> {
    let at = variable.iter().position(|&byte| byte == b'=')?;
    Some((OsStr::from_bytes(&variable[..at]), OsStr::from_bytes(&variable[at + 1..])))
}

fn system(error: &std::io::Error, call: &str) -> sys::Error {
    const EIO: i32 = 5;
    sys::Error::new(error.raw_os_error().unwrap_or(EIO), call)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Instant;

    use spec::runtime::Status;

    use super::*;

    fn state() -> State {
        State {
            oci_version: "1.3.0".into(),
            id: "one".into(),
            status: Status::Created,
            pid: 7,
            bundle: "/b".into(),
            annotations: BTreeMap::from([("filler".into(), "x".repeat(200_000))]),
        }
    }

    fn shell(script: &str, timeout: Option<i64>) -> Hook {
        let args = vec!["sh".into(), "-c".into(), script.into()];
        Hook { path: "/bin/sh".into(), args, env: vec!["WHERE=here".into()], timeout }
    }

    fn run_here(hooks: &[Hook], point: Point) -> Result<(), HookError> {
        run(hooks, &state(), point, Surroundings::of_caller())
    }

    /// What a shell hook without `env` prints of its environment and its directory when it fails.
    fn surroundings_seen(around: Surroundings) -> String {
        let hook = Hook { env: Vec::new(), ..shell("pwd; /usr/bin/env; exit 1", None) };
        run(&[hook], &state(), Point::StartContainer, around).unwrap_err().to_string()
    }

    #[test]
    fn hook_in_container_without_env_gets_none_of_the_caller() {
        assert!(std::env::var_os("PATH").is_some());
        let seen = surroundings_seen(Surroundings::of_container(Vec::new()));
        // A shell sets PWD (and others of its own) in its children's environment.
        assert!(!seen.lines().any(|line| line.starts_with("PATH=") || line.starts_with("CARGO")), "{seen}");
        let seen = surroundings_seen(Surroundings::of_container(vec![c"ONE=two=2".into(), c"none".into()]));
        assert!(seen.lines().any(|line| line == "ONE=two=2"), "{seen}");
        assert!(!seen.lines().any(|line| line.starts_with("PATH=")), "{seen}");
    }

    #[test]
    fn hook_of_the_runtime_runs_in_the_bundle_with_the_callers_environment() {
        let dir = tempfile::tempdir().unwrap();
        let seen = surroundings_seen(Surroundings::of_bundle(dir.path()));
        assert!(seen.contains(&format!("output: {}\n", dir.path().display())), "{seen}");
        assert!(seen.lines().any(|line| line.starts_with("PATH=")), "{seen}");
    }

    #[test]
    fn hook_timeout_of_any_size_saturates() {
        for seconds in [i64::MAX, i64::MAX / 1000, 1 << 40] {
            run_here(&[shell("exit 0", Some(seconds))], Point::Prestart).unwrap();
        }
        let hooks = [shell("", Some(i64::MAX)), shell("", Some(i64::MAX)), shell("", Some(i64::MAX))];
        assert_eq!(time_limit(&hooks), Duration::MAX);
        assert_eq!(time_limit(&[shell("", None), shell("", Some(1)), shell("", Some(-1))]).as_secs(), 301);
    }

    #[test]
    fn a_hook_reads_the_state_and_its_own_environment() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seen");
        let script = format!("cat > {0}; echo $WHERE:$HOME >> {0}", path.display());
        run_here(&[shell(&script, None)], Point::CreateRuntime).unwrap();
        let seen = std::fs::read_to_string(path).unwrap();
        let (document, rest) = seen.rsplit_once('}').unwrap();
        let read: State = serde_json::from_str(&format!("{document}}}")).unwrap();
        assert_eq!(read, state());
        assert_eq!(rest.trim(), "here:");
    }

    #[test]
    fn the_first_failure_ends_the_run_and_shows_what_was_said() {
        let dir = tempfile::tempdir().unwrap();
        let never = dir.path().join("never");
        let hooks = [
            shell("true", None),
            shell("echo out; echo err >&2; exit 3", None),
            shell(&format!("touch {}", never.display()), None),
        ];
        let error = run_here(&hooks, Point::Prestart).unwrap_err();
        assert_eq!(error.to_string(), "error running prestart hook #1: exit status 3, output: out\nerr");
        assert!(!never.exists());
    }

    #[test]
    fn a_hook_past_its_time_is_killed() {
        let begun = Instant::now();
        let error = run_here(&[shell("exec sleep 60", Some(1))], Point::Poststop).unwrap_err();
        assert_eq!(
            error.to_string(),
            "error running poststop hook #0: hook ran past specified timeout of 1.0s"
        );
        assert!(begun.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_child_left_in_the_background_does_not_hold_the_hook() {
        let begun = Instant::now();
        run_here(&[shell("sleep 3 & exit 0", None)], Point::Poststart).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(3));
    }

    #[test]
    fn paths_are_absolute_and_absent_programs_named() {
        let hook = |path: &str| Hook { path: path.into(), ..Hook::default() };
        let error = run_here(&[hook("true")], Point::Prestart).unwrap_err();
        assert_eq!(error.to_string(), "error running prestart hook #0: \"true\" is not an absolute path");
        let error = run_here(&[hook("/no/such")], Point::Prestart).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
    }
}
