//! Capabilities: names, sets and the calls that apply them to this process.

use crate::error::{Error, Result, check};

/// Names without `CAP_`, at the index that is their number (`linux/capability.h`).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A set of capabilities, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Set(pub u64);

impl Set {
    /// Every capability this kernel may have.
    pub const ALL: Self = Self((1 << NAMES.len()) - 1);

    /// Adds the capability `name` (`CAP_CHOWN`); says whether it is known.
    #[must_use]
    pub fn insert(&mut self, name: &str) -> bool {
        let number = number(name);
        self.0 |= number.map_or(0, |number| 1 << number);
        number.is_some()
    }

    /// Whether all of `other` is in here.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The number of the capability `name`, with or without `CAP_`, in any case.
pub fn number(name: &str) -> Option<u32> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|known| *known == bare).and_then(|index| u32::try_from(index).ok())
}

/// Every name, as `CAP_CHOWN`, in the order of their numbers.
pub fn names() -> impl Iterator<Item = String> {
    NAMES.iter().map(|name| format!("CAP_{name}"))
}

/// Headers of `capget(2)` and `capset(2)`, version 3: two words a set.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Words {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const VERSION_3: u32 = 0x2008_0522;

/// The effective, permitted and inheritable sets of this process. `capget(2)`.
pub fn get() -> Result<(Set, Set, Set)> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut words = [Words::default(); 2];
    // SAFETY: version 3 writes two entries to `words`, which has two, and may write the version back.
    let done = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, words.as_mut_ptr()) };
    check(done, || "capget()".to_owned())?;
    let join = |low: u32, high: u32| Set(u64::from(low) | u64::from(high) << 32);
    Ok((
        join(words[0].effective, words[1].effective),
        join(words[0].permitted, words[1].permitted),
        join(words[0].inheritable, words[1].inheritable),
    ))
}

/// Sets the effective, permitted and inheritable sets of this process. `capset(2)`.
pub fn set(effective: Set, permitted: Set, inheritable: Set) -> Result<()> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let word = |shift: u32| Words {
        effective: (effective.0 >> shift) as u32,
        permitted: (permitted.0 >> shift) as u32,
        inheritable: (inheritable.0 >> shift) as u32,
    };
    let words = [word(0), word(32)];
    // SAFETY: version 3 reads two entries from `words`, which has two.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, words.as_ptr()) };
    check(done, || format!("capset({effective:?}, {permitted:?}, {inheritable:?})")).map(|_| ())
}

/// The set as it must be before [`set`]: an error for a name that no kernel knows.
pub fn parse<S: AsRef<str>>(names: &[S]) -> Result<Set> {
    let mut set = Set::default();
    for name in names {
        if !set.insert(name.as_ref()) {
            return Err(Error::new(libc::EINVAL, format!("unknown capability {:?}", name.as_ref())));
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_kernels_numbers() {
        assert_eq!(number("CAP_CHOWN"), Some(0));
        assert_eq!(number("sys_admin"), Some(21));
        assert_eq!(number("CAP_CHECKPOINT_RESTORE"), Some(40));
        assert_eq!(number("CAP_NOPE"), None);
        assert_eq!(names().count(), 41);
    }

    #[test]
    fn our_own_sets_are_read() {
        let (effective, permitted, _) = get().unwrap();
        assert!(permitted.contains(effective));
    }
}
