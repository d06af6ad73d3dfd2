//! Where things are: the target directory, the programs under test, the system's programs, temporary roots.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// The directory of the running profile, such as `target/debug`.
///
/// A test runs from `target/PROFILE/deps`, xtask from `target/PROFILE`; `BERTH_BIN_DIR` overrides both.
pub fn profile() -> PathBuf {
    if let Some(dir) = std::env::var_os("BERTH_BIN_DIR") {
        return dir.into();
    }
    let program = std::env::current_exe().expect("the running program has a path");
    let dir = program.parent().expect("a program is in a directory");
    let dir = if dir.ends_with("deps") || dir.ends_with("examples") {
        dir.parent().expect("deps has a parent")
    } else {
        dir
    };
    dir.to_owned()
}

/// Cargo's target directory: where caches and lists of this workspace's tests go.
pub fn target() -> PathBuf {
    if let Some(dir) = std::env::var_os("CARGO_TARGET_DIR") {
        return dir.into();
    }
    workspace().join("target")
}

/// The root of the work tree that this was built from.
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("dev/testkit is two folders deep").to_owned()
}

/// A directory, made if missing, for generated data that later runs use again.
pub fn testdata() -> PathBuf {
    let dir = target().join("testdata");
    std::fs::create_dir_all(&dir).expect("make the directory of test data");
    dir
}

/// Where this workspace's program `name` is once built.
pub fn built(name: &str) -> PathBuf {
    profile().join(name)
}

/// Which of Debian's programs `BERTH_AGAINST` puts in the place of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// Not set: everything is ours.
    Nothing,
    /// `daemon`: Debian's daemon and our ctr, which puts our ctr on trial.
    Daemon,
    /// `debian`: Debian's daemon and ctr, which puts the cases themselves on trial.
    Debian,
}

/// What `BERTH_AGAINST` says.
pub fn against() -> Against {
    match std::env::var("BERTH_AGAINST").as_deref() {
        Ok("debian") => Against::Debian,
        Ok("daemon") => Against::Daemon,
        _ => Against::Nothing,
    }
}

/// The system's program `name`: on PATH, else in the directories that only root has on its PATH.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let admin = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(admin).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// Debian's own `name`, never one that this workspace built or a person installed.
pub fn debian(name: &str) -> PathBuf {
    ["/usr/bin", "/usr/sbin"]
        .map(|dir| Path::new(dir).join(name))
        .into_iter()
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("Debian's {name} is not installed"))
}

/// A new directory with a short path, because a unix socket's path holds 107 bytes.
pub fn temp() -> TempDir {
    tempfile::Builder::new()
        .prefix("bth")
        .rand_bytes(6)
        .tempdir_in("/tmp")
        .expect("make a temporary directory")
}

/// A name that no other test has: `PREFIX` and eight random hex digits.
pub fn unique(prefix: &str) -> String {
    let mut bytes = [0; 4];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).expect("random bytes");
    format!("{prefix}{:08x}", u32::from_ne_bytes(bytes))
}
