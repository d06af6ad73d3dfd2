//! containerd's mounts: a type, a source and options as `mount(8)` and `fstab(5)` spell them.
//!
//! [`split`] is pure and shared by the snapshotters' mounts and a container's: it separates the options that the
//! kernel keeps per mount from those of the file system.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::mapped::Maps;
use super::{Attributes, Change, Context, Propagation, attach_at, change, classic, copy, sets_detached};
use crate::error::{Error, Result};
use crate::path::{Root, at, of_fd};

/// The longest option string `mount(2)` reads: one page, with its end.
const PAGE: usize = 4095;

/// The longest value `fsconfig(2)` reads.
const LONGEST_VALUE: usize = 255;

/// What a list of options asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Attributes of the mount to set.
    pub set: Attributes,
    /// Attributes of the mount to clear (`rw`, `suid`, ...).
    pub clear: Attributes,
    /// Attributes to set on the mount and all below it (`rro`, ...).
    pub recursive_set: Attributes,
    /// Attributes to clear on the mount and all below it (`rrw`, ...).
    pub recursive_clear: Attributes,
    /// Access time policy that was asked for (`relatime`, `noatime`, `strictatime`).
    pub atime: Option<Attributes>,
    /// Access time policies that were refused (`norelatime`, `atime`, `nostrictatime`).
    pub refused_atime: Vec<Attributes>,
    /// Propagation, and whether it holds for all below, in the order given.
    pub propagation: Vec<(Propagation, bool)>,
    /// `bind` (`Some(false)`) or `rbind` (`Some(true)`).
    pub bind: Option<bool>,
    /// `tmpcopyup`: fill a new tmpfs from what it covers.
    pub copy_up: bool,
    /// `idmap` (`Some(false)`) or `ridmap` (`Some(true)`).
    pub idmap: Option<bool>,
    /// Options of the file system itself, in order.
    pub data: Vec<String>,
}

/// Separates mount attributes from file system options.
pub fn split<S: AsRef<str>>(options: &[S]) -> Options {
    let mut out = Options::default();
    for option in options.iter().flat_map(|option| option.as_ref().split(',')) {
        if option.is_empty() || option == "defaults" || option == "remount" {
            continue;
        }
        if let Some((bits, mask, set)) = attribute(option) {
            apply(&mut out.set, &mut out.clear, bits, mask, set);
            access_time(&mut out, option);
        } else if let Some((bits, mask, set)) = option.strip_prefix('r').and_then(attribute) {
            apply(&mut out.recursive_set, &mut out.recursive_clear, bits, mask, set);
        } else if let Some(propagation) = propagation(option) {
            out.propagation.push(propagation);
        } else {
            match option {
                "bind" => out.bind = Some(false),
                "rbind" => out.bind = Some(true),
                "tmpcopyup" => out.copy_up = true,
                "idmap" => out.idmap = Some(false),
                "ridmap" => out.idmap = Some(true),
                data => out.data.push(data.to_owned()),
            }
        }
    }
    out
}

/// The later of two options wins; an access time policy also replaces the one before it.
fn apply(set: &mut Attributes, clear: &mut Attributes, bits: Attributes, mask: Attributes, on: bool) {
    set.0 &= !mask.0;
    clear.0 |= mask.0;
    if on {
        set.0 |= bits.0;
        if mask == bits {
            clear.0 &= !mask.0;
        }
    }
}

/// Records the policy of access times that `option` asks for or refuses; the later of two wins.
fn access_time(out: &mut Options, option: &str) {
    let (policy, wanted) = match option {
        "relatime" => (Attributes::RELATIME, true),
        "noatime" => (Attributes::NOATIME, true),
        "strictatime" => (Attributes::STRICTATIME, true),
        "norelatime" => (Attributes::RELATIME, false),
        "atime" => (Attributes::NOATIME, false),
        "nostrictatime" => (Attributes::STRICTATIME, false),
        _ => return,
    };
    out.refused_atime.retain(|refused| *refused != policy);
    if wanted {
        out.atime = Some(policy);
    } else {
        out.atime = out.atime.filter(|asked| *asked != policy);
        out.refused_atime.push(policy);
    }
}

