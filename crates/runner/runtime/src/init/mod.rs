//! Init: what runs between `clone3(2)` and the user's program, on the container's side.
//!
//! One straight sequence in a process of its own. It talks to the parent over [`Talk`], fails with one complete text,
//! and ends in `execve(2)` or `_exit(2)`; it never returns into the caller's code.
//!
//! Invariant: nothing of the image is trusted: paths below the root file system are only walked under its descriptor.
//! Invariant: while it waits at the gate it holds no descriptor of the host but the gate and its standard streams.
//! Invariant: it is not dumpable, so nobody in the container reads its memory or borrows its descriptors.

mod cgroup;
mod console;
mod copy_up;
mod device;
mod error;
mod finish;
mod identity;
mod join;
mod mask;
mod mount;
mod mountpoint;
mod namespace;
mod program;
mod rootfs;
mod shared;

use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use spec::runtime::{State, Status};
use sys::calls::{Calls, ImageFile};
use sys::path::Root;
use sys::process;
use sys::procfs::Procfs;

use crate::cgroup::{Cgroup, Joiner};
use crate::create::Stdio;
use crate::create::plan::Plan;
use crate::hooks::{self, Point, Surroundings};
use crate::ongoing::complete;
use crate::talk::{READY, Talk, Word};

pub(crate) use error::{InitError, Step};
pub(crate) use finish::{oom_score, set_limits};
pub(crate) use join::{Joining, join};
pub(crate) use mount::{bind_tree, failed_mount, source};
pub(crate) use namespace::{clone_flags, join_cgroup, needs_stage, stage};
pub(crate) use shared::procfs as shared_procfs;

/// Name and only argument of a process until it executes its program, as `ps` in the container may show it.
const NAME: &std::ffi::CStr = c"containerd-init";

/// Everything init works with; made by the parent, read by the child.
#[derive(Debug)]
pub(crate) struct Init<'a> {
    /// What to make.
    pub plan: &'a Plan,
    /// Init's end of the talk.
    pub talk: &'a Talk,
    /// Standard streams, when there is no terminal.
    pub stdio: &'a Stdio,
    /// The gate: a FIFO that delivers one byte when the program may start.
    pub gate: BorrowedFd<'a>,
    /// Doors to the container's cgroup; `None` when an earlier stage has gone through them.
    pub joiner: Option<&'a Joiner>,
    /// The container's cgroup.
    pub cgroup: &'a Cgroup,
    /// What hooks are told.
    pub state: &'a State,
    /// Mounts that only the parent could make, by their index in the plan.
    pub trees: &'a [(usize, OwnedFd)],
    /// The pid namespace to join, in which others live already.
    pub pids: Option<BorrowedFd<'a>>,
    /// Whether to wait for the parent before anything else.
    pub wait_first: bool,
    /// Whether namespaces are still to be joined by path.
    pub join_namespaces: bool,
    /// Whether limits and the like are still this process's to set (in a user namespace the parent sets them).
    pub privileged: bool,
    /// See [`crate::Create::no_pivot`].
    pub no_pivot: bool,
    /// See [`crate::Create::no_new_keyring`].
    pub no_new_keyring: bool,
    /// See [`crate::Create::preserve_fds`].
    pub preserve_fds: u32,
}

/// Becomes the container's first process. Called in the child.
pub(crate) fn run(init: &Init<'_>) -> ! {
    let Err(error) = steps(init);
    fail(init.talk, &error)
}

/// Tells the parent why and ends.
pub(crate) fn fail(talk: &Talk, error: &InitError) -> ! {
    let text = error.text();
    if talk.say(&Word::Failed(error.errno(), text.clone())).is_err() {
        // `runc create` has ended long before `runc start`: as under runc, the text goes to the container's stderr.
        let _ = sys::fd::write_all(sys::fd::standard(2), format!("{text}\n").as_bytes());
    }
    process::exit_now(255)
}

