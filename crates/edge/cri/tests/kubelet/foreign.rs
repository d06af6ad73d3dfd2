//! A shim that is not ours: it writes no logs, so the daemon copies them.

use std::time::Duration;

use api::runtime::v1;
use futures_util::SinkExt as _;
use testkit::{needs, wait};
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Kubelet, call};
use crate::vanish::{next, open};

/// What the log says, without the times.
fn log(kubelet: &Kubelet) -> String {
    let text = std::fs::read_to_string(kubelet.logs().join("one.log")).unwrap_or_default();
    text.lines().filter_map(|line| line.split_once(' ')).map(|(_, rest)| format!("{rest}\n")).collect()
}

fn wait_for(kubelet: &Kubelet, part: &str) {
    wait::eventually(Duration::from_secs(20), part, || log(kubelet).contains(part).then_some(()));
}

#[test]
fn the_logs_of_a_shim_that_writes_none_are_copied_rotated_and_go_on_with_the_next_daemon() {
    needs!(root, overlayfs, built "containerd", built "runc", program "containerd-shim-runc-v2");
    let shim = testkit::place::debian("containerd-shim-runc-v2");
    let mut kubelet = Kubelet::with(&format!(
        "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.foreign]\n\
         runtime_type = 'io.containerd.runc.v2'\nruntime_path = '{}'\n\
         options = {{ BinaryName = '{}' }}",
        shim.display(),
        testkit::place::built("runc").display()
    ));
    let config = kubelet.pod("foreign");
    let request =
        v1::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: "foreign".into() };
    let pod = call!(kubelet, run_pod_sandbox, request).unwrap().pod_sandbox_id;
    let script = "echo begun; echo bad >&2; for n in 1 2 3; do while [ ! -e /go$n ]; do sleep 0.05; done; \
                  echo \"at $n\"; done; printf tail; exit 4";
    let id = kubelet.start(&pod, &config, kubelet.container("one", script));
    wait_for(&kubelet, "stdout F begun\n");
    wait_for(&kubelet, "stderr F bad\n");
    let moved = kubelet.logs().join("one.log.1");
    std::fs::rename(kubelet.logs().join("one.log"), &moved).unwrap();
    call!(kubelet, reopen_container_log, v1::ReopenContainerLogRequest { container_id: id.clone() }).unwrap();
    kubelet.exec(&id, "touch /go1", 10).unwrap();
    wait_for(&kubelet, "stdout F at 1\n");
    assert!(!std::fs::read_to_string(moved).unwrap().contains("at 1"));
    kubelet.daemon.restart();
    kubelet.exec(&id, "touch /go2", 10).unwrap();
    wait_for(&kubelet, "stdout F at 2\n");
    kubelet.exec(&id, "touch /go3", 10).unwrap();
    assert_eq!(kubelet.ended(&id).exit_code, 4);
    wait_for(&kubelet, "stdout F at 3\nstdout P tail\n");
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

/// A runtime handler of `shim` (ours when `None`) and `runc`, with the configuration's further `options`.
fn handler(name: &str, shim: Option<&std::path::Path>, runc: &std::path::Path, options: &str) -> String {
    let path = shim.map(|shim| format!("runtime_path = '{}'\n", shim.display())).unwrap_or_default();
    format!(
        "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.{name}]\n\
         runtime_type = 'io.containerd.runc.v2'\n{path}options = {{ BinaryName = '{}'{options} }}\n",
        runc.display()
    )
}

#[test]
fn pods_run_by_debians_runc_under_our_shim_and_under_its_own() {
    needs!(root, overlayfs, built "containerd", program "runc", program "containerd-shim-runc-v2");
    let (shim, runc) = (testkit::place::debian("containerd-shim-runc-v2"), testkit::place::debian("runc"));
    // That runc fails where it may not lower the score, as in a container; this keeps it from trying.
    let kubelet = Kubelet::with(&format!(
        "[plugins.'io.containerd.cri.v1.runtime']\nrestrict_oom_score_adj = true\n{}{}",
        handler("ours", None, &runc, ""),
        handler("theirs", Some(&shim), &runc, "")
    ));
    for name in ["ours", "theirs"] {
        let config = kubelet.pod(name);
        let request = v1::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: name.into() };
        let pod = call!(kubelet, run_pod_sandbox, request).unwrap_or_else(|error| panic!("{name}: {error}"));
        let pod = pod.pod_sandbox_id;
        let script = "echo begun; while [ ! -e /go ]; do sleep 0.05; done; exit 6";
        let id = kubelet.start(&pod, &config, kubelet.container("one", script));
        wait_for(&kubelet, "stdout F begun\n");
        assert_eq!(kubelet.exec(&id, "echo here; exit 3", 30).unwrap().exit_code, 3, "{name}");
        kubelet.exec(&id, "touch /go", 30).unwrap();
        assert_eq!(kubelet.ended(&id).exit_code, 6, "{name}");
        kubelet.remove_pod(&pod);
        std::fs::remove_file(kubelet.logs().join("one.log")).unwrap();
    }
    kubelet.check_clean();
}

