//! Daemons on directories of their own: ours, or Debian's Go containerd with the same verbs.
//!
//! ```text
//! /tmp/bthXXXXXX/          removed, with all that was mounted or ran from it, when the Daemon is dropped
//!   root/ state/           the daemon's own
//!   c.sock  c.sock.ttrpc   its sockets
//!   config.toml  log       what it was given, what it said
//!   notify                 the socket on which it says READY=1
//! ```
//!
//! Each has a namespace of its own, so that cgroups (`/NAMESPACE/ID`) of different tests never meet.

use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use tempfile::TempDir;

use crate::command::{self, Run};
use crate::image::Image;
use crate::place::Against;
use crate::registry::Registry;
use crate::trace::{self, Traces};
use crate::{place, wait};

/// How long a daemon may take until it is ready, and until it is gone after SIGTERM.
const LIMIT: Duration = Duration::from_secs(30);

/// A daemon to be started.
#[must_use]
pub struct Setup {
    program: PathBuf,
    dir: TempDir,
    go: bool,
    cri: bool,
    patience: Duration,
    top: String,
    extra: String,
    env: Vec<(String, String)>,
    root: Option<PathBuf>,
}

impl Setup {
    /// Adds lines to the beginning of its config.toml, where keys belong to no table.
    pub fn top(mut self, toml: &str) -> Self {
        self.top.push_str(toml);
        self.top.push('\n');
        self
    }

    /// Adds lines to the end of its config.toml.
    pub fn config(mut self, toml: &str) -> Self {
        self.extra.push_str(toml);
        self.extra.push('\n');
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.into(), value.into()));
        self
    }

    /// Uses another program, such as a release build.
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.program = path.into();
        self
    }

    /// Keeps persistent data in `path`, such as a small file system.
    pub fn root(mut self, path: impl Into<PathBuf>) -> Self {
        self.root = Some(path.into());
        self
    }

    /// Has Debian's daemon serve CRI too; ours always does.
    pub fn with_cri(mut self) -> Self {
        self.cri = true;
        self
    }

    /// How long it may take until it is ready, when that is longer than usual.
    pub fn patience(mut self, limit: Duration) -> Self {
        self.patience = limit;
        self
    }

    /// Its private directory, for files that its config names.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Makes the registry the mirror of `host` for pulls that the daemon does itself.
    pub fn mirror(self, registry: &Registry, host: &str) -> Self {
        let root = registry.mirror_of(host, self.dir.path());
        self.certs_d(&root)
    }

    /// Names the directory of `hosts.toml` files for pulls that the daemon does itself.
    pub fn certs_d(self, dir: &Path) -> Self {
        let dir = dir.display();
        self.config(&format!("[plugins.'io.containerd.transfer.v1.local']\n  config_path = '{dir}'"))
    }

    /// Starts it and waits until it says that it serves.
    pub fn start(self) -> Daemon {
        let mut daemon = self.prepare();
        daemon.launch();
        daemon
    }

    /// Starts it, which must fail; returns what it printed.
    pub fn refused(self) -> String {
        let daemon = self.prepare();
        let run = daemon.command_line();
        let mut run = Run::new(&daemon.program).args(run).limit(LIMIT);
        for (key, value) in &daemon.env {
            run = run.env(key, value);
        }
        run.fails()
    }

    fn prepare(self) -> Daemon {
        let dir = self.dir.path();
        let root = self.root.clone().unwrap_or_else(|| dir.join("root"));
        let (root_text, socket) = (root.display(), dir.join("c.sock"));
        let state = dir.join("state");
        let (state, socket_text) = (state.display(), socket.display());
        // Go 1.6 sets CRI up at its start, which wants a network.
        let off =
            if self.go && !self.cri { "disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n" } else { "" };
        // No plugin of the node's shall hear of a case, nor two cases share a socket.
        let nri = match self.go {
            true => String::new(),
            false => format!(
                "[plugins.'io.containerd.nri.v1.nri']\n  socket_path = '{0}/nri.sock'\n  plugin_path = '{0}/nri'\n  \
                 plugin_config_path = '{0}/nri.d'\n",
                dir.display()
            ),
        };
        // Sockets of shims are counted with the rest of the state.
        let sockets = match self.go || self.extra.contains("shim.v1.manager") {
            true => String::new(),
            false => format!("[plugins.'io.containerd.shim.v1.manager']\n  socket_dir = '{state}/s'\n"),
        };
        let text = format!(
            "version = 2\nroot = '{root_text}'\nstate = '{state}'\n{off}{}{nri}{sockets}[grpc]\n  address = '{socket_text}'\n{}",
            self.top, self.extra
        );
        fs::write(dir.join("config.toml"), text).expect("write config.toml");
        Daemon {
            child: None,
            namespace: place::unique("bt"),
            program: self.program,
            root,
            env: self.env,
            patience: self.patience,
            ready_after: Duration::ZERO,
            dir: self.dir,
        }
    }
}

/// A running daemon.
pub struct Daemon {
    child: Option<Child>,
    namespace: String,
    program: PathBuf,
    root: PathBuf,
    env: Vec<(String, String)>,
    patience: Duration,
    ready_after: Duration,
    dir: TempDir,
}

impl Daemon {
    /// Our daemon as built in the running profile, to be set up.
    ///
    /// `BERTH_AGAINST` puts Debian's in its place: see [`place::against`].
    pub fn ours() -> Setup {
        if place::against() != Against::Nothing {
            Self::debian()
        } else {
            Self::setup(place::built("containerd"), false)
        }
    }

