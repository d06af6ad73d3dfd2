//! Processes: clone into namespaces, pidfds, waiting, `prctl(2)` and execution.

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions};

use crate::error::{Error, Result, call, check};

pub mod schedule;

/// A process that is about to be made.
#[derive(Debug, Default)]
pub struct Clone3<'a> {
    /// `CLONE_NEW*` flags.
    pub namespaces: i32,
    /// Make the child a sibling: its parent is the caller's parent. The caller's exit signal is inherited.
    pub sibling: bool,
    /// Directory of a version 2 cgroup in which the child begins (Linux 5.7).
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// The two returns of [`fork`].
#[derive(Debug)]
pub enum Fork {
    /// In the caller.
    Parent {
        /// Pid of the child in the caller's pid namespace.
        pid: i32,
        /// The child's pidfd.
        pidfd: OwnedFd,
    },
    /// In the child.
    Child,
}

/// `struct clone_args` of the kernel, its second version.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Beyond the int that the C library's constant has.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// Makes a child that returns from this call a second time, as `fork(2)` does. `clone3(2)`, Linux 5.7.
///
/// The child keeps the caller's memory image, so a second thread could leave a lock held in it for ever; therefore a
/// caller with more than one thread is refused with `EDEADLK`. The child must end with [`exec`] or [`exit_now`].
pub fn fork(options: &Clone3<'_>) -> Result<Fork> {
    refuse_threads()?;
    let mut pidfd: libc::c_int = -1;
    let mut flags = u64::from(options.namespaces as u32) | libc::CLONE_PIDFD as u64;
    if options.sibling {
        flags |= libc::CLONE_PARENT as u64;
    }
    if options.cgroup.is_some() {
        flags |= CLONE_INTO_CGROUP;
    }
    let args = CloneArgs {
        flags,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: if options.sibling { 0 } else { libc::SIGCHLD as u64 },
        cgroup: options.cgroup.map_or(0, |fd| u64::try_from(fd.as_raw_fd()).unwrap_or(0)),
        ..CloneArgs::default()
    };
    // SAFETY: without CLONE_VM and without a stack the child runs on a copy of this memory, as after fork(2); the only
    // thread of this process (checked above) is the one that is copied, so no lock is held by a thread that is gone.
    // `args` lives across the call, its size is given, and `pidfd` is written in the parent only.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    match check(pid, || format!("clone3({options:?})"))? {
        0 => Ok(Fork::Child),
        pid => {
            // SAFETY: the kernel has just stored this new descriptor for us; nobody else owns it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Fork::Parent { pid: pid as i32, pidfd })
        }
    }
}

/// Fails when the process has more than one thread.
fn refuse_threads() -> Result<()> {
    // A directory's link count is 2 plus its subdirectories: one call instead of a parse of `status`.
    let stat = rustix::fs::stat(c"/proc/self/task").map_err(call!("stat", "/proc/self/task"))?;
    if stat.st_nlink > 3 {
        return Err(Error::new(libc::EDEADLK, format!("clone3(threads: {})", stat.st_nlink - 2)));
    }
    Ok(())
}

/// Opens the process `pid`. `pidfd_open(2)`, Linux 5.3.
pub fn pidfd(pid: i32) -> Result<OwnedFd> {
    rustix::process::pidfd_open(pid_of(pid)?, PidfdFlags::empty()).map_err(call!("pidfd_open", pid))
}

/// Sends `signal` to the process `pidfd`; 0 only asks whether it exists. `pidfd_send_signal(2)`, Linux 5.1.
pub fn signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    // SAFETY: takes a descriptor, a number, no siginfo (null is allowed) and no flags; touches no memory of ours.
    let done = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    check(done, || format!("pidfd_send_signal({pidfd:?}, {signal})")).map(|_| ())
}

/// Sends `signal` to the process `pid`. `kill(2)`; prefer [`signal`], which cannot hit a successor of the same number.
pub fn kill(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: kill(2) takes two numbers.
    check(unsafe { libc::kill(pid, signal) }.into(), || format!("kill({pid}, {signal})")).map(|_| ())
}

