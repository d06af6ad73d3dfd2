//! `runc` as shims and people use it: the real program, a busybox root, the host's cgroups.
#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use spec::runtime::Spec;

const RUNC: &str = env!("CARGO_BIN_EXE_runc");
const DEBIAN: &str = "/usr/sbin/runc";

/// A bundle and a state root of one test; containers, cgroups and files go with it.
struct Bench {
    dir: tempfile::TempDir,
    cgroup: String,
}

impl Bench {
    fn new(test: &str) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !Path::new("/bin/busybox").exists() || !is_root() {
            println!("SKIP {test}: needs root and /bin/busybox");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let rootfs = dir.path().join("bundle/rootfs");
        for name in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
            std::fs::create_dir_all(rootfs.join(name)).unwrap();
        }
        std::fs::copy("/bin/busybox", rootfs.join("bin/busybox")).unwrap();
        for name in
            ["sh", "cat", "echo", "id", "head", "mkdir", "mknod", "sleep", "true", "tail", "tty", "kill"]
        {
            std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(name)).unwrap();
        }
        let cgroup = format!("/berth-runc-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Some(Self { dir, cgroup })
    }

    fn bundle(&self) -> PathBuf {
        self.dir.path().join("bundle")
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// Writes the bundle's document: `runc spec`'s, running `args`, without a terminal, changed by `change`.
    fn configure(&self, args: &[&str], change: impl FnOnce(&mut Spec)) {
        let mut spec = runtime::template::example();
        let process = spec.process_mut();
        process.terminal = false;
        process.args = args.iter().map(|&arg| arg.into()).collect();
        spec.linux_mut().cgroups_path = format!("{}/c", self.cgroup);
        change(&mut spec);
        std::fs::write(self.bundle().join("config.json"), serde_json::to_vec(&spec).unwrap()).unwrap();
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.arg("--root").arg(self.root()).args(args).current_dir(self.bundle()).stdin(Stdio::null());
        command
    }

    fn runc(&self, args: &[&str]) -> Output {
        self.command(RUNC, args).output().unwrap()
    }

    /// Runs the command, which must succeed, and returns its output.
    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        // A detached container keeps the standard streams: read none of them to their end.
        let out = self.dir.path().join("out");
        let file = std::fs::File::create(&out).unwrap();
        let status = self.command(RUNC, args).stdout(file).stderr(Stdio::inherit()).status().unwrap();
        let text = std::fs::read_to_string(out).unwrap();
        assert!(status.success(), "runc {args:?}: {status}, {text}");
        text
    }

    /// Runs the command, which must fail with `code`, and returns its error text.
    #[track_caller]
    fn fails(&self, args: &[&str], code: i32) -> String {
        let out = self.runc(args);
        let text = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(code), "runc {args:?}: {text}");
        text
    }

    #[track_caller]
    fn state(&self, id: &str) -> Value {
        serde_json::from_str(&self.ok(&["state", id])).unwrap()
    }

    /// Waits until the init of the container has ended.
    fn wait(&self, id: &str) {
        let pid = self.state(id)["pid"].as_i64().unwrap() as i32;
        if pid != 0
            && let Ok(pidfd) = sys::process::pidfd(pid)
        {
            assert!(sys::process::ended(pidfd.as_fd(), Duration::from_secs(20)).unwrap());
        }
    }

    fn cgroup_files(&self) -> Vec<PathBuf> {
        let layout = runtime::cgroup::layout().unwrap();
        let own = |mount: &Path| mount.join(self.cgroup.trim_start_matches('/')).join("c");
        layout.mounts.iter().map(|(_, mount)| own(mount)).filter(|path| path.exists()).collect()
    }

    fn controller(&self, name: &str, file: &str) -> String {
        let layout = runtime::cgroup::layout().unwrap();
        let (_, mount) = layout.mounts.iter().find(|(known, _)| known == name).unwrap();
        let path = mount.join(self.cgroup.trim_start_matches('/')).join("c").join(file);
        std::fs::read_to_string(path).unwrap().trim().to_owned()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.root()).into_iter().flatten().flatten() {
            let _ = self.runc(&["delete", "--force", &entry.file_name().to_string_lossy()]);
        }
        let Ok(layout) = runtime::cgroup::layout() else { return };
        for (_, mount) in &layout.mounts {
            let own = mount.join(self.cgroup.trim_start_matches('/'));
            let _ = std::fs::remove_dir(own.join("c"));
            let _ = std::fs::remove_dir(own);
        }
    }
}

fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|text| text.contains("Uid:\t0\t0"))
}

fn has_debian(test: &str) -> bool {
    let there = Path::new(DEBIAN).exists();
    if !there {
        println!("SKIP {test}: needs {DEBIAN}");
    }
    there
}

#[test]
fn run_shows_the_output_and_ends_with_the_status_of_the_program() {
    let Some(bench) = Bench::new("run_shows_the_output_and_ends_with_the_status_of_the_program") else {
        return;
    };
    bench.configure(&["sh", "-c", "echo out; echo err >&2; exit 7"], |_| {});
    let out = bench.runc(&["run", "one"]);
    assert_eq!((out.status.code(), out.stdout, out.stderr), (Some(7), b"out\n".to_vec(), b"err\n".to_vec()));
    bench.configure(&["sh", "-c", "kill -9 $$"], |_| {});
    // The first process of a pid namespace cannot be killed from inside; another one can.
    bench.configure(&["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], |_| {});
    assert_eq!(bench.runc(&["run", "one"]).status.code(), Some(137));
    assert_eq!(std::fs::read_dir(bench.root()).unwrap().count(), 0);
    assert!(bench.cgroup_files().is_empty());
}

#[test]
fn a_container_is_created_started_killed_and_deleted() {
    let Some(bench) = Bench::new("a_container_is_created_started_killed_and_deleted") else { return };
    bench.configure(&["sleep", "1000"], |spec| drop(spec.annotations.insert("a".into(), "b".into())));
    let pid_file = bench.dir.path().join("pid");
    bench.ok(&["create", "--pid-file", pid_file.to_str().unwrap(), "one"]);
    let state = bench.state("one");
    assert_eq!(state["status"], "created");
    assert_eq!(std::fs::read_to_string(pid_file).unwrap(), state["pid"].to_string());
    let keys: Vec<_> = state.as_object().unwrap().keys().map(String::as_str).collect();
    let wanted = ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "annotations", "owner"];
    assert_eq!(keys, wanted);
    let error = bench.fails(&["create", "one"], 1);
    assert!(error.contains("container with given ID already exists"), "{error}");

    bench.ok(&["start", "one"]);
    assert_eq!(bench.state("one")["status"], "running");
    assert!(bench.fails(&["start", "one"], 1).contains("cannot start an already running container"));
    assert!(
        bench
            .fails(&["delete", "one"], 1)
            .contains("cannot delete container one that is not stopped: running")
    );
    assert!(bench.ok(&["list"]).contains("running"));
    assert_eq!(bench.ok(&["list", "-q"]), "one\n");
    let rows: Value = serde_json::from_str(&bench.ok(&["list", "--format", "json"])).unwrap();
    assert_eq!((&rows[0]["id"], &rows[0]["owner"]), (&json!("one"), &json!("root")));
    let pids: Value = serde_json::from_str(&bench.ok(&["ps", "--format", "json", "one"])).unwrap();
    assert_eq!(pids, json!([state["pid"]]));
    if Path::new("/usr/bin/ps").exists() {
        assert!(bench.ok(&["ps", "one"]).contains("sleep 1000"));
    }

    bench.ok(&["kill", "--all", "one", "KILL"]);
    bench.wait("one");
    assert_eq!(bench.state("one")["status"], "stopped");
    assert!(bench.fails(&["kill", "one", "15"], 1).contains("container not running"));
    assert!(bench.fails(&["start", "one"], 1).contains("cannot start a container that has stopped"));
    bench.ok(&["delete", "one"]);
    assert!(bench.fails(&["state", "one"], 1).contains("container does not exist"));
    bench.ok(&["delete", "--force", "one"]);
    assert!(bench.cgroup_files().is_empty());
}

#[test]
fn either_runtime_looks_after_the_others_containers() {
    let test = "either_runtime_looks_after_the_others_containers";
    let Some(bench) = Bench::new(test).filter(|_| has_debian(test)) else { return };
    bench.configure(&["sleep", "1000"], |spec| drop(spec.annotations.insert("a".into(), "b".into())));
    bench.ok(&["run", "-d", "ours"]);
    let theirs = |args: &[&str]| bench.command(DEBIAN, args).output().unwrap();
    let seen: Value = serde_json::from_slice(&theirs(&["state", "ours"]).stdout).unwrap();
    assert_eq!(seen, bench.state("ours"));
    assert_eq!(theirs(&["list"]).stdout, bench.ok(&["list"]).into_bytes());
    let killed = theirs(&["kill", "ours", "KILL"]);
    assert!(killed.status.success(), "{killed:?}");
    bench.wait("ours");
    let deleted = theirs(&["delete", "ours"]);
    assert!(deleted.status.success(), "{deleted:?}");
    assert!(bench.cgroup_files().is_empty());

    bench.configure(&["sleep", "1000"], |spec| spec.oci_version = "1.0.2".into());
    let status =
        bench.command(DEBIAN, &["run", "-d", "theirs"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.unwrap().success());
    assert_eq!(bench.state("theirs")["status"], "running");
    bench.ok(&["kill", "theirs", "KILL"]);
    bench.wait("theirs");
    bench.ok(&["delete", "theirs"]);
    assert!(bench.cgroup_files().is_empty());
}

#[test]
fn exec_runs_beside_init_with_what_the_flags_say() {
    let Some(bench) = Bench::new("exec_runs_beside_init_with_what_the_flags_say") else { return };
    bench.configure(&["sleep", "1000"], |_| {});
    bench.ok(&["run", "-d", "one"]);
    let script = "id -u; id -g; echo $A; pwd";
    let text = bench.ok(&["exec", "-u", "5:6", "-e", "A=b c", "--cwd", "/tmp", "one", "sh", "-c", script]);
    assert_eq!(text, "5\n6\nb c\n/tmp\n");
    assert_eq!(bench.runc(&["exec", "one", "sh", "-c", "exit 9"]).status.code(), Some(9));
    let error = bench.fails(&["exec", "one", "nosuch"], 255);
    assert!(error.contains("exec failed") && error.contains("executable file not found in $PATH"), "{error}");
    assert!(bench.fails(&["exec", "-u", "4294967296", "one", "true"], 255).contains("bad uid"));
    assert!(bench.fails(&["exec", "one"], 255).contains("exec args cannot be empty"));
    let process = bench.dir.path().join("process.json");
    let document = json!({ "args": ["sh", "-c", "echo $0 $B", "x"], "cwd": "/", "env": ["PATH=/bin", "B=7"], "user": {} });
    std::fs::write(&process, document.to_string()).unwrap();
    assert_eq!(bench.ok(&["exec", "--process", process.to_str().unwrap(), "one"]), "x 7\n");

    bench.ok(&["pause", "one"]);
    assert_eq!(bench.state("one")["status"], "paused");
    assert!(bench.fails(&["exec", "one", "true"], 255).contains("cannot exec in a paused container"));
    assert!(bench.fails(&["pause", "one"], 1).contains("container not running"));
    bench.ok(&["resume", "one"]);
    assert!(bench.fails(&["resume", "one"], 1).contains("container not paused"));
    bench.ok(&["delete", "--force", "one"]);
}

#[test]
fn limits_are_updated_and_figures_shown() {
    let Some(bench) = Bench::new("limits_are_updated_and_figures_shown") else { return };
    bench.configure(&["sleep", "1000"], |_| {});
    bench.ok(&["run", "-d", "one"]);
    bench.ok(&[
        "update",
        "--memory",
        "64m",
        "--pids-limit",
        "50",
        "--cpu-share",
        "512",
        "--cpu-quota",
        "50000",
        "one",
    ]);
    if bench.controller_exists("memory") {
        assert_eq!(bench.controller("memory", "memory.limit_in_bytes"), (64 << 20).to_string());
        assert_eq!(bench.controller("pids", "pids.max"), "50");
        assert_eq!(bench.controller("cpu", "cpu.shares"), "512");
        assert_eq!(bench.controller("cpu", "cpu.cfs_quota_us"), "50000");
    }
    let document = bench.dir.path().join("resources.json");
    std::fs::write(&document, r#"{"pids":{"limit":-1},"memory":null}"#).unwrap();
    bench.ok(&["update", "-r", document.to_str().unwrap(), "one"]);
    assert!(bench.fails(&["update", "--memory", "lots", "one"], 1).contains("invalid value for memory"));
    let event: Value = serde_json::from_str(&bench.ok(&["events", "--stats", "one"])).unwrap();
    assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!("one")));
    assert_eq!(event["data"]["pids"]["current"], 1);
    assert_eq!(event["data"]["memory"]["usage"]["limit"], 64 << 20);
    if Path::new(DEBIAN).exists() {
        let theirs = bench.command(DEBIAN, &["events", "--stats", "one"]).output().unwrap().stdout;
        let theirs: Value = serde_json::from_slice(&theirs).unwrap();
        for (key, value) in theirs["data"].as_object().unwrap() {
            // The cpuset's figures are its settings, which no reader of ours wants.
            let same_kind = key == "cpuset"
                || std::mem::discriminant(value) == std::mem::discriminant(&event["data"][key]);
            assert!(same_kind, "{key}: {value} and {}", event["data"][key]);
        }
    }
}

impl Bench {
    fn controller_exists(&self, name: &str) -> bool {
        runtime::cgroup::layout().unwrap().mounts.iter().any(|(known, _)| known == name)
    }
}

#[test]
fn events_tell_of_a_kill_for_lack_of_memory_and_end_with_the_container() {
    let test = "events_tell_of_a_kill_for_lack_of_memory_and_end_with_the_container";
    let Some(bench) = Bench::new(test) else { return };
    bench.configure(&["tail", "/dev/zero"], |spec| {
        let limits = json!({ "memory": { "limit": 8 << 20, "swap": 8 << 20 } });
        spec.linux_mut().resources = Some(serde_json::from_value(limits).unwrap());
    });
    bench.ok(&["create", "one"]);
    let mut child =
        bench.command(RUNC, &["events", "--interval", "50ms", "one"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let mut types = Vec::new();
    for line in lines {
        let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
        types.push(event["type"].as_str().unwrap().to_owned());
        if types.len() == 1 {
            // The first figures show that it watches; now let the program run.
            bench.ok(&["start", "one"]);
        }
    }
    assert_eq!(types[0], "stats");
    assert_eq!(types.iter().filter(|kind| *kind == "oom").count(), 1, "{types:?}");
    assert!(child.wait().unwrap().success());
    assert_eq!(bench.state("one")["status"], "stopped");
}

#[test]
fn descriptors_are_passed_on_only_if_asked_for() {
    let Some(bench) = Bench::new("descriptors_are_passed_on_only_if_asked_for") else { return };
    bench.configure(&["sh", "-c", "cat <&3"], |_| {});
    let run = |flags: &str| {
        // A shell, because it can leave a descriptor open across exec.
        let script =
            format!("exec 3<<E\npassed\nE\nexec {RUNC} --root {} run {flags} one", bench.root().display());
        Command::new("sh").args(["-c", &script]).current_dir(bench.bundle()).output().unwrap()
    };
    let with = run("--preserve-fds 1");
    assert_eq!(String::from_utf8_lossy(&with.stdout), "passed\n", "{with:?}");
    let without = run("");
    assert!(!without.status.success() && without.stdout.is_empty(), "{without:?}");
    let missing = bench.fails(&["run", "--preserve-fds", "9", "one"], 1);
    assert!(missing.contains("unable to stat preserved-fd"), "{missing}");
}

#[test]
fn a_program_that_does_not_exist_leaves_nothing() {
    let Some(bench) = Bench::new("a_program_that_does_not_exist_leaves_nothing") else { return };
    bench.configure(&["/no/such"], |_| {});
    let log = bench.dir.path().join("log.json");
    let flags = ["--log", log.to_str().unwrap(), "--log-format", "json", "create", "one"];
    let error = bench.fails(&flags, 1);
    let line: Value =
        serde_json::from_str(std::fs::read_to_string(log).unwrap().lines().last().unwrap()).unwrap();
    assert_eq!(line["level"], "error");
    assert_eq!(line["msg"].as_str().unwrap(), error.trim_end());
    assert!(error.starts_with("runc create failed: unable to start container process: "), "{error}");
    assert!(error.contains("stat /no/such: no such file or directory"), "{error}");
    assert_eq!(std::fs::read_dir(bench.root()).unwrap().count(), 0);
    assert!(bench.cgroup_files().is_empty());
}

#[test]
fn the_filter_decides_about_calls_in_a_container() {
    let Some(bench) = Bench::new("the_filter_decides_about_calls_in_a_container") else { return };
    let filter = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            { "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 18 },
            {
                "names": ["kill"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 95,
                "args": [{ "index": 1, "value": 10, "op": "SCMP_CMP_EQ" }],
            },
        ],
    });
    let script = "mkdir /tmp/x; kill -12 999999; kill -10 999999";
    bench.configure(&["sh", "-c", script], |spec| {
        spec.linux_mut().seccomp = Some(serde_json::from_value(filter).unwrap());
    });
    let out = bench.runc(&["run", "one"]);
    let said = String::from_utf8(out.stderr).unwrap();
    let lines: Vec<_> = said.lines().collect();
    assert!(lines[0].contains("cross-device link"), "{said}");
    assert!(lines[1].contains("No such process"), "{said}");
    assert!(lines[2].contains("not supported"), "{said}");
}

/// The same document under libseccomp.
#[test]
fn the_filter_decides_as_libseccomp_does() {
    let test = "the_filter_decides_as_libseccomp_does";
    let Some(bench) = Bench::new(test).filter(|_| has_debian(test)) else { return };
    let rule = |name: &str, errno: u32, args: Value| json!({ "names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": errno, "args": args });
    let is = |index: u32, op: &str, value: u64, two: u64| json!({ "index": index, "op": op, "value": value, "valueTwo": two });
    let filter = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [
            rule("kill", 95, json!([is(1, "SCMP_CMP_LT", 5, 0)])),
            rule("kill", 18, json!([is(1, "SCMP_CMP_EQ", 7, 0)])),
            rule("kill", 6, json!([is(1, "SCMP_CMP_GE", 9, 0), is(1, "SCMP_CMP_EQ", 8, 0)])),
            rule("umask", 1, json!([is(0, "SCMP_CMP_MASKED_EQ", 0o70, 0o20)])),
            rule("no_such_call", 1, json!([])),
            rule("mkdir", 5, json!([])),
            rule("mkdir", 6, json!([is(1, "SCMP_CMP_NE", 0, 0)])),
        ],
    });
    let script = "n=1; while [ $n -lt 31 ]; do kill -$n 999999; n=$((n+1)); done; mkdir /tmp/x; umask 022; umask; umask 011; umask";
    bench.configure(&["sh", "-c", script], |spec| {
        spec.oci_version = "1.0.2".into();
        spec.linux_mut().seccomp = Some(serde_json::from_value(filter).unwrap());
    });
    let ours = bench.runc(&["run", "one"]);
    let theirs = bench.command(DEBIAN, &["run", "two"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ours.stderr), String::from_utf8_lossy(&theirs.stderr));
    assert_eq!(String::from_utf8_lossy(&ours.stdout), String::from_utf8_lossy(&theirs.stdout));
    assert!(String::from_utf8_lossy(&ours.stderr).contains("cross-device link"), "{ours:?}");
}

