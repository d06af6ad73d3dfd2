//! A process that joins a running container.
//!
//! ```text
//! caller     clones the stage, in the caller's own pid namespace: nobody in the container sees it
//!   stage    joins cgroup and namespaces, looks up what the program needs, closes what is the host's, and replaces its
//!            memory by an image that holds nothing but the last calls
//!     image  clones the process, a child of the caller in the container's pid namespace, names it and ends
//! process    waits for the caller's word, begins a session, takes on its identity, executes the program
//! ```
//!
//! Invariant: a process of the container's pid namespace never had the host's namespaces, root, descriptors or the
//! caller's memory. Where a security label forbids an image in between (it would take the label on), the process is a
//! copy of the stage: the label keeps the container from looking at an unlabelled process.

use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use sys::calls::{Calls, ImageFile};
use sys::path::Root;
use sys::process::{self, CommandLine, schedule};
use sys::procfs::Procfs;
use sys::{fd, namespace};

use super::{
    InitError, NAME, Step, begin_process, console, fail, finish, identity, namespace::become_root,
    own_keyring, reset_cpus,
};
use crate::cgroup::Joiner;
use crate::create::Stdio;
use crate::create::plan::{Process, StartCpus};
use crate::talk::{PROCESS, READY, Talk};

/// Everything a joining process works with.
#[derive(Debug)]
pub(crate) struct Joining<'a> {
    /// What to run.
    pub process: &'a Process,
    /// This process's end of the talk.
    pub talk: &'a Talk,
    /// Standard streams, when there is no terminal.
    pub stdio: &'a Stdio,
    /// Doors to the container's cgroup.
    pub joiner: &'a Joiner,
    /// The container's first process.
    pub init: BorrowedFd<'a>,
    /// `CLONE_NEW*` flags of the namespaces to join, without user.
    pub namespaces: i32,
    /// Whether the container has a user namespace.
    pub user_namespace: bool,
    /// The container's root, where it is not that of a mount namespace of its own.
    pub root: Option<BorrowedFd<'a>>,
    /// The container whose session keyring it joins; `None` keeps the caller's.
    pub keyring: Option<&'a str>,
    /// See [`crate::Exec::preserve_fds`].
    pub preserve_fds: u32,
}

/// Becomes the stage. Called in the child.
pub(crate) fn join(joining: &Joining<'_>) -> ! {
    let Err(error) = steps(joining);
    fail(joining.talk, &error)
}

fn steps(joining: &Joining<'_>) -> Result<Infallible, InitError> {
    let process = joining.process;
    if !process.cpus.initial.is_empty() {
        schedule::set_cpus(&process.cpus.initial).step(|| "set CPU affinity".into())?;
    }
    let mut keep = vec![joining.talk.as_fd().as_raw_fd(), joining.init.as_raw_fd()];
    keep.extend(joining.root.map(|root| root.as_raw_fd()));
    begin_process(Some(joining.joiner), joining.stdio, keep, joining.preserve_fds)?;
    if process.cpus == StartCpus::default() {
        reset_cpus();
    }
    if let Some(id) = joining.keyring {
        own_keyring(id)?;
    }
    let (command_line, file) = host_part(joining)?;
    // Two steps: with the caller's privileges into everything, and only then into the user namespace that lacks them.
    // The pid namespace is the next child's; this process stays where it is.
    namespace::join_process(joining.init, joining.namespaces).step(|| "join namespaces".into())?;
    if joining.user_namespace {
        namespace::join(joining.init, namespace::Kind::User).step(|| "join the user namespace".into())?;
        become_root()?;
    }
    if let Some(root) = joining.root {
        sys::process::change_dir(root).and_then(|()| sys::process::root_here()).step(|| "chroot".into())?;
    }
    let root = Root::open_dir(Path::new("/")).step(|| "open /".into())?;
    console::or_streams(process, &root, None, joining.stdio, joining.talk, false)?;
    let program = finish::prepare(process, &root, false)?;
    drop(root);
    let calls = last_calls(joining, &program)?;
    last_steps(joining, calls, &command_line, file)
}

/// What is done through the host's procfs, whose handle is closed again before the container is joined.
///
/// No file for the image is no error: where it can't be made (vm.memfd_noexec) the process does without.
fn host_part(joining: &Joining<'_>) -> Result<(CommandLine, Option<ImageFile>), InitError> {
    let host = Procfs::of_host().step(|| "open procfs".into())?;
    if !joining.user_namespace {
        finish::host_settings(joining.process, &host)?;
    }
    finish::labels(joining.process, &host)?;
    let file = if joining.process.is_labelled() { None } else { ImageFile::create().ok() };
    Ok((CommandLine::find(&host).step(|| "find the command line".into())?, file))
}

/// The calls of the image, and behind the split those of the process.
fn last_calls(joining: &Joining<'_>, program: &finish::Program) -> Result<Calls, InitError> {
    let process = joining.process;
    let mut calls = Calls::new(joining.talk.as_fd());
    // An execution makes a process dumpable again, and keeps the talk open for this one time.
    calls.undumpable();
    calls.name(NAME);
    calls.close_on_exec(joining.talk.as_fd());
    let split = calls.split(PROCESS);
    calls.session();
    if process.child_subreaper {
        calls.subreaper();
    }
    if process.terminal {
        calls.terminal();
    }
    identity::take_on(process, &mut calls)?;
    calls.report(READY);
    identity::confine(process, &mut calls)?;
    finish::execute(process, program, &mut calls);
    calls.end_of_parent(&split);
    Ok(calls)
}

fn last_steps(
    joining: &Joining<'_>,
    calls: Calls,
    command_line: &CommandLine,
    file: Option<ImageFile>,
) -> Result<Infallible, InitError> {
    let process = joining.process;
    let needed = file.iter().flat_map(ImageFile::descriptors).chain([joining.talk.as_fd()]);
    super::keep_only(needed, joining.preserve_fds)?;
    process::set_umask(process.umask);
    let image = file.and_then(|file| calls.write_image(file).ok());
    if !joining.user_namespace {
        // As late as privileges allow: this process needs more descriptors than its program may be allowed.
        finish::set_limits(0, process).step(|| "set resource limits".into())?;
    }
    if let Some(image) = image {
        fd::keep_on_exec(joining.talk.as_fd()).step(|| "keep the talk".into())?;
        // What keeps it from running keeps it from running anywhere; the copy below does without.
        let _ = image.execute(NAME);
    }
    command_line.clear();
    calls.run()?;
    Err(InitError::text_only("the program was not executed"))
}
