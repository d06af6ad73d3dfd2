//! One name in one directory: calls that take a directory descriptor and never follow a link.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};

use crate::error::{Result, call};

/// What `fstatat(2)` tells of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Device that holds the inode.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Type and permission bits (`S_IFMT` and below).
    pub mode: u32,
    /// Number of names.
    pub nlink: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node.
    pub rdev: u64,
    /// Length in bytes.
    pub size: u64,
    /// Space taken, in units of 512 bytes.
    pub blocks: u64,
    /// Last change of content: seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Last access: seconds and nanoseconds.
    pub atime: (i64, u32),
    /// Last change of the inode: seconds and nanoseconds.
    pub ctime: (i64, u32),
}

impl Stat {
    /// Whether this is a directory.
    pub fn is_dir(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }

    /// Whether this is a regular file.
    pub fn is_file(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFREG
    }

    /// Whether this is a symbolic link.
    pub fn is_link(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFLNK
    }

    /// Whether this is a character device.
    pub fn is_char_device(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFCHR
    }

    /// Whether this is a block device.
    pub fn is_block_device(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFBLK
    }

    /// Whether this is the character device `major:minor`.
    pub fn is_device(&self, major: u32, minor: u32) -> bool {
        self.is_char_device() && self.rdev == device_number(major, minor)
    }
}

#[allow(clippy::useless_conversion)] // the widths of these fields differ between architectures
impl From<rustix::fs::Stat> for Stat {
    fn from(stat: rustix::fs::Stat) -> Self {
        Self {
            dev: stat.st_dev.into(),
            ino: stat.st_ino.into(),
            mode: stat.st_mode,
            nlink: stat.st_nlink.into(),
            uid: stat.st_uid,
            gid: stat.st_gid,
            rdev: stat.st_rdev.into(),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            blocks: u64::try_from(stat.st_blocks).unwrap_or(0),
            mtime: (stat.st_mtime.into(), stat.st_mtime_nsec as u32),
            atime: (stat.st_atime.into(), stat.st_atime_nsec as u32),
            ctime: (stat.st_ctime.into(), stat.st_ctime_nsec as u32),
        }
    }
}

/// The kernel's number of the device `major:minor`.
pub fn device_number(major: u32, minor: u32) -> u64 {
    rustix::fs::makedev(major, minor)
}

/// Major and minor of a device number.
pub fn device_parts(number: u64) -> (u32, u32) {
    (rustix::fs::major(number), rustix::fs::minor(number))
}

/// The current directory, for the calls of this module that take one.
pub fn here() -> BorrowedFd<'static> {
    rustix::fs::CWD
}

/// Describes an open object. `fstat(2)`.
pub fn stat_fd(fd: BorrowedFd<'_>) -> Result<Stat> {
    rustix::fs::fstat(fd).map(Stat::from).map_err(call!("fstat", fd))
}

/// Describes `name` in `dir`, the link itself when it is one. `fstatat(2)`.
pub fn stat(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Stat> {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
        .map(Stat::from)
        .map_err(call!("fstatat", dir, name))
}

/// Opens `name` in `dir` with raw `open(2)` flags; `O_CLOEXEC` and `O_NOFOLLOW` are added.
pub fn open(dir: BorrowedFd<'_>, name: &OsStr, flags: i32, mode: u32) -> Result<OwnedFd> {
    let flags = OFlags::from_bits_retain(flags as u32) | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(mode)).map_err(call!("openat", dir, name, flags))
}

/// Makes a directory. `mkdirat(2)`.
pub fn make_dir(dir: BorrowedFd<'_>, name: &OsStr, mode: u32) -> Result<()> {
    rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(mode)).map_err(call!("mkdirat", dir, name))
}

/// Makes a new regular file, opened for writing; fails with `EEXIST` when the name is taken.
pub fn make_file(dir: BorrowedFd<'_>, name: &OsStr, mode: u32) -> Result<OwnedFd> {
    open(dir, name, libc::O_CREAT | libc::O_EXCL | libc::O_RDWR, mode)
}

/// Makes a device node, FIFO or socket: `mode` carries the type bits. `mknodat(2)`.
pub fn make_node(dir: BorrowedFd<'_>, name: &OsStr, mode: u32, rdev: u64) -> Result<()> {
    rustix::fs::mknodat(dir, name, FileType::from_raw_mode(mode), Mode::from_raw_mode(mode), rdev)
        .map_err(call!("mknodat", dir, name, mode, rdev))
}

/// Makes the symbolic link `name` that reads `target`. `symlinkat(2)`.
pub fn make_link(target: &Path, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    rustix::fs::symlinkat(target, dir, name).map_err(call!("symlinkat", target, dir, name))
}

/// Gives the object `name` in `dir` a second name; a link is not followed. `linkat(2)`.
pub fn hard_link(dir: BorrowedFd<'_>, name: &OsStr, to: BorrowedFd<'_>, to_name: &OsStr) -> Result<()> {
    rustix::fs::linkat(dir, name, to, to_name, AtFlags::empty())
        .map_err(call!("linkat", dir, name, to, to_name))
}

/// Reads a symbolic link. `readlinkat(2)`.
pub fn read_link(dir: BorrowedFd<'_>, name: &OsStr) -> Result<OsString> {
    let text = rustix::fs::readlinkat(dir, name, Vec::new()).map_err(call!("readlinkat", dir, name))?;
    Ok(OsString::from_vec(text.into_bytes()))
}

/// Removes a name that is not a directory. `unlinkat(2)`.
pub fn remove_file(dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    rustix::fs::unlinkat(dir, name, AtFlags::empty()).map_err(call!("unlinkat", dir, name))
}