#[test]
fn a_device_node_made_inside_opens_only_if_the_rules_allow_it() {
    let Some(bench) = Bench::new("a_device_node_made_inside_opens_only_if_the_rules_allow_it") else {
        return;
    };
    // /dev/kmsg and /dev/full: only the second is for every container.
    let script = "mknod /tmp/kmsg c 1 11; mknod /tmp/full c 1 7; head -c 1 /tmp/full; head -c 1 /tmp/kmsg";
    for rules in [json!([]), json!([{ "allow": false, "access": "rwm" }])] {
        bench.configure(&["sh", "-c", script], |spec| {
            spec.root.as_mut().unwrap().readonly = false;
            let capabilities = spec.process_mut().capabilities.as_mut().unwrap();
            for set in [&mut capabilities.bounding, &mut capabilities.effective, &mut capabilities.permitted]
            {
                set.push("CAP_MKNOD".into());
            }
            spec.linux_mut().resources = Some(serde_json::from_value(json!({ "devices": rules })).unwrap());
        });
        let out = bench.runc(&["run", "one"]);
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.stdout, [0], "{said}");
        assert!(said.contains("/tmp/kmsg: Operation not permitted"), "{said}");
        for name in ["kmsg", "full"] {
            std::fs::remove_file(bench.bundle().join("rootfs/tmp").join(name)).unwrap();
        }
    }
}

