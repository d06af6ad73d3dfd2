//! The life of containers and execs.

use api::Message;
use api::containerd::events::{TaskExit, TaskOom};
use api::containerd::task::v3::*;
use api::containerd::v1::types::Status;
use spec::error::Kind;

use crate::bundle::Place;
use crate::events::Events;
use crate::shim::{Shim, action, refusal, start};

/// From create to shutdown with `shim`; every verb that a plain container meets.
pub fn whole_life(mut shim: Shim, events: &Events) {
    let pid = shim.create(&shim.create_request("a"));
    assert_eq!(shim.state("a", "").status(), Status::Created);
    assert_eq!(shim.start_process("a", ""), pid);
    let state = shim.state("a", "");
    assert_eq!((state.status(), state.pid), (Status::Running, pid));

    let exec = ExecProcessRequest { id: "a".into(), exec_id: "e".into(), ..ExecProcessRequest::default() };
    let exec_pid = shim.exec(exec, &["/bin/sh", "-c", "exit 7"]).unwrap();
    assert_ne!(exec_pid, pid);
    assert_eq!(shim.wait("a", "e").exit_status, 7);
    assert_eq!(shim.delete("a", "e").exit_status, 7);

    let pids: PidsResponse = shim.call("Pids", &PidsRequest { id: "a".into() }).unwrap();
    assert!(pids.processes.iter().any(|process| process.pid == pid), "{pids:?}");

    let stats: StatsResponse = shim.call("Stats", &StatsRequest { id: "a".into() }).unwrap();
    let stats = stats.stats.unwrap();
    if stats.type_url == "io.containerd.cgroups.v1.Metrics" {
        let metrics = api::io::containerd::cgroups::v1::Metrics::decode(stats.value.as_slice()).unwrap();
        assert_eq!(metrics.pids.unwrap().current, 1);
        assert!(metrics.memory.unwrap().usage.unwrap().usage > 0);
    } else {
        let metrics = api::io::containerd::cgroups::v2::Metrics::decode(stats.value.as_slice()).unwrap();
        assert_eq!(metrics.pids.unwrap().current, 1);
    }

    let () = shim.call("Pause", &PauseRequest { id: "a".into() }).unwrap();
    assert_eq!(shim.state("a", "").status(), Status::Paused);
    let () = shim.call("Resume", &ResumeRequest { id: "a".into() }).unwrap();
    assert_eq!(shim.state("a", "").status(), Status::Running);

    let connect: ConnectResponse = shim.call("Connect", &ConnectRequest { id: "a".into() }).unwrap();
    assert_eq!((connect.shim_pid, connect.task_pid), (shim.pid(), pid));

    shim.kill("a", "", 9);
    assert_eq!(shim.wait("a", "").exit_status, 137);
    assert_eq!(shim.state("a", "").status(), Status::Stopped);
    let deleted = shim.delete("a", "");
    assert_eq!((deleted.pid, deleted.exit_status), (pid, 137));
    shim.shutdown();
    let topics = events.wait_for(9);
    assert_eq!(
        topics,
        [
            "/tasks/create",
            "/tasks/start",
            "/tasks/exec-added",
            "/tasks/exec-started",
            "/tasks/exit",
            "/tasks/paused",
            "/tasks/resumed",
            "/tasks/exit",
            "/tasks/delete"
        ]
    );
    let exits: Vec<TaskExit> = events.payloads("/tasks/exit");
    assert_eq!((exits[0].id.as_str(), exits[0].exit_status, exits[0].pid), ("e", 7, exec_pid));
    assert_eq!((exits[1].id.as_str(), exits[1].exit_status, exits[1].pid), ("a", 137, pid));
    assert!(!std::path::Path::new(shim.address.strip_prefix("unix://").unwrap()).exists());
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(&shim.bundle.display().to_string()), "{mounts}");
}

#[test]
fn a_container_lives_from_create_to_shutdown() {
    testkit::needs!(root, program "busybox");
    let place = Place::new();
    let events = Events::listen(&place.events_socket());
    place.bundle("a", "sleep 1000");
    whole_life(Shim::start(place, "a"), &events);
}

