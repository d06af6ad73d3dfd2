//! Attributes of a bind: what its options ask for, and what the kernel locked.
//!
//! As soon as an option names an attribute, the bind has those that were asked for and no other: a source that is
//! `noexec` does not make the bind so. Without any the source's stay. The policy of access times stays unless a policy
//! is asked for. In a user namespace attributes of the source are locked; they stay, and asking for their opposite is
//! an error. This is what runc does.

use std::os::fd::BorrowedFd;

use super::fstab::{self, Options};
use super::{Attributes, Change, attributes, change, sets_detached};
use crate::error::{Error, Result};

/// Attributes that a bind takes only when asked.
const PLAIN: Attributes = Attributes(
    Attributes::RDONLY.0
        | Attributes::NOSUID.0
        | Attributes::NODEV.0
        | Attributes::NOEXEC.0
        | Attributes::NOSYMFOLLOW.0,
);

/// Attributes that the kernel locks in a less privileged mount namespace, access times apart.
const LOCKABLE: Attributes = Attributes(PLAIN.0 & !Attributes::NOSYMFOLLOW.0);

/// All bits about access times.
const TIMES: Attributes = Attributes(Attributes::ATIME.0 | Attributes::NODIRATIME.0);

/// Whether the attributes of a bind's source are locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// As far as the kernel says so.
    Free,
    /// Always: the bind is for a user namespace, and the caller has more rights than that.
    Locked,
}

/// Applies the options' attributes to a bind that is not attached yet, on kernels that can.
pub fn prepare(mount: BorrowedFd<'_>, options: &Options, source: Source) -> Result<()> {
    if sets_detached() { apply(mount, options, source) } else { Ok(()) }
}

/// What is left after a bind was attached: attributes that could not be set before, and its propagation.
pub fn settle(mount: BorrowedFd<'_>, options: &Options, source: Source) -> Result<()> {
    if !sets_detached() {
        apply(mount, options, source)?;
    }
    fstab::propagate(mount, options)
}

fn apply(mount: BorrowedFd<'_>, options: &Options, source: Source) -> Result<()> {
    if let Some(wanted) = wanted(attributes(mount)?, options) {
        let plain = Change { set: wanted.set, clear: wanted.clear, ..Change::default() };
        let done = match source {
            Source::Free => change(mount, plain, false),
            Source::Locked => locked_change(mount, options),
        };
        match done {
            Err(error) if error.is(libc::EPERM) && source == Source::Free => locked_change(mount, options)?,
            done => done?,
        }
    }
    if options.recursive_set == Attributes::NONE && options.recursive_clear == Attributes::NONE {
        return Ok(());
    }
    let below = Change { set: options.recursive_set, clear: options.recursive_clear, ..Change::default() };
    change(mount, below, true)
}

/// Changes what is not locked.
fn locked_change(mount: BorrowedFd<'_>, options: &Options) -> Result<()> {
    let mut now = attributes(mount)?;
    let asks_write = options.clear.contains(Attributes::RDONLY) && now.contains(Attributes::RDONLY);
    if asks_write && !is_read_only_itself(mount)? {
        // The file system is read-only, not the mount: nothing is locked, and nothing is gained.
        now.0 &= !Attributes::RDONLY.0;
    }
    let wanted = within_locks(now, options).map_err(|locked| {
        Error::new(libc::EPERM, format!("mount_setattr({mount:?}, clear locked {locked:?})"))
    })?;
    change(mount, Change { set: wanted.set, clear: wanted.clear, ..Change::default() }, false)
}

/// Whether the mount is read-only by its own attribute, found out by clearing it; a failure to clear it says so too.
fn is_read_only_itself(mount: BorrowedFd<'_>) -> Result<bool> {
    let clear = Change { clear: Attributes::RDONLY, ..Change::default() };
    match change(mount, clear, false) {
        Err(error) if error.is(libc::EPERM) => Ok(true),
        done => {
            done?;
            Ok(!attributes(mount)?.contains(Attributes::RDONLY))
        }
    }
}

/// Attributes to set and to clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    set: Attributes,
    clear: Attributes,
}

/// What the options ask of a mount whose attributes are `now`; `None` when they name no attribute.
fn wanted(now: Attributes, options: &Options) -> Option<Wanted> {
    let names_some = options.set != Attributes::NONE || options.clear != Attributes::NONE;
    if !names_some && options.atime.is_none() {
        return None;
    }
    let mut set = Attributes(options.set.0 & !Attributes::ATIME.0);
    let mut clear = Attributes(now.0 & PLAIN.0 & !set.0);
    if options.atime.is_some() || set.contains(Attributes::NODIRATIME) {
        clear.0 |= Attributes::ATIME.0 | now.0 & Attributes::NODIRATIME.0 & !set.0;
        set |= options.atime.unwrap_or(Attributes::RELATIME);
    }
    Some(Wanted { set, clear })
}

