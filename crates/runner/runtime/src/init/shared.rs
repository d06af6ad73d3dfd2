//! Containers in a pid namespace in which others live already, and can see whatever is born there.
//!
//! Init's work is done by a stage outside of that namespace, with two exceptions. A procfs belongs to the namespace of
//! the process that makes it, so a helper does that which has nothing but an empty root directory and the container's
//! network; and the process that waits at the gate is born there when everything of the host is gone.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use sys::calls::{Calls, ImageFile};
use sys::mount::{self, Attributes, Context, Propagation};
use sys::namespace::{self, Kind};
use sys::process::{self, Clone3, CommandLine, Fork};
use sys::procfs::Procfs;
use sys::{fd, socket};

use super::{Init, InitError, NAME, Step, fail, finish, identity, keep_only};
use crate::create::plan::{Mount, MountKind, Plan};
use crate::talk::{PROCESS, READY, Talk};

/// First byte of the message that carries the procfs.
const MADE: u8 = b't';
const SIGKILL: i32 = 9;

/// The procfs mounts of the plan, detached and of the pid namespace `pids`, by their index in the plan.
pub(crate) fn procfs(plan: &Plan, pids: BorrowedFd<'_>) -> Result<Vec<(usize, OwnedFd)>, InitError> {
    let wanted = |mount: &Mount| mount.kind == MountKind::FileSystem && mount.file_system == "proc";
    let mounts = plan.mounts.iter().enumerate().filter(|(_, mount)| wanted(mount));
    mounts.map(|(index, mount)| Ok((index, one(plan, mount, pids)?))).collect()
}

fn one(plan: &Plan, wanted: &Mount, pids: BorrowedFd<'_>) -> Result<OwnedFd, InitError> {
    let (ours, theirs) = Talk::pair().step(|| "make a socket".into())?;
    match process::fork(&Clone3::default()).step(|| "clone the maker of procfs".into())? {
        Fork::Child => {
            drop(ours);
            let Err(error) = make(plan, wanted, pids, &theirs);
            fail(&theirs, &error)
        }
        Fork::Parent { pidfd, .. } => {
            drop(theirs);
            // The parent of this process bounds the wait.
            let mut buffer = [0; 1024];
            let received = socket::receive(ours.as_fd(), &mut buffer).step(|| "receive the procfs".into());
            process::wait(pidfd.as_fd()).step(|| "wait for the maker of procfs".into())?;
            let (length, fds) = received?;
            match (buffer[..length].first(), fds.into_iter().next()) {
                (Some(&MADE), Some(tree)) => Ok(tree),
                (Some(_), _) => {
                    let text = String::from_utf8_lossy(buffer.get(5..length).unwrap_or_default());
                    Err(InitError::text_only(format!("mount procfs of the pid namespace: {text}")))
                }
                (None, _) => Err(InitError::text_only("the maker of procfs was killed")),
            }
        }
    }
}

/// Makes the procfs in a child that is born in the namespace, where others see it: it has no more than it needs.
fn make(plan: &Plan, wanted: &Mount, pids: BorrowedFd<'_>, talk: &Talk) -> Result<Infallible, InitError> {
    process::set_parent_death_signal(SIGKILL).step(|| "end with the parent".into())?;
    process::set_dumpable(false).step(|| "become undumpable".into())?;
    let command_line = Procfs::of_host()
        .and_then(|host| CommandLine::find(&host))
        .step(|| "find the command line".into())?;
    let file = ImageFile::create().ok();
    if namespace::is_initial_user().step(|| "read the map of users".into())? {
        leave_host(plan)?;
    }
    namespace::join(pids, Kind::Pid).step(|| "join the pid namespace".into())?;
    keep_only(file.iter().flat_map(ImageFile::descriptors).chain([talk.as_fd()]), 0)?;
    let mut calls = Calls::new(talk.as_fd());
    calls.undumpable();
    calls.name(NAME);
    let split = calls.split_off_child();
    calls.end_with_parent();
    calls.send_file_system(MADE, c"proc", &options(wanted)?, wanted.options.set);
    calls.exit(0);
    calls.end_after_child(&split);
    if let Some(image) = file.and_then(|file| calls.write_image(file).ok()) {
        fd::keep_on_exec(talk.as_fd()).step(|| "keep the socket".into())?;
        // Where it cannot be executed, this copy of the caller makes the calls.
        let _ = image.execute(NAME);
    }
    command_line.clear();
    calls.run()?;
    Err(InitError::text_only("the procfs was not made"))
}

