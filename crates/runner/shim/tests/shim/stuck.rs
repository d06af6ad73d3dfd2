//! Processes that a container has stopped before they run their program, hooks that take their time, and runtimes
//! that do: nothing else waits for them.

use std::fs;
use std::path::PathBuf;

use api::Message;
use api::containerd::task::v3::*;
use runtime::cgroup::{Cgroup, UNIFIED};
use shim::ttrpc::{Client, message};
use spec::error::{Error, Kind};
use spec::runtime::{Hook, Hooks, NamespaceKind};

use crate::bundle::Place;
use crate::shim::{Shim, connect, refusal, soon};

/// The cgroup below which a process that is to be stuck is born: frozen by the kernel's second freezer, which its own
/// container's state does not show, but which a kill ends.
struct Ice(PathBuf);

impl Ice {
    /// The cgroup `stuck` of the place, which exists once a container is in it.
    fn of(place: &Place) -> Option<Self> {
        let found = Cgroup::find(&path(place)).ok()?;
        let directory = found.paths().get(UNIFIED)?.clone();
        Some(Self(directory))
    }

    fn freeze(&self) {
        fs::write(self.0.join("cgroup.freeze"), "1").unwrap();
    }

    fn thaw(&self) {
        // Gone with its last container, perhaps.
        let _ = fs::write(self.0.join("cgroup.freeze"), "0");
    }
}

impl Drop for Ice {
    fn drop(&mut self) {
        self.thaw();
    }
}

fn path(place: &Place) -> String {
    format!("/{}/stuck", place.namespace)
}

/// Whether this host cannot freeze so; the reason is printed.
fn lacks_ice(place: &Place) -> bool {
    let has = Ice::of(place).is_some_and(|ice| ice.0.ancestors().nth(2).is_some_and(|root| root.exists()));
    let freezes = fs::exists("/sys/fs/cgroup/cgroup.controllers").unwrap_or(false)
        || fs::exists("/sys/fs/cgroup/unified/cgroup.controllers").unwrap_or(false);
    testkit::need::lacks(if has && freezes { Ok(()) } else { Err("no cgroup v2 hierarchy".into()) })
}

/// A shim whose container `a` is in the cgroup that freezes, and whose container `b` is not; both run.
fn pod() -> Option<(Shim, Ice)> {
    let place = Place::new();
    if lacks_ice(&place) {
        return None;
    }
    let cgroup = format!("{}/a", path(&place));
    place.bundle_of("a", &["/bin/sleep", "1000"], |spec| spec.linux_mut().cgroups_path = cgroup);
    place.bundle("b", "sleep 1000");
    let mut shim = Shim::start(place, "a");
    for id in ["a", "b"] {
        shim.create(&shim.create_request(id));
        shim.start_process(id, "");
    }
    let ice = Ice::of(&shim.place)?;
    Some((shim, ice))
}

/// A request whose answer is waited for later.
struct Pending(Client, u32);

impl Pending {
    fn result(mut self) -> Result<Vec<u8>, Error> {
        message::reply(self.0.receive(self.1, soon()).unwrap())
    }
}

/// Sends a request over a connection of its own.
fn send<M: Message>(shim: &Shim, method: &str, request: &M) -> Pending {
    let mut client = connect(&shim.place, &shim.address);
    let stream = client.send(shim.service, method, request).unwrap();
    Pending(client, stream)
}

fn exec_request(id: &str, exec_id: &str) -> ExecProcessRequest {
    ExecProcessRequest { id: id.into(), exec_id: exec_id.into(), ..ExecProcessRequest::default() }
}

fn describe(shim: &mut Shim, id: &str, exec_id: &str) -> StartRequest {
    let () = shim.call("Exec", &Shim::described(exec_request(id, exec_id), &["/bin/true"])).unwrap();
    StartRequest { id: id.into(), exec_id: exec_id.into() }
}

/// An exec, statistics and the list of processes of another container.
fn others_work(shim: &mut Shim, exec_id: &str) {
    shim.exec(exec_request("b", exec_id), &["/bin/sh", "-c", "exit 7"]).unwrap();
    assert_eq!(shim.wait("b", exec_id).exit_status, 7);
    shim.delete("b", exec_id);
    let _: StatsResponse = shim.call("Stats", &StatsRequest { id: "b".into() }).unwrap();
    let _: PidsResponse = shim.call("Pids", &PidsRequest { id: "b".into() }).unwrap();
}

fn end(shim: &mut Shim, ids: &[&str]) {
    for id in ids {
        shim.kill(id, "", 9);
        assert_eq!(shim.wait(id, "").exit_status, 137);
        shim.delete(id, "");
    }
    shim.shutdown();
}