/// Attaches to a container with a line for its input, and answers what it says up to `until`.
fn attached(kubelet: &Kubelet, id: &str, line: &str, until: &str) -> String {
    let request =
        v1::AttachRequest { container_id: id.into(), stdin: true, stdout: true, ..Default::default() };
    let url = call!(kubelet, attach, request).unwrap().url;
    kubelet.run(async {
        let mut stream = open(&url, "v4.channel.k8s.io").await.unwrap();
        stream.send(Message::binary([b"\0", line.as_bytes()].concat())).await.unwrap();
        let mut heard = String::new();
        while !heard.contains(until) {
            let Some(bytes) = next(&mut stream, 1).await else { break };
            heard.push_str(&String::from_utf8(bytes).unwrap());
        }
        heard
    })
}

#[test]
fn a_container_whose_shim_lets_nobody_attach_is_attached_to_by_the_daemon() {
    needs!(root, overlayfs, built "containerd", built "runc", program "containerd-shim-runc-v2");
    let shim = testkit::place::debian("containerd-shim-runc-v2");
    let runc = testkit::place::built("runc");
    let mut kubelet = Kubelet::with(&handler("foreign", Some(&shim), &runc, ""));
    let config = kubelet.pod("attach");
    let request =
        v1::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: "foreign".into() };
    let pod = call!(kubelet, run_pod_sandbox, request).unwrap().pod_sandbox_id;
    let mut wanted =
        kubelet.container("one", "while read line; do echo heard $line; done; echo over; exit 3");
    wanted.stdin = true;
    let id = kubelet.start(&pod, &config, wanted);
    kubelet.exec(&id, "true", 30).unwrap();
    let before = kubelet.daemon.traces().descriptors;
    assert_eq!(attached(&kubelet, &id, "a\n", "heard a\n"), "heard a\n");
    // The end of one client is not that of the input, and the log has it all.
    assert_eq!(attached(&kubelet, &id, "b\n", "heard b\n"), "heard b\n");
    assert_eq!(kubelet.status(&id).state(), v1::ContainerState::ContainerRunning);
    wait::eventually(
        Duration::from_secs(20),
        "the daemon's descriptors, though the container is silent",
        || (kubelet.daemon.traces().descriptors <= before).then_some(()),
    );
    wait_for(&kubelet, "stdout F heard a\nstdout F heard b\n");
    call!(kubelet, stop_container, v1::StopContainerRequest { container_id: id, timeout: 0 }).unwrap();
    // Unless it is asked to be: then all that was said is read before it.
    let script = "exec > /dev/null; cat > /all; exit $(($(wc -c < /all) / 1024))";
    let mut wanted = kubelet.container("two", script);
    (wanted.stdin, wanted.stdin_once) = (true, true);
    let id = kubelet.start(&pod, &config, wanted);
    attached_once(&kubelet, &id, &"x".repeat(40 << 10));
    assert_eq!(kubelet.ended(&id).exit_code, 40);
    kubelet.daemon.restart();
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

/// Says `text` to a container's input and leaves.
fn attached_once(kubelet: &Kubelet, id: &str, text: &str) {
    let request = v1::AttachRequest { container_id: id.into(), stdin: true, ..Default::default() };
    let url = call!(kubelet, attach, request).unwrap().url;
    kubelet.run(async {
        let mut stream = open(&url, "v5.channel.k8s.io").await.unwrap();
        stream.send(Message::binary([b"\0", text.as_bytes()].concat())).await.unwrap();
        stream.send(Message::binary(vec![255, 0])).await.unwrap();
        while next(&mut stream, 3).await.is_some() {}
    });
}

#[test]
fn a_pod_whose_other_shim_is_frozen_is_stopped_and_removed() {
    needs!(root, overlayfs, built "containerd", built "runc", program "containerd-shim-runc-v2");
    let shim = testkit::place::debian("containerd-shim-runc-v2");
    let runc = testkit::place::built("runc");
    let kubelet = Kubelet::with(&handler("foreign", Some(&shim), &runc, ""));
    let config = kubelet.pod("frozen");
    let request =
        v1::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: "foreign".into() };
    let pod = call!(kubelet, run_pod_sandbox, request).unwrap().pod_sandbox_id;
    kubelet.start(&pod, &config, kubelet.container("one", "exec sleep 1000"));
    rustix::process::kill_process(crate::frozen::shim(&kubelet, &pod), rustix::process::Signal::STOP)
        .unwrap();
    let remove = v1::RemovePodSandboxRequest { pod_sandbox_id: pod.clone() };
    crate::frozen::converges("RemovePodSandbox", || call!(kubelet, remove_pod_sandbox, remove.clone()));
    kubelet.check_clean();
}
