//! Standard streams: those the caller gave, or a terminal of the container's own devpts.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use sys::path::{Access, Root, at};
use sys::{fd, mount, pty};

use super::{InitError, Step};
use crate::create::Stdio;
use crate::create::plan::Process;
use crate::talk::{Talk, Word};

/// `f_type` of devpts.
const DEVPTS_MAGIC: u64 = 0x1cd1;

/// Gives the process its standard streams. `instance` is the container's devpts when it was mounted just now.
///
/// For the container's first process (`first`) the terminal also appears as `/dev/console`. [`control`] comes afterwards.
pub(super) fn or_streams(
    process: &Process,
    root: &Root,
    instance: Option<BorrowedFd<'_>>,
    stdio: &Stdio,
    talk: &Talk,
    first: bool,
) -> Result<(), InitError> {
    if !process.terminal {
        let streams = [(&stdio.stdin, 0), (&stdio.stdout, 1), (&stdio.stderr, 2)];
        return streams.into_iter().try_for_each(|(stream, number)| match stream {
            Some(stream) => fd::become_standard(stream.as_fd(), number).step(|| format!("stream {number}")),
            None => Ok(()),
        });
    }
    let found;
    let instance = match instance {
        Some(instance) => instance,
        None => {
            found = devpts(root)?;
            found.as_fd()
        }
    };
    let terminal = pty::open_in(instance).step(|| "open a terminal".into())?;
    if let Some(size) = process.console_size {
        let bounded = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
        pty::resize(terminal.slave.as_fd(), bounded(size.width), bounded(size.height))
            .step(|| "size of the terminal".into())?;
    }
    if process.keep_line_ends {
        // Before the program can write: the caller has no chance to be in time.
        pty::keep_line_ends(terminal.slave.as_fd()).step(|| "modes of the terminal".into())?;
    }
    if first {
        show_console(root, terminal.slave.as_fd())?;
    }
    talk.say(&Word::Console(terminal.master)).step(|| "hand over the terminal".into())?;
    for number in 0..=2 {
        fd::become_standard(terminal.slave.as_fd(), number).step(|| format!("stream {number}"))?;
    }
    Ok(())
}

/// Makes the terminal, if the process has one, the controlling one of its session.
pub(super) fn control(process: &Process) -> Result<(), InitError> {
    match process.terminal {
        true => pty::control(fd::standard(0)).step(|| "take control of the terminal".into()),
        false => Ok(()),
    }
}

/// The devpts at `/dev/pts`, if that is what is mounted there.
fn devpts(root: &Root) -> Result<OwnedFd, InitError> {
    let dir = root.open(Path::new("/dev/pts"), Access::Handle).step(|| "open /dev/pts".into())?;
    match mount::file_system_magic(dir.as_fd()).step(|| "statfs /dev/pts".into())? {
        DEVPTS_MAGIC => Ok(dir),
        _ => Err(InitError::text_only("a terminal needs a devpts mounted on /dev/pts")),
    }
}

/// Binds the terminal onto `/dev/console`, which is made if it is absent and never followed if it is a link
/// (CVE-2025-52565).
fn show_console(root: &Root, slave: BorrowedFd<'_>) -> Result<(), InitError> {
    const O_PATH: i32 = 0o10_000_000;
    let name = OsStr::new("console");
    let dev = root.open_without_links(Path::new("dev"), Access::Handle).step(|| "open /dev".into())?;
    match at::make_file(dev.as_fd(), name, 0o666) {
        Err(error) if error.errno() != EEXIST => return Err(error).step(|| "make /dev/console".into()),
        _ => {}
    }
    let target = at::open(dev.as_fd(), name, O_PATH, 0).step(|| "open /dev/console".into())?;
    if at::stat_fd(target.as_fd()).step(|| "stat /dev/console".into())?.is_link() {
        return Err(InitError::text_only("/dev/console is a link"));
    }
    let tree = mount::copy_fd(slave, false).step(|| "bind the terminal".into())?;
    mount::attach(tree.as_fd(), target.as_fd()).step(|| "attach /dev/console".into())
}

const EEXIST: i32 = 17;
