//! The container's own cgroups, shown at a mount of type `cgroup`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use sys::mount::fstab::Options;
use sys::mount::{self, Attributes, Change, Context};
use sys::namespace::Kind;
use sys::path::{Root, at};

use super::mount::{attach, attach_copy};
use super::{Init, InitError, Step, mountpoint};
use crate::cgroup::UNIFIED;
use crate::create::plan::Mount;

/// Where cgroup file systems are mounted on the host.
const HOST: &str = "/sys/fs/cgroup";

/// Mounts the container's cgroups: one tree on v2, a tmpfs with one directory a hierarchy on v1 and hybrid.
pub(super) fn mount(init: &Init<'_>, wanted: &Mount, root: &Root) -> Result<(), InitError> {
    let target = mountpoint::directory(wanted, root)?;
    let own_ns = init.plan.namespaces.has(Kind::Cgroup);
    if init.cgroup.is_v2() {
        let Some(path) = init.cgroup.path(UNIFIED) else { return Ok(()) };
        let (attributes, names) = (wanted.options.set, [UNIFIED.to_owned()]);
        return hierarchy(own_ns, &names, path, attributes, target.as_fd(), &wanted.options);
    }
    let context = Context::open("tmpfs").step(|| "file system tmpfs".into())?;
    context.set("mode", OsStr::new("755")).step(|| "options of tmpfs".into())?;
    context.set("source", OsStr::new("tmpfs")).step(|| "options of tmpfs".into())?;
    let mut attributes = wanted.options.set;
    attributes.0 &= !Attributes::RDONLY.0;
    let tmpfs = context.mount(attributes).step(|| "mount tmpfs".into())?;
    attach(tmpfs.as_fd(), target.as_fd(), &wanted.options)?;
    fill(init, wanted, tmpfs.as_fd(), own_ns)?;
    if wanted.options.set.contains(Attributes::RDONLY) {
        let change = Change { set: Attributes::RDONLY, ..Change::default() };
        mount::change(tmpfs.as_fd(), change, false).step(|| "protect tmpfs".into())?;
    }
    Ok(())
}

/// One directory a hierarchy, and a link for each controller that shares one.
fn fill(init: &Init<'_>, wanted: &Mount, tmpfs: BorrowedFd<'_>, own_ns: bool) -> Result<(), InitError> {
    let mut hierarchies: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
    for (name, path) in init.cgroup.paths() {
        hierarchies.entry(path.clone()).or_default().push(name.clone());
    }
    for (path, names) in hierarchies {
        let Some(dir) = path.strip_prefix(HOST).ok().and_then(|rest| rest.components().next()) else {
            continue;
        };
        let dir = dir.as_os_str();
        at::make_dir(tmpfs, dir, 0o755).step(|| format!("make {dir:?}"))?;
        let below = at::open(tmpfs, dir, O_PATH, 0).step(|| format!("open {dir:?}"))?;
        hierarchy(own_ns, &names, &path, wanted.options.set, below.as_fd(), &Options::default())?;
        for name in names.iter().filter(|name| OsStr::new(name) != dir && is_controller(name)) {
            at::make_link(Path::new(dir), tmpfs, OsStr::new(name)).step(|| format!("link {name:?}"))?;
        }
    }
    Ok(())
}

const O_PATH: i32 = 0o10_000_000;

fn is_controller(name: &str) -> bool {
    name != UNIFIED && !name.contains('=')
}

/// Attaches one hierarchy: mounted anew where a cgroup namespace makes the container's directory its root, else that directory
/// bound.
fn hierarchy(
    own_ns: bool,
    names: &[String],
    path: &Path,
    attributes: Attributes,
    target: BorrowedFd<'_>,
    propagation: &Options,
) -> Result<(), InitError> {
    if own_ns && let Ok(tree) = fresh(names, attributes) {
        return attach(tree.as_fd(), target, propagation);
    }
    let tree = mount::copy(at::here(), path, false).step(|| format!("bind {path:?}"))?;
    let clear = if attributes.0 & Attributes::ATIME.0 == 0 { Attributes::NONE } else { Attributes::ATIME };
    attach_copy(tree.as_fd(), target, &Options { set: attributes, clear, ..propagation.clone() })
}

fn fresh(names: &[String], attributes: Attributes) -> Result<OwnedFd, sys::Error> {
    let unified = names.iter().any(|name| name == UNIFIED);
    let context = Context::open(if unified { "cgroup2" } else { "cgroup" })?;
    context.set("source", OsStr::new("cgroup"))?;
    for name in names.iter().filter(|name| *name != UNIFIED) {
        match name.strip_prefix("name=") {
            Some(label) => {
                context.set_flag("none")?;
                context.set("name", OsStr::new(label))?;
            }
            None => context.set_flag(name)?,
        }
    }
    context.mount(attributes)
}
