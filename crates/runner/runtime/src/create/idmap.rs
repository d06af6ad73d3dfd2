//! Mounts that init cannot make from inside a user namespace: binds of the host, and those with shifted owners.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use sys::mount::{self, Attributes, Change};
use sys::namespace::{self, Kind};
use sys::process::{self, Clone3, Fork};

use super::parent::write_maps;
use super::plan::{IdMap, MountKind, Owners, Plan};
use super::{CreateError, reap};
use crate::init;

/// The mounts of the plan that the parent makes, detached, by their index.
pub(super) fn trees(plan: &Plan) -> Result<Vec<(usize, OwnedFd)>, CreateError> {
    // In a user namespace the source may be out of reach (a 0700 directory of the host's root).
    let in_user_ns = plan.namespaces.has(Kind::User);
    let mut trees = Vec::new();
    for (index, wanted) in plan.mounts.iter().enumerate() {
        let MountKind::Bind { recursive } = wanted.kind else { continue };
        if !in_user_ns && wanted.id_map.is_none() {
            continue;
        }
        let made = init::bind_tree(wanted, recursive, init::source(plan)).and_then(|tree| {
            if let Some(id_map) = &wanted.id_map {
                shift(&tree, id_map)?;
            }
            Ok(tree)
        });
        let made = made.map_err(|error| CreateError::Init {
            errno: error.errno(),
            text: format!("{}: {error}", init::failed_mount(wanted)),
        });
        trees.push((index, made?));
    }
    Ok(trees)
}

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
