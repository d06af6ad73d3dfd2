//! Mounts, made and moved by descriptor (`fsopen(2)` and its family, Linux 5.2; `mount_setattr(2)`, Linux 5.12).
//!
//! A mount is made detached, given its attributes, and attached last, so nobody ever sees it half made and no path is
//! looked up twice. [`fstab`] turns containerd's (type, source, options) into such calls.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

use crate::error::{Error, Result, call, check, last_errno};

pub mod bind;
pub mod fstab;
pub mod mapped;
pub mod table;

/// Attributes of one mount, as `mount_setattr(2)` numbers them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Attributes(pub u64);

impl Attributes {
    /// None.
    pub const NONE: Self = Self(0);
    /// Read only.
    pub const RDONLY: Self = Self(0x1);
    /// Set-user-id bits and file capabilities are ignored.
    pub const NOSUID: Self = Self(0x2);
    /// Device nodes do not open.
    pub const NODEV: Self = Self(0x4);
    /// Programs do not execute.
    pub const NOEXEC: Self = Self(0x8);
    /// The bits that hold the access time policy; clear these when setting one of the three below.
    pub const ATIME: Self = Self(0x70);
    /// Access times follow modification (the kernel's default; the value of the field is zero).
    pub const RELATIME: Self = Self(0);
    /// Access times are never written.
    pub const NOATIME: Self = Self(0x10);
    /// Access times are always written.
    pub const STRICTATIME: Self = Self(0x20);
    /// Access times of directories are never written.
    pub const NODIRATIME: Self = Self(0x80);
    /// Owners are mapped through a user namespace.
    pub const IDMAP: Self = Self(0x10_0000);
    /// Links are not followed.
    pub const NOSYMFOLLOW: Self = Self(0x20_0000);

    /// Whether all of `other` is in here.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for Attributes {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::ops::BitOrAssign for Attributes {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// Where events below a mount go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Propagation {
    /// Nowhere.
    Private,
    /// To and from its peers.
    Shared,
    /// From its masters only.
    Slave,
    /// Nowhere, and it cannot be bound.
    Unbindable,
}

impl Propagation {
    fn bits(self) -> u64 {
        match self {
            Self::Private => libc::MS_PRIVATE,
            Self::Shared => libc::MS_SHARED,
            Self::Slave => libc::MS_SLAVE,
            Self::Unbindable => libc::MS_UNBINDABLE,
        }
    }
}

/// What [`change`] changes of a mount.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change<'a> {
    /// Attributes to set.
    pub set: Attributes,
    /// Attributes to clear first.
    pub clear: Attributes,
    /// Propagation, when it changes.
    pub propagation: Option<Propagation>,
    /// The user namespace of [`Attributes::IDMAP`].
    pub user_ns: Option<BorrowedFd<'a>>,
}

/// `struct mount_attr` of the kernel, its first version.
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Changes the attributes of the mount whose root is open as `mount`, and of those below it when `recursive`.
///
/// `mount_setattr(2)`, Linux 5.12. Before, only an attached mount can change, through `mount(2)` and `/proc/self/fd`;
/// a detached one, attributes of all below, and shifted owners are `ENOSYS` there. See [`sets_detached`].
pub fn change(mount: BorrowedFd<'_>, change: Change<'_>, recursive: bool) -> Result<()> {
    let call = || format!("mount_setattr({mount:?}, {change:?}, recursive: {recursive})");
    let attr = MountAttr {
        attr_set: change.set.0,
        attr_clr: change.clear.0,
        propagation: change.propagation.map_or(0, Propagation::bits),
        userns_fd: change.user_ns.map_or(0, |fd| u64::try_from(fd.as_raw_fd()).unwrap_or(0)),
    };
    match check(set_attr(mount.as_raw_fd(), &attr, recursive), call) {
        Err(error) if error.is(libc::ENOSYS) => change_attached(mount, change, recursive)
            .map_err(|late| if late.is(libc::EINVAL) { error } else { late }),
        done => done.map(|_| ()),
    }
}

fn set_attr(mount: i32, attr: &MountAttr, recursive: bool) -> libc::c_long {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: mount_setattr(2) reads a C string and `size` bytes of a mount_attr; both outlive the call, the size is
    // that of the struct, and nothing is written.
    unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount,
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    }
}

