//! Clients that misbehave, and a daemon that is away.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use api::containerd::task::v3::*;

use crate::bundle::Place;
use crate::events::Events;
use crate::shim::Shim;

#[test]
fn garbage_costs_its_sender_alone() {
    testkit::needs!(root);
    let place = Place::new();
    place.bundle("a", "true");
    let mut shim = Shim::start(place, "a");
    let path = shim.address.strip_prefix("unix://").unwrap().to_owned();
    let garbage: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 64],
        &[0, 0, 0, 4, 0, 0, 0, 1, 9, 0],
        &[0, 0, 0, 200, 0, 0, 0, 1, 1, 0, 1],
    ];
    let mut held = Vec::new();
    for bytes in garbage {
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(bytes).unwrap();
        held.push(client);
    }
    // The first three are not frames: their senders are hung up on. The last has only begun one.
    for client in &mut held[..3] {
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert!(matches!(client.read(&mut [0; 16]), Ok(0) | Err(_)));
    }
    let answer: ConnectResponse = shim.call("Connect", &ConnectRequest { id: "a".into() }).unwrap();
    assert_eq!(answer.shim_pid, shim.pid());
    shim.shutdown();
}

#[test]
fn a_client_that_never_reads_does_not_hold_up_others() {
    testkit::needs!(root);
    let place = Place::new();
    place.bundle("a", "true");
    let mut shim = Shim::start(place, "a");
    let mut deaf = crate::shim::connect(&shim.place, &shim.address);
    // Each answer is an error of about a hundred bytes; the socket's own buffer is full long before the end.
    for _ in 0..20_000 {
        if deaf
            .send(shim.service, "State", &StateRequest { id: "x".repeat(64), ..Default::default() })
            .is_err()
        {
            break;
        }
    }
    let answer: ConnectResponse = shim.call("Connect", &ConnectRequest { id: "a".into() }).unwrap();
    assert_eq!(answer.shim_pid, shim.pid());
    shim.shutdown();
}

#[test]
fn events_wait_for_a_daemon_that_is_away() {
    testkit::needs!(root, program "busybox");
    let place = Place::new();
    place.bundle("a", "exit 3");
    let socket = place.events_socket();
    let mut shim = Shim::start(place, "a");
    shim.create(&shim.create_request("a"));
    shim.start_process("a", "");
    assert_eq!(shim.wait("a", "").exit_status, 3);
    shim.delete("a", "");
    let events = Events::listen(&socket);
    assert_eq!(events.wait_for(4), ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]);
    shim.shutdown();
}

#[test]
fn a_refused_event_is_tried_again_after_a_pause() {
    testkit::needs!(root, program "busybox");
    let place = Place::new();
    place.bundle("a", "true");
    let events = Events::listen_refusing(&place.events_socket(), 2);
    let mut shim = Shim::start(place, "a");
    shim.create(&shim.create_request("a"));
    shim.delete("a", "");
    assert_eq!(events.wait_for(3), ["/tasks/create", "/tasks/exit", "/tasks/delete"]);
    shim.shutdown();
}
