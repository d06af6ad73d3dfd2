//! Mounts that init cannot make from inside a user namespace: binds of the host, and those with shifted owners.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use sys::mount::{self, Attributes, Change};
use sys::namespace::{self, Kind};
use sys::process::{self, Clone3, Fork};

use super::parent::write_maps;
use super::plan::{IdMap, Mount, MountKind, Owners, Plan};
use super::{CreateError, reap};
use crate::init;

/// The mounts of the plan that the parent makes, detached, by their index.
pub(super) fn trees(plan: &Plan) -> Result<Vec<(usize, OwnedFd)>, CreateError> {
    // In a user namespace the source may be out of reach (a 0700 directory of the host's root).
    let in_user_ns = plan.namespaces.has(Kind::User);
    let mut trees = Vec::new();
    for (index, wanted) in plan.mounts.iter().enumerate() {
        let MountKind::Bind { recursive } = wanted.kind else { continue };
        if !in_user_ns && wanted.id_map.is_none() || is_late(plan, wanted) {
            continue;
        }
        match tree(plan, wanted, recursive) {
            // A user has no rights over the host's mounts; init has some over its copy of them.
            Err(error) if error.is(EPERM) && wanted.id_map.is_none() => {}
            made => trees.push((index, made.map_err(|error| failed(wanted, &error))?)),
        }
    }
    Ok(trees)
}

fn tree(plan: &Plan, wanted: &Mount, recursive: bool) -> Result<OwnedFd, sys::Error> {
    let tree = init::bind_tree(wanted, recursive, init::source(plan))?;
    if let Some(id_map) = &wanted.id_map {
        shift(&tree, id_map)?;
    }
    Ok(tree)
}

fn failed(wanted: &Mount, error: &sys::Error) -> CreateError {
    CreateError::Init { errno: error.errno(), text: format!("{}: {error}", init::failed_mount(wanted)) }
}

/// Whether the source may be made by mounts before it: it lies in the container's root file system.
fn is_late(plan: &Plan, wanted: &Mount) -> bool {
    sys::path::clean(&wanted.source).starts_with(sys::path::clean(&plan.rootfs))
}

/// How many mounts init asks for when their turn comes; what needs no shifted owners it makes itself then.
pub(super) fn late(plan: &Plan) -> usize {
    let is_asked_for = |wanted: &&Mount| wanted.id_map.is_some() && is_late(plan, wanted);
    plan.mounts.iter().filter(is_asked_for).count()
}

/// The mount `index` of the plan, which init, the process `pidfd`, asks for: made by a child that looks at the source in
/// init's mount namespace with the parent's rights. The container does not see that child, and cannot stop it.
pub(super) fn late_tree(plan: &Plan, index: u32, pidfd: BorrowedFd<'_>) -> Result<OwnedFd, CreateError> {
    let wanted = usize::try_from(index).ok().and_then(|index| plan.mounts.get(index));
    let Some(wanted) = wanted.filter(|wanted| wanted.id_map.is_some() && is_late(plan, wanted)) else {
        return Err(CreateError::Unexpected("tree"));
    };
    let recursive = wanted.kind == MountKind::Bind { recursive: true };
    made_inside(pidfd, || tree(plan, wanted, recursive)).map_err(|error| failed(wanted, &error))
}

/// What `make` makes in the mount namespace of the process `pidfd`.
fn made_inside(
    pidfd: BorrowedFd<'_>,
    make: impl FnOnce() -> Result<OwnedFd, sys::Error>,
) -> Result<OwnedFd, sys::Error> {
    let (ours, theirs) = sys::socket::message_pair()?;
    match process::fork(&Clone3::default())? {
        Fork::Child => {
            drop(ours);
            let made = namespace::join_process(pidfd, Kind::Mount.flag()).and_then(|()| make());
            // The parent takes silence for a failure.
            let _ = match made {
                Ok(tree) => sys::socket::send(theirs.as_fd(), &0i32.to_ne_bytes(), &[tree.as_fd()]),
                Err(error) => sys::socket::send(theirs.as_fd(), &error.errno().to_ne_bytes(), &[]),
            };
            process::exit_now(0)
        }
        Fork::Parent { pidfd, .. } => {
            drop(theirs);
            let mut errno = EINVAL.to_ne_bytes();
            let received = match process::readable(ours.as_fd(), TREE_TIMEOUT) {
                Ok(true) => sys::socket::receive(ours.as_fd(), &mut errno).map(|(_, fds)| fds),
                Ok(false) => Err(sys::Error::new(ETIMEDOUT, "open_tree")),
                Err(error) => Err(error),
            };
            let _ = process::signal(pidfd.as_fd(), SIGKILL);
            reap(pidfd.as_fd());
            let failed = || sys::Error::new(i32::from_ne_bytes(errno), "open_tree");
            received?.into_iter().next().ok_or_else(failed)
        }
    }
}

/// How long the making of one mount may take: its source can be on a slow disk.
const TREE_TIMEOUT: Duration = Duration::from_secs(30);
const SIGKILL: i32 = 9;
const EPERM: i32 = 1;
const EINVAL: i32 = 22;
const ETIMEDOUT: i32 = 110;

/// Shifts the owners of a detached mount. Linux 5.12, and a file system that knows how.
fn shift(tree: &OwnedFd, id_map: &IdMap) -> Result<(), sys::Error> {
    let user_ns = user_namespace(id_map)?;
    let change = Change { set: Attributes::IDMAP, user_ns: Some(user_ns.as_fd()), ..Change::default() };
    mount::change(tree.as_fd(), change, id_map.recursive)
}

/// The user namespace that a mount's owners are shifted by.
fn user_namespace(id_map: &IdMap) -> Result<OwnedFd, sys::Error> {
    match &id_map.owners {
        Owners::Namespace(path) => namespace::open(path, Kind::User),
        Owners::Maps { uid_map, gid_map } => mapped_namespace(uid_map, gid_map),
    }
}

/// A user namespace that exists for its maps alone: held by a child that lives just long enough.
fn mapped_namespace(uid_map: &str, gid_map: &str) -> Result<OwnedFd, sys::Error> {
    let options = Clone3 { namespaces: Kind::User.flag(), ..Clone3::default() };
    let (hold, wait) = sys::socket::message_pair()?;
    match process::fork(&options)? {
        Fork::Child => {
            drop(hold);
            // Ends when the parent lets go of its end, whatever happens to the parent.
            let _ = sys::socket::receive(wait.as_fd(), &mut [0]);
            process::exit_now(0)
        }
        Fork::Parent { pid, pidfd } => {
            drop(wait);
            let opened = write_maps(pid, uid_map, gid_map)
                .and_then(|()| namespace::open(Path::new(&format!("/proc/{pid}/ns/user")), Kind::User));
            drop(hold);
            reap(pidfd.as_fd());
            opened
        }
    }
}