/// How a process ended, in the number a shell would report: its code, or 128 and the signal that killed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit(pub i32);

/// Waits until the child `pidfd` has ended and takes its status. `waitid(2)`.
pub fn wait(pidfd: BorrowedFd<'_>) -> Result<Exit> {
    loop {
        match rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED) {
            Ok(Some(status)) => return Ok(exit_of(&status)),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(call!("waitid", pidfd)(errno)),
        }
    }
}

/// Takes the status of the child `pidfd` if it has ended.
pub fn try_wait(pidfd: BorrowedFd<'_>) -> Result<Option<Exit>> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let status =
        rustix::process::waitid(WaitId::PidFd(pidfd), options).map_err(call!("waitid", pidfd, "WNOHANG"))?;
    Ok(status.map(|status| exit_of(&status)))
}

/// Whether the process `pidfd` is a child of this one, alive or not yet waited for. `waitid(2)`.
pub fn is_child(pidfd: BorrowedFd<'_>) -> Result<bool> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    match rustix::process::waitid(WaitId::PidFd(pidfd), options) {
        Ok(_) => Ok(true),
        Err(rustix::io::Errno::CHILD) => Ok(false),
        Err(errno) => Err(call!("waitid", pidfd, "WNOWAIT")(errno)),
    }
}

/// Pid of a child that has ended and is not yet waited for; it stays so. `waitid(2)`.
pub fn ended_child() -> Result<Option<i32>> {
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    loop {
        // SAFETY: waitid(2) writes at most one siginfo_t, for which `info` has the room.
        let done = unsafe { libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), options) };
        match check(done.into(), || "waitid(P_ALL, WNOWAIT)".to_owned()) {
            Err(error) if error.is(libc::EINTR) => {}
            Err(error) if error.is(libc::ECHILD) => return Ok(None),
            Err(error) => return Err(error),
            Ok(_) => break,
        }
    }
    // SAFETY: all zeroes is a valid siginfo_t, and the call has written at most a valid one over it.
    let info = unsafe { info.assume_init() };
    // SAFETY: si_pid is a field of the SIGCHLD form, which waitid(2) writes; zeroes mean that no child has ended.
    Ok(Some(unsafe { info.si_pid() }).filter(|pid| *pid != 0))
}

fn exit_of(status: &rustix::process::WaitIdStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit(code),
        (None, Some(signal)) => Exit(128 + signal),
        (None, None) => Exit(255),
    }
}

/// Waits until the process `pidfd` has ended, at most `within`; says whether it has. It need not be a child.
pub fn ended(pidfd: BorrowedFd<'_>, within: Duration) -> Result<bool> {
    readable(pidfd, within)
}

/// A wait that never ends in practice: a hundred years. Longer ones overflow the clock.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Waits until `fd` has something to read (or its peer is gone), at most `within`. `poll(2)`.
pub fn readable(fd: BorrowedFd<'_>, within: Duration) -> Result<bool> {
    let deadline = std::time::Instant::now() + within.min(FAR);
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            done => return done.map(|count| count > 0).map_err(call!("poll", fd)),
        }
    }
}

fn pid_of(pid: i32) -> Result<Pid> {
    Pid::from_raw(pid).ok_or_else(|| Error::new(libc::ESRCH, format!("pid {pid}")))
}

/// Replaces this process by the program open as `program`, which may be a handle (`O_PATH`). `execveat(2)`.
///
/// Returns only when it failed.
pub fn exec_fd(program: BorrowedFd<'_>, args: &[CString], env: &[CString]) -> Error {
    let (args_list, env_list) = (pointers(args), pointers(env));
    // SAFETY: both lists hold pointers to live C strings and end with null; on success this memory is gone, on failure
    // nothing was changed.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            args_list.as_ptr(),
            env_list.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Error::last(format!("execveat({program:?}, {:?})", args.first()))
}

