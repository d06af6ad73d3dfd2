//! Mounts of a container.

use std::os::unix::fs::{PermissionsExt, symlink};

use spec::runtime::{IdMapping, Mount};

use crate::bundle::bundle;

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
