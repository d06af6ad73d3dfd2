//! Many containers in one shim, and one whose runtime hangs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use api::Message;
use api::containerd::task::v3::*;

use crate::bundle::Place;
use crate::shim::{Shim, soon};

fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[test]
fn nothing_of_forty_processes_stays() {
    testkit::needs!(root, program "busybox");
    let place = Place::new();
    for id in 0..20 {
        place.bundle(&format!("c{id}"), "sleep 1000");
    }
    let (stdout, log) = (place.fifo("out"), place.path().join("log"));
    let mut shim = Shim::start(place, "c0");
    let pid = shim.pid();
    // Once it answers it has everything open that it needs.
    let _: ConnectResponse = shim.call("Connect", &ConnectRequest::default()).unwrap();
    let before = open_files(pid);
    for round in 0..20 {
        let id = format!("c{round}");
        let out =
            if round % 2 == 0 { stdout.display().to_string() } else { format!("file://{}", log.display()) };
        let request = CreateTaskRequest { stdout: out.clone(), ..shim.create_request(&id) };
        shim.create(&request);
        shim.start_process(&id, "");
        let terminal = round % 3 == 0;
        let exec = ExecProcessRequest {
            id: id.clone(),
            exec_id: "e".into(),
            stdout: out,
            terminal,
            ..Default::default()
        };
        shim.exec(exec, &["/bin/echo", "hello"]).unwrap();
        assert_eq!(shim.wait(&id, "e").exit_status, 0);
        // Every other exec is left to the delete of its container.
        if round % 2 == 0 {
            shim.delete(&id, "e");
        }
        shim.kill(&id, "", 9);
        shim.wait(&id, "");
        shim.delete(&id, "");
        assert_eq!(
            fs::read_dir(shim.place.path().join("runc").join(&shim.place.namespace)).unwrap().count(),
            0
        );
    }
    assert_eq!(open_files(pid), before);
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    assert_eq!(children.trim(), "");
    shim.shutdown();
}

#[test]
fn a_runtime_that_hangs_holds_up_only_its_container() {
    testkit::needs!(root, program "busybox");
    let place = Place::new();
    place.bundle("a", "true");
    place.bundle("b", "sleep 1000");
    let (program, mark) = (place.path().join("hanging-runtime"), place.path().join("pid"));
    let script = format!("#!/bin/sh\necho $$ > {0}.new\nmv {0}.new {0}\nexec sleep 1000\n", mark.display());
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let mut shim = Shim::start(place, "a");
    let usual = std::mem::replace(&mut shim.options.binary_name, program.display().to_string());
    let hanging = shim.create_request("a");
    shim.options.binary_name = usual;
    let mut other = crate::shim::connect(&shim.place, &shim.address);
    let stream = other.send(shim.service, "Create", &hanging).unwrap();
    let hung = testkit::wait::eventually(Duration::from_secs(20), "the runtime to hang", || {
        fs::read_to_string(&mark).ok()?.trim().parse::<i32>().ok()
    });
    shim.create(&shim.create_request("b"));
    shim.start_process("b", "");
    shim.kill("b", "", 9);
    shim.wait("b", "");
    shim.delete("b", "");
    // From now on it ends at once, for the cleaning up.
    fs::write(&program, "#!/bin/sh\n").unwrap();
    let hung = rustix::process::Pid::from_raw(hung).unwrap();
    rustix::process::kill_process(hung, rustix::process::Signal::KILL).unwrap();
    let response = other.receive(stream, soon()).unwrap();
    let status = response.status.unwrap();
    assert!(status.message.starts_with("OCI runtime create failed: "), "{}", status.message);
    assert_eq!(CreateTaskResponse::decode(response.payload.as_slice()).unwrap().pid, 0);
    shim.shutdown();
}