#[test]
fn the_default_filter_lets_a_shell_work() {
    let Some(bench) = Bench::new("the_default_filter_lets_a_shell_work") else { return };
    bench.configure(&["sh", "-c", "cat /proc/self/status | cat; busybox unshare -n true"], |spec| {
        spec.linux_mut().seccomp = Some(spec::runtime::seccomp_default::<&str>(&[]));
    });
    let out = bench.runc(&["run", "one"]);
    let (said, error) = (String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap());
    assert!(said.contains("Seccomp:\t2"), "{said} {error}");
    assert!(error.contains("Operation not permitted"), "{error}");
}

#[test]
fn hooks_run_at_their_points_in_order() {
    let Some(bench) = Bench::new("hooks_run_at_their_points_in_order") else { return };
    let log = bench.dir.path().join("hooks.log");
    let hook = |point: &str, path: &str| json!([{ "path": path, "args": ["sh", "-c", format!("echo {point} >> $LOG")], "env": [format!("LOG={}", log.display())] }]);
    let hooks = json!({
        "prestart": hook("prestart", "/bin/sh"),
        "createRuntime": hook("createRuntime", "/bin/sh"),
        "createContainer": hook("createContainer", "/bin/sh"),
        "startContainer": [{ "path": "/bin/sh", "args": ["sh", "-c", "echo startContainer $$ > /tmp/seen"] }],
        "poststart": hook("poststart", "/bin/sh"),
        "poststop": hook("poststop", "/bin/sh"),
    });
    bench.configure(&["cat", "/tmp/seen"], |spec| {
        spec.hooks = Some(serde_json::from_value(hooks).unwrap());
        spec.root.as_mut().unwrap().readonly = false;
    });
    let out = bench.runc(&["run", "one"]);
    let said = String::from_utf8(out.stdout).unwrap();
    assert!(said.starts_with("startContainer "), "{said} {}", String::from_utf8_lossy(&out.stderr));
    let order = std::fs::read_to_string(&log).unwrap();
    assert_eq!(order, "prestart\ncreateRuntime\ncreateContainer\npoststart\npoststop\n");

    bench.configure(&["true"], |spec| {
        let hooks =
            json!({ "createRuntime": [{ "path": "/bin/sh", "args": ["sh", "-c", "echo no; exit 3"] }] });
        spec.hooks = Some(serde_json::from_value(hooks).unwrap());
    });
    let error = bench.fails(&["run", "one"], 1);
    assert!(error.contains("error running createRuntime hook #0: exit status 3, output: no"), "{error}");
    assert_eq!(std::fs::read_dir(bench.root()).unwrap().count(), 0);
    assert!(bench.cgroup_files().is_empty());
}