/// What can be changed while the attributes `now` are locked; `Err` has those whose opposite was asked for.
fn within_locks(now: Attributes, options: &Options) -> std::result::Result<Wanted, Attributes> {
    let Some(plain) = wanted(now, options) else {
        return Ok(Wanted { set: Attributes::NONE, clear: Attributes::NONE });
    };
    let after = Attributes(now.0 & !plain.clear.0 | plain.set.0);
    if after.contains(Attributes(now.0 & LOCKABLE.0)) && after.0 & TIMES.0 == now.0 & TIMES.0 {
        return Ok(plain);
    }
    let policy = Attributes(now.0 & Attributes::ATIME.0);
    let mut refused = Attributes(now.0 & options.clear.0 & (LOCKABLE.0 | Attributes::NODIRATIME.0));
    if options.refused_atime.contains(&policy) {
        refused |= policy;
    }
    let names_times = options.atime.is_some() || options.set.contains(Attributes::NODIRATIME);
    if names_times && after.0 & TIMES.0 != now.0 & TIMES.0 {
        return Err(Attributes(refused.0 | now.0 & TIMES.0));
    }
    if refused != Attributes::NONE || options.refused_atime.contains(&policy) {
        return Err(refused);
    }
    let set = Attributes(options.set.0 & PLAIN.0 | now.0 & LOCKABLE.0);
    Ok(Wanted { set, clear: Attributes(now.0 & Attributes::NOSYMFOLLOW.0 & !set.0) })
}

#[cfg(test)]
mod tests {
    use super::super::fstab::split;
    use super::*;

    const HARD: Attributes = Attributes(
        Attributes::RDONLY.0 | Attributes::NOEXEC.0 | Attributes::NOSYMFOLLOW.0 | Attributes::NODIRATIME.0,
    );

    fn after(now: Attributes, options: &[&str]) -> Attributes {
        match wanted(now, &split(options)) {
            Some(wanted) => Attributes(now.0 & !wanted.clear.0 | wanted.set.0),
            None => now,
        }
    }

    fn after_locked(now: Attributes, options: &[&str]) -> Option<Attributes> {
        let wanted = within_locks(now, &split(options)).ok()?;
        Some(Attributes(now.0 & !wanted.clear.0 | wanted.set.0))
    }

    #[test]
    fn a_bind_without_attributes_keeps_those_of_its_source() {
        assert_eq!(after(HARD, &["rbind", "rprivate"]), HARD);
        assert_eq!(after_locked(HARD, &["bind"]), Some(HARD));
    }

    #[test]
    fn a_named_attribute_clears_all_that_were_not_asked_for() {
        assert_eq!(after(HARD, &["bind", "dev"]), Attributes::NODIRATIME);
        assert_eq!(after(Attributes::RDONLY, &["nosuid"]), Attributes::NOSUID);
        assert_eq!(after(Attributes::NOSUID | Attributes::NODEV, &["ro"]), Attributes::RDONLY);
        assert_eq!(after(Attributes::RDONLY, &["rw"]), Attributes::NONE);
    }

    #[test]
    fn access_times_change_only_when_a_policy_is_asked_for() {
        let no = Attributes::NOATIME;
        for ignored in ["norelatime", "atime", "dev", "nostrictatime"] {
            assert_eq!(after(no, &[ignored]), no, "{ignored}");
        }
        assert_eq!(after(no, &["relatime"]), Attributes::RELATIME);
        assert_eq!(after(no, &["nodiratime"]), Attributes::NODIRATIME);
        assert_eq!(after(Attributes::NODIRATIME, &["strictatime"]), Attributes::STRICTATIME);
        let both = Attributes::NODIRATIME | Attributes::STRICTATIME;
        assert_eq!(after(no, &["nodiratime", "strictatime"]), both);
    }

    #[test]
    fn locked_attributes_stay_and_their_opposite_is_refused() {
        let kept = Attributes(HARD.0 & !Attributes::NOSYMFOLLOW.0);
        assert_eq!(after_locked(HARD, &["dev"]), Some(kept));
        let hard = Attributes::NOSUID | Attributes::NODEV | Attributes::NOATIME;
        assert_eq!(after_locked(hard, &["ro", "exec"]), Some(hard | Attributes::RDONLY));
        for refused in ["suid", "dev", "strictatime", "relatime", "atime"] {
            assert_eq!(after_locked(hard, &["bind", "ro", refused]), None, "{refused}");
        }
        assert_eq!(after_locked(Attributes::RDONLY, &["rw", "nosuid"]), None);
        assert_eq!(after_locked(Attributes::RELATIME, &["rw"]), Some(Attributes::RELATIME));
        let no = Attributes::NOATIME | Attributes::NODIRATIME;
        assert_eq!(after_locked(no, &["norelatime"]), Some(no));
        assert_eq!(after_locked(Attributes::RELATIME, &["nodiratime"]), None);
    }
}
