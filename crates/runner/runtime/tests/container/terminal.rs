//! Terminals: made in the container, handed over the console socket.

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;

use spec::runtime::{ConsoleSize, Namespace, NamespaceKind};

use crate::bundle::{bundle, finish_detached};

/// Reads from a terminal's master until its other side is closed.
fn read_screen(master: std::os::fd::OwnedFd) -> String {
    let mut out = Vec::new();
    let mut buffer = [0; 1024];
    // EIO is how a master says that nobody is left.
    while let Ok(length) = rustix::io::read(&master, &mut buffer) {
        out.extend_from_slice(&buffer[..length]);
    }
    String::from_utf8_lossy(&out).replace("\r\n", "\n")
}

#[test]
fn the_console_socket_gets_the_master() {
    let script = "tty; test -c /dev/console && echo console; echo x >/dev/tty && echo controlled; echo typed: $(head -n 1)";
    let Some(other) = bundle("console_socket", "sleep 100") else { return };
    other.start();
    let state = other.runc(&["state"]).out;
    let pid = serde_json::from_str::<serde_json::Value>(&state).unwrap()["pid"].as_i64().unwrap();
    let shared = Namespace { kind: NamespaceKind::Pid, path: format!("/proc/{pid}/ns/pid") };
    for (user_namespace, pids) in [(false, None), (true, None), (false, Some(shared))] {
        let Some(mut bundle) = bundle("console_socket", script) else { return };
        if user_namespace {
            bundle.user_namespace();
        }
        if pids.is_some() {
            bundle.namespace(NamespaceKind::Pid, pids);
        }
        bundle.process().terminal = true;
        bundle.process().console_size = Some(ConsoleSize { height: 25, width: 80 });
        let socket = bundle.path().join("console.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let create = bundle.command(&["create", "--console-socket", socket.to_str().unwrap(), &bundle.id]);
        assert_eq!(finish_detached(create), 0);
        let (peer, _) = listener.accept().unwrap();
        let (_, mut fds) = sys::socket::receive(peer.as_fd(), &mut [0; 64]).unwrap();
        let master = fds.remove(0);
        assert_eq!(rustix::termios::tcgetwinsize(&master).unwrap().ws_col, 80);
        rustix::io::write(&master, b"hello\n").unwrap();
        assert_eq!(bundle.runc(&["start"]).code, 0);
        let screen = read_screen(master);
        for line in ["/dev/pts/0", "console", "controlled", "typed: hello"] {
            assert!(screen.lines().any(|seen| seen == line), "{line}: {screen:?}");
        }
    }
}

#[test]
fn an_exec_gets_a_terminal_of_the_container() {
    let Some(bundle) = bundle("exec_terminal", "sleep 100") else { return };
    bundle.start();
    let socket = bundle.path().join("console.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let exec = bundle.command(&[
        "exec",
        "--tty",
        "--detach",
        "--console-socket",
        socket.to_str().unwrap(),
        &bundle.id,
        "tty",
    ]);
    assert_eq!(finish_detached(exec), 0);
    let (peer, _) = listener.accept().unwrap();
    let (_, mut fds) = sys::socket::receive(peer.as_fd(), &mut [0; 64]).unwrap();
    assert_eq!(read_screen(fds.remove(0)), "/dev/pts/0\n");
}

#[test]
fn a_linked_console_is_not_followed() {
    // CVE-2025-52565: with the image's own /dev, the terminal was bound wherever its console linked to.
    let Some(mut bundle) = bundle("linked_console", "true") else { return };
    bundle.process().terminal = true;
    bundle.spec.mounts.retain(|mount| mount.destination != "/dev");
    let dev = bundle.rootfs().join("dev");
    std::fs::create_dir(&dev).unwrap();
    std::os::unix::fs::symlink("/proc/sys/kernel/core_pattern", dev.join("console")).unwrap();
    let socket = bundle.path().join("console.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    let done = crate::bundle::finish(bundle.command(&[
        "create",
        "--console-socket",
        socket.to_str().unwrap(),
        &bundle.id,
    ]));
    assert_ne!(done.code, 0);
    assert!(done.err.contains("/dev/console"), "{done:?}");
    bundle.assert_gone();
}