#[test]
fn version_two_of_the_service_is_the_same() {
    testkit::needs!(root, program "busybox");
    let place = Place::new();
    let events = Events::listen(&place.events_socket());
    place.bundle("a", "sleep 1000");
    let mut shim = Shim::start(place, "a");
    shim.service = "containerd.task.v2.Task";
    whole_life(shim, &events);
}

#[test]
fn the_exit_code_is_the_programs() {
    testkit::needs!(root, program "busybox");
    let place = Place::new();
    place.bundle("a", "exit 42");
    let mut shim = Shim::start(place, "a");
    shim.create(&shim.create_request("a"));
    let waiting =
        shim.client.send(shim.service, "Wait", &WaitRequest { id: "a".into(), exec_id: String::new() });
    let waiting = waiting.unwrap();
    let started =
        shim.client.send(shim.service, "Start", &StartRequest { id: "a".into(), ..Default::default() });
    let started = started.unwrap();
    let deadline = crate::shim::soon();
    assert!(shim.client.receive(started, deadline).unwrap().status.is_none());
    let response = shim.client.receive(waiting, deadline).unwrap();
    let wait = WaitResponse::decode(response.payload.as_slice()).unwrap();
    assert_eq!(wait.exit_status, 42);
    assert_eq!(shim.delete("a", "").exit_status, 42);
    shim.shutdown();
}

