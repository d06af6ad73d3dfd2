//! Programs that speak runc's command line, as `BinaryName`.

use std::os::unix::fs::PermissionsExt;

use api::containerd::task::v3::{CreateTaskResponse, ExecProcessRequest, KillRequest, StartRequest};
use api::containerd::v1::types::Status;

use crate::bundle::Place;
use crate::events::Events;
use crate::shim::{Shim, connect, refusal, soon};

fn life_with(binary: &str) {
    let place = Place::new();
    let events = Events::listen(&place.events_socket());
    place.bundle("a", "sleep 1000");
    let mut shim = Shim::start(place, "a");
    shim.options.binary_name = binary.into();
    crate::life::whole_life(shim, &events);
}

#[test]
fn debians_runc_runs_containers() {
    testkit::needs!(root, program "busybox", program "runc");
    life_with("/usr/sbin/runc");
}

#[test]
fn crun_runs_containers() {
    testkit::needs!(root, program "busybox", program "crun");
    let hybrid = std::path::Path::new("/sys/fs/cgroup/unified").exists();
    let need = if hybrid { Err("crun takes no hybrid cgroups".into()) } else { Ok(()) };
    if testkit::need::lacks(need) {
        return;
    }
    life_with("/usr/bin/crun");
}

#[test]
fn a_failing_program_s_log_is_the_error() {
    testkit::needs!(root, program "busybox", program "runc");
    let place = Place::new();
    place.bundle_of("a", &["no-such-program"], |_| {});
    let mut shim = Shim::start(place, "a");
    shim.options.binary_name = "/usr/sbin/runc".into();
    let request = shim.create_request("a");
    let (_, text) = refusal(shim.call::<_, CreateTaskResponse>("Create", &request));
    assert!(text.starts_with("OCI runtime create failed: "), "{text}");
    assert!(text.contains(r#"exec: "no-such-program": executable file not found in $PATH"#), "{text}");
    shim.shutdown();
}

#[test]
fn a_missing_program_is_named() {
    testkit::needs!(root, program "busybox");
    let place = Place::new();
    place.bundle("a", "true");
    let mut shim = Shim::start(place, "a");
    shim.options.binary_name = "/no/such/runtime".into();
    let request = shim.create_request("a");
    let (_, text) = refusal(shim.call::<_, CreateTaskResponse>("Create", &request));
    assert!(text.ends_with(r#"exec: "/no/such/runtime": no such file or directory"#), "{text}");
    shim.shutdown();
}

#[test]
fn a_program_that_starts_an_exec_holds_up_nothing_of_the_container() {
    testkit::needs!(root, program "busybox", program "runc");
    let place = Place::new();
    place.bundle("a", "sleep 1000");
    let gate = place.fifo("gate");
    let slow = place.path().join("slow-runc");
    // As a runtime that starts a virtual machine's agent first: its exec takes as long as it takes.
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *slow.process.json*) read line < {} ;; esac\nexec /usr/sbin/runc \"$@\"\n",
        gate.display()
    );
    std::fs::write(&slow, script).unwrap();
    std::fs::set_permissions(&slow, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut shim = Shim::start(place, "a");
    shim.options.binary_name = slow.display().to_string();
    shim.create(&shim.create_request("a"));
    shim.start_process("a", "");
    let exec = |exec_id: &str| ExecProcessRequest {
        id: "a".into(),
        exec_id: exec_id.into(),
        ..ExecProcessRequest::default()
    };
    let mut patient = connect(&shim.place, &shim.address);
    let () = shim.call("Exec", &Shim::described(exec("slow"), &["/bin/true"])).unwrap();
    let start = StartRequest { id: "a".into(), exec_id: "slow".into() };
    let starting = patient.send(shim.service, "Start", &start).unwrap();
    shim.exec(exec("quick"), &["/bin/sh", "-c", "exit 7"]).unwrap();
    assert_eq!(shim.wait("a", "quick").exit_status, 7);
    shim.delete("a", "quick");
    // Nobody has opened the gate: whatever waited for the exec would wait for its deadline. The end of init is told when
    // no exec is left, so that a client that waits for either sees them in order.
    shim.kill("a", "", 9);
    let kept = shim.state("a", "slow");
    assert_eq!((kept.status(), kept.pid), (Status::Created, 0));
    drop(std::fs::File::options().write(true).open(&gate).unwrap());
    let response = patient.receive(starting, soon()).unwrap();
    shim::ttrpc::message::reply(response).unwrap_err();
    assert_eq!(shim.wait("a", "").exit_status, 137);
    // What never ran is as it was.
    assert_eq!(shim.state("a", "slow").status(), Status::Created);
    assert_eq!(shim.state("a", "").status(), Status::Stopped);
    shim.delete("a", "");
    shim.shutdown();
}

#[test]
fn a_program_that_starts_an_exec_is_killed_with_its_exec() {
    testkit::needs!(root, program "busybox", program "runc");
    let place = Place::new();
    place.bundle("a", "sleep 1000");
    let gate = place.fifo("gate");
    let stuck = place.path().join("stuck-runc");
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *\" exec \"*) read line < {} ;; esac\nexec /usr/sbin/runc \"$@\"\n",
        gate.display()
    );
    std::fs::write(&stuck, script).unwrap();
    std::fs::set_permissions(&stuck, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut shim = Shim::start(place, "a");
    shim.options.binary_name = stuck.display().to_string();
    shim.create(&shim.create_request("a"));
    shim.start_process("a", "");
    let exec = ExecProcessRequest { id: "a".into(), exec_id: "e".into(), ..ExecProcessRequest::default() };
    let () = shim.call("Exec", &Shim::described(exec, &["/bin/true"])).unwrap();
    let mut patient = connect(&shim.place, &shim.address);
    let start = StartRequest { id: "a".into(), exec_id: "e".into() };
    let starting = patient.send(shim.service, "Start", &start).unwrap();
    // The two connections are not served in a fixed order: before its start there is nothing to kill.
    testkit::wait::eventually(std::time::Duration::from_secs(60), "the exec to be killed", || {
        let request = KillRequest { id: "a".into(), exec_id: "e".into(), signal: 9, all: false };
        shim.call::<_, ()>("Kill", &request).ok()
    });
    let error = shim::ttrpc::message::reply(patient.receive(starting, soon()).unwrap()).unwrap_err();
    assert!(error.text().contains("killed before it ran its program"), "{}", error.text());
    shim.delete("a", "e");
    shim.kill("a", "", 9);
    assert_eq!(shim.wait("a", "").exit_status, 137);
    shim.delete("a", "");
    shim.shutdown();
}

#[test]
fn what_a_program_prints_when_it_fails_is_not_output_of_the_process() {
    testkit::needs!(root, program "busybox", program "runc");
    let place = Place::new();
    place.bundle("a", "sleep 1000");
    let stderr = place.fifo("err");
    let mut reader = std::fs::File::options().read(true).write(true).open(&stderr).unwrap();
    rustix::io::ioctl_fionbio(&reader, true).unwrap();
    let mut shim = Shim::start(place, "a");
    shim.options.binary_name = "/usr/sbin/runc".into();
    shim.create(&shim.create_request("a"));
    shim.start_process("a", "");
    let request = |exec_id: &str| ExecProcessRequest {
        id: "a".into(),
        exec_id: exec_id.into(),
        stderr: stderr.display().to_string(),
        ..ExecProcessRequest::default()
    };
    let (_, text) = refusal(shim.exec(request("absent"), &["no-such-program"]));
    assert!(text.contains("executable file not found"), "{text}");
    shim.delete("a", "absent");
    shim.exec(request("e"), &["/bin/sh", "-c", "echo own >&2"]).unwrap();
    shim.wait("a", "e");
    shim.delete("a", "e");
    let mut printed = [0; 256];
    let count = std::io::Read::read(&mut reader, &mut printed).unwrap();
    assert_eq!(String::from_utf8_lossy(&printed[..count]), "own\n");
    shim.kill("a", "", 9);
    shim.wait("a", "");
    shim.delete("a", "");
    shim.shutdown();
}