/// Replaces this process by the program `path`. `execve(2)`. Returns only when it failed.
pub fn exec(path: &std::ffi::CStr, args: &[CString], env: &[CString]) -> Error {
    let (args_list, env_list) = (pointers(args), pointers(env));
    // SAFETY: `path` is a C string, both lists hold pointers to live C strings and end with null.
    unsafe { libc::execve(path.as_ptr(), args_list.as_ptr(), env_list.as_ptr()) };
    Error::last(format!("execve({path:?})"))
}

/// Gives the child of `command` the open `fd` under `number`, over `execve(2)`.
pub fn pass(command: &mut std::process::Command, fd: OwnedFd, number: i32) {
    use std::os::unix::process::CommandExt as _;
    let give = move || {
        let done = if fd.as_raw_fd() == number {
            // SAFETY: changes a flag of the descriptor that the closure owns.
            unsafe { libc::fcntl(number, libc::F_SETFD, 0) }
        } else {
            // SAFETY: no memory is involved; nothing runs in the child but this, and it uses no other descriptor.
            unsafe { libc::dup2(fd.as_raw_fd(), number) }
        };
        if done < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: between clone and exec the closure makes one system call and allocates nothing.
    unsafe { command.pre_exec(give) };
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Ends this process at once: no destructors, no exit handlers, no flushing. `_exit(2)`.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) takes a number and does not return.
    unsafe { libc::_exit(code) }
}

/// Where this process's arguments and environment lie, as `/proc/PID/cmdline` and `/proc/PID/environ` show them to
/// others. proc_pid_stat(5).
#[derive(Debug)]
pub struct CommandLine {
    begin: usize,
    end: usize,
}

impl CommandLine {
    /// Finds them, through the host's procfs.
    ///
    /// # Errors
    /// What reading says; `EINVAL` for a text that is none of `/proc/PID/stat`.
    pub fn find(host: &crate::procfs::Procfs) -> Result<Self> {
        let text = host.read_self("stat", 4096)?;
        let text = String::from_utf8_lossy(&text);
        // The name in parentheses may hold anything; behind it field 3 begins.
        let fields: Vec<&str> =
            text.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
        let address = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<usize>().ok());
        match (address(48), address(49), address(50), address(51)) {
            (Some(args), Some(args_end), Some(env), Some(end))
                if args <= args_end && args_end <= env && env <= end =>
            {
                Ok(Self { begin: args, end })
            }
            _ => Err(Error::new(libc::EINVAL, "read(/proc/self/stat)")),
        }
    }

    /// Overwrites both with zeros, for good. For a copy of this process that others will see: it must not read its
    /// arguments or environment any more.
    pub fn clear(&self) {
        if self.end <= self.begin {
            return;
        }
        // SAFETY: the kernel has put arguments and environment, which are writable memory of this process's stack, into
        // this range; the caller does not read them again.
        unsafe { std::ptr::write_bytes(self.begin as *mut u8, 0, self.end - self.begin) };
    }
}

/// Forbids (or allows) other processes to read this one's memory and `/proc` links. `prctl(PR_SET_DUMPABLE)`.
pub fn set_dumpable(dumpable: bool) -> Result<()> {
    prctl(libc::PR_SET_DUMPABLE, u64::from(dumpable), "PR_SET_DUMPABLE")
}

/// Gives this process the name that `ps` shows; the first 15 bytes count. `prctl(PR_SET_NAME)`.
pub fn set_name(name: &std::ffi::CStr) -> Result<()> {
    rustix::thread::set_name(name).map_err(call!("prctl", "PR_SET_NAME", name))
}

/// Makes this process the foster parent of its orphaned descendants. `prctl(PR_SET_CHILD_SUBREAPER)`.
pub fn become_subreaper() -> Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1, "PR_SET_CHILD_SUBREAPER")
}

/// Has the kernel send `signal` to this process when its parent ends. `prctl(PR_SET_PDEATHSIG)`.
pub fn set_parent_death_signal(signal: i32) -> Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, signal as u64, "PR_SET_PDEATHSIG")
}