#[test]
fn an_exec_that_is_stopped_holds_up_nothing_else() {
    testkit::needs!(root, program "busybox");
    let Some((mut shim, ice)) = pod() else { return };
    let (first, second) = (describe(&mut shim, "a", "first"), describe(&mut shim, "a", "second"));
    ice.freeze();
    let first = send(&shim, "Start", &first);
    let second = send(&shim, "Start", &second);
    others_work(&mut shim, "e");
    let _: StatsResponse = shim.call("Stats", &StatsRequest { id: "a".into() }).unwrap();
    let again = StartRequest { id: "a".into(), exec_id: "first".into() };
    assert_eq!(refusal(shim.call::<_, StartResponse>("Start", &again)).0, Kind::FailedPrecondition);
    // Had the shim waited for the first, it would be over by now, and not by this.
    shim.kill("a", "first", 9);
    let error = first.result().unwrap_err();
    assert!(error.text().contains("it was killed"), "{}", error.text());
    assert_eq!(shim.wait("a", "first").exit_status, 255);
    // The whole container, with what is being started in it.
    shim.kill("a", "", 9);
    assert_eq!(shim.wait("a", "").exit_status, 137);
    assert!(second.result().unwrap_err().text().contains("exec failed"));
    shim.delete("a", "");
    end(&mut shim, &["b"]);
}

#[test]
fn an_exec_that_is_stopped_is_killed_when_its_time_is_up() {
    testkit::needs!(root, program "busybox");
    let Some((mut shim, ice)) = pod() else { return };
    let start = describe(&mut shim, "a", "e");
    ice.freeze();
    let limit = std::time::Duration::from_millis(500);
    let address = shim.address.trim_start_matches("unix://").to_owned();
    let mut hasty = Client::connect(std::path::Path::new(&address), &shim.place.namespace, limit).unwrap();
    let stream = hasty.send(shim.service, "Start", &start).unwrap();
    let error = Pending(hasty, stream).result().unwrap_err();
    assert_eq!(error.kind(), Kind::DeadlineExceeded);
    assert!(error.text().contains("timed out waiting for it to"), "{}", error.text());
    ice.thaw();
    let pids: PidsResponse = shim.call("Pids", &PidsRequest { id: "a".into() }).unwrap();
    assert_eq!(pids.processes.len(), 1, "{pids:?}");
    shim.delete("a", "e");
    end(&mut shim, &["a", "b"]);
}

#[test]
fn an_exec_that_is_being_started_can_be_deleted() {
    testkit::needs!(root, program "busybox");
    let Some((mut shim, ice)) = pod() else { return };
    let start = describe(&mut shim, "a", "e");
    ice.freeze();
    let starting = send(&shim, "Start", &start);
    others_work(&mut shim, "e");
    assert_eq!(shim.delete("a", "e").exit_status, 255);
    assert!(starting.result().unwrap_err().text().contains("it was killed"));
    let state = StateRequest { id: "a".into(), exec_id: "e".into() };
    assert_eq!(refusal(shim.call::<_, StateResponse>("State", &state)).0, Kind::NotFound);
    end(&mut shim, &["a", "b"]);
}

#[test]
fn an_init_that_is_stopped_holds_up_no_other_container() {
    testkit::needs!(root, program "busybox");
    let Some((mut shim, ice)) = pod() else { return };
    let cgroup = format!("{}/c", path(&shim.place));
    shim.place.bundle_of("c", &["/bin/sleep", "1000"], |spec| spec.linux_mut().cgroups_path = cgroup);
    ice.freeze();
    let creating = send(&shim, "Create", &shim.create_request("c"));
    others_work(&mut shim, "e");
    let state = StateRequest { id: "c".into(), exec_id: String::new() };
    assert_eq!(refusal(shim.call::<_, StateResponse>("State", &state)).0, Kind::NotFound);
    ice.thaw();
    assert_ne!(CreateTaskResponse::decode(creating.result().unwrap().as_slice()).unwrap().pid, 0);
    // Created, and stopped again before its program begins.
    ice.freeze();
    let starting = send(&shim, "Start", &StartRequest { id: "c".into(), ..StartRequest::default() });
    others_work(&mut shim, "e");
    starting.result().unwrap();
    end(&mut shim, &["c", "a", "b"]);
}

/// A hook that waits until somebody opens `fifo` for writing.
fn patient_hook(fifo: &std::path::Path) -> Vec<Hook> {
    let script = format!("cat {}", fifo.display());
    let args = vec!["sh".into(), "-c".into(), script];
    vec![Hook { path: "/bin/sh".into(), args, ..Hook::default() }]
}

