//! ExecSync: floods, ends that are forced, containers that do not run, and many at once.

use std::time::Duration;

use api::runtime::v1;
use testkit::{needs, wait};
use tonic::Code;

use crate::client::{Kubelet, call};

/// What an answer holds at most of both outputs: what a message may have that the kubelet takes.
const MAX_OUTPUT: usize = (16 << 20) - 1024;

fn request(id: &str, words: &[&str], timeout: i64) -> v1::ExecSyncRequest {
    let cmd = words.iter().map(|&word| word.to_owned()).collect();
    v1::ExecSyncRequest { container_id: id.into(), cmd, timeout }
}

/// The command lines in a container.
fn processes(kubelet: &Kubelet, id: &str) -> String {
    String::from_utf8(kubelet.exec(id, "ps -o args", 30).unwrap().stdout).unwrap()
}

/// Waits until none of `lines` is a command line in the container.
fn gone(kubelet: &Kubelet, id: &str, lines: &[&str]) {
    wait::eventually(Duration::from_secs(20), "the end of what was killed", || {
        let list = processes(kubelet, id);
        (!lines.iter().any(|line| list.contains(line))).then_some(())
    });
}

#[test]
fn both_outputs_are_cut_at_their_bound_while_the_command_goes_on() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("floods");
    let pod = kubelet.run_pod(&config).unwrap();
    let id = kubelet.start(&pod, &config, kubelet.container("one", "exec sleep 1000"));
    let size = MAX_OUTPUT + (1 << 20);
    let script = format!("head -c {size} /dev/zero & head -c {size} /dev/zero >&2; wait; exit 7");
    let done = kubelet.exec(&id, &script, 60).unwrap();
    let half = MAX_OUTPUT / 2;
    assert_eq!((done.stdout.len(), done.stderr.len(), done.exit_code), (half, half, 7));
    let done = kubelet.exec(&id, &format!("head -c {size} /dev/zero"), 60).unwrap();
    assert_eq!((done.stdout.len(), done.stderr.len()), (MAX_OUTPUT, 0));
    // One that never ends is ended, and the server is none the worse.
    let error = kubelet.exec(&id, "exec cat /dev/zero", 2).unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
    gone(&kubelet, &id, &["cat /dev/zero"]);
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn held_output_delays_the_answer_by_the_drain_timeout_and_is_no_timeout_of_the_command() {
    needs!(root, overlayfs, built "containerd");
    let kubelet =
        Kubelet::with("[plugins.'io.containerd.cri.v1.runtime']\ndrain_exec_sync_io_timeout = '3s'");
    let config = kubelet.pod("holds");
    let pod = kubelet.run_pod(&config).unwrap();
    let id = kubelet.start(&pod, &config, kubelet.container("one", "exec sleep 1000"));
    // The command ends at once; what it leaves behind holds its output for longer than the command's own limit.
    let done = kubelet.exec(&id, "(sleep 2; echo late) & exit 5", 1).unwrap();
    assert_eq!((done.stdout.as_slice(), done.exit_code), (&b"late\n"[..], 5));
    // The shim alone would wait ten seconds for the output's end.
    let answer = kubelet.run(async {
        let channel = grpc::channel::connect(&kubelet.daemon.socket()).await.unwrap();
        let mut client = crate::client::Runtime::new(channel);
        let asked = client.exec_sync(request(&id, &["sh", "-c", "sleep 7777 & exit 0"], 1));
        tokio::time::timeout(Duration::from_secs(9), asked).await
    });
    let error = answer.expect("an answer in time").unwrap_err();
    assert_eq!(error.code(), Code::Unknown, "{error}");
    assert!(error.message().contains("failed to drain exec process"), "{error}");
    assert!(error.message().contains("io in 3s because io is still held by other processes"), "{error}");
    assert_eq!(kubelet.exec(&id, "echo again", 30).unwrap().stdout, b"again\n");
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn a_time_limit_ends_the_whole_tree_and_nothing_else() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("tree");
    let pod = kubelet.run_pod(&config).unwrap();
    let id = kubelet.start(&pod, &config, kubelet.container("one", "sleep 9000 & exec sleep 9001"));
    // Children, a session of its own, one whose parent has exited, one with both that holds no output, and one that ignores
    // what can be ignored.
    let script = "sleep 7001 & setsid sleep 7002 & (sleep 7003 & exit 0); \
                  (setsid sleep 7007 >/dev/null 2>&1 & exit 0); (setsid sh -c 'setsid sleep 7008 & exit 0' & exit 0); \
                  sh -c 'trap \"\" TERM HUP INT; sleep 7004; sleep 7005' & exec sleep 7006";
    let error = kubelet.exec(&id, script, 2).unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
    assert!(error.message().contains("timeout 2s exceeded"), "{error}");
    gone(&kubelet, &id, &["sleep 700"]);
    let list = processes(&kubelet, &id);
    assert!(list.contains("sleep 9000") && list.contains("sleep 9001"), "{list}");
    assert_eq!(kubelet.status(&id).state(), v1::ContainerState::ContainerRunning);
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn a_caller_that_leaves_ends_its_command() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("leaves");
    let pod = kubelet.run_pod(&config).unwrap();
    let id = kubelet.start(&pod, &config, kubelet.container("one", "exec sleep 1000"));
    kubelet.run(async {
        let channel = grpc::channel::connect(&kubelet.daemon.socket()).await.unwrap();
        let words = ["/bin/sh", "-c", "touch /begun; sleep 8001"];
        let mut client = crate::client::Runtime::new(channel);
        let endless = request(&id, &words, 0);
        let ours = tokio::spawn(async move { client.exec_sync(endless).await });
        let begun = request(&id, &["/bin/sh", "-c", "while [ ! -e /begun ]; do sleep 0.05; done"], 30);
        let channel = grpc::channel::connect(&kubelet.daemon.socket()).await.unwrap();
        crate::client::Runtime::new(channel).exec_sync(begun).await.unwrap();
        ours.abort();
    });
    gone(&kubelet, &id, &["sleep 8001"]);
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn what_makes_no_sense_is_refused_and_says_why() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("refused");
    let pod = kubelet.run_pod(&config).unwrap();
    let id = kubelet.start(&pod, &config, kubelet.container("one", "exec sleep 1000"));
    let exec = |id: &str, words: &[&str]| call!(kubelet, exec_sync, request(id, words, 10));
    for words in [&[][..], &[""], &["", "x"]] {
        assert_eq!(exec(&id, words).unwrap_err().code(), Code::InvalidArgument, "{words:?}");
    }
    let error = exec("", &["true"]).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    let error = exec(&"0f".repeat(32), &["true"]).unwrap_err();
    assert_eq!(error.code(), Code::NotFound, "{error}");
    let error = exec(&id, &["/no/such/program"]).unwrap_err();
    assert!(error.message().contains("/no/such/program"), "{error}");
    let error = exec(&id, &["tr\0ue"]).unwrap_err();
    assert!(!error.message().is_empty());
    let made = kubelet.create(&pod, &config, kubelet.container("made", "true")).unwrap();
    let error = exec(&made, &["true"]).unwrap_err();
    assert!(error.message().contains("container is in CONTAINER_CREATED state"), "{error}");
    call!(kubelet, stop_container, v1::StopContainerRequest { container_id: id.clone(), timeout: 0 })
        .unwrap();
    let error = exec(&id, &["true"]).unwrap_err();
    assert!(error.message().contains("container is in CONTAINER_EXITED state"), "{error}");
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn two_hundred_at_once_each_have_their_own_output_and_code() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("many");
    let pod = kubelet.run_pod(&config).unwrap();
    let id = kubelet.start(&pod, &config, kubelet.container("one", "exec sleep 1000"));
    kubelet.exec(&id, "true", 30).unwrap();
    let before = kubelet.daemon.traces().descriptors;
    kubelet.run(async {
        let channel = grpc::channel::connect(&kubelet.daemon.socket()).await.unwrap();
        let all = (0..200).map(|number| {
            let mut client = crate::client::Runtime::new(channel.clone());
            let script = format!("echo out {number}; echo err {number} >&2; exit {}", number % 100);
            let request = request(&id, &["/bin/sh", "-c", &script], 120);
            async move { (number, client.exec_sync(request).await) }
        });
        for (number, answer) in futures_util::future::join_all(all).await {
            let answer = answer.unwrap_or_else(|error| panic!("{number}: {error}")).into_inner();
            assert_eq!(answer.stdout, format!("out {number}\n").as_bytes());
            assert_eq!(answer.stderr, format!("err {number}\n").as_bytes());
            assert_eq!(answer.exit_code, number % 100);
        }
    });
    wait::eventually(Duration::from_secs(20), "the daemon's descriptors", || {
        (kubelet.daemon.traces().descriptors <= before).then_some(())
    });
    assert!(!processes(&kubelet, &id).contains("echo out"));
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}