/// Whether this kernel changes attributes of mounts that are not attached yet: it has `mount_setattr(2)`.
pub fn sets_detached() -> bool {
    static MISSING: AtomicBool = AtomicBool::new(false);
    if MISSING.load(Ordering::Relaxed) {
        return false;
    }
    // A bad descriptor is refused by a kernel that knows the call; one that does not never looks at it.
    let attr = MountAttr { attr_set: 0, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let missing = set_attr(-1, &attr, false) < 0 && last_errno() == libc::ENOSYS;
    MISSING.store(missing, Ordering::Relaxed);
    !missing
}

/// [`change`] for kernels without its call: a remount of a mount that is attached.
fn change_attached(mount: BorrowedFd<'_>, change: Change<'_>, recursive: bool) -> Result<()> {
    let path = crate::path::of_fd(mount);
    if let Some(propagation) = change.propagation {
        propagate_path(&path, propagation, recursive)?;
    }
    if change.set == Attributes::NONE && change.clear == Attributes::NONE {
        return Ok(());
    }
    if recursive || change.user_ns.is_some() {
        return Err(Error::new(libc::ENOSYS, format!("mount_setattr({change:?}, recursive: {recursive})")));
    }
    let now = attributes(mount)?;
    let bits = Attributes(now.0 & !change.clear.0 | change.set.0);
    let flags = libc::MS_REMOUNT | libc::MS_BIND | fstab::classic_flags(bits);
    classic(OsStr::new(""), &path, "", flags, OsStr::new(""))
}

/// Attributes of the mount that holds the object open as `fd`. `fstatfs(2)`.
///
/// [`Attributes::RDONLY`] is also there when only the file system is read-only.
pub fn attributes(fd: BorrowedFd<'_>) -> Result<Attributes> {
    const RELATIME: u64 = 0x1000;
    let flags = rustix::fs::fstatvfs(fd).map_err(call!("fstatvfs", fd))?.f_flag.bits();
    // statvfs(3) and mount_setattr(2) agree on the first four bits.
    let mut bits = flags & 0xf;
    let others =
        [(0x400, Attributes::NOATIME), (0x800, Attributes::NODIRATIME), (0x2000, Attributes::NOSYMFOLLOW)];
    for (theirs, ours) in others {
        bits |= if flags & theirs != 0 { ours.0 } else { 0 };
    }
    if flags & RELATIME == 0 && bits & Attributes::NOATIME.0 == 0 {
        bits |= Attributes::STRICTATIME.0;
    }
    Ok(Attributes(bits))
}

/// A file system being configured (`fsopen(2)`).
#[derive(Debug)]
pub struct Context {
    fd: OwnedFd,
    name: Box<str>,
}

impl Context {
    /// Begins a file system of the type `name`.
    pub fn open(name: &str) -> Result<Self> {
        let fd = rustix::mount::fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC).map_err(call!("fsopen", name))?;
        Ok(Self { fd, name: name.into() })
    }

    /// Sets `key` to `value` (at most 255 bytes).
    pub fn set(&self, key: &str, value: &OsStr) -> Result<()> {
        rustix::mount::fsconfig_set_string(&self.fd, key, value)
            .map_err(|errno| self.explain(call!("fsconfig", self.name, key, value)(errno)))
    }

    /// Sets the flag `key`.
    pub fn set_flag(&self, key: &str) -> Result<()> {
        rustix::mount::fsconfig_set_flag(&self.fd, key)
            .map_err(|errno| self.explain(call!("fsconfig", self.name, key)(errno)))
    }

    /// Makes the file system and returns its detached mount.
    pub fn mount(&self, attributes: Attributes) -> Result<OwnedFd> {
        rustix::mount::fsconfig_create(&self.fd)
            .map_err(|errno| self.explain(call!("fsconfig", self.name, "create")(errno)))?;
        let flags = MountAttrFlags::from_bits_retain(attributes.0 as u32);
        rustix::mount::fsmount(&self.fd, FsMountFlags::FSMOUNT_CLOEXEC, flags)
            .map_err(|errno| self.explain(call!("fsmount", self.name, attributes)(errno)))
    }

    /// Adds what the kernel logged into the context; reading it also empties it.
    fn explain(&self, error: Error) -> Error {
        let mut buffer = [0u8; 512];
        let Ok(length) = rustix::io::read(&self.fd, &mut buffer) else { return error };
        error.note(String::from_utf8_lossy(&buffer[..length]).trim().to_owned())
    }
}

/// Copies the mount at `path` in `dir` as a detached mount, with all mounts below it when `recursive`.
///
/// `open_tree(2)`, Linux 5.2. `path` is followed as the system does, so it must be trusted; use [`copy_fd`] otherwise.
pub fn copy(dir: BorrowedFd<'_>, path: &Path, recursive: bool) -> Result<OwnedFd> {
    let flags = tree_flags(recursive);
    rustix::mount::open_tree(dir, path, flags).map_err(call!("open_tree", dir, path, flags))
}

/// Copies the mount that holds the object open as `fd`, seen from that object, as a detached mount.
pub fn copy_fd(fd: BorrowedFd<'_>, recursive: bool) -> Result<OwnedFd> {
    let flags = tree_flags(recursive) | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(fd, c"", flags).map_err(call!("open_tree", fd, flags))
}

fn tree_flags(recursive: bool) -> OpenTreeFlags {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive { flags | OpenTreeFlags::AT_RECURSIVE } else { flags }
}

/// Attaches the detached mount `tree` onto the object open as `target`.
///
/// `move_mount(2)`, Linux 5.2. Both sides are descriptors, so renaming a parent between check and call changes nothing.
pub fn attach(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(tree, c"", target, c"", flags).map_err(call!("move_mount", tree, target))
}