#[test]
fn signals_reach_the_program_of_a_foreground_run() {
    let Some(bench) = Bench::new("signals_reach_the_program_of_a_foreground_run") else { return };
    let script = "trap 'exit 42' TERM; echo ready; while :; do sleep 1000 & wait; done";
    bench.configure(&["sh", "-c", script], |_| {});
    let mut child = bench.command(RUNC, &["run", "one"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line)
        .unwrap();
    assert_eq!(line, "ready\n");
    sys::process::kill(child.id() as i32, 15).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(42));
}

#[test]
fn a_terminal_goes_to_the_console_socket() {
    let Some(bench) = Bench::new("a_terminal_goes_to_the_console_socket") else { return };
    bench.configure(&["sh", "-c", "tty; sleep 1000"], |spec| spec.process_mut().terminal = true);
    let error = bench.fails(&["create", "one"], 1);
    assert!(
        error.contains("cannot allocate tty if runc will detach without setting console socket"),
        "{error}"
    );
    let path = bench.dir.path().join("console");
    let listener = UnixListener::bind(&path).unwrap();
    bench.ok(&["create", "--console-socket", path.to_str().unwrap(), "one"]);
    let (stream, _) = listener.accept().unwrap();
    let mut name = [0; 64];
    let (_, fds) = sys::socket::receive(stream.as_fd(), &mut name).unwrap();
    assert_eq!(fds.len(), 1);
    bench.ok(&["start", "one"]);
    let mut console = std::fs::File::from(fds.into_iter().next().unwrap());
    let mut said = [0; 64];
    let count = std::io::Read::read(&mut console, &mut said).unwrap();
    assert!(said[..count].starts_with(b"/dev/pts/0"), "{:?}", String::from_utf8_lossy(&said[..count]));
}

