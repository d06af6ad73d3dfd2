//! Random images: whichever way their layers are applied, the tree is the same.

use proptest::prelude::*;
use testkit::need;
use testkit::tar::{Archive, Entry};

use crate::stage::{Stage, Which};
use crate::tree::{Times, assert_same};

/// One entry of a random layer. Names in `d` are directories that others are in; names in `f` become anything.
#[derive(Clone, Debug)]
enum Op {
    Dir(u8, u32),
    File(u8, u32, Vec<u8>),
    Leaf(u8),
    Symlink(u8, String),
    HardLink(u8, u8),
    Fifo(u8),
    Delete(u8, bool),
    Opaque(u8),
}

/// The directory of number `n`: nesting three deep.
fn dir(n: u8) -> String {
    match n % 6 {
        0 => "d0".into(),
        1 => "d1".into(),
        2 => "d0/d2".into(),
        3 => "d0/d3".into(),
        4 => "d0/d2/d4".into(),
        _ => "d1/d5".into(),
    }
}

/// The name of number `n`, in one of the directories or the root.
fn leaf(n: u8) -> String {
    match n % 7 {
        6 => format!("f{}", n % 3),
        other => format!("{}/f{}", dir(other), n % 3),
    }
}

fn op() -> impl Strategy<Value = Op> {
    let mode = prop_oneof![Just(0o755), Just(0o700), Just(0o1777), Just(0o4711), Just(0o644)];
    prop_oneof![
        3 => (any::<u8>(), mode.clone()).prop_map(|(n, mode)| Op::Dir(n, mode)),
        4 => (any::<u8>(), mode, prop::collection::vec(any::<u8>(), 0..600)).prop_map(|(n, mode, data)| Op::File(n, mode, data)),
        1 => any::<u8>().prop_map(Op::Leaf),
        1 => (any::<u8>(), "[a-z/.]{1,12}").prop_map(|(n, target)| Op::Symlink(n, target)),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(n, to)| Op::HardLink(n, to)),
        1 => any::<u8>().prop_map(Op::Fifo),
        3 => (any::<u8>(), any::<bool>()).prop_map(|(n, is_dir)| Op::Delete(n, is_dir)),
        1 => any::<u8>().prop_map(Op::Opaque),
    ]
}

/// Deletions first, as tools write them.
fn archive(ops: &[Op]) -> Vec<u8> {
    let mut archive = Archive::new();
    let is_deletion = |op: &&Op| matches!(op, Op::Delete(..) | Op::Opaque(_));
    let mut files: Vec<(String, u32)> = Vec::new();
    for op in ops.iter().filter(is_deletion).chain(ops.iter().filter(|op| !is_deletion(op))) {
        archive = match op {
            Op::Dir(n, mode) => archive.dir(&dir(*n), *mode),
            Op::File(n, mode, data) => {
                files.push((leaf(*n), *mode));
                archive.file(&leaf(*n), *mode, data)
            }
            Op::Leaf(n) => {
                files.retain(|(file, _)| *file != leaf(*n));
                archive.dir(&leaf(*n), 0o750)
            }
            Op::Symlink(n, target) => {
                files.retain(|(file, _)| *file != leaf(*n));
                archive.symlink(&leaf(*n), target)
            }
            Op::HardLink(n, to) if !files.is_empty() => {
                let (target, mode) = files[usize::from(*to) % files.len()].clone();
                if target == leaf(*n) {
                    continue;
                }
                files.push((leaf(*n), mode));
                archive.hardlink(&leaf(*n), &target, mode)
            }
            Op::HardLink(..) => continue,
            Op::Fifo(n) => {
                files.retain(|(file, _)| *file != leaf(*n));
                archive.entry(&Entry { mode: 0o600, ..Entry::new(b'6', &leaf(*n)) })
            }
            Op::Delete(n, true) => archive.whiteout(&dir(*n)),
            Op::Delete(n, false) => archive.whiteout(&leaf(*n)),
            Op::Opaque(n) => archive.opaque(&dir(*n)),
        };
    }
    archive.finish()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_way_of_applying_is_the_same(image in prop::collection::vec(prop::collection::vec(op(), 1..14), 1..5)) {
        if need::lacks(need::root()) || need::lacks(need::overlayfs()) {
            return Ok(());
        }
        let layers: Vec<_> = image.iter().map(|ops| archive(ops)).collect();
        let stage = Stage::new(Which::Overlay);
        let sequential = stage.sequentially(&layers);
        let parallel = stage.at_once(&layers);
        let left = stage.describe(&sequential, Times::All);
        assert_same("parallel", &left, &stage.describe(&parallel, Times::All));
        let native = Stage::new(Which::Native);
        let right = native.describe(&native.sequentially(&layers), Times::NotOfDirectories);
        assert_same("native", &stage.describe(&sequential, Times::NotOfDirectories), &right);
    }
}

