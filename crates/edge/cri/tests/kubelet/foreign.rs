//! A shim that is not ours: it writes no logs, so the daemon copies them.

use std::time::Duration;

use api::runtime::v1;
use testkit::{needs, wait};

use crate::client::{Kubelet, call};

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