#[test]
fn a_foreground_terminal_is_the_users() {
    let Some(bench) = Bench::new("a_foreground_terminal_is_the_users") else { return };
    if !Path::new("/usr/bin/script").exists() {
        println!("SKIP a_foreground_terminal_is_the_users: needs script(1)");
        return;
    }
    bench.configure(&["sh", "-c", "tty; cat; exit 3"], |spec| spec.process_mut().terminal = true);
    let line = format!("{RUNC} --root {} run one", bench.root().display());
    let mut command = Command::new("/usr/bin/script");
    command
        .args(["-qec", &line, "/dev/null"])
        .current_dir(bench.bundle())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Once the container speaks the user's terminal is raw; what is typed before that is not for the container.
    let mut said = Vec::new();
    let mut stdout = child.stdout.take().unwrap();
    while !String::from_utf8_lossy(&said).contains("/dev/pts/0") {
        let mut byte = [0];
        std::io::Read::read_exact(&mut stdout, &mut byte).unwrap();
        said.push(byte[0]);
    }
    // A line, then the end of input as a terminal knows it.
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"typed\n\x04").unwrap();
    std::io::Read::read_to_end(&mut stdout, &mut said).unwrap();
    let out = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&said);
    assert_eq!(said.matches("typed").count(), 2, "{said:?}");
    assert_eq!(out.status.code(), Some(3));
}

