//! The mounts of a container: each made detached, attached last, onto a target resolved under the root.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use sys::mount::bind::{self, Source};
use sys::mount::fstab::{self, Options};
use sys::mount::{self, Attributes, Change, Context};
use sys::path::{Access, Root, at};

use super::mountpoint::{self, plain_dir};
use super::{Init, InitError, Step, cgroup, copy_up};
use crate::create::plan::{Mount, MountKind, Plan};
use crate::talk::Word;

/// Mounts that later steps come back to.
#[derive(Debug, Default)]
pub(super) struct Mounted {
    dev: Option<OwnedFd>,
    terminals: Option<OwnedFd>,
    read_only: Vec<OwnedFd>,
}

impl Mounted {
    /// The container's own `/dev`, when it is a mount.
    pub(super) fn dev(&self) -> Option<BorrowedFd<'_>> {
        self.dev.as_ref().map(AsFd::as_fd)
    }

    /// The container's own devpts.
    pub(super) fn terminals(&self) -> Option<BorrowedFd<'_>> {
        self.terminals.as_ref().map(AsFd::as_fd)
    }

    /// Protects the file systems that had to be written to first.
    pub(super) fn make_read_only(&self) -> Result<(), InitError> {
        let change = Change { set: Attributes::RDONLY, ..Change::default() };
        self.read_only.iter().try_for_each(|tree| {
            mount::change(tree.as_fd(), change, false).step(|| "make a tmpfs read-only".into())
        })
    }
}

/// Makes every mount of the plan, in order.
pub(super) fn all(init: &Init<'_>, root: &Root) -> Result<Mounted, InitError> {
    let mut mounted = Mounted::default();
    for (index, wanted) in init.plan.mounts.iter().enumerate() {
        let asked;
        let ready = match init.trees.iter().find(|(made, _)| *made == index) {
            Some((_, tree)) => Some(tree),
            None if wanted.id_map.is_some() => {
                asked = ask(init, index)?;
                Some(&asked)
            }
            None => None,
        };
        let done = match wanted.kind {
            MountKind::Bind { recursive } => bind(init.plan, wanted, recursive, ready, root),
            MountKind::Cgroup => cgroup::mount(init, wanted, root),
            MountKind::FileSystem => file_system(init.plan, wanted, ready, root, &mut mounted),
        };
        done.map_err(|error| error.context(failed_mount(wanted)))?;
    }
    Ok(mounted)
}

/// Has the parent make the mount `index`, whose source the mounts before it may have made.
fn ask(init: &Init<'_>, index: usize) -> Result<OwnedFd, InitError> {
    let index = u32::try_from(index).map_err(|_| InitError::text_only("too many mounts"))?;
    init.talk.say(&Word::Tree(index)).step(|| "ask for a mount".into())?;
    init.talk.wait_for_tree().step(|| "wait for a mount".into())
}

/// Binds something of the host.
fn bind(
    plan: &Plan,
    wanted: &Mount,
    recursive: bool,
    ready: Option<&OwnedFd>,
    root: &Root,
) -> Result<(), InitError> {
    let source = source(plan);
    let made;
    let tree = match ready {
        Some(tree) => tree.as_fd(),
        None => {
            made = bind_tree(wanted, recursive, source).step(|| format!("bind {:?}", wanted.source))?;
            made.as_fd()
        }
    };
    let target = mountpoint::for_bind(wanted, tree, root)?;
    mount::attach(tree, target.as_fd()).step(|| "attach".into())?;
    bind::settle(tree, &wanted.options, source).step(|| "set attributes".into())
}

/// A detached copy of a bind's source with its attributes.
pub(crate) fn bind_tree(wanted: &Mount, recursive: bool, source: Source) -> Result<OwnedFd, sys::Error> {
    let tree = mount::copy(at::here(), &wanted.source, recursive)?;
    bind::prepare(tree.as_fd(), &wanted.options, source)?;
    Ok(tree)
}

/// Whether attributes of what is bound are locked: in a user namespace they are, whoever makes the bind.
pub(crate) fn source(plan: &Plan) -> Source {
    if plan.namespaces.has(sys::namespace::Kind::User) { Source::Locked } else { Source::Free }
}

/// What the failure to make a mount is told as.
pub(crate) fn failed_mount(wanted: &Mount) -> String {
    let (source, target) = (wanted.source.display(), wanted.target.display());
    format!("error mounting \"{source}\" to rootfs at \"{target}\"")
}

