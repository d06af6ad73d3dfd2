//! Whose the pipes of a container in a user namespace are: its process's, as the host sees it. Root inside may not open a
//! pipe of the host's root again, which `/dev/stderr` is.
//!
//! Pure.

use ::spec::Error;
use api::Message as _;
use api::containerd::runc::v1::Options;
use model::{Any, Result};

use crate::spec::UserNamespace;

/// The type of runc's options in an `Any`.
const RUNC_OPTIONS: &str = "containerd.runc.v1.Options";

/// A runtime's `options` with the owner of the pipes of a process of user `uid` and group `gid` in `namespace`; execs get
/// the same. None for a runtime whose options are not runc's and have no such words.
///
/// # Errors
/// The namespace has no such user or group; the options are damaged.
pub(super) fn owned(
    options: Option<&Any>,
    namespace: UserNamespace,
    (uid, gid): (u32, u32),
) -> Result<Option<Any>> {
    let (type_url, mut options) = match options {
        None => (RUNC_OPTIONS.to_owned(), Options::default()),
        Some(any) if any.type_url.ends_with("runc.v1.Options") => {
            let options = Options::decode(any.value.as_slice());
            let damaged = |error| Error::internal(format!("cannot read the runtime's options: {error}"));
            (any.type_url.clone(), options.map_err(damaged)?)
        }
        Some(_) => return Ok(None),
    };
    let (io_uid, io_gid) = namespace.to_host(uid, gid).ok_or_else(|| {
        Error::invalid(format_args!("user {uid} or group {gid} is not in the container's user namespace"))
    })?;
    (options.io_uid, options.io_gid) = (io_uid, io_gid);
    Ok(Some(Any { type_url, value: options.encode_to_vec() }))
}

#[cfg(test)]
mod tests {
    use api::runtime::v1;

    use super::*;

    fn namespace() -> UserNamespace {
        let map = |first| vec![v1::IdMapping { container_id: 0, host_id: first, length: 1000 }];
        let mode = v1::NamespaceMode::Pod.into();
        let wanted = v1::UserNamespace { mode, uids: map(100_000), gids: map(200_000) };
        let options = v1::NamespaceOption { userns_options: Some(wanted), ..v1::NamespaceOption::default() };
        UserNamespace::of(&options).unwrap().unwrap()
    }

    #[test]
    fn pipes_belong_to_the_process_as_the_host_sees_it() {
        let read = |any: Option<Any>| Options::decode(any.unwrap().value.as_slice()).unwrap();
        let made = read(owned(None, namespace(), (0, 7)).unwrap());
        assert_eq!((made.io_uid, made.io_gid), (100_000, 200_007));
        let configured = Options { systemd_cgroup: true, io_uid: 3, ..Options::default() };
        let any = Any { type_url: RUNC_OPTIONS.into(), value: configured.encode_to_vec() };
        let made = read(owned(Some(&any), namespace(), (5, 0)).unwrap());
        assert_eq!((made.systemd_cgroup, made.io_uid, made.io_gid), (true, 100_005, 200_000));
    }

    #[test]
    fn options_of_other_runtimes_stay_and_ids_outside_are_refused() {
        let any = Any { type_url: "runtimeoptions.v1.Options".into(), value: vec![1] };
        assert_eq!(owned(Some(&any), namespace(), (0, 0)).unwrap(), None);
        assert!(owned(None, namespace(), (1000, 0)).is_err());
        assert!(owned(None, namespace(), (0, 1000)).is_err());
        let damaged = Any { type_url: RUNC_OPTIONS.into(), value: vec![0xff] };
        assert!(owned(Some(&damaged), namespace(), (0, 0)).is_err());
    }
}
