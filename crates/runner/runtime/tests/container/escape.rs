//! Root file systems and configurations that try to reach the host: one test a class of past vulnerabilities.

use std::os::unix::fs::symlink;

use spec::runtime::Mount;

use crate::bundle::bundle;

#[test]
fn a_linked_kernel_directory_is_refused() {
    for name in ["proc", "sys", "dev"] {
        let Some(bundle) = bundle("linked_directory", "true") else { return };
        let path = bundle.rootfs().join(name);
        let _ = std::fs::remove_dir(&path);
        std::fs::create_dir(bundle.rootfs().join("evil")).unwrap();
        symlink("/evil", &path).unwrap();
        let done = bundle.run();
        assert_ne!(done.code, 0);
        assert!(done.err.contains("must be mounted on ordinary directory"), "{done:?}");
        assert_eq!(std::fs::read_dir(bundle.rootfs().join("evil")).unwrap().count(), 0);
        bundle.assert_gone();
    }
}

#[test]
fn mount_targets_stay_inside() {
    let Some(mut bundle) = bundle("targets", "ls /etc/x /up") else { return };
    let host = bundle.path().join("host");
    std::fs::create_dir(&host).unwrap();
    symlink("/etc", bundle.rootfs().join("abs")).unwrap();
    symlink("../../../../../..", bundle.rootfs().join("climb")).unwrap();
    let source = host.to_str().unwrap().to_owned();
    bundle.spec.mounts.extend([
        Mount::new("/abs/x", "bind", &source, &["bind"]),
        Mount::new("/climb/up", "tmpfs", "tmpfs", &[]),
        Mount::new("/bin/../../../../../up2", "tmpfs", "tmpfs", &[]),
    ]);
    assert_eq!(bundle.run().code, 0);
    assert!(bundle.rootfs().join("etc/x").is_dir());
    assert!(bundle.rootfs().join("up").is_dir());
    assert!(bundle.rootfs().join("up2").is_dir());
    assert!(!std::path::Path::new("/etc/x").exists());
}

#[test]
fn no_descriptor_of_the_host_is_a_directory_to_start_in() {
    // CVE-2024-21626: the working directory named through a descriptor that leaked into init.
    for number in 3..20 {
        let Some(mut bundle) = bundle("cwd", "pwd") else { return };
        symlink(format!("/proc/self/fd/{number}"), bundle.rootfs().join("work")).unwrap();
        for cwd in [format!("/proc/self/fd/{number}"), "/work".into(), format!("/proc/1/fd/{number}/..")] {
            bundle.process().cwd.clone_from(&cwd);
            let done = bundle.run();
            assert_ne!(done.code, 0, "{cwd}: {done:?}");
        }
        bundle.assert_gone();
    }
}

#[test]
fn the_program_inherits_three_streams() {
    let Some(bundle) = bundle("descriptors", "ls /proc/self/fd; sleep 100") else { return };
    let out = {
        let mut bundle = crate::bundle::bundle("descriptors", "ls /proc/self/fd").unwrap();
        bundle.process().args = vec!["/bin/ls".into(), "/proc/self/fd".into()];
        bundle.says()
    };
    // The fourth is the listing's own.
    assert_eq!(out.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    bundle.start();
    let done = bundle.exec(&["ls", "/proc/self/fd"]);
    assert_eq!(done.out.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"], "{done:?}");
}

#[test]
fn a_waiting_init_shows_nothing_of_the_host() {
    let Some(bundle) = bundle("waiting_init", "true") else { return };
    let mut create = bundle.command(&["create", "--pid-file", "pid", &bundle.id]);
    create.stderr(std::process::Stdio::null());
    assert_eq!(crate::bundle::finish_detached(create), 0);
    let pid: i32 = std::fs::read_to_string(bundle.path().join("pid")).unwrap().parse().unwrap();
    let mut left: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .flatten()
        .map(|entry| std::fs::read_link(entry.path()).unwrap().to_string_lossy().into_owned())
        .collect();
    left.retain(|target| {
        target != "/dev/null" && !target.starts_with("socket:") && !target.ends_with("exec.fifo")
    });
    assert!(left.is_empty(), "{left:?}");
    // CVE-2019-5736: what runs in the container must not be a file of the host that can be written.
    let exe = std::fs::File::open(format!("/proc/{pid}/exe")).unwrap();
    let flags = rustix::fs::fstatvfs(&exe).unwrap().f_flag;
    let sealed =
        rustix::fs::fcntl_get_seals(&exe).is_ok_and(|seals| seals.contains(rustix::fs::SealFlags::WRITE));
    assert!(flags.contains(rustix::fs::StatVfsMountFlags::RDONLY) || sealed);
}

#[test]
fn binds_onto_procfs_are_refused() {
    for (target, allowed) in [
        ("/proc", false),
        ("/proc/self/attr", false),
        ("/proc/sys/kernel/core_pattern", false),
        ("/proc/uptime", true),
    ] {
        let Some(mut bundle) = bundle("proc_bind", "true") else { return };
        let host = bundle.path().join("host");
        let is_dir = target == "/proc" || target.ends_with("attr");
        if is_dir {
            std::fs::create_dir(&host).unwrap()
        } else {
            std::fs::write(&host, "1").unwrap()
        }
        if target == "/proc" {
            bundle.spec.mounts.retain(|mount| mount.destination != "/proc");
        }
        bundle.spec.mounts.push(Mount::new(target, "bind", host.to_str().unwrap(), &["bind"]));
        let done = bundle.run();
        assert_eq!(done.code == 0, allowed, "{target}: {done:?}");
        bundle.assert_gone();
    }
}