/// Removes an empty directory. `unlinkat(2)`.
pub fn remove_dir(dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR).map_err(call!("unlinkat", dir, name, "AT_REMOVEDIR"))
}

/// Renames, replacing what has the new name. `renameat(2)`.
pub fn rename(dir: BorrowedFd<'_>, name: &OsStr, to: BorrowedFd<'_>, to_name: &OsStr) -> Result<()> {
    rustix::fs::renameat(dir, name, to, to_name).map_err(call!("renameat", dir, name, to, to_name))
}

/// Renames, failing with `EEXIST` when the new name is taken. `renameat2(2)`.
pub fn rename_new(dir: BorrowedFd<'_>, name: &OsStr, to: BorrowedFd<'_>, to_name: &OsStr) -> Result<()> {
    rustix::fs::renameat_with(dir, name, to, to_name, rustix::fs::RenameFlags::NOREPLACE).map_err(call!(
        "renameat2",
        dir,
        name,
        to,
        to_name,
        "RENAME_NOREPLACE"
    ))
}

/// Changes owner and group of `name`, of the link itself when it is one. `fchownat(2)`.
pub fn chown(dir: BorrowedFd<'_>, name: &OsStr, uid: u32, gid: u32) -> Result<()> {
    rustix::fs::chownat(
        dir,
        name,
        Some(Uid::from_raw(uid)),
        Some(Gid::from_raw(gid)),
        AtFlags::SYMLINK_NOFOLLOW,
    )
    .map_err(call!("fchownat", dir, name, uid, gid))
}

/// Changes owner and group of an open object, handles (`O_PATH`) included.
pub fn chown_fd(fd: BorrowedFd<'_>, uid: u32, gid: u32) -> Result<()> {
    rustix::fs::chownat(fd, c"", Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::EMPTY_PATH)
        .map_err(call!("fchownat", fd, uid, gid))
}

/// Changes the permission bits of `name`, which must not be a link. `fchmodat(2)`.
///
/// The kernel's call follows links, so the object is opened as a handle first and changed through it.
pub fn chmod(dir: BorrowedFd<'_>, name: &OsStr, mode: u32) -> Result<()> {
    let handle = open(dir, name, libc::O_PATH, 0)?;
    chmod_handle(handle.as_fd(), mode)
}

/// Changes the permission bits of an object opened as a handle (`O_PATH`), through `/proc/self/fd`.
pub fn chmod_handle(handle: BorrowedFd<'_>, mode: u32) -> Result<()> {
    let path = super::of_fd(handle);
    rustix::fs::chmod(&path, Mode::from_raw_mode(mode)).map_err(call!("chmod", path, mode))
}

/// Changes the permission bits of an open file. `fchmod(2)`.
pub fn chmod_fd(fd: BorrowedFd<'_>, mode: u32) -> Result<()> {
    rustix::fs::fchmod(fd, Mode::from_raw_mode(mode)).map_err(call!("fchmod", fd, mode))
}

/// Seconds and nanoseconds since 1970, for [`set_times`].
pub type Time = (i64, u32);

/// Sets access and modification time of `name`, of the link itself when it is one. `utimensat(2)`.
pub fn set_times(dir: BorrowedFd<'_>, name: &OsStr, atime: Time, mtime: Time) -> Result<()> {
    rustix::fs::utimensat(dir, name, &timestamps(atime, mtime), AtFlags::SYMLINK_NOFOLLOW).map_err(call!(
        "utimensat",
        dir,
        name
    ))
}

/// Sets access and modification time of an open file. `futimens(3)`.
pub fn set_times_fd(fd: BorrowedFd<'_>, atime: Time, mtime: Time) -> Result<()> {
    rustix::fs::futimens(fd, &timestamps(atime, mtime)).map_err(call!("futimens", fd))
}

fn timestamps(atime: Time, mtime: Time) -> Timestamps {
    let spec = |(seconds, nanos): Time| Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    Timestamps { last_access: spec(atime), last_modification: spec(mtime) }
}

/// The names in an open directory, without `.` and `..`, with the type the directory records.
pub fn entries(dir: BorrowedFd<'_>) -> Result<Vec<(OsString, Type)>> {
    let fresh =
        rustix::fs::openat(dir, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(call!("openat", dir, "."))?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::new(fresh).map_err(call!("fdopendir", dir))? {
        let entry = entry.map_err(call!("getdents64", dir))?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push((OsString::from_vec(name.to_vec()), Type::from(entry.file_type())));
        }
    }
    Ok(names)
}

/// The type of an entry as its directory records it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// A directory.
    Directory,
    /// Anything that is not a directory.
    Other,
    /// The file system does not record types: ask [`stat`].
    Unknown,
}

impl From<FileType> for Type {
    fn from(file_type: FileType) -> Self {
        match file_type {
            FileType::Directory => Self::Directory,
            FileType::Unknown => Self::Unknown,
            FileType::RegularFile
            | FileType::Symlink
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice => Self::Other,
        }
    }
}

/// A second descriptor of what is open as `fd`. `fcntl(F_DUPFD_CLOEXEC)`.
pub fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(fd, 3).map_err(call!("fcntl", fd, "F_DUPFD_CLOEXEC"))
}

/// Whether this process, with its effective ids, may execute the file `path`. `faccessat2(2)`, Linux 5.8.
pub fn may_execute(path: &Path) -> Result<()> {
    rustix::fs::accessat(rustix::fs::CWD, path, rustix::fs::Access::EXEC_OK, AtFlags::EACCESS).map_err(call!(
        "faccessat2",
        path,
        "X_OK"
    ))
}

/// Writes `dir`'s file system to disk. `syncfs(2)`.
pub fn sync_file_system(dir: BorrowedFd<'_>) -> Result<()> {
    rustix::fs::syncfs(dir).map_err(call!("syncfs", dir))
}
