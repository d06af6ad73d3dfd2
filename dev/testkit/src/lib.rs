//! The harness of every test that touches the machine: what a test needs, and real parts to meet it.
//!
//! - [`needs!`] says what a test needs; a machine without it prints `SKIP test: reason`, never nothing.
//! - [`command`] runs programs with a deadline and keeps everything they said.
//! - [`tar`] and [`image`] write layers and images byte by byte, honest and hostile; [`debian`] makes a big real one.
//! - [`registry`] starts Debian's `docker-registry` on loopback; [`peer`] is a registry that misbehaves by script.
//! - [`daemon`] starts our daemon or Debian's Go one with directories of its own, and removes every trace of it.
//! - [`apparmor`] makes files that stand for AppArmor's.
//! - [`kills`] kills daemons and shims at random moments.
//! - [`trace`] counts what a daemon and its containers have left on the machine.
//!
//! It is a test's code: a step that fails panics with all that is known, and only a missing need returns early.
//!
//! Invariant: nothing here touches a process, mount or cgroup that it did not make.

pub mod apparmor;
pub mod command;
pub mod daemon;
pub mod debian;
pub mod http;
pub mod image;
pub mod kills;
pub mod need;
pub mod peer;
pub mod place;
pub mod registry;
pub mod tar;
pub mod trace;
pub mod wait;

/// Returns from the test, with a printed reason, unless the machine has all of what is listed.
///
/// `root`, `overlayfs`, `debian_mirror`; `program "NAME"` for a program on PATH or in an sbin directory;
/// `built "NAME"` for a program of this workspace.
///
/// ```no_run
/// # use testkit::needs;
/// needs!(root, overlayfs, program "docker-registry", built "containerd");
/// ```
#[macro_export]
macro_rules! needs {
    () => {};
    (program $name:literal $(, $($rest:tt)*)?) => {
        if $crate::need::lacks($crate::need::program($name)) { return; }
        $($crate::needs!($($rest)*);)?
    };
    (built $name:literal $(, $($rest:tt)*)?) => {
        if $crate::need::lacks($crate::need::built($name)) { return; }
        $($crate::needs!($($rest)*);)?
    };
    ($need:ident $(, $($rest:tt)*)?) => {
        if $crate::need::lacks($crate::need::$need()) { return; }
        $($crate::needs!($($rest)*);)?
    };
}