#[test]
fn hooks_hold_up_no_other_container() {
    testkit::needs!(root, program "busybox");
    let place = Place::new();
    let gates = ["create", "start", "stop"].map(|name| place.fifo(name));
    let [create, start, stop] = &gates;
    let hooks = Hooks {
        create_runtime: patient_hook(create),
        poststart: patient_hook(start),
        poststop: patient_hook(stop),
        ..Hooks::default()
    };
    place.bundle_of("a", &["/bin/sleep", "1000"], |spec| spec.hooks = Some(hooks));
    place.bundle("b", "sleep 1000");
    let mut shim = Shim::start(place, "b");
    shim.create(&shim.create_request("b"));
    shim.start_process("b", "");
    let open = |gate: &PathBuf| drop(fs::File::options().write(true).open(gate).unwrap());

    let creating = send(&shim, "Create", &shim.create_request("a"));
    others_work(&mut shim, "e");
    open(create);
    creating.result().unwrap();

    let starting = send(&shim, "Start", &StartRequest { id: "a".into(), ..StartRequest::default() });
    others_work(&mut shim, "e");
    shim.kill("a", "", 9);
    open(start);
    starting.result().unwrap();
    assert_eq!(shim.wait("a", "").exit_status, 137);

    let deleting = send(&shim, "Delete", &DeleteRequest { id: "a".into(), ..DeleteRequest::default() });
    others_work(&mut shim, "e");
    open(stop);
    deleting.result().unwrap();
    end(&mut shim, &["b"]);
}

/// Stops every process that it sees but itself. It has no children: every other one has come from outside.
const TRAP: &str = "exec 2>/dev/null; while :; do \
     for p in /proc/[0-9]*; do p=${p#/proc/}; [ $p = 1 ] || kill -STOP $p; done; done";

#[test]
fn a_pod_that_stops_the_inits_that_join_it_holds_up_no_other_container() {
    testkit::needs!(root, program "busybox");
    /// How many containers are created into the trap.
    const JOINING: usize = 4;
    let place = Place::new();
    place.bundle("a", TRAP);
    place.bundle("b", "sleep 1000");
    let mut shim = Shim::start(place, "a");
    for id in ["a", "b"] {
        shim.create(&shim.create_request(id));
        shim.start_process(id, "");
    }
    let pids = format!("/proc/{}/ns/pid", shim.state("a", "").pid);
    let mut creating = Vec::new();
    for number in 0..JOINING {
        let id = format!("c{number}");
        shim.place.bundle_of(&id, &["/bin/sleep", "1000"], |spec| {
            let own = spec.linux_mut().namespaces.iter_mut().find(|known| known.kind == NamespaceKind::Pid);
            own.unwrap().path.clone_from(&pids);
        });
        creating.push((send(&shim, "Create", &shim.create_request(&id)), id));
        others_work(&mut shim, "e");
    }
    // With the pod's first process all others go, stopped or not.
    shim.kill("a", "", 9);
    assert_eq!(shim.wait("a", "").exit_status, 137);
    for (pending, id) in creating {
        if pending.result().is_ok() {
            assert_eq!(shim.wait(&id, "").exit_status, 137);
            shim.delete(&id, "");
        }
    }
    shim.delete("a", "");
    end(&mut shim, &["b"]);
}

#[test]
fn a_container_that_stops_what_enters_it_stops_nothing_else() {
    testkit::needs!(root, program "busybox");
    /// How many processes are sent into the trap.
    const EXECS: usize = 12;
    let place = Place::new();
    place.bundle("a", TRAP);
    place.bundle("b", "sleep 1000");
    let mut shim = Shim::start(place, "a");
    for id in ["a", "b"] {
        shim.create(&shim.create_request(id));
        shim.start_process(id, "");
    }
    let mut starting = Vec::new();
    for number in 0..EXECS {
        let start = describe(&mut shim, "a", &format!("x{number}"));
        starting.push(send(&shim, "Start", &start));
        others_work(&mut shim, "e");
        let _: StatsResponse = shim.call("Stats", &StatsRequest { id: "a".into() }).unwrap();
    }
    shim.kill("a", "", 9);
    assert_eq!(shim.wait("a", "").exit_status, 137);
    // Each was started, or stopped before that and killed by now; none is left without an answer.
    assert_eq!(starting.into_iter().map(Pending::result).count(), EXECS);
    shim.delete("a", "");
    end(&mut shim, &["b"]);
}
