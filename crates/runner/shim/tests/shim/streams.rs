//! Standard files.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::thread;

use api::containerd::task::v3::*;

use crate::bundle::Place;
use crate::shim::Shim;

/// Reads a FIFO to its end, from before anybody writes.
fn reader(path: &Path) -> thread::JoinHandle<String> {
    let path = path.to_owned();
    thread::spawn(move || {
        let mut text = String::new();
        File::open(path).unwrap().read_to_string(&mut text).unwrap();
        text
    })
}

fn run_to_end(shim: &mut Shim, request: &CreateTaskRequest) -> u32 {
    shim.create(request);
    shim.start_process(&request.id, "");
    let status = shim.wait(&request.id, "").exit_status;
    shim.delete(&request.id, "");
    status
}

#[test]
fn fifos_carry_all_of_both_outputs() {
    testkit::needs!(root, program "busybox");
    let place = Place::new();
    place.bundle("a", "echo out; echo err >&2; head -c 300000 /dev/zero");
    let (stdout, stderr) = (place.fifo("out"), place.fifo("err"));
    let (out, err) = (reader(&stdout), reader(&stderr));
    let mut shim = Shim::start(place, "a");
    let request = CreateTaskRequest {
        stdout: stdout.display().to_string(),
        stderr: format!("fifo://{}", stderr.display()),
        ..shim.create_request("a")
    };
    assert_eq!(run_to_end(&mut shim, &request), 0);
    let out = out.join().unwrap();
    assert!(out.starts_with("out\n"));
    assert_eq!(out.len(), 4 + 300_000);
    assert_eq!(err.join().unwrap(), "err\n");
    shim.shutdown();
}

#[test]
fn input_ends_when_the_client_says_so() {
    testkit::needs!(root, program "busybox");
    let place = Place::new();
    place.bundle("a", "cat; echo end");
    let (stdin, stdout) = (place.fifo("in"), place.fifo("out"));
    let out = reader(&stdout);
    let mut shim = Shim::start(place, "a");
    let request = CreateTaskRequest {
        stdin: stdin.display().to_string(),
        stdout: stdout.display().to_string(),
        ..shim.create_request("a")
    };
    shim.create(&request);
    shim.start_process("a", "");
    // Two clients one after the other: the first one's leaving is not the end.
    for word in ["one\n", "two\n"] {
        let mut client = OpenOptions::new().write(true).custom_flags(0).open(&stdin).unwrap();
        client.write_all(word.as_bytes()).unwrap();
    }
    let close = CloseIoRequest { id: "a".into(), exec_id: String::new(), stdin: true };
    let () = shim.call("CloseIO", &close).unwrap();
    assert_eq!(shim.wait("a", "").exit_status, 0);
    shim.delete("a", "");
    assert_eq!(out.join().unwrap(), "one\ntwo\nend\n");
    shim.shutdown();
}

#[test]
fn a_file_takes_both_outputs_and_grows() {
    testkit::needs!(root, program "busybox");
    let place = Place::new();
    place.bundle("a", "echo out; echo err >&2");
    let log = place.path().join("logs/a.log");
    let mut shim = Shim::start(place, "a");
    let uri = format!("file://{}", log.display());
    for _ in 0..2 {
        let request =
            CreateTaskRequest { stdout: uri.clone(), stderr: uri.clone(), ..shim.create_request("a") };
        assert_eq!(run_to_end(&mut shim, &request), 0);
    }
    let mut lines: Vec<String> = fs::read_to_string(&log).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["err", "err", "out", "out"]);
    shim.shutdown();
}

#[test]
fn a_logging_program_gets_everything() {
    testkit::needs!(root, program "busybox");
    let place = Place::new();
    place.bundle("a", "echo out; echo err >&2; head -c 200000 /dev/zero");
    let logger = place.path().join("logger");
    let result = place.path().join("result");
    let script = format!(
        "#!/bin/sh\ngrep SigBlk /proc/self/status >{0}.mask\nexec 5>&-\ncat <&4 >{0}.err &\ncat <&3 >{0}.out\nwait\necho $CONTAINER_NAMESPACE $CONTAINER_ID $@ >{0}\n",
        result.display()
    );
    fs::write(&logger, script).unwrap();
    fs::set_permissions(&logger, fs::Permissions::from_mode(0o755)).unwrap();
    let mut shim = Shim::start(place, "a");
    let uri = format!("binary://{}?--flag=value", logger.display());
    let request = CreateTaskRequest { stdout: uri.clone(), stderr: uri, ..shim.create_request("a") };
    assert_eq!(run_to_end(&mut shim, &request), 0);
    let said = fs::read_to_string(&result).unwrap();
    assert_eq!(said, format!("{} a --flag value\n", shim.place.namespace));
    assert_eq!(fs::read(format!("{}.out", result.display())).unwrap().len(), 4 + 200_000);
    assert_eq!(fs::read_to_string(format!("{}.err", result.display())).unwrap(), "err\n");
    let mask = fs::read_to_string(format!("{}.mask", result.display())).unwrap();
    assert_eq!(mask, "SigBlk:\t0000000000000000\n");
    shim.shutdown();
}

