//! Logs in the kubelet's format, their rotation, and listeners.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use api::Message;
use api::berth::shim::v1::{AttachRequest, ProbeRequest, ReopenRequest};
use api::containerd::runtime::bootstrap::v1::BootstrapResult;
use api::containerd::task::v3::*;
use rustix::fs::OFlags;
use spec::error::Kind;

use crate::bundle::Place;
use crate::shim::{Shim, action, connect, params, refusal};

const SERVICE: &str = "berth.shim.v1.Stdio";
const LIMIT: Duration = Duration::from_secs(30);

fn logged(shim: &Shim, path: &Path, query: &str) -> CreateTaskRequest {
    let uri = format!("cri://{}{query}", path.display());
    CreateTaskRequest { stdout: uri.clone(), stderr: uri, ..shim.create_request("a") }
}

/// The lines of a log without their times, which are checked.
fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut before = "";
    let line = |line| {
        let (stamp, rest) = str::split_once(line, ' ').unwrap();
        assert!(stamp.len() == 30 && stamp.ends_with('Z') && stamp >= before, "{stamp} after {before}");
        before = stamp;
        rest.to_owned()
    };
    text.lines().map(line).collect()
}

fn of<'a>(lines: &'a [String], stream: &str) -> Vec<&'a str> {
    lines.iter().filter_map(|line| line.strip_prefix(stream)).collect()
}

fn call<Req: Message>(shim: &mut Shim, method: &str, request: &Req) -> Result<(), (Kind, String)> {
    shim.client.call::<_, ()>(SERVICE, method, request).map_err(|error| refusal::<()>(Err(error)))
}

fn end(shim: &mut Shim) {
    shim.kill("a", "", 9);
    shim.wait("a", "");
    shim.delete("a", "");
    shim.shutdown();
}

/// Opens the reading end of a FIFO without waiting for a writer, and reads it to its end on a thread.
fn listen(path: &Path) -> (File, impl FnOnce(File) -> thread::JoinHandle<String> + use<>) {
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path).unwrap();
    let read = |mut file: File| {
        rustix::io::ioctl_fionbio(&file, false).unwrap();
        thread::spawn(move || {
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            text
        })
    };
    (file, read)
}

#[test]
fn both_outputs_are_logged_before_the_exit_is_told() {
    testkit::needs!(root, program "busybox");
    let place = Place::new();
    place.bundle("a", "echo out; echo err >&2; head -c 40000 /dev/zero; echo; printf tail");
    let log = place.path().join("0.log");
    let mut shim = Shim::start(place, "a");
    shim.create(&logged(&shim, &log, ""));
    shim.start_process("a", "");
    assert_eq!(shim.wait("a", "").exit_status, 0);
    // Read before the delete: a kubelet reads it as soon as it hears of the exit.
    let all = lines(&log);
    assert_eq!(of(&all, "stderr "), ["F err"]);
    let out = of(&all, "stdout ");
    let sizes: Vec<(&str, usize)> = out.iter().map(|line| (&line[..2], line.len() - 2)).collect();
    let zeros = [("P ", 16384), ("P ", 16384), ("F ", 40000 - 2 * 16384)];
    assert_eq!(sizes, [[("F ", 3)].as_slice(), &zeros, &[("P ", 4)]].concat());
    shim.delete("a", "");
    shim.shutdown();
}

#[test]
fn a_terminal_is_logged_as_one_stream() {
    testkit::needs!(root, program "busybox");
    let place = Place::new();
    place.bundle_of("a", &["/bin/sh", "-c", "echo out; echo err >&2; printf 123456789"], |spec| {
        spec.process_mut().terminal = true;
    });
    let log = place.path().join("0.log");
    let mut shim = Shim::start(place, "a");
    let request = CreateTaskRequest { terminal: true, ..logged(&shim, &log, "?max_line=8") };
    shim.create(&request);
    shim.start_process("a", "");
    assert_eq!(shim.wait("a", "").exit_status, 0);
    assert_eq!(lines(&log), ["stdout F out", "stdout F err", "stdout P 12345678", "stdout P 9"]);
    shim.delete("a", "");
    shim.shutdown();
}