#[test]
fn a_program_that_is_not_there_is_named_and_leaves_nothing() {
    testkit::needs!(root, program "busybox");
    let place = Place::new();
    place.bundle_of("a", &["no-such-program"], |_| {});
    let mut shim = Shim::start(place, "a");
    let request = shim.create_request("a");
    let (kind, text) = refusal(shim.call::<_, CreateTaskResponse>("Create", &request));
    assert_eq!(kind, Kind::Unknown);
    assert!(text.starts_with("OCI runtime create failed: "), "{text}");
    assert!(text.contains(r#"exec: "no-such-program": executable file not found in $PATH"#), "{text}");
    let state: Result<StateResponse, _> =
        shim.call("State", &StateRequest { id: "a".into(), ..Default::default() });
    assert_eq!(refusal(state), (Kind::NotFound, "container not created: not found".into()));
    shim.shutdown();
}

#[test]
fn what_cannot_be_is_refused_by_kind() {
    testkit::needs!(root, program "busybox");
    let place = Place::new();
    place.bundle("a", "sleep 1000");
    let mut shim = Shim::start(place, "a");
    let start = StartRequest { id: "a".into(), exec_id: String::new() };
    assert_eq!(refusal(shim.call::<_, StartResponse>("Start", &start)).0, Kind::NotFound);
    let create = shim.create_request("a");
    shim.create(&create);
    assert_eq!(refusal(shim.call::<_, CreateTaskResponse>("Create", &create)).0, Kind::AlreadyExists);
    shim.start_process("a", "");
    assert_eq!(refusal(shim.call::<_, StartResponse>("Start", &start)).0, Kind::FailedPrecondition);
    let delete = DeleteRequest { id: "a".into(), exec_id: String::new() };
    let running = refusal(shim.call::<_, DeleteResponse>("Delete", &delete));
    assert_eq!(
        running,
        (Kind::FailedPrecondition, "cannot delete a running process: failed precondition".into())
    );
    let checkpoint = CheckpointTaskRequest { id: "a".into(), ..Default::default() };
    let refused = refusal(shim.call::<_, ()>("Checkpoint", &checkpoint));
    assert_eq!(
        refused,
        (Kind::Unimplemented, "checkpoint is not supported by this shim: not implemented".into())
    );
    let traversal = ExecProcessRequest { id: "a".into(), exec_id: "../x".into(), ..Default::default() };
    assert_eq!(refusal(shim.call::<_, ()>("Exec", &traversal)).0, Kind::InvalidArgument);
    let other: Result<(), _> = shim.client.call("containerd.runtime.sandbox.v1.Sandbox", "Platform", &());
    assert_eq!(refusal(other).0, Kind::Unimplemented);
    let () = shim.call("Shutdown", &ShutdownRequest::default()).unwrap();
    shim.kill("a", "", 9);
    shim.wait("a", "");
    let late = KillRequest { id: "a".into(), signal: 9, ..Default::default() };
    assert_eq!(
        refusal(shim.call::<_, ()>("Kill", &late)),
        (Kind::NotFound, "process already finished: not found".into())
    );
    shim.delete("a", "");
    shim.shutdown();
}

#[test]
fn containers_of_a_group_share_a_shim() {
    testkit::needs!(root, program "busybox");
    let place = Place::new();
    let grouped = |spec: &mut spec::runtime::Spec| {
        spec.annotations.insert("io.kubernetes.cri.sandbox-id".into(), "pod".into());
    };
    let sleep = ["/bin/sleep", "1000"];
    place.bundle_of("a", &sleep, grouped);
    let second = place.bundle_of("b", &sleep, grouped);
    let mut shim = Shim::start(place, "a");
    assert_eq!(start(&shim.place, &second, "b"), shim.address);
    for id in ["a", "b"] {
        shim.create(&shim.create_request(id));
        shim.start_process(id, "");
    }
    for id in ["a", "b"] {
        // Shutdown with a container left is no shutdown.
        let () = shim.call("Shutdown", &ShutdownRequest::default()).unwrap();
        shim.kill(id, "", 15);
        shim.kill(id, "", 9);
        shim.wait(id, "");
        shim.delete(id, "");
    }
    shim.shutdown();
}

#[test]
fn a_dead_shim_is_cleaned_up_after() {
    testkit::needs!(root, program "busybox");
    let place = Place::new();
    place.bundle("a", "sleep 1000");
    let mut shim = Shim::start(place, "a");
    let pid = shim.create(&shim.create_request("a"));
    shim.start_process("a", "");
    let own = rustix::process::Pid::from_raw(shim.pid().cast_signed()).unwrap();
    rustix::process::kill_process(own, rustix::process::Signal::KILL).unwrap();
    // The root of the state is in the options, which the bundle keeps.
    let output = action(&shim.place, &shim.bundle, "a", &["delete"], &[], &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let response = DeleteResponse::decode(output.stdout.as_slice()).unwrap();
    assert_eq!((response.pid, response.exit_status), (pid, 137));
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(&shim.bundle.display().to_string()));
    testkit::wait::eventually(std::time::Duration::from_secs(10), "init to be gone", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    });
}

#[test]
fn old_daemons_get_the_replies_they_read() {
    testkit::needs!(root);
    for (version, check) in [("", "unix://"), ("3", "{\"version\":3,\"address\":\"unix://")] {
        let place = Place::new();
        let bundle = place.bundle("a", "true");
        let env = [("MAX_SHIM_VERSION", version)];
        let output = action(&place, &bundle, "a", &["start"], &env, &[]);
        let reply = String::from_utf8(output.stdout).unwrap();
        assert!(reply.starts_with(check), "{reply}");
        let address = std::fs::read_to_string(bundle.join("address")).unwrap();
        assert!(reply.contains(&address));
        let mut client = crate::shim::connect(&place, &address);
        let () = client.call("containerd.task.v2.Task", "Shutdown", &ShutdownRequest::default()).unwrap();
    }
}

#[test]
fn running_out_of_memory_is_told() {
    testkit::needs!(root, program "busybox");
    let place = Place::new();
    let events = Events::listen(&place.events_socket());
    place.bundle_of("a", &["/bin/sh", "-c", "x=x; while true; do x=$x$x; done"], |spec| {
        let memory = spec::runtime::LinuxMemory { limit: Some(16 << 20), ..Default::default() };
        spec.linux_mut().resources.get_or_insert_default().memory = Some(memory);
    });
    let mut shim = Shim::start(place, "a");
    shim.create(&shim.create_request("a"));
    shim.start_process("a", "");
    assert_eq!(shim.wait("a", "").exit_status, 137);
    shim.delete("a", "");
    shim.shutdown();
    let topics = events.wait_for(5);
    let oom = topics.iter().position(|topic| topic == "/tasks/oom").unwrap();
    let exit = topics.iter().position(|topic| topic == "/tasks/exit").unwrap();
    assert!(oom < exit, "{topics:?}");
    let told: Vec<TaskOom> = events.payloads("/tasks/oom");
    assert_eq!(told[0].container_id, "a");
}

#[test]
fn execs_end_before_a_container_that_shares_its_pids() {
    testkit::needs!(root, program "busybox");
    let place = Place::new();
    let events = Events::listen(&place.events_socket());
    place.bundle_of("a", &["/bin/sleep", "1000"], |spec| {
        spec.linux_mut().namespaces.retain(|ns| ns.kind != spec::runtime::NamespaceKind::Pid);
    });
    let mut shim = Shim::start(place, "a");
    shim.create(&shim.create_request("a"));
    shim.start_process("a", "");
    let exec = ExecProcessRequest { id: "a".into(), exec_id: "e".into(), ..ExecProcessRequest::default() };
    shim.exec(exec, &["/bin/sleep", "1000"]).unwrap();
    shim.kill("a", "", 9);
    assert_eq!(shim.wait("a", "").exit_status, 137);
    assert_eq!(shim.state("a", "e").status(), Status::Stopped);
    shim.delete("a", "e");
    shim.delete("a", "");
    shim.shutdown();
    events.wait_for(7);
    let exits: Vec<TaskExit> = events.payloads("/tasks/exit");
    assert_eq!([exits[0].id.as_str(), exits[1].id.as_str()], ["e", "a"]);
}

#[test]
fn waits_end_with_what_they_wait_for() {
    testkit::needs!(root, program "busybox");
    let place = Place::new();
    place.bundle("a", "sleep 1000");
    let mut shim = Shim::start(place, "a");
    shim.create(&shim.create_request("a"));
    shim.start_process("a", "");
    let exec =
        |exec_id: &str| ExecProcessRequest { id: "a".into(), exec_id: exec_id.into(), ..Default::default() };
    let described = |exec_id: &str, program: &str| {
        let process = serde_json::json!({ "args": [program], "cwd": "/", "env": ["PATH=/bin"] });
        let spec = Some(api::Any { type_url: String::new(), value: process.to_string().into_bytes() });
        ExecProcessRequest { spec, ..exec(exec_id) }
    };
    let mut waiter = crate::shim::connect(&shim.place, &shim.address);
    let mut outcomes = Vec::new();
    for (exec_id, program) in [("missing", "/no/such/program"), ("unstarted", "/bin/true")] {
        let () = shim.call("Exec", &described(exec_id, program)).unwrap();
        let wait = WaitRequest { id: "a".into(), exec_id: exec_id.into() };
        let stream = waiter.send(shim.service, "Wait", &wait).unwrap();
        // A call on the same connection after it says that the wait is parked.
        let _: ConnectResponse = waiter.call(shim.service, "Connect", &ConnectRequest::default()).unwrap();
        let start = StartRequest { id: "a".into(), exec_id: exec_id.into() };
        if exec_id == "missing" {
            refusal(shim.call::<_, StartResponse>("Start", &start));
        } else {
            shim.delete("a", exec_id);
        }
        outcomes.push(waiter.receive(stream, crate::shim::soon()).unwrap());
    }
    let failed = WaitResponse::decode(outcomes[0].payload.as_slice()).unwrap();
    assert_eq!((failed.exit_status, outcomes[0].status.is_none()), (255, true));
    assert_eq!(outcomes[1].status.as_ref().unwrap().code, Kind::NotFound.code());

    shim.exec(exec("e"), &["/bin/sleep", "1000"]).unwrap();
    shim.kill("a", "e", 37);
    assert_eq!(shim.wait("a", "e").exit_status, 128 + 37);
    shim.kill("a", "", 9);
    shim.wait("a", "");
    shim.delete("a", "");
    shim.shutdown();
}
