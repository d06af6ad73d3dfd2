//! Mounts of a container.

use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};

use spec::runtime::{IdMapping, Mount};

use crate::bundle::{Bundle, bundle};

#[test]
fn binds_with_their_options() {
    let script = "touch /ro/x 2>/dev/null || echo ro; touch /rro/x 2>/dev/null || echo rro; touch /rro/sub/x 2>/dev/null || echo sub; \
                  touch /ro/sub/x && echo open; cat /etc/file; grep -c nosuid /proc/self/mounts > /dev/null && echo nosuid";
    let Some(mut bundle) = bundle("binds", script) else { return };
    let volume = bundle.path().join("volume");
    let below = volume.join("sub");
    std::fs::create_dir_all(&below).unwrap();
    std::fs::write(volume.join("file"), "content\n").unwrap();
    sys::mount::fstab::mount("tmpfs", "tmpfs".as_ref(), &["size=64k"], &below).unwrap();
    let source = volume.to_str().unwrap();
    let file = volume.join("file");
    bundle.spec.mounts.extend([
        Mount::new("/ro", "bind", source, &["rbind", "ro"]),
        Mount::new("/rro", "bind", source, &["rbind", "rro", "nosuid"]),
        Mount::new("/etc/file", "bind", file.to_str().unwrap(), &["bind"]),
    ]);
    let out = bundle.says();
    sys::mount::unmount_all(&below).unwrap();
    assert_eq!(out.split_whitespace().collect::<Vec<_>>(), ["ro", "rro", "sub", "open", "content", "nosuid"]);
    bundle.assert_gone();
}

#[test]
fn a_tmpfs_begins_with_what_it_covers() {
    let script = "cat /data/inner; stat -c %a /data /data/inner; readlink /data/link; touch /data/x 2>/dev/null || echo ro";
    let Some(mut bundle) = bundle("copy_up", script) else { return };
    let data = bundle.rootfs().join("data");
    std::fs::create_dir_all(data.join("sub")).unwrap();
    std::fs::write(data.join("inner"), "content\n").unwrap();
    std::fs::set_permissions(&data, PermissionsExt::from_mode(0o750)).unwrap();
    std::fs::set_permissions(data.join("inner"), PermissionsExt::from_mode(0o604)).unwrap();
    symlink("inner", data.join("link")).unwrap();
    bundle.spec.mounts.push(Mount::new("/data", "tmpfs", "tmpfs", &["tmpcopyup", "ro", "size=1m"]));
    assert_eq!(bundle.says(), "content\n750\n604\ninner\nro");
}

#[test]
fn mountpoints_are_made_inside_earlier_mounts() {
    let Some(mut bundle) = bundle("nested", "cat /vol/deep/er/file; stat -c %a /vol") else { return };
    let volume = bundle.path().join("volume");
    std::fs::create_dir_all(&volume).unwrap();
    std::fs::write(volume.join("file"), "content\n").unwrap();
    bundle.spec.mounts.extend([
        Mount::new("/vol", "tmpfs", "tmpfs", &["mode=0700"]),
        // A relative source counts from the bundle.
        Mount::new("/vol/deep/er", "bind", "volume", &["rbind"]),
    ]);
    assert_eq!(bundle.says(), "content\n700");
}

#[test]
fn owners_are_shifted() {
    let Some(mut bundle) = bundle("idmap", "stat -c '%u %g' /vol/file") else { return };
    let volume = bundle.path().join("volume");
    std::fs::create_dir_all(&volume).unwrap();
    std::fs::write(volume.join("file"), "x").unwrap();
    let map = vec![IdMapping { container_id: 0, host_id: 5000, size: 10 }];
    bundle.spec.mounts.push(Mount {
        uid_mappings: map.clone(),
        gid_mappings: map,
        ..Mount::new("/vol", "bind", volume.to_str().unwrap(), &["bind", "idmap"])
    });
    let done = bundle.run();
    if done.err.contains("invalid argument") {
        println!("SKIP owners_are_shifted: the temporary directory's file system cannot");
        return;
    }
    assert_eq!(done.out, "5000 5000", "{done:?}");
}

