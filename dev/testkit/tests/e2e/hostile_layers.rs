//! Layers made to escape, to exhaust or to confuse: the host stays as it was, and the daemon serves on.

use std::path::Path;

use testkit::daemon::Daemon;
use testkit::image::{Build, Layer};
use testkit::needs;
use testkit::peer::Peer;
use testkit::place;
use testkit::tar::{Archive, Entry};

/// Pulls an image of this layer; whether it is refused or tamed is told by the exit code.
fn pull(daemon: &Daemon, peer: &Peer, tar: Vec<u8>) -> (i32, String, String) {
    let reference = peer.serve(&place::unique("layer"), "v1", Build::new().layer(Layer::gzip(tar)).build());
    let done = daemon.ctr("image pull --plain-http").args([&reference]).run();
    assert!(!done.stderr.contains("panic"), "{done}");
    (done.code, format!("{}{}", done.stdout, done.stderr), reference)
}

#[test]
fn no_entry_reaches_the_host() {
    needs!(root, overlayfs, built "containerd", built "ctr");
    let (peer, daemon) = (Peer::start(), Daemon::start());
    let mark = place::unique("pwned");
    let outside = daemon.dir().join(&mark);
    let dir = daemon.dir().to_str().unwrap().to_owned();
    let path = outside.to_str().unwrap();
    let dots = format!("{}{}", "../".repeat(30), path.trim_start_matches('/'));
    let attacks: Vec<Vec<u8>> = vec![
        Archive::new().file(&dots, 0o644, b"x").finish(),
        Archive::new().file(path, 0o644, b"x").finish(),
        Archive::new().symlink("door", &dir).file(&format!("door/{mark}"), 0o644, b"x").finish(),
        Archive::new()
            .symlink("a", "/")
            .symlink("a/b", ".")
            .file(&format!("a{dir}/{mark}"), 0o644, b"x")
            .finish(),
        Archive::new()
            .symlink("up", &"../".repeat(30))
            .file(&format!("up{dir}/{mark}"), 0o644, b"x")
            .finish(),
        Archive::new()
            .hardlink("passwd", "../../../../../../../../etc/passwd", 0o644)
            .file("passwd", 0o666, b"x")
            .finish(),
        Archive::new().symlink("etc", "/etc").hardlink("shadow", "etc/shadow", 0o644).finish(),
        Archive::new().dir("d/", 0o755).symlink("d", &dir).file(&format!("d/{mark}"), 0o644, b"x").finish(),
        Archive::new().symlink("door", &dir).whiteout("door/c.sock").finish(),
        Archive::new().symlink("door", &dir).opaque("door").finish(),
        Archive::new().whiteout("../../../../../../../../../../etc/passwd").finish(),
        Archive::new().file(".wh...", 0o644, b"").finish(),
        Archive::new().file(".wh..", 0o644, b"").finish(),
    ];
    let passwd = std::fs::read("/etc/passwd").unwrap();
    for (number, attack) in attacks.into_iter().enumerate() {
        pull(&daemon, &peer, attack);
        assert!(!outside.exists(), "attack {number} wrote {path}");
        assert!(Path::new(&dir).join("c.sock").exists(), "attack {number} deleted on the host");
        assert_eq!(std::fs::read("/etc/passwd").unwrap(), passwd, "attack {number} changed /etc/passwd");
        daemon.ctr("version").ok();
    }
}

#[test]
fn damaged_archives_are_refused() {
    needs!(root, overlayfs, built "containerd", built "ctr");
    let (peer, daemon) = (Peer::start(), Daemon::start());
    let whole = Archive::new().file("a", 0o644, &[7; 5000]).finish();
    let mut checksum = whole.clone();
    checksum[150] ^= 1;
    let mut huge = Archive::new().file("a", 0o644, b"").finish_bare();
    huge[124..136].copy_from_slice(b"77777777777\0");
    fix_checksum(&mut huge);
    let endless = Archive::new()
        .entry(&Entry { pax: &[("size", "18446744073709551615")], ..Entry::new(b'0', "a") })
        .finish();
    for (what, tar) in [
        ("cut short", whole[..2000].to_vec()),
        ("a wrong checksum", checksum),
        ("a huge claim", huge),
        ("an endless claim", endless),
    ] {
        let (code, said, reference) = pull(&daemon, &peer, tar);
        assert!(code != 0, "{what} was taken: {said}");
        assert!(!daemon.ctr("snapshot ls").ok().contains("sha256:"), "{what} left a snapshot of {reference}");
    }
}

#[test]
fn devices_out_of_range_and_odd_types_do_no_harm() {
    needs!(root, overlayfs, built "containerd", built "ctr");
    let (peer, daemon) = (Peer::start(), Daemon::start());
    let tar = Archive::new()
        .entry(&Entry { device: (0x7fff_ffff, 0x7fff_ffff), ..Entry::new(b'4', "disk") })
        .entry(&Entry::new(b'V', "volume-label"))
        .finish();
    pull(&daemon, &peer, tar);
    daemon.ctr("version").ok();
}

#[test]
fn a_later_entry_replaces_an_earlier_one_of_its_name() {
    needs!(root, overlayfs, built "containerd", built "ctr");
    let (peer, daemon) = (Peer::start(), Daemon::start());
    let tar = Archive::new()
        .file("twice", 0o644, b"first")
        .file("twice", 0o600, b"second")
        .dir("was-dir/", 0o755)
        .file("was-dir/x", 0o644, b"x")
        .symlink("link", "twice")
        .file("link", 0o644, b"no longer a link")
        .finish();
    let (code, said, reference) = pull(&daemon, &peer, tar);
    assert_eq!(code, 0, "{said}");
    let target = daemon.dir().join("mnt");
    std::fs::create_dir(&target).unwrap();
    daemon.ctr("image mount").args([&reference, target.to_str().unwrap()]).ok();
    let read = |name: &str| std::fs::read_to_string(target.join(name)).unwrap();
    assert_eq!((read("twice"), read("link")), ("second".into(), "no longer a link".into()));
}

/// Makes a header's checksum right again.
fn fix_checksum(tar: &mut [u8]) {
    tar[148..156].fill(b' ');
    let sum: u64 = tar[..512].iter().map(|byte| u64::from(*byte)).sum();
    tar[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}
