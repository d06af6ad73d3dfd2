//! A disk that is full: the pull says so, nothing stored before is lost, and space that is freed can be used.

use testkit::command::Run;
use testkit::daemon::{Daemon, Setup};
use testkit::image::{Blob, Build, Layer};
use testkit::needs;
use testkit::peer::Peer;
use testkit::tar::Archive;

/// A daemon whose root is a file system of 24 MiB.
fn small() -> Daemon {
    let setup: Setup = Daemon::ours();
    let root = setup.dir().join("small");
    std::fs::create_dir(&root).unwrap();
    Run::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"]).args([&root]).ok();
    setup.root(root).config("[plugins.'io.containerd.gc.v1.scheduler']\n  startup_delay = '1h'").start()
}

fn noise(size: usize) -> Vec<u8> {
    let mut word = 0x2545_f491_4f6c_dd1d_u64;
    (0..size)
        .map(|_| {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            (word >> 32) as u8
        })
        .collect()
}

#[test]
fn a_full_disk_fails_the_pull_and_nothing_else() {
    needs!(root, overlayfs, built "containerd", built "ctr");
    let (peer, daemon) = (Peer::start(), small());
    let image = |size| {
        Build::new().layer(Layer::gzip(Archive::new().file("data", 0o644, &noise(size)).finish())).build()
    };
    let fits = peer.serve("fits", "v1", image(1 << 20));
    daemon.ctr("image pull --plain-http").args([&fits]).ok();
    // The first does not fit as a blob, the second as a blob but not unpacked.
    for (name, size) in [("blob", 40 << 20), ("tree", 13 << 20)] {
        let reference = peer.serve(name, "v1", image(size));
        let said = daemon.ctr("image pull --plain-http").args([&reference]).fails();
        assert!(said.to_lowercase().contains("no space"), "{name}: {said}");
        assert_eq!(daemon.ctr("image ls -q").ok(), format!("{fits}\n"), "{name}");
    }
    daemon.ctr(&format!("image rm --sync {fits}")).ok();
    let again = peer.serve("again", "v1", image(2 << 20));
    testkit::wait::eventually(std::time::Duration::from_secs(30), "room for another pull", || {
        (daemon.ctr("image pull --plain-http").args([&again]).run().code == 0).then_some(())
    });
}

#[test]
fn a_full_disk_fails_an_ingest_and_keeps_the_rest() {
    needs!(root, built "containerd", built "ctr");
    let daemon = small();
    let kept = Blob::new("x", noise(1 << 20));
    daemon.ctr("content ingest kept").stdin(kept.bytes.clone()).ok();
    let said = daemon.ctr("content ingest big").stdin(noise(30 << 20)).fails();
    assert!(said.to_lowercase().contains("no space"), "{said}");
    assert!(daemon.ctr("content ls -q").ok().contains(&kept.digest));
}