/// Attaches the detached mount `tree` onto the trusted path `target`.
pub fn attach_at(tree: BorrowedFd<'_>, target: &Path) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
    rustix::mount::move_mount(tree, c"", rustix::fs::CWD, target, flags).map_err(call!(
        "move_mount",
        tree,
        target
    ))
}

/// Makes the current directory the root, with the old root stacked on top of it. `pivot_root(".", ".")`.
///
/// Follow it with [`drop_old_root`].
pub fn pivot_here() -> Result<()> {
    rustix::process::pivot_root(c".", c".").map_err(call!("pivot_root", ".", "."))
}

/// Takes the old root, which [`pivot_here`] left stacked on the current directory, away from this namespace.
pub fn drop_old_root() -> Result<()> {
    rustix::mount::unmount(c".", UnmountFlags::DETACH).map_err(call!("umount2", ".", "MNT_DETACH"))
}

/// Moves the mount at the current directory onto `/` (for a root that cannot be pivoted, such as initramfs).
pub fn move_here_to_root() -> Result<()> {
    rustix::mount::mount_move(c".", c"/").map_err(call!("mount", ".", "/", "MS_MOVE"))
}

/// Changes the propagation of every mount of this namespace. `mount(2)` on `/`.
pub fn propagate_all(propagation: Propagation) -> Result<()> {
    propagate_path(Path::new("/"), propagation, true)
}

/// Changes the propagation of the mount at the trusted `path`, and of those below it when `recursive`.
pub fn propagate_path(path: &Path, propagation: Propagation, recursive: bool) -> Result<()> {
    use rustix::mount::MountPropagationFlags as Flags;
    let flags = match propagation {
        Propagation::Private => Flags::PRIVATE,
        Propagation::Shared => Flags::SHARED,
        Propagation::Slave => Flags::DOWNSTREAM,
        Propagation::Unbindable => Flags::UNBINDABLE,
    };
    let flags = if recursive { flags | Flags::REC } else { flags };
    rustix::mount::mount_change(path, flags).map_err(call!("mount", path, flags))
}

/// Detaches the mount at the trusted `path`, busy or not; the path's last link is not followed. `umount2(2)`.
pub fn detach(path: &Path) -> Result<()> {
    let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
    rustix::mount::unmount(path, flags).map_err(call!("umount2", path, flags))
}

/// Unmounts the trusted `path`; fails with `EBUSY` while it is in use. `umount2(2)`.
pub fn unmount(path: &Path) -> Result<()> {
    rustix::mount::unmount(path, UnmountFlags::NOFOLLOW).map_err(call!("umount2", path, "UMOUNT_NOFOLLOW"))
}

/// Unmounts everything stacked on the trusted `path`. A path on which nothing is mounted, or that is absent, is success.
pub fn unmount_all(path: &Path) -> Result<()> {
    loop {
        match detach(path) {
            Ok(()) => {}
            Err(error) if error.is(libc::EINVAL) || error.is(libc::ENOENT) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// The classic `mount(2)`, for what the descriptor calls cannot say. `data` is the comma list of the file system.
pub(crate) fn classic(source: &OsStr, target: &Path, name: &str, flags: u64, data: &OsStr) -> Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let flags_typed = MountFlags::from_bits_retain(flags as u32);
    let data = std::ffi::CString::new(data.as_bytes())
        .map_err(|_| Error::new(libc::EINVAL, format!("mount({source:?}, {target:?}, {name})")))?;
    rustix::mount::mount(source, target, name, flags_typed, data.as_c_str()).map_err(call!(
        "mount",
        source,
        target,
        name,
        flags_typed,
        data
    ))
}

/// How large a file system is and how much of it can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes in all.
    pub size: u64,
    /// Inodes that are free.
    pub free_inodes: u64,
}

/// The space of the file system that `path` is on. `statvfs(3)`.
pub fn space(path: &Path) -> Result<Space> {
    let found = rustix::fs::statvfs(path).map_err(call!("statvfs", path))?;
    Ok(Space { size: found.f_blocks.saturating_mul(found.f_frsize), free_inodes: found.f_ffree })
}

/// The magic number of the file system that holds the object open as `fd`. `fstatfs(2)`.
pub fn file_system_magic(fd: BorrowedFd<'_>) -> Result<u64> {
    let stat = rustix::fs::fstatfs(fd.as_fd()).map_err(call!("fstatfs", fd))?;
    Ok(stat.f_type as u64)
}

/// `f_type` of procfs.
pub const PROC_MAGIC: u64 = 0x9fa0;
/// `f_type` of sysfs.
pub const SYSFS_MAGIC: u64 = 0x6265_6572;
/// `f_type` of cgroup2.
pub const CGROUP2_MAGIC: u64 = 0x6367_7270;
/// `f_type` of overlayfs.
pub const OVERLAY_MAGIC: u64 = 0x794c_7630;