fn steps(init: &Init<'_>) -> Result<Infallible, InitError> {
    let plan = init.plan;
    begin(init)?;
    namespace::enter(init)?;
    let host = Procfs::of_host().step(|| "open procfs".into())?;
    let stage = init.pids.map(|pids| shared::Stage::begin(init, pids, &host)).transpose()?;
    if init.privileged {
        finish::host_settings(&plan.process, &host)?;
    }
    let root = rootfs::prepare(plan)?;
    let mounted = mount::all(init, &root)?;
    device::all(plan, &root, &mounted)?;
    let hidden = mask::Hidden::new(plan, mounted.dev())?;
    runtime_hooks(init)?;
    create_hooks(init, &root)?;
    console::or_streams(&plan.process, &root, mounted.terminals(), init.stdio, init.talk, true)?;
    let root = rootfs::enter(init, root)?;
    settings(plan, &host)?;
    mounted.make_read_only()?;
    mask::all(plan, &root, hidden)?;
    rootfs::finish(plan, &root)?;
    finish::labels(&plan.process, &host)?;
    drop((host, mounted));
    let program = finish::prepare(&plan.process, &root, true)?;
    drop(root);
    match stage {
        Some(stage) => shared::last_steps(init, &program, stage),
        None => {
            console::control(&plan.process)?;
            last_steps(init, &program)
        }
    }
}

/// What is left when nothing has to be opened any more: behind the filter there are only calls that runc makes too.
fn last_steps(init: &Init<'_>, program: &finish::Program) -> Result<Infallible, InitError> {
    let process = &init.plan.process;
    forget_descriptors(init, None)?;
    process::set_umask(process.umask);
    if init.privileged {
        // As late as privileges allow: this process needs more descriptors than its program may be allowed.
        set_limits(0, process).step(|| "set resource limits".into())?;
    }
    wait_and_execute(init, program)
}

/// Takes on the program's identity, waits at the gate and executes the program.
fn wait_and_execute(init: &Init<'_>, program: &finish::Program) -> Result<Infallible, InitError> {
    let process = &init.plan.process;
    let hooks = start_hooks(init)?;
    let mut calls = Calls::new(init.talk.as_fd());
    identity::take_on(process, &mut calls)?;
    calls.report(READY);
    calls.run()?;
    wait_at_gate(init)?;
    // The hooks are confined as the program is.
    let mut calls = Calls::new(init.talk.as_fd());
    identity::confine(process, &mut calls)?;
    calls.run()?;
    let around = Surroundings::of_container(program.env().to_vec());
    complete(hooks.within(around)).map_err(|error| InitError::other(&error))?;
    let mut calls = Calls::new(init.talk.as_fd());
    finish::execute(process, program, &mut calls);
    calls.run()?;
    Err(InitError::text_only("the program was not executed"))
}

/// What comes before everything else: the cgroup, and leaving the caller's descriptors, session and signals behind.
fn begin(init: &Init<'_>) -> Result<(), InitError> {
    let mut keep = vec![init.talk.as_fd().as_raw_fd(), init.gate.as_raw_fd()];
    keep.extend(init.pids.iter().map(AsRawFd::as_raw_fd));
    keep.extend(init.trees.iter().map(|(_, tree)| tree.as_raw_fd()));
    begin_process(init.joiner, init.stdio, keep, init.preserve_fds)?;
    // Until it runs its program it takes a request to end, as the first process of a pid namespace too.
    sys::signal::end_on_request().step(|| "handle signals".into())?;
    reset_cpus();
    if init.no_new_keyring { Ok(()) } else { own_keyring(&init.state.id) }
}

/// Lets the process run on every CPU of its cgroup: the CPUs that the caller is bound to are the caller's affair.
pub(crate) fn reset_cpus() {
    // A policy (a filter of an outer container) may forbid it; runc goes on with the caller's CPUs too.
    let _ = sys::process::schedule::reset_cpus();
}

/// Joins the session keyring of the container `id`, so that the caller's keys stay the caller's.
fn own_keyring(id: &str) -> Result<(), InitError> {
    match sys::keyring::join_session(&format!("_ses.{id}")) {
        // No keyrings in this kernel, or a quota of them: as runc does, go on without.
        Err(error) if [ENOSYS, EDQUOT].contains(&error.errno()) => Ok(()),
        done => done.step(|| "join a session keyring".into()),
    }
}

const ENOSYS: i32 = 38;
const EDQUOT: i32 = 122;