/// Mounts a file system of its own, which is `ready` where only another process could make it.
fn file_system(
    plan: &Plan,
    wanted: &Mount,
    ready: Option<&OwnedFd>,
    root: &Root,
    mounted: &mut Mounted,
) -> Result<(), InitError> {
    let kind = wanted.file_system.as_str();
    let mode = if kind == "tmpfs" { covered_mode(wanted, root) } else { None };
    // A linked /proc, /sys or /dev would lead what is written through it to a place of the image's choice.
    let target = if ["proc", "sysfs"].contains(&kind) || wanted.is_at("/dev") {
        let target = plain_dir(root, &wanted.target)?;
        mountpoint::check(wanted, target.as_fd(), root)?;
        target
    } else {
        mountpoint::directory(wanted, root)?
    };
    // A tmpfs is filled (devices, copies, mount points) before it is protected.
    let late = kind == "tmpfs" && wanted.options.set.contains(Attributes::RDONLY);
    let mut attributes = wanted.options.set;
    if late {
        attributes.0 &= !Attributes::RDONLY.0;
    }
    let made = match ready {
        Some(tree) => at::duplicate(tree.as_fd()).step(|| "dup".into()),
        None => detached(plan, wanted, attributes, mode),
    };
    let tree = match made {
        Err(error) if error.errno() == EPERM && kind == "sysfs" => host_sysfs(&wanted.options)?,
        done => done?,
    };
    if wanted.options.copy_up {
        copy_up::copy(target.as_fd(), tree.as_fd())?;
    }
    attach(tree.as_fd(), target.as_fd(), &wanted.options)?;
    if late {
        mounted.read_only.push(at::duplicate(tree.as_fd()).step(|| "dup".into())?);
    }
    match kind {
        "devpts" => mounted.terminals = Some(tree),
        _ if wanted.is_at("/dev") => mounted.dev = Some(tree),
        _ => {}
    }
    Ok(())
}

const EPERM: i32 = 1;

/// In a user namespace without a network namespace of its own sysfs cannot be mounted, but the host's can be bound.
fn host_sysfs(options: &Options) -> Result<OwnedFd, InitError> {
    let tree = mount::copy(at::here(), Path::new("/sys"), true).step(|| "bind /sys".into())?;
    let change = Change { set: options.set, ..Change::default() };
    mount::change(tree.as_fd(), change, true).step(|| "protect /sys".into())?;
    Ok(tree)
}

/// The mode of the directory that a tmpfs covers, which it takes unless its options have one.
fn covered_mode(wanted: &Mount, root: &Root) -> Option<String> {
    let covered = root.open(&wanted.target, Access::Handle).ok()?;
    let stat = at::stat_fd(covered.as_fd()).ok()?;
    Some(format!("{:o}", stat.mode & 0o7777))
}

/// Makes the file system, attached nowhere; a tmpfs with the mode `mode` when its options have none.
fn detached(
    plan: &Plan,
    wanted: &Mount,
    attributes: Attributes,
    mode: Option<String>,
) -> Result<OwnedFd, InitError> {
    let kind = wanted.file_system.as_str();
    let context = Context::open(kind).step(|| format!("file system {kind:?}"))?;
    let configure = || -> Result<(), sys::Error> {
        if !wanted.source.as_os_str().is_empty() {
            context.set("source", wanted.source.as_os_str())?;
        }
        if let Some(mode) = &mode {
            context.set("mode", mode.as_ref())?;
        }
        for option in &wanted.options.data {
            match option.split_once('=') {
                Some((key, value)) => context.set(key, value.as_ref())?,
                None => context.set_flag(option)?,
            }
        }
        if !plan.mount_label.is_empty() && !["proc", "sysfs", "mqueue"].contains(&kind) {
            context.set("context", plan.mount_label.as_ref())?;
        }
        Ok(())
    };
    configure().step(|| format!("options of {kind:?}"))?;
    let tree = context.mount(attributes).step(|| format!("mount {kind:?}"))?;
    let recursive = Options { set: Attributes::NONE, clear: Attributes::NONE, ..wanted.options.clone() };
    fstab::set_attributes(tree.as_fd(), &recursive).step(|| format!("attributes of {kind:?}"))?;
    Ok(tree)
}

/// Attaches a copy with the options' attributes.
pub(super) fn attach_copy(
    tree: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    options: &Options,
) -> Result<(), InitError> {
    fstab::prepare(tree, options).step(|| "set attributes".into())?;
    mount::attach(tree, target).step(|| "attach".into())?;
    fstab::settle(tree, options).step(|| "set attributes".into())
}

/// Attaches `tree`, whose attributes are set, and sets its propagation.
pub(super) fn attach(
    tree: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    options: &Options,
) -> Result<(), InitError> {
    mount::attach(tree, target).step(|| "attach".into())?;
    fstab::propagate(tree, options).step(|| "set propagation".into())
}
