//! From a prepared container to the user's program: limits, labels, identity, and `execve(2)`.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::AsFd;
use std::path::Path;

use sys::capability::{self, Set};
use sys::path::{Access, Root, at};
use sys::process::{self, schedule};
use sys::procfs::Procfs;
use sys::{Error, fd, identity, rlimit, seccomp};

use super::{InitError, Step, program};
use crate::create::plan::Process;

const EPERM: i32 = 1;
const EACCES: i32 = 13;
const EINVAL: i32 = 22;
const EROFS: i32 = 30;

/// The longest `/etc/passwd` that is searched for a home directory.
const LONGEST_PASSWD: usize = 1 << 20;

/// A program that was found, and the environment it gets.
#[derive(Debug)]
pub(super) struct Program {
    path: CString,
    env: Vec<CString>,
}

impl Program {
    /// The environment that it gets.
    pub(super) fn env(&self) -> &[CString] {
        &self.env
    }
}

/// What needs the host's procfs: the OOM score.
pub(super) fn host_settings(process: &Process, host: &Procfs) -> Result<(), InitError> {
    if let Some(score) = process.oom_score_adj {
        oom_score(score, |text| host.write_self("oom_score_adj", text))?;
    }
    Ok(())
}

/// Sets the limits of the process `pid` (0 for the caller).
///
/// A hard limit above the caller's own needs CAP_SYS_RESOURCE; without it the limit is set as high as is allowed.
pub(crate) fn set_limits(pid: i32, process: &Process) -> Result<(), Error> {
    for limit in &process.limits {
        match rlimit::set(pid, limit.resource, limit.soft, limit.hard) {
            Err(error) if error.is(EPERM) => {
                let (_, hard) = rlimit::get(pid, limit.resource)?;
                rlimit::set(pid, limit.resource, limit.soft.min(hard), limit.hard.min(hard))?;
            }
            done => done?,
        }
    }
    Ok(())
}

/// Writes an OOM score. One below the inherited score needs CAP_SYS_RESOURCE; without it the inherited one stays.
pub(crate) fn oom_score(score: i32, write: impl Fn(&str) -> Result<(), Error>) -> Result<(), InitError> {
    match write(&score.to_string()) {
        Err(error) if error.is(EACCES) || error.is(EPERM) => Ok(()),
        done => done.step(|| format!("set oom_score_adj {score}")),
    }
}

/// Security labels that the next `execve(2)` takes on.
pub(super) fn labels(process: &Process, host: &Procfs) -> Result<(), InitError> {
    if !process.apparmor_profile.is_empty() {
        let text = format!("exec {}", process.apparmor_profile);
        let own = host.write_self("attr/apparmor/exec", &text);
        // Kernels before 5.8 have only the shared file.
        own.or_else(|_| host.write_self("attr/exec", &text))
            .step(|| format!("apply apparmor profile {:?}", process.apparmor_profile))?;
    }
    if !process.selinux_label.is_empty() {
        host.write_self("attr/exec", &process.selinux_label)
            .step(|| format!("apply selinux label {:?}", process.selinux_label))?;
    }
    Ok(())
}

/// How much is left to do for a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Remaining {
    /// Whether it is the container's first process.
    pub first: bool,
    /// Whether it sets its limits itself; in a user namespace it may not raise them, and the parent does.
    pub limits: bool,
}

/// Becomes the user of the process, in its directory, with its capabilities, and finds its program.
pub(super) fn identity(process: &Process, root: &Root, remaining: Remaining) -> Result<Program, InitError> {
    scheduling(process, remaining.first)?;
    if process.no_new_privs {
        process::set_no_new_privs().step(|| "set no_new_privs".into())?;
    } else {
        // Without no_new_privs a filter needs the privileges that are about to go.
        filter(process)?;
    }
    own_streams(process.uid)?;
    let home = home(process, root);
    let entered = enter_cwd(process, root);
    if remaining.limits {
        // As late as privileges allow: this process needs more descriptors than its program may be allowed.
        set_limits(0, process).step(|| "set resource limits".into())?;
    }
    let (_, permitted, _) = capability::get().step(|| "read capabilities".into())?;
    capability::bound(process.capabilities.bounding).step(|| "set the bounding set".into())?;
    process::set_keep_capabilities(true).step(|| "keep capabilities".into())?;
    become_user(process)?;
    match entered {
        // A directory that only its user may enter (on NFS, say).
        Err(error) if error.errno() == EACCES || error.errno() == EPERM => enter_cwd(process, root)?,
        done => done?,
    }
    check_cwd()?;
    process::set_keep_capabilities(false).step(|| "stop keeping capabilities".into())?;
    set_capabilities(process, permitted)?;
    process::set_dumpable(false).step(|| "stay undumpable".into())?;
    let mut env = process.env.clone();
    env.extend(home);
    Ok(Program { path: program::find(process)?, env })
}

fn scheduling(process: &Process, first: bool) -> Result<(), InitError> {
    if !first && !process.cpus.last.is_empty() {
        schedule::set_cpus(&process.cpus.last).step(|| "set CPU affinity".into())?;
    }
    if let Some(policy) = &process.scheduler {
        schedule::set_policy(policy).step(|| "set scheduler".into())?;
    }
    if let Some((class, priority)) = process.io_priority {
        schedule::set_io_priority(class, priority).step(|| "set ioPriority".into())?;
    }
    if let Some(persona) = process.personality {
        schedule::set_personality(persona).step(|| "set personality".into())?;
    }
    Ok(())
}