#[test]
fn a_mountpoint_behind_a_link_to_nothing_is_made_where_the_link_points() {
    let script = "cat /etc/localtime /run/secrets/x; cat /q/w/b; grep -c ' /t3 tmpfs ' /proc/mounts";
    let Some(mut bundle) = bundle("dangling", script) else { return };
    let (file, dir) = (bundle.path().join("file"), bundle.path().join("dir"));
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(&file, "zone\n").unwrap();
    std::fs::write(dir.join("x"), "secret\n").unwrap();
    let rootfs = bundle.rootfs();
    std::fs::create_dir_all(rootfs.join("etc")).unwrap();
    std::fs::create_dir_all(rootfs.join("var")).unwrap();
    for (text, link) in [
        ("/usr/share/zoneinfo/UTC", "etc/localtime"),
        ("/run", "var/run"),
        ("../../../q/w", "a"),
        ("t2", "t1"),
        ("t3", "t2"),
    ] {
        symlink(text, rootfs.join(link)).unwrap();
    }
    let (file, dir) = (file.to_str().unwrap(), dir.to_str().unwrap());
    bundle.spec.mounts.extend([
        Mount::new("/etc/localtime", "bind", file, &["bind"]),
        Mount::new("/var/run/secrets", "bind", dir, &["rbind"]),
        Mount::new("/a/b", "bind", file, &["bind"]),
        Mount::new("/t1", "tmpfs", "tmpfs", &["size=64k"]),
    ]);
    assert_eq!(bundle.says(), "zone\nsecret\nzone\n1");
}

#[test]
fn a_tmpfs_without_a_mode_takes_that_of_the_covered_directory() {
    let Some(mut bundle) = bundle("tmpfs_mode", "stat -c %a /private /group /given /new") else { return };
    for (name, mode) in [("private", 0o700), ("group", 0o2750), ("given", 0o700)] {
        std::fs::create_dir(bundle.rootfs().join(name)).unwrap();
        std::fs::set_permissions(bundle.rootfs().join(name), PermissionsExt::from_mode(mode)).unwrap();
    }
    bundle.spec.mounts.extend([
        Mount::new("/private", "tmpfs", "tmpfs", &["nosuid"]),
        Mount::new("/group", "tmpfs", "tmpfs", &[]),
        Mount::new("/given", "tmpfs", "tmpfs", &["mode=0444"]),
        Mount::new("/new", "tmpfs", "tmpfs", &[]),
    ]);
    assert_eq!(bundle.says(), "700\n2750\n444\n1777");
}

/// Runs `check` with the path of a tmpfs whose mount has the attributes of `options`, and unmounts it again.
fn with_source(bundle: &mut Bundle, options: &[&str], check: impl FnOnce(&mut Bundle, &str)) {
    let source = bundle.path().join("source");
    std::fs::create_dir_all(&source).unwrap();
    sys::mount::fstab::mount("tmpfs", "tmpfs".as_ref(), &["size=64k"], &source).unwrap();
    let plain = sys::mount::copy(sys::path::at::here(), &source, false).unwrap();
    let bind = sys::mount::fstab::split(options);
    sys::mount::fstab::set_attributes(plain.as_fd(), &bind).unwrap();
    sys::mount::attach_at(plain.as_fd(), &source).unwrap();
    let path = source.to_str().unwrap().to_owned();
    check(bundle, &path);
    sys::mount::unmount_all(&source).unwrap();
}

const FLAGS: &str = "grep ' /m tmpfs ' /proc/mounts | cut -d ' ' -f 4";

