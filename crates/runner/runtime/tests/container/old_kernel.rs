//! The fallbacks for older kernels, on this one: a filter answers ENOSYS for the calls that they lack.

use spec::runtime::{Mount, Namespace, NamespaceKind};
use sys::seccomp::{Instruction, install};

use crate::bundle::{Done, bundle};

/// Runs `work` in a thread, and all that it starts, on a kernel that lacks the system call `number`.
fn without<T: Send>(number: i64, work: impl FnOnce() -> T + Send) -> T {
    let code = |code, jt, jf, k| Instruction { code, jt, jf, k };
    let number = u32::try_from(number).unwrap();
    // Load the number; is it the one? then "errno 38", else "allow".
    let filter = [
        code(0x20, 0, 0, 0),
        code(0x15, 0, 1, number),
        code(0x06, 0, 0, 0x0005_0026),
        code(0x06, 0, 0, 0x7fff_0000),
    ];
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            install(&filter, 0).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

#[test]
fn before_mount_setattr() {
    let script = "touch /ro/x 2>/dev/null || echo ro; echo 1 2>/dev/null > /proc/sys/kernel/panic || echo protected; \
                  touch /x 2>/dev/null || echo sealed; cat /proc/keys | wc -c; ls /sys/fs/cgroup | grep -c pids";
    let Some(mut bundle) = bundle("before_mount_setattr", script) else { return };
    bundle.spec.root.as_mut().unwrap().readonly = true;
    let volume = bundle.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::create_dir(bundle.rootfs().join("ro")).unwrap();
    for dir in ["dev", "sys", "run"] {
        std::fs::create_dir(bundle.rootfs().join(dir)).unwrap();
    }
    bundle.spec.mounts.extend([
        Mount::new("/ro", "bind", volume.to_str().unwrap(), &["rbind", "ro", "nosuid", "rprivate"]),
        Mount::new("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]),
    ]);
    let done: Done = without(libc::SYS_mount_setattr, || bundle.run());
    let lines: Vec<&str> = done.out.split_whitespace().collect();
    assert_eq!(lines[..4], ["ro", "protected", "sealed", "0"], "{done:?}");
    bundle.assert_gone();
}

#[test]
fn without_executable_memory_files_processes_join_from_a_copy_of_the_runtime() {
    let Some(first) = bundle("no_memory_files", "sleep 100") else { return };
    let Some(mut second) = bundle("no_memory_files", "cat /proc/1/cmdline; kill -0 1 && echo joined") else {
        return;
    };
    without(libc::SYS_memfd_create, || {
        first.start();
        let done = first.exec(&["sh", "-c", "echo user $(id -u), parent $PPID"]);
        assert_eq!((done.code, done.out.as_str()), (0, "user 0, parent 0"), "{done:?}");
        let done = first.exec(&["nope"]);
        assert!(done.err.contains(r#"exec: "nope": executable file not found in $PATH"#), "{done:?}");
        let state = first.runc(&["state"]).out;
        let pid = serde_json::from_str::<serde_json::Value>(&state).unwrap()["pid"].as_i64().unwrap();
        let path = format!("/proc/{pid}/ns/pid");
        second.namespace(NamespaceKind::Pid, Some(Namespace { kind: NamespaceKind::Pid, path }));
        let out = second.says();
        assert!(out.contains("sleep") && out.ends_with("joined"), "{out:?}");
    });
    second.assert_gone();
}
