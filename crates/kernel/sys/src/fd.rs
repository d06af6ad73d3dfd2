//! Descriptors: standard streams, inheritance, bounded reads.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::error::{Error, Result, call, check};

/// Marks every descriptor from `first` on close-on-exec. `close_range(2)` with `CLOSE_RANGE_CLOEXEC`, Linux 5.11.
pub fn close_on_exec_from(first: u32) -> Result<()> {
    const CLOEXEC: libc::c_uint = 4;
    // SAFETY: with this flag nothing is closed now; descriptors are only marked.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, CLOEXEC) };
    match check(done, || format!("close_range({first}, ~0, CLOSE_RANGE_CLOEXEC)")) {
        // Before 5.11 the flag, before 5.9 the call is unknown.
        Err(error) if error.is(libc::EINVAL) || error.is(libc::ENOSYS) => mark_each(first),
        done => done.map(|_| ()),
    }
}

/// Closes every descriptor above the standard streams but those in `keep`. For a process that has just been cloned:
/// values that own the closed descriptors must never be dropped again.
pub fn close_all_but(keep: &[i32]) -> Result<()> {
    let mut keep: Vec<u32> =
        keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).filter(|fd| *fd > 2).collect();
    keep.sort_unstable();
    keep.dedup();
    let mut first = 3;
    for fd in keep {
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = fd + 1;
    }
    close_range(first, libc::c_uint::MAX)
}

/// Closes the descriptors from `first` to `last`. `close_range(2)`, Linux 5.9.
fn close_range(first: u32, last: u32) -> Result<()> {
    // SAFETY: the only caller is documented to own nothing in that range any more.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    check(done, || format!("close_range({first}, {last})")).map(|_| ())
}

/// Waits for one byte.
pub fn read_byte(fd: BorrowedFd<'_>) -> Result<()> {
    let mut byte = [0u8; 1];
    loop {
        match rustix::io::read(fd, &mut byte) {
            Ok(1) => return Ok(()),
            Ok(_) => return Err(Error::new(libc::EPIPE, format!("read({fd:?})"))),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(call!("read", fd)(errno)),
        }
    }
}

/// The same, one by one from `/proc/self/fd`.
fn mark_each(first: u32) -> Result<()> {
    let dir = rustix::fs::open(
        c"/proc/self/fd",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(call!("open", "/proc/self/fd"))?;
    for (name, _) in crate::path::at::entries(dir.as_fd())? {
        let number = name.to_str().and_then(|text| text.parse::<i32>().ok());
        if let Some(number) = number.filter(|number| i64::from(*number) >= i64::from(first)) {
            // SAFETY: F_SETFD on a number changes a flag of whatever is open there, or fails with EBADF.
            unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    Ok(())
}

/// Lets the program that is executed next keep `fd`.
pub fn keep_on_exec(fd: BorrowedFd<'_>) -> Result<()> {
    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).map_err(call!("fcntl", fd, "F_SETFD"))
}

/// The next run of bytes at or behind `from` that is no hole; `None` when there is none. `lseek(2)` with `SEEK_DATA` and
/// `SEEK_HOLE`, Linux 3.1; a file system that tells of no holes gives the rest of the file.
pub fn next_data(fd: BorrowedFd<'_>, from: u64) -> Result<Option<std::ops::Range<u64>>> {
    let seek = |position| rustix::fs::seek(fd, position).map_err(call!("lseek", fd, from));
    match seek(rustix::fs::SeekFrom::Data(from)) {
        Ok(start) => Ok(Some(start..seek(rustix::fs::SeekFrom::Hole(start))?)),
        Err(error) if error.is(libc::ENXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes `fd` the standard stream `number` (0, 1 or 2), which stays open over exec. `dup3(2)`.
pub fn become_standard(fd: BorrowedFd<'_>, number: i32) -> Result<()> {
    if fd.as_raw_fd() == number {
        return keep_on_exec(fd);
    }
    // SAFETY: replaces a standard stream, which this process never holds as an owned descriptor.
    let done = unsafe { libc::dup2(fd.as_raw_fd(), number) };
    check(done.into(), || format!("dup2({fd:?}, {number})")).map(|_| ())
}

/// The standard stream `number` (0, 1 or 2).
pub fn standard(number: i32) -> BorrowedFd<'static> {
    // SAFETY: the standard streams are open from the start of the program (Rust opens closed ones on /dev/null) and
    // nobody closes them.
    unsafe { BorrowedFd::borrow_raw(number.clamp(0, 2)) }
}

/// Whether the number `fd` is open. For descriptors that were inherited on purpose.
pub fn is_open(fd: i32) -> bool {
    // SAFETY: F_GETFD only asks.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// Takes over a descriptor that this process inherited under a known number; fails when nothing is open there.
///
/// Call it at most once for a number, before anything else could have opened a descriptor of that number.
pub fn take_inherited(number: i32) -> Result<OwnedFd> {
    if number < 3 || !is_open(number) {
        return Err(Error::new(libc::EBADF, format!("inherited descriptor {number}")));
    }
    // SAFETY: it is open, was inherited over exec, and the caller takes it once, so that nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// `/dev/null`, checked to be the real one.
pub fn null() -> Result<OwnedFd> {
    let fd = rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
        .map_err(call!("open", "/dev/null"))?;
    let stat = crate::path::at::stat_fd(fd.as_fd())?;
    if !stat.is_device(1, 3) {
        return Err(Error::new(libc::ENODEV, "open(/dev/null) is not device 1:3"));
    }
    Ok(fd)
}

/// Reads all of `fd` when it is at most `limit` bytes; `EFBIG` otherwise.
pub fn read_all(fd: BorrowedFd<'_>, limit: usize) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut chunk = [0u8; 8192];
    loop {
        match rustix::io::read(fd, &mut chunk) {
            Ok(0) => return Ok(out),
            Ok(length) => out.extend_from_slice(&chunk[..length]),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(call!("read", fd)(errno)),
        }
        if out.len() > limit {
            return Err(Error::new(libc::EFBIG, format!("read({fd:?}, at most {limit})")));
        }
    }
}

/// Writes all of `bytes`.
pub fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(0) => return Err(Error::new(libc::EIO, format!("write({fd:?})"))),
            Ok(length) => bytes = &bytes[length..],
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(call!("write", fd, bytes.len())(errno)),
        }
    }
    Ok(())
}

/// Writes `bytes` with one `write(2)`, as files of procfs and cgroupfs want it.
pub fn write_once(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<()> {
    rustix::io::write(fd, bytes).map(|_| ()).map_err(call!("write", fd, String::from_utf8_lossy(bytes)))
}

/// Makes a FIFO at the trusted `path`. `mkfifo(3)`.
pub fn make_fifo(path: &Path, mode: u32) -> Result<()> {
    use rustix::fs::FileType;
    rustix::fs::mknodat(rustix::fs::CWD, path, FileType::Fifo, Mode::from_raw_mode(mode), 0)
        .map_err(call!("mknod", path, "S_IFIFO"))
}

/// Opens the trusted `path` with raw `open(2)` flags; `O_CLOEXEC` is added.
pub fn open(path: &Path, flags: i32) -> Result<OwnedFd> {
    let flags = OFlags::from_bits_retain(flags as u32) | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(call!("open", path, flags))
}