#[test]
fn a_bind_has_the_attributes_it_was_asked_for_and_no_others() {
    let Some(mut bundle) = bundle("bind_flags", FLAGS) else { return };
    with_source(&mut bundle, &["ro", "nosuid", "nodev", "noexec", "noatime"], |bundle, source| {
        for (options, shown) in [
            (&["bind"][..], "ro,nosuid,nodev,noexec,noatime"),
            (&["rbind", "rprivate"], "ro,nosuid,nodev,noexec,noatime"),
            (&["bind", "rw"], "rw,noatime"),
            (&["bind", "ro"], "ro,noatime"),
            (&["bind", "exec", "nodev"], "rw,nodev,noatime"),
            (&["bind", "norelatime"], "rw,noatime"),
            (&["bind", "relatime"], "rw,relatime"),
        ] {
            bundle.spec.mounts.retain(|mount| mount.destination != "/m");
            bundle.spec.mounts.push(Mount::new("/m", "bind", source, options));
            let out = bundle.says();
            assert!(out == shown || out.starts_with(&format!("{shown},size")), "{options:?}: {out}");
        }
    });
}

#[test]
fn attributes_of_the_source_are_locked_in_a_user_namespace() {
    let Some(mut bundle) = bundle("locked_flags", FLAGS) else { return };
    bundle.user_namespace();
    with_source(&mut bundle, &["ro", "nodev", "noatime"], |bundle, source| {
        for (options, shown) in
            [(&["bind"][..], "ro,nodev,noatime"), (&["bind", "nosuid", "exec"], "ro,nosuid,nodev,noatime")]
        {
            bundle.spec.mounts.retain(|mount| mount.destination != "/m");
            bundle.spec.mounts.push(Mount::new("/m", "bind", source, options));
            let out = bundle.says();
            assert!(out.starts_with(shown), "{options:?}: {out}");
        }
        for refused in ["rw", "dev", "strictatime"] {
            bundle.spec.mounts.retain(|mount| mount.destination != "/m");
            bundle.spec.mounts.push(Mount::new("/m", "bind", source, &["bind", refused]));
            let done = bundle.run();
            assert!(done.code != 0 && done.err.contains("operation not permitted"), "{refused}: {done:?}");
            assert!(done.err.contains("error during container init: error mounting"), "{done:?}");
        }
    });
    bundle.assert_gone();
}

#[test]
fn nothing_is_mounted_inside_proc() {
    let Some(mut bundle) = bundle("proc_mounts", "true") else { return };
    symlink("/proc/sys", bundle.rootfs().join("link")).unwrap();
    let empty = bundle.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let source = empty.to_str().unwrap();
    let usual = bundle.spec.mounts.clone();
    for (mount, why) in [
        (Mount::new("/proc/sys", "tmpfs", "tmpfs", &[]), "inside /proc"),
        (Mount::new("/proc/self/attr", "tmpfs", "tmpfs", &[]), "inside /proc"),
        (Mount::new("/link", "tmpfs", "tmpfs", &[]), "inside /proc"),
        (Mount::new("/link", "bind", source, &["bind"]), "inside /proc"),
        (Mount::new("/proc/sys", "mqueue", "mqueue", &[]), "inside /proc"),
        (Mount::new("/proc/tty", "sysfs", "sysfs", &[]), "inside /proc"),
        (Mount::new("/proc/tty", "proc", "proc", &[]), "inside /proc"),
        (Mount::new("/proc/tty", "cgroup", "cgroup", &[]), "inside /proc"),
        (Mount::new("/proc/net/dev", "bind", "/proc/version", &["bind"]), "inside /proc"),
        (Mount::new("/proc", "tmpfs", "tmpfs", &[]), "not of type proc"),
        (Mount::new("/", "tmpfs", "tmpfs", &[]), "on the top of rootfs"),
    ] {
        bundle.spec.mounts = usual.iter().cloned().chain([mount.clone()]).collect();
        let done = bundle.run();
        assert!(done.code != 0 && done.err.contains(why), "{mount:?}: {done:?}");
        bundle.assert_gone();
    }
    bundle.spec.mounts = usual;
    bundle.spec.mounts.push(Mount::new("/proc/uptime", "bind", "/proc/version", &["bind"]));
    assert_eq!(bundle.run().code, 0);
}

#[test]
fn a_linked_proc_is_refused_and_nothing_is_made() {
    let Some(mut bundle) = bundle("linked_proc", "true") else { return };
    let proc = bundle.rootfs().join("proc");
    let _ = std::fs::remove_dir(&proc);
    symlink("/elsewhere", &proc).unwrap();
    bundle.spec.mounts.retain(|mount| mount.destination != "/dev");
    let done = bundle.run();
    assert!(done.err.contains("must be mounted on ordinary directory"), "{done:?}");
    assert!(!bundle.rootfs().join("elsewhere").exists());
}

