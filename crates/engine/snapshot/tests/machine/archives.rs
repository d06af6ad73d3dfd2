//! Archives by other programs: what we extract is what they put in.

use std::path::Path;
use std::process::Command;

use testkit::needs;

use crate::stage::{Stage, Which, upper};
use crate::tree::{Times, assert_same, describe};

/// A tree with something of everything.
fn build(root: &Path) {
    let long = "l".repeat(180);
    let script = format!(
        "set -e; cd {root}; mkdir -p a/b/c empty {long}/{long}; echo one > a/one; ln a/one a/b/two; ln -s ../one a/b/link; \
         ln -s {long}/{long}/{long} longlink; echo x > {long}/{long}/file; mkfifo pipe; mknod null c 1 3; mknod loop b 7 200; \
         head -c 300000 /dev/urandom > big; chmod 4755 big; chmod 1777 empty; chown 1234:5678 a/one; chown -h 3:4 longlink; \
         chown 3000000:4000000 empty; touch -h -d '2001-02-03 04:05:06.789' a/b/link a/b/c; touch -d '1999-01-01' a/b a {long}; \
         printf 'né' > 'sp ace é'; setfattr -n user.note -v hello big || true",
        root = root.display()
    );
    let status = Command::new("sh").args(["-c", &script]).status().unwrap();
    assert!(status.success());
}

fn check(program: &str, args: &[&str], times: Times) {
    let dir = testkit::place::temp();
    let root = dir.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    build(&root);
    let output = Command::new(program).args(args).current_dir(&root).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stage = Stage::new(Which::Overlay);
    let mounts = stage.prepare("active", "").unwrap();
    stage.apply(&mounts, &output.stdout).unwrap();
    let (mut wanted, mut found) = (describe(&root, times), describe(&upper(&mounts), times));
    if !args.iter().any(|arg| arg.contains("pax")) {
        // Older formats have whole seconds and no attributes.
        for tree in [&mut wanted, &mut found] {
            for text in tree.values_mut() {
                let nanos = text.find('.').unwrap_or(text.len() - 1);
                text.replace_range(nanos..(nanos + 10).min(text.len()), "");
                *text = text.replace(" user.note=hello", "");
            }
        }
    }
    assert_same(program, &wanted, &found);
}

#[test]
fn gnu_tar_in_every_format() {
    needs!(root, overlayfs, program "tar");
    for format in ["gnu", "oldgnu", "pax"] {
        let option = format!("--format={format}");
        let mut args = vec![option.as_str(), "--numeric-owner", "-cf", "-", "."];
        if format == "pax" {
            args.insert(0, "--xattrs");
        }
        check("tar", &args, Times::All);
    }
}

#[test]
fn gnu_tar_compressed() {
    needs!(root, overlayfs, program "tar", program "gzip");
    check("tar", &["--xattrs", "--format=pax", "-czf", "-", "."], Times::All);
}

#[test]
fn sparse_files_in_every_form() {
    needs!(root, overlayfs, program "tar");
    // More fragments than the old header and its first extension hold, a hole at the end, nothing but a hole.
    let script = "for n in $(seq 0 40); do printf data$n | dd of=many bs=1 seek=$((n * 100000)) conv=notrunc status=none; done; \
                  truncate -s 5000000 many; truncate -s 1000000 hole; printf end >> hole; truncate -s 70000 empty; \
                  ln many other; mkdir d; echo after > d/after; touch -d 2001-02-03 many hole empty d/after";
    let dir = testkit::place::temp();
    let root = dir.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    assert!(Command::new("sh").args(["-ec", script]).current_dir(&root).status().unwrap().success());
    for form in [
        &["--format=gnu"][..],
        &["--format=oldgnu"],
        &["--format=pax", "--sparse-version=0.0"],
        &["--format=pax", "--sparse-version=0.1"],
        &["--format=pax", "--sparse-version=1.0"],
    ] {
        let output =
            Command::new("tar").args(form).args(["-Scf", "-", "."]).current_dir(&root).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout.len() < 1_000_000, "{form:?} is not sparse");
        for which in [Which::Overlay, Which::Native] {
            let stage = Stage::new(which);
            let mounts = stage.prepare("active", "").unwrap();
            stage.apply(&mounts, &output.stdout).unwrap();
            let mut found = upper(&mounts);
            if which == Which::Native {
                // Its child is a copy.
                stage.commit("base", "active").unwrap();
                found = upper(&stage.prepare("child", "base").unwrap());
            }
            let tree = |root: &Path| describe(root, Times::NotOfDirectories);
            assert_same(&format!("{form:?}"), &tree(&root), &tree(&found));
            let taken = std::os::unix::fs::MetadataExt::blocks(&found.join("many").metadata().unwrap());
            assert!(taken < 2000, "{form:?}: {taken} blocks");
        }
    }
}

#[test]
fn python_in_every_format() {
    needs!(root, overlayfs, program "python3");
    for format in ["GNU_FORMAT", "PAX_FORMAT"] {
        let script = format!(
            "import tarfile,sys; t=tarfile.open(fileobj=sys.stdout.buffer, mode='w|', format=tarfile.{format}); t.add('.'); t.close()"
        );
        let dir = testkit::place::temp();
        let root = dir.path().join("tree");
        std::fs::create_dir(&root).unwrap();
        build(&root);
        let output = Command::new("python3").args(["-c", &script]).current_dir(&root).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let stage = Stage::new(Which::Overlay);
        let mounts = stage.prepare("active", "").unwrap();
        stage.apply(&mounts, &output.stdout).unwrap();
        let names = |root: &Path| describe(root, Times::NotOfDirectories).into_keys().collect::<Vec<_>>();
        assert_eq!(names(&root), names(&upper(&mounts)));
    }
}
