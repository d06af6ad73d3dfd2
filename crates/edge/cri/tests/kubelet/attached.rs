//! Whether pods that a daemon takes up are attached as they were: told of those that are not, and of no others.

use std::fs;
use std::path::Path;
use std::time::Duration;

use api::runtime::v1;
use testkit::command::Run;
use testkit::{needs, wait};

use crate::client::{Kubelet, call};
use crate::node::Node;

/// What a plugin in a shell does for ADD that changes nothing: the previous result is the last that it is told.
const PASS_ON: &str = r#"sed 's/^.*"prevResult"://; s/}$//'"#;

/// What a pod's verbose status says.
fn info(kubelet: &Kubelet, pod: &str) -> serde_json::Value {
    let request = v1::PodSandboxStatusRequest { pod_sandbox_id: pod.into(), verbose: true };
    let info = call!(kubelet, pod_sandbox_status, request).unwrap().info;
    serde_json::from_str(&info["info"]).unwrap()
}

/// Where a pod's network namespace is.
fn netns(kubelet: &Kubelet, pod: &str) -> String {
    info(kubelet, pod)["sandboxMetadata"]["Metadata"]["NetNSPath"].as_str().unwrap().to_owned()
}

#[test]
fn a_pod_whose_interface_is_gone_is_told_after_a_restart_and_an_intact_one_is_not() {
    needs!(root, overlayfs, program "ip", program "nsenter", built "containerd", built "berth-cni");
    let mut node = Node::new("");
    let seen = node.daemon.dir().join("checked");
    let script = format!(
        "case \"$CNI_COMMAND\" in\nADD) {PASS_ON} ;;\n\
         CHECK) cat > /dev/null; echo $CNI_CONTAINERID >> {} ;;\n*) cat > /dev/null ;;\nesac",
        seen.display()
    );
    node.plugin("notes", &script);
    node.configure(&["notes"]);
    let [intact, broken] = ["intact", "broken"].map(|name| node.run_pod(&node.networked(name)).unwrap());
    let in_broken = format!("--net={}", netns(&node, &broken));
    Run::new("nsenter").args([in_broken.as_str(), "ip", "link", "del", "eth0"]).ok();
    assert_eq!(info(&node, &broken).get("cniCheck"), None, "nobody has looked");
    node.daemon.kill();
    node.daemon.restart();
    let fault = wait::eventually(Duration::from_secs(20), "the broken pod's check", || {
        info(&node, &broken).get("cniCheck").cloned()
    });
    let error = fault["error"].as_str().unwrap();
    assert!(error.starts_with(r#"plugin type="bridge" name="net-"#), "{error}");
    assert!(error.contains("failed (check): Interface name eth0 not found"), "{error}");
    assert!(fault["at"].as_str().is_some_and(|at| at.starts_with("20") && at.ends_with('Z')), "{fault}");
    wait::eventually(Duration::from_secs(20), "the intact pod's check", || {
        let checked = fs::read_to_string(&seen).unwrap_or_default();
        (checked.lines().collect::<Vec<_>>() == [intact.as_str()]).then_some(())
    });
    let warnings = |log: String| -> Vec<String> {
        let is_one = |line: &&str| line.contains("level=warning") && line.contains("attached to its network");
        log.lines().filter(is_one).map(str::to_owned).collect()
    };
    let told = warnings(node.daemon.log());
    let [told] = told.as_slice() else { panic!("{told:?}") };
    for part in [&broken, "pod=broken", "namespace=cases", "Interface name eth0 not found"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert_eq!(info(&node, &intact).get("cniCheck"), None);
    for pod in [&intact, &broken] {
        node.remove_pod(pod);
    }
    node.check_clean();
}

#[test]
fn a_check_that_hangs_delays_neither_the_start_nor_the_end_of_its_pod() {
    needs!(root, overlayfs, built "containerd", built "berth-cni");
    let mut node = Node::new("");
    let before = node.left();
    let begun = node.daemon.dir().join("begun");
    let script = format!(
        "case \"$CNI_COMMAND\" in\nADD) {PASS_ON} ;;\nCHECK) touch {}; exec sleep 1000 ;;\n\
         *) cat > /dev/null ;;\nesac",
        begun.display()
    );
    node.plugin("dawdles", &script);
    node.configure(&["dawdles"]);
    let pod = node.run_pod(&node.networked("slow")).unwrap();
    node.daemon.kill();
    node.daemon.restart();
    wait::eventually(Duration::from_secs(20), "the check", || Path::new(&begun).exists().then_some(()));
    // Before the check is given up, which takes ten seconds.
    let asked = std::time::Instant::now();
    assert_eq!(info(&node, &pod).get("cniCheck"), None);
    node.remove_pod(&pod);
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    // The check's own process goes when it is given up.
    node.settles_at(&before, "the end");
    assert!(!node.daemon.log().contains("attached to its network"), "it was being taken down");
}