#[test]
fn a_root_may_be_unbindable() {
    for propagation in ["unbindable", "runbindable"] {
        let script = "head -n 1 /proc/self/mountinfo";
        let Some(mut bundle) = bundle("unbindable", script) else { return };
        bundle.spec.linux_mut().rootfs_propagation = propagation.into();
        let out = bundle.says();
        assert!(out.contains("unbindable"), "{propagation}: {out}");
        bundle.assert_gone();
    }
}

#[test]
fn a_source_in_the_root_is_what_earlier_mounts_made_it() {
    for (user_namespace, shifted) in [(false, false), (true, false), (false, true), (true, true)] {
        let Some(mut bundle) = bundle("mount_order", "cat /final/x/file") else { return };
        if user_namespace {
            bundle.user_namespace();
        }
        let volume = bundle.path().join("volume");
        std::fs::create_dir_all(volume.join("x")).unwrap();
        std::fs::write(volume.join("x/file"), "content\n").unwrap();
        std::fs::set_permissions(&volume, PermissionsExt::from_mode(0o755)).unwrap();
        for name in ["mnt", "final"] {
            std::fs::create_dir(bundle.rootfs().join(name)).unwrap();
        }
        let rootfs = bundle.rootfs();
        let mut last =
            Mount::new("/final", "bind", rootfs.join("mnt").to_str().unwrap(), &["rbind", "rprivate"]);
        if shifted {
            let host_id = if user_namespace { 100_000 } else { 0 };
            let map = vec![IdMapping { container_id: 0, host_id, size: 65536 }];
            (last.uid_mappings, last.gid_mappings) = (map.clone(), map);
        }
        bundle
            .spec
            .mounts
            .extend([Mount::new("/mnt", "bind", volume.to_str().unwrap(), &["rbind", "rprivate"]), last]);
        let done = bundle.run();
        if shifted && done.err.contains("invalid argument") {
            println!("SKIP a_source_in_the_root_is_what_earlier_mounts_made_it: no shifted mounts here");
            continue;
        }
        assert_eq!(done.out, "content", "user {user_namespace}, shifted {shifted}: {done:?}");
        bundle.assert_gone();
    }
}

#[test]
fn the_cgroup_mount_shows_the_containers_own() {
    let Some(mut bundle) =
        bundle("cgroup_mount", "cat /sys/fs/cgroup/pids/cgroup.procs /sys/fs/cgroup/cgroup.procs")
    else {
        return;
    };
    bundle.spec.mounts.push(Mount::new(
        "/sys/fs/cgroup",
        "cgroup",
        "cgroup",
        &["nosuid", "noexec", "nodev", "ro"],
    ));
    // The shell and the program it runs.
    let done = bundle.run();
    let pids: Vec<&str> = done.out.split_whitespace().collect();
    assert!((1..=2).contains(&pids.len()) && pids.contains(&"1"), "{done:?}");
}

#[test]
fn propagation_does_not_reach_the_host() {
    for propagation in ["rshared", "shared", "rslave", "rprivate"] {
        let Some(mut bundle) = bundle("propagation", "head -n 1 /proc/self/mountinfo") else { return };
        bundle.spec.linux_mut().rootfs_propagation = propagation.into();
        let out = bundle.says();
        assert_eq!(out.contains("shared:"), propagation.ends_with("shared"), "{propagation}: {out}");
        bundle.assert_gone();
    }
}

#[test]
fn without_pivot_the_root_is_entered_all_the_same() {
    let Some(bundle) = bundle("no_pivot", "ls / | sort | head -n 2; ls /proc/1/root/bin/busybox") else {
        return;
    };
    let done = bundle.runc(&["run", "--no-pivot"]);
    assert_eq!(done.out, "bin\ndev\n/proc/1/root/bin/busybox", "{done:?}");
    bundle.assert_gone();
}
