//! Starting the real shim and calling it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use api::containerd::runc::v1::Options;
use api::containerd::runtime::bootstrap::v1::{BootstrapParams, BootstrapResult};
use api::containerd::task::v3::*;
use api::containerd::types::Mount;
use api::{Any, Message, encode_any};
use shim::ttrpc::Client;
use shim::ttrpc::client::CallError;

use crate::bundle::Place;

pub const BINARY: &str = env!("CARGO_BIN_EXE_containerd-shim-runc-v2");

/// How long any call of a test may take.
const LIMIT: Duration = Duration::from_secs(60);

/// A shim that serves, and one client of it.
pub struct Shim {
    pub place: Place,
    pub address: String,
    pub bundle: PathBuf,
    pub client: Client,
    pub service: &'static str,
    pub options: Options,
}

/// Runs an action of the binary in `bundle`.
pub fn action(
    place: &Place,
    bundle: &Path,
    id: &str,
    flags: &[&str],
    env: &[(&str, &str)],
    input: &[u8],
) -> Output {
    let mut command = Command::new(BINARY);
    command
        .args(["-namespace", &place.namespace, "-id", id, "-address", &place.path().display().to_string()])
        .args(flags)
        .current_dir(bundle)
        .env("TTRPC_ADDRESS", place.events_socket())
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

/// The parameters that containerd 2.3 would send.
pub fn params(place: &Place, id: &str) -> Vec<u8> {
    let params = BootstrapParams {
        instance_id: id.into(),
        namespace: place.namespace.clone(),
        containerd_grpc_address: place.path().display().to_string(),
        containerd_ttrpc_address: place.events_socket().display().to_string(),
        socket_dir: Some(place.path().join("s").display().to_string()),
        ..BootstrapParams::default()
    };
    params.encode_to_vec()
}

/// Starts, or finds, the shim of `bundle`; returns its address.
pub fn start(place: &Place, bundle: &Path, id: &str) -> String {
    let output = action(place, bundle, id, &["start"], &[], &params(place, id));
    assert!(output.status.success(), "start: {}", String::from_utf8_lossy(&output.stderr));
    let result = BootstrapResult::decode(output.stdout.as_slice()).unwrap();
    assert_eq!((result.version, result.protocol.as_str()), (3, "ttrpc"));
    result.address
}

pub fn connect(place: &Place, address: &str) -> Client {
    let path = address.strip_prefix("unix://").unwrap();
    Client::connect(Path::new(path), &place.namespace, LIMIT).unwrap()
}

impl Shim {
    /// A shim of `place` for the container `id`, whose bundle is there.
    pub fn start(place: Place, id: &str) -> Self {
        let bundle = place.path().join("bundles").join(id);
        let address = start(&place, &bundle, id);
        let client = connect(&place, &address);
        let options = Options {
            root: place.path().join("runc").display().to_string(),
            // The same tests for another program that speaks runc's command line.
            binary_name: std::env::var("SHIM_TEST_RUNTIME").unwrap_or_default(),
            ..Options::default()
        };
        Self { place, address, bundle, client, service: "containerd.task.v3.Task", options }
    }

    pub fn call<Req: Message, Rep: Message + Default>(
        &mut self,
        method: &str,
        request: &Req,
    ) -> Result<Rep, CallError> {
        self.client.call(self.service, method, request)
    }

    /// A create request for `id` without any standard files.
    pub fn create_request(&self, id: &str) -> CreateTaskRequest {
        CreateTaskRequest {
            id: id.into(),
            bundle: self.place.path().join("bundles").join(id).display().to_string(),
            rootfs: vec![Mount {
                r#type: "bind".into(),
                source: self.place.root().display().to_string(),
                target: String::new(),
                options: vec!["rbind".into(), "rw".into()],
            }],
            options: Some(encode_any(&self.options)),
            ..CreateTaskRequest::default()
        }
    }

    pub fn create(&mut self, request: &CreateTaskRequest) -> u32 {
        let response: CreateTaskResponse = self.call("Create", request).unwrap();
        response.pid
    }

    pub fn start_process(&mut self, id: &str, exec_id: &str) -> u32 {
        let request = StartRequest { id: id.into(), exec_id: exec_id.into() };
        let response: StartResponse = self.call("Start", &request).unwrap();
        response.pid
    }

    pub fn state(&mut self, id: &str, exec_id: &str) -> StateResponse {
        self.call("State", &StateRequest { id: id.into(), exec_id: exec_id.into() }).unwrap()
    }

    pub fn wait(&mut self, id: &str, exec_id: &str) -> WaitResponse {
        self.call("Wait", &WaitRequest { id: id.into(), exec_id: exec_id.into() }).unwrap()
    }

    pub fn kill(&mut self, id: &str, exec_id: &str, signal: u32) {
        let request = KillRequest { id: id.into(), exec_id: exec_id.into(), signal, all: false };
        let () = self.call("Kill", &request).unwrap();
    }

    pub fn delete(&mut self, id: &str, exec_id: &str) -> DeleteResponse {
        self.call("Delete", &DeleteRequest { id: id.into(), exec_id: exec_id.into() }).unwrap()
    }

    /// Describes and starts a process that runs `args`.
    pub fn exec(&mut self, request: ExecProcessRequest, args: &[&str]) -> Result<u32, CallError> {
        let (id, exec_id) = (request.id.clone(), request.exec_id.clone());
        let () = self.call("Exec", &Self::described(request, args))?;
        let response: StartResponse = self.call("Start", &StartRequest { id, exec_id })?;
        Ok(response.pid)
    }

    /// The request with the process that runs `args`.
    pub fn described(request: ExecProcessRequest, args: &[&str]) -> ExecProcessRequest {
        let process = spec::runtime::Process {
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            cwd: "/".into(),
            env: vec!["PATH=/bin".into()],
            terminal: request.terminal,
            ..spec::runtime::Process::default()
        };
        let value = serde_json::to_vec(&process).unwrap();
        let spec =
            Some(Any { type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".into(), value });
        ExecProcessRequest { spec, ..request }
    }

    /// The shim's process id.
    pub fn pid(&self) -> u32 {
        std::fs::read_to_string(self.bundle.join("shim.pid")).unwrap().trim().parse().unwrap()
    }

    /// Asks the shim to end and sees it go.
    pub fn shutdown(&mut self) {
        let pid = self.pid();
        let () = self.call("Shutdown", &ShutdownRequest { id: String::new(), now: false }).unwrap();
        testkit::wait::eventually(LIMIT, "the shim to end", || (!is_alive(pid)).then_some(()));
    }
}

impl Drop for Shim {
    /// Whatever a failed test has left: the shim, its containers, their mounts.
    fn drop(&mut self) {
        if let Ok(pid) = std::fs::read_to_string(self.bundle.join("shim.pid"))
            && let Ok(pid) = pid.trim().parse::<i32>()
            && is_alive(pid.cast_unsigned())
        {
            let _ = rustix::process::kill_process(
                rustix::process::Pid::from_raw(pid).unwrap(),
                rustix::process::Signal::KILL,
            );
        }
        let Ok(bundles) = std::fs::read_dir(self.place.path().join("bundles")) else { return };
        for bundle in bundles.flatten() {
            if bundle.path().join("options.json").exists() {
                let id = bundle.file_name().to_string_lossy().into_owned();
                let _ = action(&self.place, &bundle.path(), &id, &["delete"], &[], &[]);
            }
        }
    }
}

/// Whether `pid` is this test's shim, and not a zombie.
pub fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.contains("(containerd-shim)") && !stat.contains(") Z ")
}

/// What a call failed with: its kind and text.
pub fn refusal<T: std::fmt::Debug>(result: Result<T, CallError>) -> (spec::error::Kind, String) {
    match result.unwrap_err() {
        CallError::Remote(error) => (error.kind(), error.text().to_owned()),
        other => panic!("not an answer: {other}"),
    }
}

/// The moment after which a test gives up.
pub fn soon() -> Instant {
    Instant::now() + LIMIT
}