#[test]
fn a_rotation_loses_and_tears_nothing() {
    testkit::needs!(root, program "busybox");
    let place = Place::new();
    place.bundle("a", "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done");
    let log = place.path().join("0.log");
    let mut shim = Shim::start(place, "a");
    shim.create(&logged(&shim, &log, ""));
    shim.start_process("a", "");
    let mut rotated: Vec<PathBuf> = Vec::new();
    let request = ReopenRequest { id: "a".into(), exec_id: String::new() };
    for number in 0..5 {
        testkit::wait::eventually(LIMIT, "lines in the log", || {
            (fs::metadata(&log).is_ok_and(|found| found.len() > 0) || is_over(&mut shim)).then_some(())
        });
        let aside = shim.place.path().join(format!("0.log.{number}"));
        fs::rename(&log, &aside).unwrap();
        rotated.push(aside);
        call(&mut shim, "Reopen", &request).unwrap();
    }
    assert_eq!(shim.wait("a", "").exit_status, 0);
    rotated.push(log);
    let all: Vec<String> = rotated.iter().flat_map(|path| lines(path)).collect();
    let expected: Vec<String> = (0..20_000).map(|number| format!("stdout F line {number}")).collect();
    assert!(all == expected, "{} lines", all.len());
    shim.delete("a", "");
    shim.shutdown();
}

fn is_over(shim: &mut Shim) -> bool {
    shim.state("a", "").exited_at.is_some()
}

#[test]
fn a_log_that_cannot_be_opened_fails_the_create() {
    testkit::needs!(root, program "busybox");
    let place = Place::new();
    place.bundle("a", "true");
    let dir = place.path().to_owned();
    std::os::unix::fs::symlink("/etc/passwd", dir.join("link")).unwrap();
    let mut shim = Shim::start(place, "a");
    for (name, query) in [("missing/0.log", ""), ("link", ""), ("bundles", ""), ("0.log", "?max_line=many")] {
        let request = logged(&shim, &dir.join(name), query);
        let (_, text) = refusal(shim.call::<_, CreateTaskResponse>("Create", &request));
        assert!(text.contains("log"), "{text}");
    }
    let two = CreateTaskRequest {
        stderr: format!("cri://{}", dir.join("other").display()),
        ..logged(&shim, &dir.join("0.log"), "")
    };
    let (kind, _) = refusal(shim.call::<_, CreateTaskResponse>("Create", &two));
    assert_eq!(kind, Kind::InvalidArgument);
    // None of it has left anything in the way.
    shim.create(&logged(&shim, &dir.join("0.log"), ""));
    shim.delete("a", "");
    shim.shutdown();
}

#[test]
fn listeners_hear_from_when_they_came_and_can_speak() {
    testkit::needs!(root, program "busybox");
    let place = Place::new();
    place.bundle("a", "while read word; do echo got $word; echo err $word >&2; done; echo end");
    let log = place.path().join("0.log");
    let fifos = ["in", "feed", "out1", "out2", "err"].map(|name| place.fifo(name));
    let [stdin, feed, out1, out2, err] = &fifos;
    let mut shim = Shim::start(place, "a");
    let request = CreateTaskRequest { stdin: stdin.display().to_string(), ..logged(&shim, &log, "") };
    shim.create(&request);
    shim.start_process("a", "");
    OpenOptions::new().write(true).open(stdin).unwrap().write_all(b"early\n").unwrap();
    testkit::wait::eventually(LIMIT, "the first word", || (lines(&log).len() == 2).then_some(()));

    let text = |path: &Path| path.display().to_string();
    let (file1, read1) = listen(out1);
    let (file2, _) = listen(out2);
    let (file_err, read_err) = listen(err);
    // Both ends, so that it has a writer before the shim opens it.
    let mut speak = OpenOptions::new().read(true).write(true).open(feed).unwrap();
    let first = AttachRequest {
        id: "a".into(),
        stdin: text(feed),
        stdout: text(out1),
        stderr: text(err),
        ..AttachRequest::default()
    };
    call(&mut shim, "Attach", &first).unwrap();
    let second = AttachRequest { id: "a".into(), stdout: text(out2), ..AttachRequest::default() };
    call(&mut shim, "Attach", &second).unwrap();
    // One listener leaves without a word; the other hears on.
    drop(file2);
    let (heard, heard_err) = (read1(file1), read_err(file_err));
    speak.write_all(b"late\n").unwrap();
    testkit::wait::eventually(LIMIT, "the second word", || (lines(&log).len() == 4).then_some(()));
    drop(speak);
    let close = CloseIoRequest { id: "a".into(), exec_id: String::new(), stdin: true };
    let () = shim.call("CloseIO", &close).unwrap();
    assert_eq!(shim.wait("a", "").exit_status, 0);
    assert_eq!(heard.join().unwrap(), "got late\nend\n");
    assert_eq!(heard_err.join().unwrap(), "err late\n");
    assert_eq!(of(&lines(&log), "stdout F "), ["got early", "got late", "end"]);
    let (kind, _) = call(&mut shim, "Attach", &second).unwrap_err();
    assert_eq!(kind, Kind::FailedPrecondition);
    shim.delete("a", "");
    shim.shutdown();
}

