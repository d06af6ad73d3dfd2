//! Terminals: a master and its slave, by descriptor.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::error::{Result, call, check};

/// A new terminal.
#[derive(Debug)]
pub struct Terminal {
    /// The side that drives it.
    pub master: OwnedFd,
    /// The side the program sees.
    pub slave: OwnedFd,
}

/// Makes a terminal of the devpts instance whose root is open as `instance`.
///
/// The slave comes from the master (`TIOCGPTPEER`, Linux 4.13), not from a path that could lead elsewhere.
pub fn open_in(instance: BorrowedFd<'_>) -> Result<Terminal> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let master = rustix::fs::openat(instance, c"ptmx", flags, Mode::empty())
        .map_err(call!("openat", instance, "ptmx"))?;
    let unlocked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int.
    let done = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) };
    check(done.into(), || format!("ioctl({master:?}, TIOCSPTLCK)"))?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags and returns a new descriptor.
    let slave = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) };
    let slave = check(slave.into(), || format!("ioctl({master:?}, TIOCGPTPEER)"))?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    let slave = unsafe { OwnedFd::from_raw_fd(slave as i32) };
    Ok(Terminal { master, slave })
}

/// Sets the size of the terminal, in characters. `TIOCSWINSZ`.
pub fn resize(terminal: BorrowedFd<'_>, columns: u16, rows: u16) -> Result<()> {
    let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size).map_err(call!("ioctl", terminal, "TIOCSWINSZ"))
}

/// Leaves line ends as the program writes them: no carriage return is put before a line feed. `TCSETS` without `ONLCR`.
pub fn keep_line_ends(terminal: BorrowedFd<'_>) -> Result<()> {
    use rustix::termios::{OptionalActions, OutputModes, tcgetattr, tcsetattr};
    let mut modes = tcgetattr(terminal).map_err(call!("ioctl", terminal, "TCGETS"))?;
    modes.output_modes -= OutputModes::ONLCR;
    tcsetattr(terminal, OptionalActions::Now, &modes).map_err(call!("ioctl", terminal, "TCSETS"))
}

/// Makes `slave` the controlling terminal of this session. `TIOCSCTTY`.
pub fn control(slave: BorrowedFd<'_>) -> Result<()> {
    rustix::process::ioctl_tiocsctty(slave).map_err(call!("ioctl", slave, "TIOCSCTTY"))
}

/// The terminal's path as the kernel names it within its instance, such as `0` of `/dev/pts/0`.
pub fn number(master: BorrowedFd<'_>) -> Result<u32> {
    let mut number: libc::c_uint = 0;
    // SAFETY: TIOCGPTN writes one unsigned int.
    let done = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &raw mut number) };
    check(done.into(), || format!("ioctl({master:?}, TIOCGPTN)"))?;
    Ok(number)
}

/// Whether `fd`, which a stranger sent, is the master of a terminal.
///
/// Neither this call nor closing a master waits for a file server of the stranger's: attributes come from the cache,
/// and a file that is the device 5:2 is served by the terminal driver. `statx(2)`.
pub fn is_master(fd: BorrowedFd<'_>) -> Result<bool> {
    use rustix::fs::{AtFlags, FileType, StatxFlags};
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = rustix::fs::statx(fd, c"", flags, StatxFlags::TYPE).map_err(call!("statx", fd))?;
    let is_device = FileType::from_raw_mode(stat.stx_mode.into()) == FileType::CharacterDevice;
    Ok(is_device && (stat.stx_rdev_major, stat.stx_rdev_minor) == (5, 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::Root;
    use std::os::fd::AsFd;
    use std::path::Path;

    #[test]
    fn what_is_written_to_the_slave_is_read_from_the_master() {
        let Ok(instance) = Root::open_dir(Path::new("/dev/pts")) else {
            println!("SKIP what_is_written_to_the_slave_is_read_from_the_master: no /dev/pts");
            return;
        };
        let terminal = match open_in(instance.as_fd()) {
            Err(error) if error.is(libc::EACCES) => {
                println!("SKIP what_is_written_to_the_slave_is_read_from_the_master: ptmx is closed here");
                return;
            }
            done => done.unwrap(),
        };
        resize(terminal.slave.as_fd(), 80, 25).unwrap();
        rustix::io::write(&terminal.slave, b"hi").unwrap();
        let mut buffer = [0; 8];
        assert_eq!(rustix::io::read(&terminal.master, &mut buffer).unwrap(), 2);
        number(terminal.master.as_fd()).unwrap();
        assert!(is_master(terminal.master.as_fd()).unwrap());
        assert!(!is_master(terminal.slave.as_fd()).unwrap());
        assert!(!is_master(std::fs::File::open("/dev/null").unwrap().as_fd()).unwrap());
    }
}
