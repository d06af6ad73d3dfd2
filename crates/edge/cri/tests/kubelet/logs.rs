//! Containers' logs: the kubelet's format, rotation, and nothing lost while the daemon is dead.

use std::time::Duration;

use api::runtime::v1;
use testkit::needs;

use crate::client::{Kubelet, call};

fn lines(kubelet: &Kubelet, name: &str) -> Vec<(String, String, String)> {
    let text = std::fs::read_to_string(kubelet.logs().join(name)).unwrap_or_default();
    let part = |line: &str| {
        let mut parts = line.splitn(4, ' ').skip(1).map(str::to_owned);
        Some((parts.next()?, parts.next()?, parts.next()?))
    };
    text.lines().filter_map(part).collect()
}

fn wait_for(kubelet: &Kubelet, name: &str, count: usize) -> Vec<(String, String, String)> {
    testkit::wait::eventually(Duration::from_secs(20), "the log's lines", || {
        let lines = lines(kubelet, name);
        (lines.len() >= count).then_some(lines)
    })
}

fn line(stream: &str, tag: &str, text: &str) -> (String, String, String) {
    (stream.to_owned(), tag.to_owned(), text.to_owned())
}

#[test]
fn both_streams_go_to_one_file_with_partial_lines_marked() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::with("[plugins.'io.containerd.cri.v1.runtime']\nmax_container_log_line_size = 8");
    let config = kubelet.pod("format");
    let pod = kubelet.run_pod(&config).unwrap();
    let id =
        kubelet.start(&pod, &config, kubelet.container("one", "echo short; echo 0123456789abc; printf tail"));
    kubelet.ended(&id);
    let expected = [
        line("stdout", "F", "short"),
        line("stdout", "P", "01234567"),
        line("stdout", "F", "89abc"),
        line("stdout", "P", "tail"),
    ];
    assert_eq!(lines(&kubelet, "one.log"), expected);
    let id = kubelet.start(&pod, &config, kubelet.container("two", "echo bad >&2"));
    kubelet.ended(&id);
    assert_eq!(lines(&kubelet, "two.log"), [line("stderr", "F", "bad")]);
    kubelet.remove_pod(&pod);
}

#[test]
fn a_log_goes_on_in_a_new_file_once_it_was_moved() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("rotate");
    let pod = kubelet.run_pod(&config).unwrap();
    let script = "echo before; while [ ! -e /go ]; do sleep 0.05; done; echo after; exec sleep 1000";
    let id = kubelet.start(&pod, &config, kubelet.container("one", script));
    wait_for(&kubelet, "one.log", 1);
    std::fs::rename(kubelet.logs().join("one.log"), kubelet.logs().join("one.log.1")).unwrap();
    call!(kubelet, reopen_container_log, v1::ReopenContainerLogRequest { container_id: id.clone() }).unwrap();
    kubelet.exec(&id, "touch /go", 10).unwrap();
    assert_eq!(wait_for(&kubelet, "one.log", 1), [line("stdout", "F", "after")]);
    assert_eq!(lines(&kubelet, "one.log.1"), [line("stdout", "F", "before")]);
    kubelet.remove_pod(&pod);
}

#[test]
fn a_dead_daemon_loses_no_line_and_stops_no_container() {
    needs!(root, overlayfs, built "containerd");
    let mut kubelet = Kubelet::new();
    let config = kubelet.pod("crash");
    let pod = kubelet.run_pod(&config).unwrap();
    let script = "i=0; while [ $i -lt 3000 ]; do echo line-$i; i=$((i+1)); done; exec sleep 1000";
    kubelet.start(&pod, &config, kubelet.container("one", script));
    kubelet.daemon.kill();
    let lines = wait_for(&kubelet, "one.log", 3000);
    let expected: Vec<_> = (0..3000).map(|number| line("stdout", "F", &format!("line-{number}"))).collect();
    assert_eq!(lines, expected);
    kubelet.daemon.restart();
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}
