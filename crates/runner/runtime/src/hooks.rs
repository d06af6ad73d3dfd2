//! Runs the commands that a document asks for at fixed points of a container's life.
//!
//! Each gets the state document on stdin. Its output is kept (the end of it) for the error text. Hooks of one point
//! run one after the other; the first failure ends the run.
//!
//! Invariant: a hook that outlives its time is killed and waited for, so none is left behind as a child. Processes
//! that a hook put into the background are its own affair.

mod run;

use std::io::PipeReader;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use spec::error::{HasKind, Kind};
use spec::runtime::{Hook, State};

use crate::ongoing::complete;
pub use run::Run;

/// How long a hook may take that sets no time of its own: the specification has no limit, but the shim that waits
/// serves other containers.
const LONGEST: Duration = Duration::from_secs(300);

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

/// Runs the hooks of `point` in order, with `state` on their stdin.
pub fn run(hooks: &[Hook], state: &State, point: Point) -> Result<(), HookError> {
    complete(Run::new(hooks.to_vec(), state, point))
}

/// How long `hook` may take.
pub fn time_limit(hook: &Hook) -> Duration {
    hook.timeout.and_then(|seconds| u64::try_from(seconds).ok()).map_or(LONGEST, Duration::from_secs)
}

fn start(hook: &Hook, document: &[u8]) -> Result<(Child, PipeReader), Reason> {
    if !Path::new(&hook.path).is_absolute() {
        return Err(Reason::Relative(hook.path.clone()));
    }
    let (output, writer) = std::io::pipe().map_err(|error| system(&error, "pipe2"))?;
    let stdin: OwnedFd = sys::memfd::holding(document)?;
    let mut command = Command::new(&hook.path);
    command.stdin(stdin).stderr(writer.try_clone().map_err(|error| system(&error, "dup"))?).stdout(writer);
    if let Some((name, args)) = hook.args.split_first() {
        command.arg0(name).args(args);
    }
    if !hook.env.is_empty() {
        command.env_clear().envs(hook.env.iter().filter_map(|variable| variable.split_once('=')));
    }
    // The shim reads its signals, so it blocks them; a hook gets none of that.
    let child = sys::event::start_unblocked(&mut command)
        .spawn()
        .map_err(|error| Reason::Start { path: hook.path.clone(), source: system(&error, "execve") })?;
    Ok((child, output))
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

    #[test]
    fn a_hook_reads_the_state_and_its_own_environment() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seen");
        let script = format!("cat > {0}; echo $WHERE:$HOME >> {0}", path.display());
        run(&[shell(&script, None)], &state(), Point::CreateRuntime).unwrap();
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
        let error = run(&hooks, &state(), Point::Prestart).unwrap_err();
        assert_eq!(error.to_string(), "error running prestart hook #1: exit status 3, output: out\nerr");
        assert!(!never.exists());
    }

    #[test]
    fn a_hook_past_its_time_is_killed() {
        let begun = Instant::now();
        let error = run(&[shell("exec sleep 60", Some(1))], &state(), Point::Poststop).unwrap_err();
        assert_eq!(
            error.to_string(),
            "error running poststop hook #0: hook ran past specified timeout of 1.0s"
        );
        assert!(begun.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_child_left_in_the_background_does_not_hold_the_hook() {
        let begun = Instant::now();
        run(&[shell("sleep 3 & exit 0", None)], &state(), Point::Poststart).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(3));
    }

    #[test]
    fn paths_are_absolute_and_absent_programs_named() {
        let hook = |path: &str| Hook { path: path.into(), ..Hook::default() };
        let error = run(&[hook("true")], &state(), Point::Prestart).unwrap_err();
        assert_eq!(error.to_string(), "error running prestart hook #0: \"true\" is not an absolute path");
        let error = run(&[hook("/no/such")], &state(), Point::Prestart).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
    }
}
