//! What a container gets from its shim, and must not get.

use std::fs;
use std::io::Read;
use std::path::Path;

use api::containerd::runc::v1::Options;
use api::containerd::runtime::bootstrap::v1::{BootstrapParams, Extension};
use api::containerd::task::v3::*;
use api::containerd::types::RuntimeInfo;
use api::{Message, encode_any};

use crate::bundle::Place;
use crate::shim::{Shim, action, is_alive, params, start};

/// What a container prints that runs `command`.
fn output_of(command: &str) -> String {
    let place = Place::new();
    place.bundle("a", command);
    let log = place.path().join("log");
    let mut shim = Shim::start(place, "a");
    let request =
        CreateTaskRequest { stdout: format!("file://{}", log.display()), ..shim.create_request("a") };
    shim.create(&request);
    shim.start_process("a", "");
    assert_eq!(shim.wait("a", "").exit_status, 0);
    shim.delete("a", "");
    shim.shutdown();
    fs::read_to_string(log).unwrap()
}

#[test]
fn a_container_starts_with_clean_signals_and_three_files() {
    testkit::needs!(root, program "busybox");
    let text = output_of("cat /proc/self/status; echo /proc/self/fd/*");
    for name in ["SigBlk:", "SigIgn:"] {
        let set = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        // glibc's posix_spawn ignores the C library's own two signals in every child.
        let set = u64::from_str_radix(set.trim(), 16).unwrap() & !(0b11 << 31);
        assert_eq!(set, 0, "{name} {text}");
    }
    // The shell opens the directory itself as one more.
    let files = text.lines().find(|line| line.starts_with("/proc/self/fd/")).unwrap();
    let numbers: Vec<&str> = files.split(' ').map(|path| path.rsplit('/').next().unwrap()).collect();
    assert!(numbers.starts_with(&["0", "1", "2"]) && numbers.len() <= 4, "{files}");
}