/// Leaves the host's mounts for an empty directory, and its network for the container's or none.
///
/// In a user namespace the host's mounts stay: the kernel lets only who sees a procfs make one there, and what is seen
/// is that of the user who runs the runtime.
fn leave_host(plan: &Plan) -> Result<(), InitError> {
    let mut flags = Kind::Mount.flag();
    if plan.namespaces.is_new(Kind::Network) {
        flags |= Kind::Network.flag();
    }
    namespace::unshare(flags).step(|| "leave the host's mounts".into())?;
    if let Some((_, path)) = plan.namespaces.joined.iter().find(|(kind, _)| *kind == Kind::Network) {
        let file = namespace::open(path, Kind::Network).step(|| format!("open namespace {path:?}"))?;
        namespace::join(file.as_fd(), Kind::Network).step(|| format!("join namespace {path:?}"))?;
    }
    mount::propagate_all(Propagation::Private).step(|| "part from the host's mounts".into())?;
    let empty = Context::open("tmpfs").and_then(|context| context.mount(Attributes::RDONLY));
    let empty = empty.step(|| "make an empty root".into())?;
    mount::attach_at(empty.as_fd(), &plan.rootfs).step(|| "attach an empty root".into())?;
    process::change_dir(empty.as_fd()).step(|| "enter the empty root".into())?;
    mount::pivot_here().step(|| "pivot_root".into())?;
    mount::drop_old_root().step(|| "drop the old root".into())?;
    process::change_dir_to(Path::new("/")).step(|| "enter /".into())
}

fn options(wanted: &Mount) -> Result<Vec<(CString, Option<CString>)>, InitError> {
    let text = |bytes: &[u8]| {
        CString::new(bytes).map_err(|_| InitError::text_only("a zero byte in an option of procfs"))
    };
    let mut options = Vec::new();
    if !wanted.source.as_os_str().is_empty() {
        options.push((c"source".into(), Some(text(wanted.source.as_os_str().as_bytes())?)));
    }
    for option in &wanted.options.data {
        options.push(match option.split_once('=') {
            Some((key, value)) => (text(key.as_bytes())?, Some(text(value.as_bytes())?)),
            None => (text(option.as_bytes())?, None),
        });
    }
    Ok(options)
}

/// What a stage has of the host until its last steps.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    pids: BorrowedFd<'a>,
    command_line: CommandLine,
    /// None where the process that waits at the gate has to be a copy of the stage.
    file: Option<ImageFile>,
}

impl<'a> Stage<'a> {
    /// Prepares for a birth in the namespace `pids`.
    pub(super) fn begin(init: &Init<'_>, pids: BorrowedFd<'a>, host: &Procfs) -> Result<Self, InitError> {
        let command_line = CommandLine::find(host).step(|| "find the command line".into())?;
        // Hooks of the container are run by its first process, and a label would be taken on by an image.
        let file = match init.plan.process.is_labelled() || !init.plan.hooks.start_container.is_empty() {
            true => None,
            false => ImageFile::create().ok(),
        };
        Ok(Self { pids, command_line, file })
    }
}

/// The last steps of the stage: the process that waits at the gate is born in the namespace.
pub(super) fn last_steps(
    init: &Init<'_>,
    program: &finish::Program,
    stage: Stage<'_>,
) -> Result<Infallible, InitError> {
    let Stage { pids, command_line, file } = stage;
    let process = &init.plan.process;
    namespace::join(pids, Kind::Pid).step(|| "join the pid namespace".into())?;
    super::forget_descriptors(init, file.as_ref())?;
    process::set_umask(process.umask);
    let calls = last_calls(init, program)?;
    let image = file.and_then(|file| calls.write_image(file).ok());
    if init.privileged {
        finish::set_limits(0, process).step(|| "set resource limits".into())?;
    }
    if let Some(image) = image {
        fd::keep_on_exec(init.talk.as_fd()).step(|| "keep the talk".into())?;
        fd::keep_on_exec(init.gate).step(|| "keep the gate".into())?;
        // Where it cannot be executed, a copy of this process goes on.
        let _ = image.execute(NAME);
        fd::close_on_exec_from(3 + init.preserve_fds).step(|| "close descriptors".into())?;
    }
    command_line.clear();
    let mut calls = Calls::new(init.talk.as_fd());
    calls.name(NAME);
    let split = calls.split(PROCESS);
    calls.session();
    if process.terminal {
        calls.terminal();
    }
    calls.leave();
    calls.end_of_parent(&split);
    calls.run()?;
    super::wait_and_execute(init, program)
}

/// The calls of the image, and behind the split those of the process.
fn last_calls(init: &Init<'_>, program: &finish::Program) -> Result<Calls, InitError> {
    let process = &init.plan.process;
    let mut calls = Calls::new(init.talk.as_fd());
    calls.undumpable();
    calls.name(NAME);
    calls.close_on_exec(init.talk.as_fd());
    calls.close_on_exec(init.gate);
    let split = calls.split(PROCESS);
    calls.session();
    if process.terminal {
        calls.terminal();
    }
    identity::take_on(process, &mut calls)?;
    calls.report(READY);
    calls.wait_for_byte(init.gate, "wait to be started");
    identity::confine(process, &mut calls)?;
    finish::execute(process, program, &mut calls);
    calls.end_of_parent(&split);
    Ok(calls)
}