#[test]
fn spec_and_features_are_those_of_runc() {
    let test = "spec_and_features_are_those_of_runc";
    let dir = tempfile::tempdir().unwrap();
    let run =
        |program: &str, args: &[&str]| Command::new(program).args(args).current_dir(&dir).output().unwrap();
    let config = dir.path().join("config.json");
    assert!(run(RUNC, &["spec"]).status.success());
    let ours: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    let refused = run(RUNC, &["spec"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("File config.json exists. Remove it first"));
    assert!(run(RUNC, &["--version"]).stdout.starts_with(b"runc version "));
    if !has_debian(test) {
        return;
    }
    std::fs::remove_file(&config).unwrap();
    run(DEBIAN, &["spec"]);
    let mut theirs: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    // What changed between runc 1.1 and 1.5.
    theirs["ociVersion"] = "1.3.0".into();
    theirs["process"]["capabilities"].as_object_mut().unwrap().remove("ambient");
    assert_eq!(ours, theirs);

    let features = |program| -> BTreeMap<String, Value> {
        serde_json::from_slice(&run(program, &["features"]).stdout).unwrap()
    };
    let (ours, theirs) = (features(RUNC), features(DEBIAN));
    assert_eq!(ours["hooks"], theirs["hooks"]);
    assert_eq!(ours["linux"]["capabilities"], theirs["linux"]["capabilities"]);
    for key in theirs["linux"].as_object().unwrap().keys() {
        assert!(ours["linux"].get(key).is_some(), "{key}");
    }
}

#[test]
fn wrong_command_lines_are_refused_as_runc_refuses_them() {
    let Some(bench) = Bench::new("wrong_command_lines_are_refused_as_runc_refuses_them") else { return };
    for (args, code, text) in [
        (&["bogus"][..], 3, "No help topic for 'bogus'"),
        (&["checkpoint", "one"], 1, "cannot checkpoint containers: not supported by this runtime"),
        (&["kill"], 1, "requires a minimum of 1 argument(s)"),
        (&["state"], 1, "requires exactly 1 argument(s)"),
        (&["kill", "one", "TERM", "x"], 1, "requires a maximum of 2 argument(s)"),
        (&["delete", "--force", "../../etc"], 1, "invalid container ID format"),
        (&["delete", "--force", ".."], 1, "invalid container ID format"),
        (&["delete", ""], 1, "container id cannot be empty"),
        (&["--log-format", "x", "list"], 1, "invalid log-format: x"),
        (&["run", "--no-such-flag", "one"], 1, "unexpected argument '--no-such-flag'"),
        (&["create", "one"], 1, "JSON specification file config.json not found"),
    ] {
        let error = bench.fails(args, code);
        assert!(error.contains(text), "{args:?}: {error}");
    }
    bench.configure(&["true"], |_| {});
    let error = bench.fails(&["--systemd-cgroup", "create", "one"], 1);
    assert!(error.contains("expected cgroupsPath to be of format"), "{error}");
}
