//! From a prepared container to the user's program: limits, labels, streams, directory, and `execve(2)`.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::path::Path;

use sys::calls::Calls;
use sys::path::{Access, Root, at};
use sys::process::{self, schedule};
use sys::procfs::Procfs;
use sys::{Error, fd, rlimit};

use super::{InitError, Step, identity, program};
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

/// Does what needs a look at the container's files: the owner of the streams, the home directory, the current
/// directory and the program. Afterwards only a list of calls is left.
pub(super) fn prepare(process: &Process, root: &Root, first: bool) -> Result<Program, InitError> {
    scheduling(process, first)?;
    own_streams(process.uid)?;
    let home = home(process, root);
    match enter_cwd(process, root) {
        // A directory that only its user may enter (on NFS, say).
        Err(error) if error.errno() == EACCES || error.errno() == EPERM => {
            identity::borrowed(process, || enter_cwd(process, root))?;
        }
        done => done?,
    }
    check_cwd()?;
    let mut env = process.env.clone();
    env.extend(home);
    Ok(Program { path: identity::borrowed(process, || program::find(process))?, env })
}

fn scheduling(process: &Process, first: bool) -> Result<(), InitError> {
    if !first && !process.cpus.last.is_empty() {
        schedule::set_cpus(&process.cpus.last).step(|| "set CPU affinity".into())?;
    }
    if let Some((class, priority)) = process.io_priority {
        schedule::set_io_priority(class, priority).step(|| "set ioPriority".into())?;
    }
    if let Some(policy) = &process.memory_policy {
        schedule::set_memory_policy(policy.mode, &policy.nodes).step(|| "set memory policy".into())?;
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

/// Adds the execution of `program`.
pub(super) fn execute(process: &Process, program: &Program, calls: &mut Calls) {
    calls.execute(&program.path, &process.args, &program.env);
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