/// The part of [`begin`] that joining processes share.
pub(crate) fn begin_process(
    joiner: Option<&Joiner>,
    stdio: &Stdio,
    mut keep: Vec<i32>,
    preserve_fds: u32,
) -> Result<(), InitError> {
    if let Some(joiner) = joiner {
        joiner.join_self().step(|| "join the cgroup".into())?;
    }
    process::set_dumpable(false).step(|| "become undumpable".into())?;
    sys::signal::reset().step(|| "reset signals".into())?;
    process::new_session().step(|| "begin a session".into())?;
    process::set_umask(0);
    keep.extend([&stdio.stdin, &stdio.stdout, &stdio.stderr].into_iter().flatten().map(AsRawFd::as_raw_fd));
    keep.extend((3..3 + preserve_fds).filter_map(|number| i32::try_from(number).ok()));
    sys::fd::close_all_but(&keep).step(|| "close descriptors".into())
}

/// Closes what is left of the host but the talk, the gate, `file` and what the program shall keep. Nothing that owns one of
/// the closed descriptors is dropped after this: the process only executes or ends.
fn forget_descriptors(init: &Init<'_>, file: Option<&ImageFile>) -> Result<(), InitError> {
    let file = file.into_iter().flat_map(ImageFile::descriptors);
    keep_only(file.chain([init.talk.as_fd(), init.gate]), init.preserve_fds)
}

/// Closes every descriptor but the standard streams, `needed` and the first `preserved` after the standard ones; what
/// is needed is closed by the execution of the program, what is preserved is not.
pub(crate) fn keep_only<'a>(
    needed: impl IntoIterator<Item = BorrowedFd<'a>>,
    preserved: u32,
) -> Result<(), InitError> {
    let mut keep: Vec<i32> = needed.into_iter().map(|fd| fd.as_raw_fd()).collect();
    keep.extend((3..3 + preserved).filter_map(|number| i32::try_from(number).ok()));
    sys::fd::close_all_but(&keep).step(|| "close descriptors".into())
}

/// Has the parent run the hooks that belong to the runtime's own namespaces.
fn runtime_hooks(init: &Init<'_>) -> Result<(), InitError> {
    let hooks = &init.plan.hooks;
    if hooks.prestart.is_empty() && hooks.create_runtime.is_empty() {
        return Ok(());
    }
    init.talk.say(&Word::Hooks).step(|| "ask for hooks".into())?;
    init.talk.wait_for_go().step(|| "wait for hooks".into())
}

/// Runs the createContainer hooks: in the root file system, before it is entered, with an empty environment.
fn create_hooks(init: &Init<'_>, root: &Root) -> Result<(), InitError> {
    let commands = &init.plan.hooks.create_container;
    if commands.is_empty() {
        return Ok(());
    }
    process::change_dir(root.as_fd()).step(|| "enter the rootfs".into())?;
    // Modes of devices and directories are exact here; those of a hook's files are as usual.
    process::set_umask(0o022);
    let state = State { pid: process::own_pid(), status: Status::Creating, ..init.state.clone() };
    let around = Surroundings::of_container(Vec::new());
    let done = hooks::run(commands, &state, Point::CreateContainer, around);
    process::set_umask(0);
    done.map_err(|error| InitError::other(&error))
}

/// The startContainer hooks, with their input made while no filter keeps this process from it.
fn start_hooks(init: &Init<'_>) -> Result<hooks::Run, InitError> {
    let state = State { pid: process::own_pid(), status: Status::Created, ..init.state.clone() };
    let commands = init.plan.hooks.start_container.clone();
    let mut run = hooks::Run::new(commands, &state, Point::StartContainer, Surroundings::of_caller());
    run.prepare().map_err(|error| InitError::other(&error))?;
    Ok(run)
}

/// Names and kernel settings of the new namespaces.
fn settings(plan: &Plan, host: &Procfs) -> Result<(), InitError> {
    if let Some(name) = &plan.hostname {
        sys::namespace::set_host_name(name).step(|| "sethostname".into())?;
    }
    if let Some(name) = &plan.domainname {
        sys::namespace::set_domain_name(name).step(|| "setdomainname".into())?;
    }
    for (path, value) in &plan.sysctls {
        host.write(path, value).step(|| format!("write sysctl {path}"))?;
    }
    Ok(())
}

/// Waits for the byte that [`crate::Container::start`] writes. There is no bound: a container may stay created.
fn wait_at_gate(init: &Init<'_>) -> Result<(), InitError> {
    sys::fd::read_byte(init.gate).step(|| "wait to be started".into())
}