/// The attribute an option names: its bits, the bits it replaces, and whether it sets or clears.
fn attribute(option: &str) -> Option<(Attributes, Attributes, bool)> {
    let set = |bits: Attributes| Some((bits, bits, true));
    let clear = |bits: Attributes| Some((bits, bits, false));
    let atime = |bits: Attributes| Some((bits, Attributes::ATIME, true));
    match option {
        "ro" => set(Attributes::RDONLY),
        "rw" => clear(Attributes::RDONLY),
        "nosuid" => set(Attributes::NOSUID),
        "suid" => clear(Attributes::NOSUID),
        "nodev" => set(Attributes::NODEV),
        "dev" => clear(Attributes::NODEV),
        "noexec" => set(Attributes::NOEXEC),
        "exec" => clear(Attributes::NOEXEC),
        "nodiratime" => set(Attributes::NODIRATIME),
        "diratime" => clear(Attributes::NODIRATIME),
        "nosymfollow" => set(Attributes::NOSYMFOLLOW),
        "symfollow" => clear(Attributes::NOSYMFOLLOW),
        "noatime" => atime(Attributes::NOATIME),
        "strictatime" => atime(Attributes::STRICTATIME),
        "relatime" | "atime" | "norelatime" | "nostrictatime" => atime(Attributes::RELATIME),
        _ => None,
    }
}

fn propagation(option: &str) -> Option<(Propagation, bool)> {
    Some(match option {
        "private" => (Propagation::Private, false),
        "rprivate" => (Propagation::Private, true),
        "shared" => (Propagation::Shared, false),
        "rshared" => (Propagation::Shared, true),
        "slave" => (Propagation::Slave, false),
        "rslave" => (Propagation::Slave, true),
        "unbindable" => (Propagation::Unbindable, false),
        "runbindable" => (Propagation::Unbindable, true),
        _ => return None,
    })
}

/// Mounts `source` of the file system `name` onto the trusted path `target`, as containerd's `mount.All` does for one.
pub fn mount<S: AsRef<str>>(name: &str, source: &OsStr, options: &[S], target: &Path) -> Result<()> {
    let (maps, rest) = Maps::take(options)?;
    let options = split(&rest);
    let tree = match options.bind {
        _ if maps.is_some() => detached_mapped(name, source, &rest, maps)?,
        Some(recursive) => bind(source, recursive, &options)?,
        None if name == "bind" || name == "rbind" => bind(source, name == "rbind", &options)?,
        None if data_length(&options) > PAGE => detached_long(name, source, &options)?,
        None => return classic_mount(name, source, &options, target),
    };
    attach_at(tree.as_fd(), target)?;
    settle(tree.as_fd(), &options)
}

/// The same mount, attached nowhere: its tree is reached through the descriptor only and goes with it.
///
/// Linux 5.2; an overlay needs 6.8 for `lowerdir+`.
pub fn detached<S: AsRef<str>>(name: &str, source: &OsStr, options: &[S]) -> Result<OwnedFd> {
    let (maps, rest) = Maps::take(options)?;
    if maps.is_some() {
        return detached_mapped(name, source, &rest, maps);
    }
    let options = split(&rest);
    match options.bind {
        Some(recursive) => bind(source, recursive, &options),
        None if name == "bind" || name == "rbind" => bind(source, name == "rbind", &options),
        None => detached_long(name, source, &options),
    }
}

fn detached_mapped(name: &str, source: &OsStr, options: &[&str], maps: Option<Maps>) -> Result<OwnedFd> {
    match maps {
        Some(maps) => maps.mount(name, source, options),
        None => detached(name, source, options),
    }
}

/// A detached copy of `source` with the options' attributes.
fn bind(source: &OsStr, recursive: bool, options: &Options) -> Result<OwnedFd> {
    let tree = copy(at::here(), Path::new(source), recursive)?;
    prepare(tree.as_fd(), options)?;
    Ok(tree)
}

/// Applies the options' attributes to a mount that is not attached yet, on kernels that can.
pub fn prepare(mount: BorrowedFd<'_>, options: &Options) -> Result<()> {
    if sets_detached() { set_attributes(mount, options) } else { Ok(()) }
}

/// What is left after a mount was attached: attributes that could not be set before, and its propagation.
pub fn settle(mount: BorrowedFd<'_>, options: &Options) -> Result<()> {
    if !sets_detached() {
        set_attributes(mount, options)?;
    }
    propagate(mount, options)
}