    /// Debian's Go daemon, to be set up.
    pub fn debian() -> Setup {
        Self::setup(place::debian("containerd"), true)
    }

    /// Our daemon with nothing special.
    pub fn start() -> Self {
        Self::ours().start()
    }

    fn setup(program: PathBuf, go: bool) -> Setup {
        let dir = place::temp();
        Setup {
            program,
            dir,
            go,
            cri: false,
            patience: LIMIT,
            top: String::new(),
            extra: String::new(),
            env: Vec::new(),
            root: None,
        }
    }

    /// Our `ctr`, speaking to this daemon in this test's namespace.
    pub fn ctr(&self, line: &str) -> Run {
        let program =
            if place::against() == Against::Debian { place::debian("ctr") } else { place::built("ctr") };
        self.client(&program).line(line)
    }

    /// Debian's Go `ctr`, speaking to this daemon in this test's namespace.
    pub fn go_ctr(&self, line: &str) -> Run {
        self.client(&place::debian("ctr")).line(line)
    }

    /// Any client, told by its environment where this daemon is and which namespace to use.
    pub fn client(&self, program: &Path) -> Run {
        Run::new(program)
            .env("CONTAINERD_ADDRESS", self.socket())
            .env("CONTAINERD_NAMESPACE", &self.namespace)
            .env("CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS", "1")
    }

    /// Pushes `image` to `registry` and pulls it here; returns the reference.
    pub fn pull(&self, registry: &Registry, image: &Image) -> String {
        let reference = registry.push(&place::unique("image-"), "v1", image);
        self.ctr("image pull --plain-http").args([&reference]).limit(LIMIT * 4).ok();
        reference
    }

    /// Imports `image` as `name`.
    pub fn import(&self, name: &str, image: &Image) {
        let path = self.dir.path().join(place::unique("archive-"));
        fs::write(&path, image.archive(name)).expect("write the archive");
        self.ctr("image import").args([&path]).limit(LIMIT * 4).ok();
        fs::remove_file(&path).expect("remove the archive");
    }

    /// The namespace of this test.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Where it serves gRPC.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("c.sock")
    }

    /// Its private directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its persistent root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Its volatile state.
    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// A shim's bundle directory of the container `id`.
    pub fn bundle(&self, id: &str) -> PathBuf {
        self.state().join("io.containerd.runtime.v2.task").join(&self.namespace).join(id)
    }

    /// Everything it has logged, over all its starts.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Its process id; panics while it is stopped.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the daemon runs").id()
    }

    /// From its last start to its READY.
    pub fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// Kills it as a crash would.
    pub fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Stops it as systemd would, which must work within the deadline.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let _ = kill_process(command::pid(&child), Signal::TERM);
        let ended = command::ended(&child, LIMIT);
        let _ = child.kill();
        let status = child.wait();
        assert!(ended, "no end within {LIMIT:?} of SIGTERM\n{}", self.tail());
        assert!(status.is_ok_and(|status| status.success()), "SIGTERM is a clean end\n{}", self.tail());
    }

    /// Starts it again on the same directories.
    pub fn restart(&mut self) {
        self.kill();
        self.launch();
    }

    /// What it and its containers have on the machine now.
    pub fn traces(&self) -> Traces {
        let daemon = self.child.as_ref().map(Child::id);
        trace::of(self.dir.path(), &self.root, &self.namespace, daemon)
    }

    fn command_line(&self) -> [PathBuf; 2] {
        ["--config".into(), self.dir.path().join("config.toml")]
    }

    fn launch(&mut self) {
        let dir = self.dir.path();
        let notify_path = dir.join("notify");
        let _ = fs::remove_file(&notify_path);
        let notify = UnixDatagram::bind(&notify_path).expect("make the notify socket");
        let log = File::options().create(true).append(true).open(dir.join("log")).expect("open its log");
        let mut command = Command::new(&self.program);
        command
            .args(self.command_line())
            .env("NOTIFY_SOCKET", &notify_path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("duplicate the log"))
            .stderr(log);
        command.envs(self.env.iter().map(|(key, value)| (key, value)));
        let began = Instant::now();
        let child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        self.child = Some(child);
        self.await_ready(&notify, began + self.patience);
        self.ready_after = began.elapsed();
    }

    fn await_ready(&mut self, notify: &UnixDatagram, end: Instant) {
        let mut buffer = [0; 4096];
        // Short turns, because a daemon that has died says nothing.
        notify.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout can be set");
        while Instant::now() < end {
            let count = notify.recv(&mut buffer).unwrap_or(0);
            if buffer[..count].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                return;
            }
            let died = self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(Some(_))));
            assert!(!died, "the daemon ended before it was ready\n{}", self.tail());
        }
        panic!("not ready within {:?}\n{}", self.patience, self.tail());
    }

    fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the daemon's log ends with\n{}\n---", self.tail());
        }
        let daemon = self.child.as_ref().map(Child::id);
        // Shims first: a daemon that lives on would report their death and clean up at the same time as we do.
        self.kill();
        trace::remove(self.dir.path(), &self.namespace, daemon);
        let _ = wait::within(Duration::from_secs(5), || {
            fs::remove_dir_all(self.dir.path()).is_ok().then_some(())
        });
    }
}