#[test]
fn a_logging_program_that_is_not_there_fails_the_create() {
    testkit::needs!(root, program "busybox");
    let place = Place::new();
    place.bundle("a", "true");
    let mut shim = Shim::start(place, "a");
    for uri in ["binary:///no/such/logger", "binary-v2:///bin/true", "http://x", "/no/such/fifo"] {
        let request = CreateTaskRequest { stdout: uri.into(), ..shim.create_request("a") };
        let (_, text) = crate::shim::refusal(shim.call::<_, CreateTaskResponse>("Create", &request));
        assert!(!text.is_empty());
        println!("{uri}: {text}");
    }
    shim.shutdown();
}

#[test]
fn a_terminal_speaks_and_has_a_size() {
    testkit::needs!(root, program "busybox");
    let place = Place::new();
    place.bundle_of("a", &["/bin/sh", "-c", "read line; stty size; tty; echo got $line"], |spec| {
        spec.process_mut().terminal = true;
    });
    let (stdin, stdout) = (place.fifo("in"), place.fifo("out"));
    let out = reader(&stdout);
    let mut shim = Shim::start(place, "a");
    let request = CreateTaskRequest {
        stdin: stdin.display().to_string(),
        stdout: stdout.display().to_string(),
        terminal: true,
        ..shim.create_request("a")
    };
    shim.create(&request);
    let resize = ResizePtyRequest { id: "a".into(), exec_id: String::new(), width: 101, height: 37 };
    let () = shim.call("ResizePty", &resize).unwrap();
    shim.start_process("a", "");
    let mut client = OpenOptions::new().write(true).open(&stdin).unwrap();
    client.write_all(b"hello\n").unwrap();
    assert_eq!(shim.wait("a", "").exit_status, 0);
    shim.delete("a", "");
    let out = out.join().unwrap();
    for part in ["37 101\r\n", "/dev/", "got hello\r\n"] {
        assert!(out.contains(part), "{out:?}");
    }
    shim.shutdown();
}

#[test]
fn an_exec_has_its_own_files() {
    testkit::needs!(root, program "busybox");
    let place = Place::new();
    place.bundle("a", "sleep 1000");
    let (plain, terminal) = (place.fifo("plain"), place.fifo("terminal"));
    let (plain_text, terminal_text) = (reader(&plain), reader(&terminal));
    let mut shim = Shim::start(place, "a");
    shim.create(&shim.create_request("a"));
    shim.start_process("a", "");
    for (exec_id, path, terminal) in [("p", &plain, false), ("t", &terminal, true)] {
        let request = ExecProcessRequest {
            id: "a".into(),
            exec_id: exec_id.into(),
            terminal,
            stdout: path.display().to_string(),
            ..ExecProcessRequest::default()
        };
        shim.exec(request, &["/bin/echo", "hello"]).unwrap();
        assert_eq!(shim.wait("a", exec_id).exit_status, 0);
        shim.delete("a", exec_id);
    }
    assert_eq!(plain_text.join().unwrap(), "hello\n");
    assert_eq!(terminal_text.join().unwrap(), "hello\r\n");
    let missing = ExecProcessRequest { id: "a".into(), exec_id: "m".into(), ..ExecProcessRequest::default() };
    let (_, text) = crate::shim::refusal(shim.exec(missing, &["no-such-program"]));
    assert!(text.contains(r#"exec: "no-such-program": executable file not found in $PATH"#), "{text}");
    shim.delete("a", "m");
    shim.kill("a", "", 9);
    shim.wait("a", "");
    shim.delete("a", "");
    shim.shutdown();
}