/// Applies per-mount attributes to a mount: those of itself, then the recursive ones.
pub fn set_attributes(mount: BorrowedFd<'_>, options: &Options) -> Result<()> {
    let wanted =
        [(options.set, options.clear, false), (options.recursive_set, options.recursive_clear, true)];
    for (set, clear, recursive) in wanted {
        if set != Attributes::NONE || clear != Attributes::NONE {
            change(mount, Change { set, clear, ..Change::default() }, recursive)?;
        }
    }
    Ok(())
}

/// Applies the options' propagation to an attached mount.
pub fn propagate(mount: BorrowedFd<'_>, options: &Options) -> Result<()> {
    for &(propagation, recursive) in &options.propagation {
        change(mount, Change { propagation: Some(propagation), ..Change::default() }, recursive)?;
    }
    Ok(())
}

/// One `mount(2)`: for most file systems one call does it all.
fn classic_mount(name: &str, source: &OsStr, options: &Options, target: &Path) -> Result<()> {
    let flags = classic_flags(options.set);
    classic(source, target, name, flags, &OsString::from(options.data.join(",")))?;
    if options.propagation.is_empty() {
        return Ok(());
    }
    let root = Root::open_dir(target)?;
    propagate(root.as_fd(), options)
}

/// `mount_setattr(2)`'s bits in the numbers of `mount(2)`.
pub(super) fn classic_flags(set: Attributes) -> u64 {
    [
        (Attributes::RDONLY, libc::MS_RDONLY),
        (Attributes::NOSUID, libc::MS_NOSUID),
        (Attributes::NODEV, libc::MS_NODEV),
        (Attributes::NOEXEC, libc::MS_NOEXEC),
        (Attributes::NOATIME, libc::MS_NOATIME),
        (Attributes::STRICTATIME, libc::MS_STRICTATIME),
        (Attributes::NODIRATIME, libc::MS_NODIRATIME),
        (Attributes::NOSYMFOLLOW, 256),
    ]
    .into_iter()
    .filter(|(bit, _)| set.contains(*bit))
    .fold(0, |flags, (_, flag)| flags | flag)
}

fn data_length(options: &Options) -> usize {
    options.data.iter().map(|option| option.len() + 1).sum()
}

/// A mount whose options do not fit into a page: an overlay of many layers.
///
/// Each layer is set by itself (`lowerdir+`, Linux 6.8). Values too long for `fsconfig(2)` are opened and named through
/// `/proc/self/fd`, which the kernel resolves at once.
fn detached_long(name: &str, source: &OsStr, options: &Options) -> Result<OwnedFd> {
    let context = Context::open(name)?;
    let mut held = Vec::new();
    if !source.is_empty() {
        context.set("source", source)?;
    }
    for option in &options.data {
        match option.split_once('=') {
            None => context.set_flag(option)?,
            Some(("lowerdir", layers)) => {
                for layer in layers.split(':') {
                    context.set("lowerdir+", &short(layer, &mut held)?)?;
                }
            }
            Some((key, value)) if value.len() > LONGEST_VALUE => {
                context.set(key, &short(value, &mut held)?)?
            }
            Some((key, value)) => context.set(key, OsStr::new(value))?,
        }
    }
    context.mount(options.set)
}

/// `path`, or a short name for it that holds as long as `held` does.
fn short(path: &str, held: &mut Vec<Root>) -> Result<OsString> {
    if path.len() <= LONGEST_VALUE {
        return Ok(path.into());
    }
    let root = Root::open_dir(Path::new(path))?;
    let name = of_fd(root.as_fd()).into_os_string();
    held.push(root);
    Ok(name)
}

