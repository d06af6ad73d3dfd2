//! A big real image, made once and kept under `target/testdata`: Debian's base system and three layers on top.
//!
//! ```text
//! 1  debootstrap --variant=minbase            a real root file system, from Debian's mirror
//! 2  /srv/many/DDD/FFF                        tens of thousands of small files
//! 3  deletions, an opaque directory           whiteouts over layers 1 and 2
//! 4  hard links, xattrs, device nodes, long names, a set-uid program
//! ```

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::command::Run;
use crate::image::{Build, Image, Layer};
use crate::place;
use crate::tar::{Archive, Entry};

/// Directories of layer 2.
pub const DIRS: usize = 200;

/// Files in each directory of layer 2.
pub const FILES: usize = 150;

/// The image, from the cache or made now; needs root, `debootstrap` and Debian's mirror only the first time.
pub fn image() -> Image {
    let cache = place::testdata().join("debian-2");
    if let Some(image) = Image::load(&cache) {
        return image;
    }
    let image = Build::new()
        .layer(Layer::gzip(base()))
        .layer(Layer::zstd(many()))
        .layer(Layer::gzip(deletions()))
        .layer(Layer::gzip(oddities()))
        .cmd(&["bash"])
        .set("Labels", json!({ "maintainer": "testkit" }))
        .set("StopSignal", json!("SIGQUIT"))
        .build();
    image.save(&cache);
    image
}

/// Whether [`image`] can be had on this machine.
pub fn available() -> Result<(), String> {
    if place::testdata().join("debian-2/list.json").exists() {
        return Ok(());
    }
    crate::need::root()?;
    crate::need::program("debootstrap")?;
    crate::need::debian_mirror()
}

fn base() -> Vec<u8> {
    let dir = place::temp();
    let root = dir.path().join("root");
    let args = ["--variant=minbase", "--merged-usr", "bookworm"];
    let program = place::program("debootstrap").expect("debootstrap is installed");
    Run::new(program)
        .args(args)
        .args([root.as_path(), Path::new("http://deb.debian.org/debian")])
        .limit(Duration::from_secs(400))
        .ok();
    let path = dir.path().join("root.tar");
    Run::new("tar").args(["--numeric-owner", "--xattrs", "-cf"]).args([&path]).cwd(&root).args(["."]).ok();
    fs::read(&path).expect("read the archive")
}

fn many() -> Vec<u8> {
    let mut tar = Archive::new().dir("srv/", 0o755).dir("srv/many/", 0o755);
    for dir in 0..DIRS {
        tar = tar.dir(&format!("srv/many/{dir:03}/"), 0o755);
        for file in 0..FILES {
            let text = format!("{dir} {file}\n").repeat(1 + file % 40);
            tar = tar.file(&format!("srv/many/{dir:03}/{file:03}"), 0o644, text.as_bytes());
        }
    }
    tar.finish()
}

fn deletions() -> Vec<u8> {
    Archive::new()
        .dir("etc/", 0o755)
        .whiteout("etc/debian_version")
        .dir("srv/", 0o755)
        .dir("srv/many/", 0o755)
        .whiteout("srv/many/000")
        .dir("srv/many/001/", 0o750)
        .opaque("srv/many/001")
        .file("srv/many/001/only", 0o600, b"alone\n")
        .finish_bare()
}

fn oddities() -> Vec<u8> {
    let dir = format!("srv/odd/{}/", "long-directory-name".repeat(8));
    let long = format!("{dir}{}", "long-file-name".repeat(12));
    Archive::new()
        .dir("srv/", 0o755)
        .dir("srv/odd/", 0o2755)
        .dir(&dir, 0o711)
        .file("srv/odd/first", 0o644, b"linked\n")
        .hardlink("srv/odd/second", "srv/odd/first", 0o644)
        .entry(&Entry {
            mode: 0o600,
            uid: 1234,
            gid: 70_000,
            data: b"tagged\n",
            xattrs: &[("user.berth", b"yes"), ("user.binary", b"\0\xff=\n")],
            ..Entry::new(b'0', "srv/odd/tagged")
        })
        .char_device("srv/odd/zero", 0o666, 1, 5)
        .entry(&Entry { mode: 0o640, device: (7, 200), ..Entry::new(b'4', "srv/odd/loop200") })
        .fifo("srv/odd/pipe", 0o644)
        .file("srv/odd/setuid", 0o4755, b"#!/bin/sh\n")
        .symlink("srv/odd/dangling", "/no/such/place")
        .entry(&Entry {
            pax: &[("mtime", "1600000000.123456789")],
            data: b"old\n",
            ..Entry::new(b'0', &long)
        })
        .finish()
}
