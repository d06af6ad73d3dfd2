//! Plugins that are slow or panic, called on threads.

use std::time::Duration;

use super::*;
use crate::cni::NetworkConfig;

/// Does what the container's name says.
struct Odd;

impl Plugin for Odd {
    fn run(&self, _: Command, call: &Call) -> Result<Option<CniResult>, Error> {
        match call.container_id.as_str() {
            "panics" => panic!("as told"),
            "waits" | "checked" => thread::park_timeout(Duration::from_millis(400)),
            _ => {}
        }
        Ok(None)
    }
}

fn call(id: &str, limit: Duration) -> Call {
    Call {
        container_id: id.into(),
        netns: None,
        ifname: "eth0".into(),
        args: Vec::new(),
        path: Vec::new(),
        config: NetworkConfig::parse(br#"{"cniVersion":"1.0.0","name":"net","type":"odd"}"#).unwrap(),
        deadline: Instant::now() + limit,
    }
}

const LONG: Duration = Duration::from_secs(20);

#[test]
fn a_panic_is_a_failed_call_and_frees_the_interface() {
    for _ in 0..2 {
        let said = run(&Odd, Command::Add, &call("panics", LONG));
        assert!(matches!(said, Err(CallError::Failed(_))), "{said:?}");
    }
}

#[test]
fn an_abandoned_call_keeps_the_next_one_waiting() {
    let said = run(&Odd, Command::Add, &call("waits", Duration::from_millis(10)));
    assert!(matches!(said, Err(CallError::Timeout { .. })), "{said:?}");
    let said = run(&Odd, Command::Del, &call("waits", Duration::from_millis(10)));
    assert!(matches!(said, Err(CallError::Busy { .. })), "{said:?}");
    run(&Odd, Command::Del, &call("other", LONG)).unwrap();
    run(&Odd, Command::Del, &call("waits", LONG)).unwrap();
}

#[test]
fn a_check_neither_waits_nor_keeps_waiting() {
    for (first, second) in [(Command::Check, Command::Del), (Command::Add, Command::Check)] {
        let said = run(&Odd, first, &call("checked", Duration::from_millis(10)));
        assert!(matches!(said, Err(CallError::Timeout { .. })), "{said:?}");
        // It waits by itself, but not for the other.
        let said = run(&Odd, second, &call("checked", Duration::from_millis(10)));
        assert!(matches!(said, Err(CallError::Timeout { .. })), "{said:?}");
        run(&Odd, Command::Del, &call("checked", LONG)).unwrap();
    }
}