fn prctl(option: libc::c_int, value: u64, name: &str) -> Result<()> {
    // SAFETY: the options used in this module take one number and ignore the rest, which must be zero.
    let done = unsafe {
        libc::prctl(
            option,
            value as libc::c_ulong,
            0 as libc::c_ulong,
            0 as libc::c_ulong,
            0 as libc::c_ulong,
        )
    };
    check(done.into(), || format!("prctl({name}, {value})")).map(|_| ())
}

/// Begins a session of its own. `setsid(2)`.
pub fn new_session() -> Result<()> {
    rustix::process::setsid().map(|_| ()).map_err(call!("setsid"))
}

/// Pid of this process in its own pid namespace.
pub fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// Sets the file mode creation mask. `umask(2)`.
pub fn set_umask(mask: u32) {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
}

/// Changes the current directory to the one open as `dir`. `fchdir(2)`.
pub fn change_dir(dir: BorrowedFd<'_>) -> Result<()> {
    rustix::process::fchdir(dir).map_err(call!("fchdir", dir))
}

/// Changes the current directory to the trusted `path`. `chdir(2)`.
pub fn change_dir_to(path: &std::path::Path) -> Result<()> {
    rustix::process::chdir(path).map_err(call!("chdir", path))
}

/// Changes the root directory to the current one. `chroot(2)`.
pub fn root_here() -> Result<()> {
    rustix::process::chroot(c".").map_err(call!("chroot", "."))
}

/// The current directory as the kernel spells it; one that is not below the root begins with `(unreachable)`.
pub fn current_dir() -> Result<CString> {
    let mut buffer = vec![0u8; libc::PATH_MAX as usize];
    // The raw call: getcwd(3) turns an unreachable directory into ENOENT or worse walks up by itself.
    // SAFETY: the buffer is `len` bytes long and the kernel writes at most that many.
    let length = unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) };
    let length = check(length, || "getcwd()".to_owned())?;
    buffer.truncate(usize::try_from(length).unwrap_or(0).saturating_sub(1));
    CString::new(buffer).map_err(|_| Error::new(libc::EINVAL, "getcwd()"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_process_with_threads_may_not_fork() {
        let (stop, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || wait.recv().is_err());
        let error = fork(&Clone3::default()).unwrap_err();
        assert_eq!(error.errno(), libc::EDEADLK);
        drop(stop);
        assert!(thread.join().unwrap());
    }

    #[test]
    #[allow(clippy::zombie_processes, reason = "the child is waited for through its descriptor")]
    fn a_child_is_waited_for_by_pidfd() {
        let child = std::process::Command::new("/bin/sh").args(["-c", "exit 7"]).spawn().unwrap();
        let pidfd = pidfd(child.id() as i32).unwrap();
        assert!(ended(pidfd.as_fd(), Duration::from_secs(10)).unwrap());
        assert!(is_child(pidfd.as_fd()).unwrap());
        assert_eq!(ended_child().unwrap(), Some(child.id() as i32));
        assert_eq!(wait(pidfd.as_fd()).unwrap(), Exit(7));
        assert!(try_wait(pidfd.as_fd()).is_err());
        assert!(!is_child(pidfd.as_fd()).unwrap());
    }

    #[test]
    #[allow(clippy::zombie_processes, reason = "the child is waited for through its descriptor")]
    fn a_killed_child_reports_the_signal() {
        let child = std::process::Command::new("/bin/sleep").arg("100").spawn().unwrap();
        let pidfd = pidfd(child.id() as i32).unwrap();
        assert_eq!(try_wait(pidfd.as_fd()).unwrap(), None);
        assert!(!ended(pidfd.as_fd(), Duration::ZERO).unwrap());
        assert!(is_child(pidfd.as_fd()).unwrap());
        signal(pidfd.as_fd(), libc::SIGKILL).unwrap();
        assert_eq!(wait(pidfd.as_fd()).unwrap(), Exit(128 + libc::SIGKILL));
    }
}