/// Gives the standard streams to the user, so that `/dev/stdout` can be opened again; streams that cannot change
/// owner (read-only file systems, foreign ids, devices that everyone shares) stay as they are.
fn own_streams(uid: u32) -> Result<(), InitError> {
    for number in 0..=2 {
        let stream = fd::standard(number);
        let Ok(stat) = at::stat_fd(stream) else { continue };
        if stat.uid == uid || stat.is_device(1, 3) {
            continue;
        }
        match at::chown_fd(stream, uid, stat.gid) {
            Err(error) if [EINVAL, EPERM, EROFS].contains(&error.errno()) => {}
            done => done.step(|| format!("chown stream {number}"))?,
        }
    }
    Ok(())
}

/// `HOME=...` from the container's passwd, unless the environment has one.
fn home(process: &Process, root: &Root) -> Option<CString> {
    if program::variable(process, b"HOME").is_some() {
        return None;
    }
    let found = passwd(root).and_then(|text| home_of(process.uid, &String::from_utf8_lossy(&text)));
    CString::new(format!("HOME={}", found.unwrap_or_else(|| "/".into()))).ok()
}

/// The container's passwd file, when it is one: opening a device or a FIFO of the image could have effects.
fn passwd(root: &Root) -> Option<Vec<u8>> {
    let path = Path::new("/etc/passwd");
    let handle = root.open(path, Access::Handle).ok()?;
    if !at::stat_fd(handle.as_fd()).is_ok_and(|stat| stat.is_file()) {
        return None;
    }
    let file = root.open(path, Access::Read).ok()?;
    fd::read_all(file.as_fd(), LONGEST_PASSWD).ok()
}

/// The home directory of `uid` in the text of a passwd file.
fn home_of(uid: u32, passwd: &str) -> Option<String> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let matches = fields.get(2).and_then(|text| text.parse::<u32>().ok()) == Some(uid);
        fields.get(5).filter(|home| matches && home.starts_with('/')).map(|home| (*home).to_owned())
    })
}

/// Enters the process's directory: resolved below the root, through no magic link (CVE-2024-21626).
fn enter_cwd(process: &Process, root: &Root) -> Result<(), InitError> {
    let what = || format!("chdir to cwd ({:?}) set in config.json failed", process.cwd);
    let dir = root.open(&process.cwd, Access::Handle).step(what)?;
    process::change_dir(dir.as_fd()).step(what)
}

/// The kernel must be able to say where the process is, below its root.
fn check_cwd() -> Result<(), InitError> {
    let outside = || {
        InitError::text_only(
            "current working directory is outside of container mount namespace root -- possible container breakout detected",
        )
    };
    match process::current_dir() {
        Ok(dir) if dir.as_bytes().starts_with(b"/") => Ok(()),
        Ok(_) => Err(outside()),
        Err(error) if error.is(ENOENT) => Err(outside()),
        Err(error) => Err(error).step(|| "getcwd".into()),
    }
}

const ENOENT: i32 = 2;

fn become_user(process: &Process) -> Result<(), InitError> {
    match identity::set_groups(&process.groups) {
        // A user namespace whose maker denied setgroups; nothing is gained by the groups it cannot drop.
        Err(error) if error.is(EPERM) && process.groups.is_empty() => {}
        done => done.step(|| "setgroups".into())?,
    }
    identity::set_gid(process.gid).step(|| "setgid".into())?;
    identity::set_uid(process.uid).step(|| "setuid".into())
}

/// Applies the capability sets, as far as this process has them itself.
fn set_capabilities(process: &Process, available: Set) -> Result<(), InitError> {
    let wanted = &process.capabilities;
    let permitted = Set(wanted.permitted.0 & available.0);
    let effective = Set(wanted.effective.0 & permitted.0);
    let inheritable = Set(wanted.inheritable.0 & (available.0 | permitted.0));
    capability::set(effective, permitted, inheritable).step(|| "set capabilities".into())?;
    let ambient = Set(wanted.ambient.0 & permitted.0 & inheritable.0);
    if ambient == Set::default() {
        // A set that was never raised is empty, and programs started from here inherit nothing.
        return Ok(());
    }
    capability::set_ambient(ambient).step(|| "set ambient capabilities".into())
}

fn filter(process: &Process) -> Result<(), InitError> {
    let Some(filter) = &process.seccomp else { return Ok(()) };
    seccomp::install(&filter.instructions, filter.flags).map(|_| ()).step(|| "install seccomp filter".into())
}

/// [`confine`], then [`start`].
pub(super) fn execute(
    process: &Process,
    program: &Program,
    preserve_fds: u32,
) -> Result<Infallible, InitError> {
    confine(process, preserve_fds)?;
    start(process, program)
}

/// What comes right before the program: its umask, no descriptors, and the filter, unless it was installed earlier.
pub(super) fn confine(process: &Process, preserve_fds: u32) -> Result<(), InitError> {
    process::set_umask(process.umask);
    fd::close_on_exec_from(3 + preserve_fds).step(|| "close descriptors".into())?;
    if process.no_new_privs {
        filter(process)?;
    }
    Ok(())
}

/// Executes the program; returns only what kept it from running.
pub(super) fn start(process: &Process, program: &Program) -> Result<Infallible, InitError> {
    let error = process::exec(&program.path, &process.args, &program.env);
    let path = program.path.to_string_lossy();
    Err(InitError::text_only(format!("exec {path}: {}", error.words())).with_errno(error.errno()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_of_a_user_is_the_sixth_field() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbad:x:no\nweb:x:33:33::/var/www:/bin/false\nrel:x:5:5::x:/bin/sh\n";
        assert_eq!(home_of(33, passwd).as_deref(), Some("/var/www"));
        assert_eq!(home_of(0, passwd).as_deref(), Some("/root"));
        assert_eq!(home_of(5, passwd), None);
        assert_eq!(home_of(7, passwd), None);
    }
}
