//! Who runs in a container: numbers, or names of the image's own `/etc/passwd` and `/etc/group`.
//!
//! All of it comes from outside: the kubelet's fields, the image's USER and the image's files.
//!
//! Invariant: what is no number of a user is looked up, and what is not found, or is out of range, is an error; nothing
//! that was asked for ever becomes root (CVE-2024-40635, CVE-2026-46680).

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;

use ::spec::runtime::User;
use ::spec::{Error, Kind};
use api::runtime::v1;
use model::Result;
use model::snapshot::Mount;
use sys::mount::fstab;
use sys::path::{Access, Root};

/// The largest number of a user or group, as runc has it.
const MAX_ID: i64 = i32::MAX as i64;

/// The largest `/etc/passwd` or `/etc/group` that is read, in bytes.
const MAX_FILE: usize = 4 << 20;

/// How many groups a process may have (`NGROUPS_MAX`).
const MAX_GROUPS: usize = 65536;

/// The users and groups of an image; the same for every container of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    passwd: String,
    group: String,
}

/// A line of `/etc/passwd`.
struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

/// A line of `/etc/group`.
struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl Accounts {
    /// Reads them from a snapshot, by the mounts that make it up. Nothing stays mounted, and nothing is written.
    ///
    /// # Errors
    /// The snapshot cannot be opened; the files are no files, or are too large.
    pub fn of_snapshot(mounts: &[Mount]) -> Result<Self> {
        let [mount] = mounts else {
            return Err(Error::unimplemented("users of a snapshot of several mounts"));
        };
        Self::of_root(&open(mount)?)
    }

    /// Reads them below `root`. Links are followed inside it only.
    ///
    /// # Errors
    /// The files are no files, or are too large.
    pub fn of_root(root: &Root) -> Result<Self> {
        Ok(Self { passwd: read(root, "etc/passwd")?, group: read(root, "etc/group")? })
    }

    fn accounts(&self) -> impl Iterator<Item = Account<'_>> {
        self.passwd.lines().filter_map(|line| {
            let mut fields = fields(line)?;
            let (name, _password) = (fields.next()?, fields.next()?);
            Some(Account { name, uid: listed(fields.next()?)?, gid: listed(fields.next()?)? })
        })
    }

    fn groups(&self) -> impl Iterator<Item = Group<'_>> {
        self.group.lines().filter_map(|line| {
            let mut fields = fields(line)?;
            let (name, _password) = (fields.next()?, fields.next()?);
            let gid = listed(fields.next()?)?;
            Some(Group { name, gid, members: fields.next().unwrap_or_default() })
        })
    }

    /// Finds who `text` is: `user`, `uid`, each with `:group` or `:gid`. Behind or before a colon, nothing is 0.
    fn find(&self, text: &str) -> Result<(u32, u32)> {
        let (user, group) = match text.split_once(':') {
            None => (text, None),
            Some((user, group)) if !group.contains(':') => (user, Some(group)),
            Some(_) => return Err(Error::invalid(format_args!("invalid USER value {text:?}"))),
        };
        let number = if user.is_empty() && group.is_some() { Some(0) } else { id(user, text, "uid")? };
        let account = match number {
            Some(uid) => self.accounts().find(|account| account.uid == uid),
            None => Some(self.account(user)?),
        };
        let uid = number.or(account.as_ref().map(|account| account.uid));
        let uid = uid.ok_or_else(|| Error::invalid(format_args!("invalid USER value {text:?}")))?;
        let gid = match group {
            None => account.map_or(0, |account| account.gid),
            Some("") => 0,
            Some(group) => match id(group, text, "gid")? {
                Some(gid) => gid,
                None => self.gid_of(group)?,
            },
        };
        Ok((uid, gid))
    }

    fn account(&self, name: &str) -> Result<Account<'_>> {
        let found = self.accounts().find(|account| account.name == name);
        found.ok_or_else(|| {
            Error::not_found(format_args!("no users found: {name:?} in the image's /etc/passwd"))
        })
    }

    fn gid_of(&self, name: &str) -> Result<u32> {
        let found = self.groups().find(|group| group.name == name).map(|group| group.gid);
        found.ok_or_else(|| {
            Error::not_found(format_args!("no groups found: {name:?} in the image's /etc/group"))
        })
    }

    /// The groups that name `user` (a name or number) as a member.
    fn groups_of(&self, user: &str) -> Result<Vec<u32>> {
        let name = match id(user, user, "uid")? {
            None => user,
            Some(uid) => match self.accounts().find(|account| account.uid == uid) {
                Some(account) => account.name,
                None => return Ok(Vec::new()),
            },
        };
        let of_user =
            |group: &Group<'_>| group.name != name && group.members.split(',').any(|one| one == name);
        Ok(self.groups().filter(of_user).map(|group| group.gid).take(MAX_GROUPS).collect())
    }
}

/// The user of a container's process.
///
/// # Errors
/// A user or group is not in the image, or is out of range; a group without a user; an unknown policy.
pub fn of_container(
    security: &v1::LinuxContainerSecurityContext,
    image_user: &str,
    accounts: &Accounts,
) -> Result<User> {
    let asked = asked(&security.run_as_username, security.run_as_user, security.run_as_group)?;
    let (uid, gid) = match asked.as_deref().unwrap_or(image_user) {
        "" => (0, 0),
        text => accounts.find(text)?,
    };
    let mut groups = BTreeSet::from([gid]);
    match v1::SupplementalGroupsPolicy::try_from(security.supplemental_groups_policy) {
        Ok(v1::SupplementalGroupsPolicy::Strict) => {}
        Ok(v1::SupplementalGroupsPolicy::Merge) => {
            let user = asked.as_deref().unwrap_or(image_user);
            let user = user.split_once(':').map_or(user, |(user, _)| user);
            groups.extend(accounts.groups_of(if user.is_empty() { "0" } else { user })?);
        }
        Err(_) => {
            return Err(Error::unimplemented(format_args!(
                "SupplementalGroupsPolicy={}",
                security.supplemental_groups_policy
            )));
        }
    }
    with_groups(uid, gid, groups, &security.supplemental_groups)
}

