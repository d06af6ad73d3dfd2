//! Programs that are no plugins: what a call of each gives, and when.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::*;
use crate::cni::{NetworkConfig, code};

fn script(dir: &Path, body: &str) -> PathBuf {
    let path = dir.join("plugin");
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn call(limit: Duration) -> Call {
    Call {
        container_id: "pod".into(),
        netns: Some("/run/netns/x".into()),
        ifname: "eth0".into(),
        args: vec![("IgnoreUnknown".into(), "1".into()), ("K8S_POD_NAME".into(), "a".into())],
        path: vec!["/opt/cni/bin".into(), "/usr/lib/cni".into()],
        config: NetworkConfig::parse(br#"{"cniVersion":"1.0.0","name":"net","type":"plugin"}"#).unwrap(),
        deadline: Instant::now() + limit,
    }
}

fn run_script(body: &str, limit: Duration) -> Result<String, CallError> {
    let dir = tempfile::tempdir().unwrap();
    let output = run(&script(dir.path(), body), Command::Add, &call(limit))?;
    Ok(String::from_utf8(output).unwrap())
}

const LONG: Duration = Duration::from_secs(20);

#[test]
fn a_plugin_gets_its_parameters_and_nothing_else() {
    let said = run_script("env | grep ^CNI_ | sort; cat; env | grep -c ^CARGO", LONG);
    // grep's status is the script's: nothing of cargo's environment is there to be counted.
    assert!(matches!(said, Err(CallError::Failed(_))), "{said:?}");
    let said = run_script("env | grep ^CNI_ | sort; cat", LONG).unwrap();
    assert_eq!(
        said,
        "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAME=a\nCNI_COMMAND=ADD\nCNI_CONTAINERID=pod\nCNI_IFNAME=eth0\n\
         CNI_NETNS=/run/netns/x\nCNI_PATH=/opt/cni/bin:/usr/lib/cni\n\
         {\"cniVersion\":\"1.0.0\",\"name\":\"net\",\"type\":\"plugin\"}"
    );
}

#[test]
fn a_failure_is_the_plugins_own_or_about_what_it_wrote() {
    for (body, number, text) in [
        (r#"echo '{"code":11,"msg":"later","details":"busy"}'; exit 1"#, code::TRY_AGAIN, "later; busy"),
        ("echo nonsense; exit 1", code::UNKNOWN, "error parsing its diagnostic message"),
        ("echo why >&2; exit 3", code::UNKNOWN, "netplugin failed: \"why\""),
        ("exit 3", code::UNKNOWN, "no error message"),
        ("kill -9 $$", code::UNKNOWN, "signal: 9"),
    ] {
        match run_script(body, LONG) {
            Err(CallError::Failed(error)) => {
                assert!(error.code == number && error.to_string().contains(text), "{body}: {error}");
            }
            other => panic!("{body}: {other:?}"),
        }
    }
    assert!(matches!(run(Path::new("/nowhere"), Command::Add, &call(LONG)), Err(CallError::Start { .. })));
}

#[test]
fn one_that_hangs_is_killed_with_its_children() {
    let begun = Instant::now();
    let said = run_script("sleep 1000 & sleep 1000", Duration::from_millis(300));
    assert!(matches!(said, Err(CallError::Timeout { .. })), "{said:?}");
    assert!(begun.elapsed() < LONG, "{:?}", begun.elapsed());
}

#[test]
fn one_that_floods_is_killed() {
    let said = run_script("cat /dev/zero", LONG);
    assert!(matches!(said, Err(CallError::TooMuch { .. })), "{said:?}");
}

#[test]
fn names_are_looked_up_in_order_and_are_no_paths() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("a"), dir.path().join("b"));
    fs::create_dir_all(first.join("bridge")).unwrap();
    fs::create_dir_all(&second).unwrap();
    fs::write(second.join("bridge"), "").unwrap();
    let dirs = [first, second.clone()];
    // A directory of that name is no program.
    assert_eq!(find("bridge", &dirs), Some(second.join("bridge")));
    for name in ["", "..", "../b/bridge", "ptp"] {
        assert_eq!(find(name, &dirs), None, "{name}");
    }
}