#[test]
fn the_shims_program_cannot_be_written_through_proc() {
    testkit::needs!(root, program "busybox");
    let place = Place::new();
    place.bundle("a", "true");
    let mut shim = Shim::start(place, "a");
    let exe = format!("/proc/{}/exe", shim.pid());
    // Opening it for writing fails with ETXTBSY while it runs; only the mount's flag lasts longer than that.
    let mount = rustix::fs::statvfs(&exe).unwrap();
    assert!(mount.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    let mut magic = [0; 4];
    fs::File::open(&exe).unwrap().read_exact(&mut magic).unwrap();
    assert_eq!(&magic, b"\x7fELF");
    shim.shutdown();
}

#[test]
fn a_paused_container_can_be_killed() {
    testkit::needs!(root, program "busybox");
    let place = Place::new();
    place.bundle("a", "sleep 1000");
    let mut shim = Shim::start(place, "a");
    shim.create(&shim.create_request("a"));
    shim.start_process("a", "");
    let () = shim.call("Pause", &PauseRequest { id: "a".into() }).unwrap();
    shim.kill("a", "", 9);
    assert_eq!(shim.wait("a", "").exit_status, 137);
    shim.delete("a", "");
    shim.shutdown();
}

#[test]
fn a_container_that_never_ran_can_be_deleted() {
    testkit::needs!(root, program "busybox");
    let place = Place::new();
    place.bundle("a", "sleep 1000");
    let mut shim = Shim::start(place, "a");
    let pid = shim.create(&shim.create_request("a"));
    let deleted = shim.delete("a", "");
    assert_eq!((deleted.pid, deleted.exit_status), (pid, 137));
    assert!(!Path::new("/proc").join(pid.to_string()).exists());
    shim.shutdown();
}

#[test]
fn a_container_whose_state_is_damaged_can_be_deleted() {
    testkit::needs!(root, program "busybox");
    if std::env::var_os("SHIM_TEST_RUNTIME").is_some() {
        return println!("SKIP a_container_whose_state_is_damaged_can_be_deleted: the state is ours");
    }
    let place = Place::new();
    place.bundle("a", "true");
    let mut shim = Shim::start(place, "a");
    shim.create(&shim.create_request("a"));
    let dir = shim.place.path().join("runc").join(&shim.place.namespace).join("a");
    shim.start_process("a", "");
    assert_eq!(shim.wait("a", "").exit_status, 0);
    let text = fs::read(dir.join("state.json")).unwrap();
    fs::write(dir.join("state.json"), &text[..text.len() / 2]).unwrap();
    shim.delete("a", "");
    assert!(!dir.exists());
    shim.shutdown();
}

#[test]
fn limits_change_while_it_runs() {
    testkit::needs!(root, program "busybox");
    let place = Place::new();
    place.bundle("a", "sleep 1000");
    let mut shim = Shim::start(place, "a");
    shim.create(&shim.create_request("a"));
    shim.start_process("a", "");
    let value = br#"{"memory":{"limit":67108864}}"#.to_vec();
    let resources = api::Any {
        type_url: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources".into(),
        value,
    };
    let update = UpdateTaskRequest { id: "a".into(), resources: Some(resources), ..Default::default() };
    let () = shim.call("Update", &update).unwrap();
    let stats: StatsResponse = shim.call("Stats", &StatsRequest { id: "a".into() }).unwrap();
    let value = stats.stats.unwrap().value;
    if let Ok(metrics) = api::io::containerd::cgroups::v1::Metrics::decode(value.as_slice())
        && let Some(usage) = metrics.memory.and_then(|memory| memory.usage)
    {
        assert_eq!(usage.limit, 64 << 20);
    }
    shim.kill("a", "", 9);
    shim.wait("a", "");
    shim.delete("a", "");
    shim.shutdown();
}

#[test]
fn the_shim_joins_the_cgroup_it_is_given() {
    testkit::needs!(root);
    let parent = Path::new("/sys/fs/cgroup/pids");
    if testkit::need::lacks(if parent.exists() { Ok(()) } else { Err("no cgroup v1 pids".into()) }) {
        return;
    }
    let place = Place::new();
    let bundle = place.bundle("a", "true");
    let group = parent.join(&place.namespace);
    fs::create_dir(&group).unwrap();
    let options = Options { shim_cgroup: format!("/{}", place.namespace), ..Options::default() };
    let mut message = BootstrapParams::decode(params(&place, "a").as_slice()).unwrap();
    message.extensions.push(Extension { value: Some(encode_any(&options)) });
    let output = action(&place, &bundle, "a", &["start"], &[], &message.encode_to_vec());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let members = fs::read_to_string(group.join("cgroup.procs")).unwrap();
    let mut shim = Shim::start(place, "a");
    assert_eq!(members.trim(), shim.pid().to_string());
    let own: i32 = fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
    let adjusted = fs::read_to_string(format!("/proc/{}/oom_score_adj", shim.pid())).unwrap();
    assert_eq!(adjusted.trim().parse::<i32>().unwrap(), (own + 1).min(1000));
    shim.shutdown();
}

#[test]
fn info_says_what_the_runtime_can_do() {
    testkit::needs!(root);
    let place = Place::new();
    for binary in ["", "/usr/sbin/runc"] {
        let options = Options { binary_name: binary.into(), ..Options::default() };
        let input = encode_any(&options).encode_to_vec();
        let output = action(&place, place.path(), "", &["-info"], &[], &input);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let info = RuntimeInfo::decode(output.stdout.as_slice()).unwrap();
        assert_eq!(info.name, "io.containerd.runc.v2");
        assert_eq!(info.options.unwrap().value, options.encode_to_vec());
        let features: serde_json::Value = serde_json::from_slice(&info.features.unwrap().value).unwrap();
        assert!(features["linux"]["namespaces"].as_array().unwrap().len() >= 7, "{features}");
    }
}

#[test]
fn a_shim_that_nobody_knows_of_ends_by_itself() {
    testkit::needs!(root, program "busybox");
    let place = Place::new();
    let bundle = place.bundle("a", "true");
    let address = start(&place, &bundle, "a");
    let pid: u32 = fs::read_to_string(bundle.join("shim.pid")).unwrap().trim().parse().unwrap();
    // The daemon died while it waited for the address; its successor cleans up what it knows: the bundle.
    fs::remove_dir_all(&bundle).unwrap();
    let limit = std::time::Duration::from_secs(30);
    let socket = Path::new(address.trim_start_matches("unix://"));
    // Its socket goes with it; its name alone says nothing, since a process just executed has none yet.
    testkit::wait::eventually(limit, "the shim to end", || {
        (!socket.exists() && !is_alive(pid)).then_some(())
    });
}