/// Random archives without deletions, also cut and damaged ones.
fn plain() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(op(), 1..14).prop_map(|mut ops| {
        let mut names = std::collections::HashSet::new();
        // Each name once: tar programs differ in what they do with a second.
        ops.retain(|op| match op {
            Op::Delete(..) | Op::Opaque(_) => false,
            Op::Dir(n, _) => names.insert(dir(*n)),
            Op::File(n, ..) | Op::Leaf(n) | Op::Symlink(n, _) | Op::HardLink(n, _) | Op::Fifo(n) => {
                names.insert(leaf(*n))
            }
        });
        archive(&ops)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, max_shrink_iters: 100, ..ProptestConfig::default() })]

    #[test]
    fn gnu_tar_extracts_the_same(layer in plain()) {
        if need::lacks(need::root()) || need::lacks(need::program("tar")) {
            return Ok(());
        }
        let stage = Stage::new(Which::Native);
        let mounts = stage.prepare("active", "").unwrap();
        stage.apply(&mounts, &layer).unwrap();
        let (theirs, file) = (stage.dir.path().join("theirs"), stage.dir.path().join("layer.tar"));
        std::fs::create_dir(&theirs).unwrap();
        std::fs::write(&file, &layer).unwrap();
        let output = std::process::Command::new("tar").arg("-xpf").arg(&file).arg("-C").arg(&theirs).output().unwrap();
        prop_assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let ours = crate::tree::describe(&crate::stage::upper(&mounts), Times::NotOfDirectories);
        assert_same("GNU tar", &ours, &crate::tree::describe(&theirs, Times::NotOfDirectories));
    }

    #[test]
    fn damaged_archives_never_panic(mut layer in plain(), hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8), cut in any::<prop::sample::Index>()) {
        for (at, byte) in hits {
            let at = at.index(layer.len());
            layer[at] = byte;
        }
        layer.truncate(cut.index(layer.len() + 1));
        let mut reader = snapshot::tar::Reader::new(&layer[..]);
        while let Ok(Some(_)) = reader.next_entry() {}
    }

    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..3000)) {
        let mut reader = snapshot::tar::Reader::new(&noise[..]);
        while let Ok(Some(_)) = reader.next_entry() {}
    }

    #[test]
    fn what_is_written_is_read(name in "[a-zé/]{1,300}", link in "[a-z/é]{0,200}", mtime in any::<i32>(), uid in 0..u32::MAX, value in prop::collection::vec(any::<u8>(), 0..300)) {
        use snapshot::tar::{Entry, EntryType, Reader, Writer};
        let mut entry = Entry::new(EntryType::Symlink, name.as_bytes());
        entry.link = link.into_bytes();
        entry.mtime = (mtime.into(), 0);
        (entry.uid, entry.mode) = (uid, 0o777);
        entry.xattrs = vec![(b"user.x".to_vec(), value.clone())];
        let mut file = Entry::new(EntryType::File, "f");
        file.size = value.len() as u64;
        let mut writer = Writer::new(Vec::new());
        writer.entry(&entry).unwrap();
        writer.file(&file, &mut &value[..]).unwrap();
        let bytes = writer.finish().unwrap();
        let mut reader = Reader::new(&bytes[..]);
        prop_assert_eq!(reader.next_entry().unwrap(), Some(entry));
        prop_assert_eq!(reader.next_entry().unwrap(), Some(file));
        prop_assert_eq!(reader.data().unwrap(), (0, &value[..]));
    }
}
