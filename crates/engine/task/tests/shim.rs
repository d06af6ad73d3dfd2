//! Tasks against shims that misbehave as the real one never does on purpose: a script is the program, a socket of this
//! test is what it says it serves.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::containerd::events::TaskExit;
use api::containerd::task::v3::{CreateTaskRequest, CreateTaskResponse, StateResponse};
use api::ttrpc::Request;
use api::{Message, encode_any};
use model::event::{Exchange, Subscription};
use shim::ttrpc::frame::{FrameType, HEADER_LEN, Header};
use shim::ttrpc::message;
use spec::{Error, Kind, Namespace};
use task::{Config, Create, Stdio, Tasks};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// What `delete` of the script answers: process 7, status 137.
const DELETE: &str = r"printf '\010\007\020\211\001'";

struct Stage {
    dir: TempDir,
    tasks: Tasks,
    events: Subscription,
}

impl Stage {
    /// A daemon's tasks, with `start` (shell) as what the shim's program does to start.
    fn new(start: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("shim");
        let log = dir.path().join("calls");
        let text = format!(
            "#!/bin/sh\ncat >/dev/null\nfor action; do :; done\necho $action >>{}\ncase $action in\nstart) {start};;\ndelete) {DELETE};;\nesac\n",
            log.display()
        );
        std::fs::write(&program, text).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let exchange = Exchange::default();
        let events = exchange.subscribe();
        let config = Config {
            root: dir.path().join("root"),
            state: dir.path().join("state"),
            socket_dir: dir.path().join("s"),
            grpc_address: "/none".into(),
            ttrpc_address: "/none.ttrpc".into(),
            program: "/none/containerd".into(),
            debug: false,
            env: Vec::new(),
            deadlines: task::Deadlines::default(),
        };
        Self { tasks: Tasks::new(config, exchange), events, dir }
    }

    /// A shim that says it serves a socket of ours, and that socket.
    fn serving() -> (Self, UnixListener) {
        let stage = Self::new(r#"printf unix://%s/x.sock "$(dirname "$0")""#);
        let listener = UnixListener::bind(stage.dir.path().join("x.sock")).unwrap();
        (stage, listener)
    }

    async fn create(&self) -> Result<u32, Error> {
        self.create_beside("a", None).await
    }

    async fn create_beside(&self, id: &str, other: Option<&str>) -> Result<u32, Error> {
        let create = Create {
            namespace: namespace(),
            id: id.parse().unwrap(),
            runtime: self.dir.path().join("shim").display().to_string(),
            runtime_options: None,
            task_options: None,
            spec: b"{}".to_vec(),
            rootfs: Vec::new(),
            stdio: Stdio::default(),
            beside: other.map(|id| id.parse().unwrap()),
        };
        self.tasks.create(create).await
    }

    fn bundle(&self) -> PathBuf {
        self.dir.path().join("state/io.containerd.runtime.v2.task/ns/a")
    }

    fn calls(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("calls")).unwrap_or_default()
    }

    /// Asserts that a failed create left nothing, and that the id is free.
    async fn left_nothing(&self, expected: &str) {
        assert!(!self.bundle().exists());
        let work = self.dir.path().join("root/io.containerd.runtime.v2.task/ns/a");
        assert!(!work.exists());
        let again = self.create().await.unwrap_err();
        assert_eq!(again.to_string(), expected);
    }
}

fn namespace() -> Namespace {
    "ns".parse().unwrap()
}

async fn accept(listener: &UnixListener) -> UnixStream {
    listener.accept().await.unwrap().0
}

async fn request(socket: &mut UnixStream) -> (u32, Request) {
    let mut head = [0; HEADER_LEN];
    socket.read_exact(&mut head).await.unwrap();
    let header = Header::decode(&head).unwrap();
    let mut payload = vec![0; header.length];
    socket.read_exact(&mut payload).await.unwrap();
    (header.stream, Request::decode(payload.as_slice()).unwrap())
}

async fn answer(socket: &mut UnixStream, stream: u32, result: Result<Vec<u8>, Error>) {
    let mut out = Vec::new();
    message::append(stream, FrameType::Response, &message::response(result), &mut out).unwrap();
    socket.write_all(&out).await.unwrap();
}