/// Mounts onto a target below `root`: like [`mount`], with the target resolved under a hostile root.
pub fn mount_below<S: AsRef<str>>(
    root: &Root,
    name: &str,
    source: &OsStr,
    options: &[S],
    target: &Path,
) -> Result<()> {
    let target = root.open(target, crate::path::Access::Handle)?;
    if source.as_bytes().contains(&0) {
        return Err(Error::new(libc::EINVAL, format!("mount({source:?})")));
    }
    mount(name, source, options, &of_fd(target.as_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_sorted_by_who_keeps_them() {
        let options = split(&["ro,nosuid", "rbind", "rro", "rslave", "size=1m", "mode=755"]);
        assert_eq!(options.set, Attributes::RDONLY | Attributes::NOSUID);
        assert_eq!(options.bind, Some(true));
        assert_eq!(options.recursive_set, Attributes::RDONLY);
        assert_eq!(options.propagation, vec![(Propagation::Slave, true)]);
        assert_eq!(options.data, ["size=1m", "mode=755"]);
    }

    #[test]
    fn the_later_option_wins() {
        let options = split(&["ro", "rw", "noatime", "strictatime"]);
        assert_eq!(options.set, Attributes::STRICTATIME);
        assert!(options.clear.contains(Attributes::RDONLY));
        assert!(options.clear.contains(Attributes::ATIME));
        assert_eq!(split(&["rw", "ro"]).clear, Attributes::NONE);
    }

    #[test]
    fn words_that_begin_with_r_are_not_recursive_forms() {
        let options = split(&["relatime", "rw", "redirect_dir=off"]);
        assert_eq!(options.recursive_clear, Attributes::NONE);
        assert_eq!(options.data, ["redirect_dir=off"]);
    }

    #[test]
    fn a_tmpfs_and_a_bind_come_and_go() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIP a_tmpfs_and_a_bind_come_and_go: not root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::create_dir(&from).unwrap();
        std::fs::create_dir(&to).unwrap();
        mount("tmpfs", OsStr::new("tmpfs"), &["size=64k", "noexec"], &from).unwrap();
        std::fs::write(from.join("file"), "x").unwrap();
        mount("", from.as_os_str(), &["bind", "ro"], &to).unwrap();
        assert!(to.join("file").exists());
        assert!(std::fs::write(to.join("other"), "x").is_err());
        super::super::unmount(&to).unwrap();
        super::super::unmount_all(&from).unwrap();
        super::super::unmount_all(&from).unwrap();
        assert!(!from.join("file").exists());
    }

    #[test]
    fn an_overlay_of_many_layers_mounts() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIP an_overlay_of_many_layers_mounts: not root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let long = "l".repeat(200);
        let mut layers = Vec::new();
        for number in 0..40 {
            let layer = dir.path().join(format!("{long}{number}"));
            std::fs::create_dir(&layer).unwrap();
            std::fs::write(layer.join(format!("file{number}")), "x").unwrap();
            layers.push(layer.display().to_string());
        }
        let target = dir.path().join("target");
        std::fs::create_dir(&target).unwrap();
        let lower = format!("lowerdir={}", layers.join(":"));
        mount("overlay", OsStr::new("overlay"), &[lower], &target).unwrap();
        let names = std::fs::read_dir(&target).unwrap().count();
        super::super::unmount(&target).unwrap();
        assert_eq!(names, 40);
    }

    #[test]
    fn a_kernel_without_mount_setattr_binds_read_only() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIP a_kernel_without_mount_setattr_binds_read_only: not root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::create_dir(&from).unwrap();
        std::fs::create_dir(&to).unwrap();
        // A thread of its own takes the filter with it when it ends; the answer it gets is remembered by nobody else,
        // because nextest gives every test a process.
        let thread = std::thread::spawn({
            let (from, to) = (from.clone(), to.clone());
            move || {
                without_mount_setattr();
                mount("", from.as_os_str(), &["bind", "ro", "nosuid"], &to)
            }
        });
        thread.join().unwrap().unwrap();
        let refused = std::fs::write(to.join("file"), "x").is_err();
        let table = super::super::table::read().unwrap();
        super::super::unmount(&to).unwrap();
        assert!(refused);
        let entry = table.iter().find(|entry| entry.target == to).unwrap();
        assert!(entry.options.starts_with("ro,nosuid"), "{}", entry.options);
    }

    /// From now on this thread's kernel is one of 5.11.
    fn without_mount_setattr() {
        use crate::seccomp::{Instruction, install};
        let code = |code, jt, jf, k| Instruction { code, jt, jf, k };
        let number = u32::try_from(libc::SYS_mount_setattr).unwrap();
        let enosys = 0x0005_0000 | u32::try_from(libc::ENOSYS).unwrap();
        let filter = [
            code(0x20, 0, 0, 0),
            code(0x15, 0, 1, number),
            code(0x06, 0, 0, enosys),
            code(0x06, 0, 0, 0x7fff_0000),
        ];
        install(&filter, 0).unwrap();
    }
}