/// The user of a sandbox's process.
///
/// # Errors
/// As [`of_container`].
pub fn of_sandbox(
    security: &v1::LinuxSandboxSecurityContext,
    image_user: &str,
    accounts: &Accounts,
) -> Result<User> {
    let asked = asked("", security.run_as_user, security.run_as_group)?;
    let (uid, gid) = match asked.as_deref().unwrap_or(image_user) {
        "" => (0, 0),
        text => accounts.find(text)?,
    };
    with_groups(uid, gid, BTreeSet::from([gid]), &security.supplemental_groups)
}

fn with_groups(uid: u32, gid: u32, mut groups: BTreeSet<u32>, more: &[i64]) -> Result<User> {
    for &group in more {
        groups.insert(
            in_range(group)
                .ok_or_else(|| Error::invalid(format_args!("supplemental group {group} is out of range")))?,
        );
    }
    if groups.len() > MAX_GROUPS {
        return Err(Error::invalid(format_args!("more than {MAX_GROUPS} groups")));
    }
    Ok(User { uid, gid, additional_gids: groups.into_iter().collect(), ..User::default() })
}

/// The user that the kubelet asks for, in the form of an image's USER.
fn asked(name: &str, uid: Option<v1::Int64Value>, gid: Option<v1::Int64Value>) -> Result<Option<String>> {
    let user = match uid {
        _ if !name.is_empty() => Some(name.to_owned()),
        uid => uid.map(|uid| uid.value.to_string()),
    };
    match (user, gid) {
        (Some(user), Some(gid)) => Ok(Some(format!("{user}:{}", gid.value))),
        (None, Some(gid)) => {
            Err(Error::invalid(format_args!("user group \"{}\" is specified without user", gid.value)))
        }
        (user, None) => Ok(user),
    }
}

/// A number in range, or nothing for a name.
fn id(text: &str, whole: &str, what: &str) -> Result<Option<u32>> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<i64>().ok().and_then(in_range) {
        Some(number) => Ok(Some(number)),
        None => Err(Error::invalid(format_args!("invalid USER value {whole:?}: {what} out of range"))),
    }
}

fn in_range(number: i64) -> Option<u32> {
    (0..=MAX_ID).contains(&number).then(|| u32::try_from(number).ok()).flatten()
}

/// The fields of a line that is neither empty nor a comment.
fn fields(line: &str) -> Option<std::str::Split<'_, char>> {
    let line = line.trim();
    (!line.is_empty() && !line.starts_with('#')).then(|| line.split(':'))
}

/// A number as the image's files list it; a line whose number is none, or is out of range, does not count.
fn listed(text: &str) -> Option<u32> {
    text.parse::<i64>().ok().and_then(in_range)
}

/// Opens a snapshot read-only, attached nowhere: it is reached by the descriptor alone and goes with it.
fn open(mount: &Mount) -> Result<Root> {
    let mut options: Vec<String> = mount
        .options
        .iter()
        .filter(|option| *option != "rw" && !option.starts_with("workdir="))
        .cloned()
        .collect();
    // Read-only, the upper directory is just the topmost layer; the kernel then writes nothing into it and does not
    // mind that the container's own mount comes later.
    if let Some(upper) = take(&mut options, "upperdir=") {
        let lower = take(&mut options, "lowerdir=").unwrap_or_default();
        options.push(format!("lowerdir={upper}:{lower}"));
    }
    options.push("ro".into());
    let bare = matches!(mount.kind.as_str(), "bind" | "rbind");
    if bare && !options.iter().any(|option| option.starts_with("X-")) {
        // A single directory needs no mount to be looked into.
        return Root::open_dir(Path::new(&mount.source)).map_err(|error| failed(&error));
    }
    let tree =
        fstab::detached(&mount.kind, OsStr::new(&mount.source), &options).map_err(|error| failed(&error))?;
    Ok(Root::from_fd(tree))
}

fn take(options: &mut Vec<String>, prefix: &str) -> Option<String> {
    let at = options.iter().position(|option| option.starts_with(prefix))?;
    options.remove(at).strip_prefix(prefix).map(str::to_owned)
}

/// A failed system call on the image's files.
fn failed(error: &sys::Error) -> Error {
    Error::new(Kind::from_errno(error.errno()), format!("the image's users: {error}"))
}

/// The text of a regular file, empty when it is not there.
fn read(root: &Root, path: &str) -> Result<String> {
    let file = match root.open(Path::new(path), Access::Read) {
        Ok(file) => std::fs::File::from(file),
        Err(error) if Kind::from_errno(error.errno()) == Kind::NotFound => return Ok(String::new()),
        Err(error) => return Err(failed(&error)),
    };
    let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
    let wrong = || Error::invalid(format_args!("{path} of the image is no file of at most {MAX_FILE} bytes"));
    if !is_file {
        return Err(wrong());
    }
    let bytes =
        sys::fd::read_all(std::os::fd::AsFd::as_fd(&file), MAX_FILE + 1).map_err(|error| failed(&error))?;
    if bytes.len() > MAX_FILE {
        return Err(wrong());
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
#[path = "user_tests.rs"]
mod tests;