fn created(pid: u32) -> Vec<u8> {
    CreateTaskResponse { pid }.encode_to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shim_that_fails_to_start_says_why_and_leaves_nothing() {
    let stage = Stage::new("echo no such kernel >&2; exit 3");
    let error = stage.create().await.unwrap_err();
    assert_eq!(error.to_string(), "failed to start shim: no such kernel: exit status: 3");
    stage.left_nothing(&error.to_string()).await;
    assert_eq!(stage.calls(), "start\nstart\n", "what never started is not deleted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shim_that_is_killed_while_it_starts_is_deleted() {
    let stage = Stage::new("kill -9 $$");
    let error = stage.create().await.unwrap_err();
    assert!(error.to_string().contains("signal: 9"), "{error}");
    assert_eq!(stage.calls(), "start\ndelete\n", "it may have left a socket or a process");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shim_that_serves_nowhere_is_deleted_again() {
    let stage = Stage::new("printf unix:///nowhere/x.sock");
    let error = stage.create().await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    stage.left_nothing(&error.to_string()).await;
    assert_eq!(stage.calls(), "start\ndelete\nstart\ndelete\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_without_a_program_is_named() {
    let stage = Stage::new("");
    std::fs::remove_file(stage.dir.path().join("shim")).unwrap();
    let error = stage.create().await.unwrap_err();
    let program = stage.dir.path().join("shim");
    let program = Path::new(&program).display();
    let expected = format!(
        "failed to start shim: runtime \"{program}\" binary not installed \"{program}\": file does not exist"
    );
    assert_eq!((error.kind(), error.to_string()), (Kind::NotFound, expected.clone()));
    stage.left_nothing(&expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_that_the_shim_refuses_is_taken_back_newest_first() {
    let (stage, listener) = Stage::serving();
    let shim = async {
        let mut socket = accept(&listener).await;
        let (stream, asked) = request(&mut socket).await;
        assert_eq!(asked.method, "Create");
        answer(&mut socket, stream, Err(Error::invalid("bad mount"))).await;
        let (stream, asked) = request(&mut socket).await;
        assert_eq!(asked.method, "Shutdown");
        answer(&mut socket, stream, Ok(Vec::new())).await;
    };
    let (outcome, ()) = tokio::join!(stage.create(), shim);
    let error = outcome.unwrap_err();
    assert_eq!(error.to_string(), "failed to create shim task: bad mount: invalid argument");
    assert!(!stage.bundle().exists());
    assert_eq!(stage.calls(), "start\ndelete\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_leaves_does_not_stop_a_create() {
    let (stage, listener) = Stage::serving();
    let gone = tokio::time::timeout(Duration::ZERO, stage.create()).await;
    assert!(gone.is_err());
    let mut socket = accept(&listener).await;
    let (stream, _) = request(&mut socket).await;
    answer(&mut socket, stream, Ok(created(42))).await;
    // The owner makes the task visible in its own time; asking for its state goes to the shim.
    let task = loop {
        match stage.tasks.get(&namespace(), "a") {
            Ok(task) => break task,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert_eq!((task.pid(), task.id()), (42, "a"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shim_of_version_2_is_spoken_to_in_its_version() {
    let (stage, listener) = Stage::serving();
    // A bare address means version 2.
    let shim = async {
        let mut socket = accept(&listener).await;
        let (stream, asked) = request(&mut socket).await;
        assert_eq!(asked.service, "containerd.task.v2.Task");
        answer(&mut socket, stream, Ok(created(1))).await;
        let (stream, asked) = request(&mut socket).await;
        assert_eq!((asked.service.as_str(), asked.method.as_str()), ("containerd.task.v2.Task", "State"));
        let state = StateResponse { id: "a".into(), pid: 1, ..StateResponse::default() };
        answer(&mut socket, stream, Ok(state.encode_to_vec())).await;
    };
    let ours = async {
        assert_eq!(stage.create().await.unwrap(), 1);
        let again = stage.create().await.unwrap_err();
        assert_eq!(again.to_string(), "task a: already exists");
        stage.tasks.get(&namespace(), "a").unwrap().state("").await.unwrap()
    };
    let (state, ()) = tokio::join!(ours, shim);
    assert_eq!(state.pid, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_beside_another_needs_no_program_and_no_connection() {
    let (stage, listener) = Stage::serving();
    let shim = async {
        let mut socket = accept(&listener).await;
        for (id, pid) in [("a", 1), ("b", 2)] {
            let (stream, asked) = request(&mut socket).await;
            let asked = CreateTaskRequest::decode(asked.payload.as_slice()).unwrap();
            assert_eq!(asked.id, id);
            answer(&mut socket, stream, Ok(created(pid))).await;
        }
        // Closing it would be the shim's death.
        socket
    };
    let ours = async {
        assert_eq!(stage.create().await.unwrap(), 1);
        assert_eq!(stage.create_beside("b", Some("a")).await.unwrap(), 2);
        let error = stage.create_beside("c", Some("none")).await.unwrap_err();
        assert_eq!(error.to_string(), "task none not found: not found");
    };
    let ((), _socket) = tokio::join!(ours, shim);
    assert_eq!(stage.calls(), "start\n");
    let recorded =
        |id: &str| std::fs::read(stage.bundle().with_file_name(id).join("bootstrap.json")).unwrap();
    assert_eq!(recorded("a"), recorded("b"));
    assert!(!stage.bundle().with_file_name("c").exists());
    let task = stage.tasks.get(&namespace(), "b").unwrap();
    assert!(!task.writes_logs());
    assert_eq!(task.reopen_log().await.unwrap_err().kind(), Kind::Unimplemented);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shim_that_dies_is_cleaned_up_after_and_everyone_hears() {
    let (mut stage, listener) = Stage::serving();
    let shim = async {
        let mut socket = accept(&listener).await;
        let (stream, _) = request(&mut socket).await;
        answer(&mut socket, stream, Ok(created(9))).await;
        socket
    };
    let (pid, mut socket) = tokio::join!(stage.create(), shim);
    assert_eq!(pid.unwrap(), 9);
    let task = stage.tasks.get(&namespace(), "a").unwrap();
    let waiting = tokio::spawn(async move { task.wait("").await });
    let (_, asked) = request(&mut socket).await;
    assert_eq!(asked.method, "Wait");
    drop(socket);
    let exit = waiting.await.unwrap().unwrap();
    assert_eq!((exit.pid, exit.status), (7, 137));
    let event = stage.events.next().await;
    let expected = TaskExit {
        container_id: "a".into(),
        id: "a".into(),
        pid: 7,
        exit_status: 137,
        exited_at: Some(api::timestamp(exit.at)),
    };
    assert_eq!(event.topic, "/tasks/exit");
    assert_eq!(event.event.value, encode_any(&expected).value);
    assert_eq!(stage.events.next().await.topic, "/tasks/delete");
    assert!(!stage.bundle().exists());
    assert_eq!(stage.tasks.get(&namespace(), "a").unwrap_err().kind(), Kind::NotFound);
}

/// A client that signals a task while another deletes it, as those that forward signals do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn call_on_a_connection_that_a_finished_shim_closed_is_not_found() {
    let (stage, listener) = Stage::serving();
    let (made, mut socket) = tokio::join!(stage.create(), async {
        let mut socket = accept(&listener).await;
        let (stream, _create) = request(&mut socket).await;
        answer(&mut socket, stream, Ok(created(7))).await;
        socket
    });
    assert_eq!(made.unwrap(), 7);
    let task = stage.tasks.get(&namespace(), "a").unwrap();
    let kill = tokio::spawn({
        let task = std::sync::Arc::clone(&task);
        async move {
            task.kill(api::containerd::task::v3::KillRequest { id: "a".into(), ..Default::default() }).await
        }
    });
    let wait = tokio::spawn({
        let task = std::sync::Arc::clone(&task);
        async move { task.wait("").await }
    });
    let mut methods = [request(&mut socket).await.1.method, request(&mut socket).await.1.method];
    methods.sort();
    assert_eq!(methods, ["Kill", "Wait"]);
    let deleted = tokio::spawn({
        let task = std::sync::Arc::clone(&task);
        async move { task.delete().await }
    });
    let (stream, delete) = request(&mut socket).await;
    assert_eq!(delete.method, "Delete");
    let exit = api::containerd::task::v3::DeleteResponse { pid: 7, exit_status: 3, exited_at: None };
    answer(&mut socket, stream, Ok(exit.encode_to_vec())).await;
    let (stream, shutdown) = request(&mut socket).await;
    assert_eq!(shutdown.method, "Shutdown");
    answer(&mut socket, stream, Ok(Vec::new())).await;
    drop(socket);
    assert_eq!(deleted.await.unwrap().unwrap().status, 3);
    let error = kill.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    assert_eq!(wait.await.unwrap().unwrap().status, 3, "whoever waits hears how it ended");
}
