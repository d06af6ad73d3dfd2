//! `kill -9` at every system call that changes the disk: what was acknowledged is there, and nothing is half there.
//!
//! The victim is this very program under strace, which kills it at the n-th such call of a fixed story.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use model::content::read_blob;
use model::event::Exchange;
use model::image::Delete;
use spec::{Kind, Labels};
use store::{Sharing, Store};

use crate::bed::{image, labels, leased, open, put, sha256, within};

const ROOT: &str = "STORE_CRASH_ROOT";

/// Calls that change a disk.
const CALLS: &str = "mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir,fsync,fdatasync,write,pwrite64,ftruncate,\
                     fallocate,fchmod,chmod,fchmodat,link,linkat,symlink,symlinkat";

/// The story; a line in `acks` follows each step that returned.
fn tell(root: &Path) {
    let store = open(&root.join("root"), Sharing::Shared, &Exchange::default()).unwrap();
    let mut acks = OpenOptions::new().create(true).append(true).open(root.join("acks")).unwrap();
    let mut acknowledge = || acks.write_all(b"\n").unwrap();
    let (content, images) = (store.content(), store.images());
    let native = store.snapshotter("native").unwrap();
    acknowledge();
    within("one", |cx| {
        store.leases().create(cx, Some(&"l".parse().unwrap()), &Labels::new()).map(drop).unwrap()
    });
    acknowledge();
    leased("one", "l", |cx| {
        let layer = put(&*content, cx, &vec![9; 300_000], &Labels::new()).unwrap();
        acknowledge();
        put(&*content, cx, b"config", &labels(&[("containerd.io/gc.ref.content.0", layer.as_str())]))
            .unwrap();
        acknowledge();
        images.create(cx, &image("app", &layer), None).unwrap();
        acknowledge();
        native.prepare(cx, "k", "", &Labels::new()).unwrap();
        acknowledge();
        native.commit(cx, "base", "k", &Default::default()).unwrap();
        acknowledge();
        put(&*content, cx, b"stray", &Labels::new()).unwrap();
        content.delete(cx, &sha256(b"stray")).unwrap();
        images.delete(cx, "app", &Delete::default()).unwrap();
        acknowledge();
        store.collect().unwrap();
        acknowledge();
    });
}

/// What must be true after `acks` steps of the story were acknowledged.
fn check(store: &Store, acks: usize, at: usize) {
    let content = store.content();
    let native = store.snapshotter("native").unwrap();
    let problems = store.check().unwrap();
    assert!(problems.iter().all(|problem| !problem.is_loss()), "call {at}, {acks} acks: {problems:?}");
    within("one", |cx| {
        let has = |step: usize, found: bool, what: &str| {
            assert!(acks < step || found, "call {at}: {what} was acknowledged and is gone ({acks} acks)");
        };
        has(2, store.leases().resources(cx, "l").is_ok(), "the lease");
        let blob = |bytes: &[u8]| {
            read_blob(&*content, cx, &sha256(bytes), 1 << 20).is_ok_and(|found| found == bytes)
        };
        has(3, blob(&vec![9; 300_000]), "the layer");
        has(4, blob(b"config"), "the config");
        let app = store.images().get(cx, "app");
        assert!(acks != 5 && acks != 6 || app.is_ok(), "call {at}: the image");
        assert!(
            acks < 8 || app.is_err_and(|error| error.kind() == Kind::NotFound),
            "call {at}: the deletion"
        );
        has(7, native.stat(cx, "base").is_ok(), "the snapshot");
        if acks == 6 {
            assert!(
                native.stat(cx, "k").is_ok() || native.stat(cx, "base").is_ok(),
                "call {at}: the active snapshot"
            );
        }
    });
    store.collect().unwrap();
    assert_eq!(store.check().unwrap(), [], "call {at}, {acks} acks: left over");
    // And everything works.
    within("one", |cx| {
        let digest = put(&*content, cx, b"after", &Labels::new()).unwrap();
        store.images().create(cx, &image("after", &digest), None).unwrap();
        native.prepare(cx, "after", "", &Labels::new()).unwrap();
    });
}

/// Runs the story in `root` under strace with these arguments.
fn run(strace: &Path, root: &Path, arguments: &[&str]) {
    let status = Command::new(strace)
        .args(["-f", "-qq", "-y", "-e", &format!("trace={CALLS}"), "-o"])
        .arg(root.join("trace"))
        .args(arguments)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "crash::the_victim_tells_its_story", "--test-threads=1", "-q"])
        .env(ROOT, root)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.unwrap();
}

#[test]
fn the_victim_tells_its_story() {
    match std::env::var_os(ROOT) {
        Some(root) => tell(Path::new(&root)),
        None => {
            let dir = testkit::place::temp();
            tell(dir.path());
            check(&open(&dir.path().join("root"), Sharing::Shared, &Exchange::default()).unwrap(), 9, 0);
        }
    }
}

#[test]
fn a_kill_at_any_call_loses_nothing_and_leaves_nothing() {
    testkit::needs!(program "strace");
    let strace: PathBuf = testkit::place::program("strace").unwrap();
    let dir = testkit::place::temp();
    run(&strace, dir.path(), &[]);
    let calls = fs::read_to_string(dir.path().join("trace")).unwrap().lines().count();
    assert!(calls > 100, "{calls}");
    let workers = 2;

    std::thread::scope(|scope| {
        for worker in 0..workers {
            let strace = &strace;
            scope.spawn(move || {
                for at in (1 + worker..=calls).step_by(workers) {
                    let dir = testkit::place::temp();
                    let inject = format!("inject={CALLS}:signal=SIGKILL:when={at}");
                    run(strace, dir.path(), &["-e", &inject]);
                    let acks = fs::read(dir.path().join("acks")).map_or(0, |acks| acks.len());
                    if !dir.path().join("root").exists() {
                        continue;
                    }
                    check(
                        &open(&dir.path().join("root"), Sharing::Shared, &Exchange::default()).unwrap(),
                        acks,
                        at,
                    );
                }
            });
        }
    });
    println!("killed at each of {calls} calls");
}

#[test]
fn bytes_are_flushed_before_their_record() {
    testkit::needs!(program "strace");
    let strace: PathBuf = testkit::place::program("strace").unwrap();
    let dir = testkit::place::temp();
    run(&strace, dir.path(), &[]);
    let trace = fs::read_to_string(dir.path().join("trace")).unwrap();
    let calls: Vec<&str> = trace.lines().collect();
    let is_placed =
        |call: &&str| call.contains("rename(") && call.contains("/blobs/sha256/") && call.contains("/data");
    let placed: Vec<usize> = (0..calls.len()).filter(|at| is_placed(&calls[*at])).collect();
    assert_eq!(placed.len(), 3, "{trace}");
    for at in placed {
        // An ingest's directory is named once in the call: .../ingest/<name>/data.
        let data = calls[at].split('"').nth(1).unwrap();
        let before = calls[..at].iter().rposition(|call| call.contains("fsync(") && call.contains(data));
        assert!(before.is_some(), "no flush of the data before: {}", calls[at]);
        let after = &calls[at + 1..];
        let directory =
            after.iter().position(|call| call.contains("fsync(") && call.contains("/blobs/sha256>"));
        let record = after.iter().position(|call| call.contains("pwrite64(") && call.contains("meta.redb"));
        assert!(
            directory.unwrap() < record.unwrap(),
            "the record is written before the directory is flushed"
        );
        let flushed =
            after[record.unwrap()..].iter().any(|call| call.contains("sync(") && call.contains("meta.redb"));
        assert!(flushed, "the record is never flushed");
    }
}
