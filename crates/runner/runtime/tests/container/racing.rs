//! A process in the container that reads whatever it can of the processes that join it. Everything of the host that it
//! finds is a failure.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use spec::runtime::{Mount, Namespace, NamespaceKind};

use crate::bundle::{Bundle, bundle};

/// Execs of one case; `BERTH_RACES` asks for more, as `make soak` does.
fn races() -> usize {
    std::env::var("BERTH_RACES").ok().and_then(|text| text.parse().ok()).unwrap_or(120)
}

/// A container whose program is the reader, and what stands on the host for it to find.
struct Race {
    _mount: Mounted,
    bundle: Bundle,
    marker: String,
    _socket: UnixListener,
}

/// A mount of the host, which its mount table names.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        sys::mount::detach(&self.0).unwrap();
    }
}

impl Race {
    fn begin(test: &str, change: impl FnOnce(&mut Bundle)) -> Option<Self> {
        let mut bundle = bundle(test, "")?;
        let marker = format!("berth-marker-{}", bundle.id);
        let built = Command::new("cc")
            .args(["-static", "-O2", "-o"])
            .arg(bundle.rootfs().join("bin/reader"))
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/container/reader.c"))
            .status()
            .unwrap();
        assert!(built.success());
        std::fs::set_permissions(bundle.rootfs().join("tmp"), PermissionsExt::from_mode(0o1777)).unwrap();
        let dir = bundle.path().join(&marker);
        std::fs::create_dir(&dir).unwrap();
        sys::mount::fstab::mount("tmpfs", "tmpfs".as_ref(), &["size=64k"], &dir).unwrap();
        let mount = Mounted(dir.clone());
        let socket = UnixListener::bind(dir.join("socket")).unwrap();
        bundle.process().args =
            ["/bin/reader", "/tmp/found", &marker, dir.to_str().unwrap(), "containerd-init"]
                .map(Into::into)
                .into();
        change(&mut bundle);
        bundle.start();
        let race = Self { _mount: mount, bundle, marker, _socket: socket };
        race.wait_for(|lines| lines.iter().any(|line| line == "READY"));
        Some(race)
    }

    fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.bundle.rootfs().join("tmp/found")).unwrap_or_default();
        text.lines().map(Into::into).collect()
    }

    fn wait_for(&self, arrived: impl Fn(&[String]) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !arrived(&self.lines()) {
            assert!(Instant::now() < deadline, "{:?}", self.lines());
            std::thread::yield_now();
        }
    }

    /// Runs the runtime often, with the marker in its arguments and environment.
    fn repeat(&self, what: &str, times: usize, once: impl Fn() -> Command) {
        for _ in 0..times {
            let mut command = once();
            command.env("MARKER", &self.marker);
            let done = crate::bundle::finish(command);
            assert_eq!(done.code, 0, "{what}: {done:?}");
        }
    }

    /// Nothing of the host was found, and the reader was fast enough to have met processes on their way.
    fn assert_nothing_found(&self) {
        let lines = self.lines();
        let found: Vec<&String> = lines.iter().filter(|line| line.starts_with("FOUND")).collect();
        assert!(found.is_empty(), "{} findings, such as {:?}", found.len(), &found[..found.len().min(12)]);
        assert!(lines.iter().any(|line| line.starts_with("SEEN")), "no process was seen on its way");
    }

    /// An exec whose pid file has the marker in its name, so that the command line holds it.
    fn exec(&self) -> Command {
        let pid_file = self.bundle.path().join(&self.marker).join("pid");
        self.bundle.command(&["exec", "--pid-file", pid_file.to_str().unwrap(), &self.bundle.id, "true"])
    }
}

fn ordinary_user(bundle: &mut Bundle) {
    let process = bundle.process();
    process.no_new_privileges = true;
    process.user.uid = 1000;
    process.user.gid = 1000;
    process.capabilities = None;
}

fn may_trace(bundle: &mut Bundle) {
    let capabilities = bundle.process().capabilities.get_or_insert_default();
    for set in [&mut capabilities.bounding, &mut capabilities.permitted, &mut capabilities.effective] {
        set.push("CAP_SYS_PTRACE".into());
    }
}

#[test]
fn an_exec_shows_nothing_of_the_host_to_an_ordinary_user() {
    let Some(race) = Race::begin("race_user", ordinary_user) else { return };
    race.repeat("exec", races(), || race.exec());
    race.assert_nothing_found();
}

#[test]
fn an_exec_shows_nothing_of_the_host_to_a_tracer() {
    let Some(race) = Race::begin("race_tracer", may_trace) else { return };
    race.repeat("exec", races(), || race.exec());
    race.assert_nothing_found();
}

#[test]
fn an_exec_shows_nothing_of_the_host_in_a_user_namespace() {
    let change = |bundle: &mut Bundle| {
        may_trace(bundle);
        bundle.user_namespace();
        let reader = bundle.rootfs().join("bin/reader");
        std::os::unix::fs::lchown(reader, Some(100_000), Some(100_000)).unwrap();
    };
    let Some(race) = Race::begin("race_user_namespace", change) else { return };
    race.repeat("exec", races(), || race.exec());
    race.assert_nothing_found();
}

#[test]
fn a_container_in_a_shared_pid_namespace_shows_nothing_of_the_host() {
    for user_namespace in [false, true] {
        let change = |bundle: &mut Bundle| {
            may_trace(bundle);
            if user_namespace {
                bundle.user_namespace();
            }
        };
        let Some(race) = Race::begin("race_shared", change) else { return };
        let state = race.bundle.runc(&["state"]).out;
        let pid = serde_json::from_str::<serde_json::Value>(&state).unwrap()["pid"].as_i64().unwrap();
        let Some(mut second) = bundle("race_shared", "") else { return };
        second.process().args = vec!["/bin/true".into()];
        let mut shared = vec![NamespaceKind::Pid, NamespaceKind::Network, NamespaceKind::Ipc];
        if user_namespace {
            second.user_namespace();
            shared.push(NamespaceKind::User);
        }
        for kind in shared {
            let path = format!("/proc/{pid}/ns/{}", kind.proc_name());
            second.namespace(kind, Some(Namespace { kind, path }));
        }
        second.spec.mounts.push(Mount::new("/shared", "tmpfs", "tmpfs", &[]));
        let pid_file = race.bundle.path().join(&race.marker).join("pid");
        let run = ["run", "--pid-file", pid_file.to_str().unwrap(), &second.id];
        race.repeat("run", races() / 4, || second.command(&run));
        race.assert_nothing_found();
    }
}