#[test]
fn a_listener_that_does_not_read_holds_up_nobody() {
    testkit::needs!(root, program "busybox");
    let place = Place::new();
    place.bundle("a", "head -c 4000000 /dev/zero; echo; sleep 1000");
    let log = place.path().join("0.log");
    let out = place.fifo("out");
    let mut shim = Shim::start(place, "a");
    shim.create(&logged(&shim, &log, ""));
    let (deaf, _) = listen(&out);
    let attach =
        AttachRequest { id: "a".into(), stdout: out.display().to_string(), ..AttachRequest::default() };
    call(&mut shim, "Attach", &attach).unwrap();
    shim.start_process("a", "");
    testkit::wait::eventually(LIMIT, "all of the output in the log", || {
        (fs::metadata(&log).unwrap().len() > 4_000_000).then_some(())
    });
    drop(deaf);
    end(&mut shim);
}

#[test]
fn what_is_no_listener_is_refused() {
    testkit::needs!(root, program "busybox");
    let place = Place::new();
    place.bundle("a", "sleep 1000");
    let file = place.path().join("file");
    fs::write(&file, "").unwrap();
    let deserted = place.fifo("deserted");
    let log = place.path().join("0.log");
    let mut shim = Shim::start(place, "a");
    shim.create(&logged(&shim, &log, ""));
    shim.start_process("a", "");
    for path in [file.display().to_string(), deserted.display().to_string(), "relative".into()] {
        let attach = AttachRequest { id: "a".into(), stdout: path, ..AttachRequest::default() };
        call(&mut shim, "Attach", &attach).unwrap_err();
    }
    let attach =
        AttachRequest { id: "a".into(), stdin: deserted.display().to_string(), ..Default::default() };
    assert_eq!(call(&mut shim, "Attach", &attach).unwrap_err().0, Kind::FailedPrecondition);
    assert_eq!(call(&mut shim, "Nonsense", &attach).unwrap_err().0, Kind::Unimplemented);
    let reopen = ReopenRequest { id: "b".into(), exec_id: String::new() };
    assert_eq!(call(&mut shim, "Reopen", &reopen).unwrap_err().0, Kind::NotFound);
    end(&mut shim);
}

#[test]
fn a_shim_says_that_it_writes_logs() {
    testkit::needs!(root, program "busybox");
    let place = Place::new();
    let bundle = place.bundle("a", "true");
    let mut results = Vec::new();
    // The second finds the shim that serves.
    for _ in 0..2 {
        let output = action(&place, &bundle, "a", &["start"], &[], &params(&place, "a"));
        results.push(BootstrapResult::decode(output.stdout.as_slice()).unwrap());
    }
    assert!(results.iter().all(|result| result.metadata["berth.stdio"] == "1"));
    let mut client = connect(&place, &results[0].address);
    let () = client.call(SERVICE, "Probe", &ProbeRequest::default()).unwrap();
    let mut shim = Shim::start(place, "a");
    shim.shutdown();
}
