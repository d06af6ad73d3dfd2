//! Users: `name|uid[:group|gid]`, looked up in an image's own `/etc/passwd` and `/etc/group`. Behind or before a colon,
//! nothing is 0.
//!
//! The text may come from an image, so numbers out of range are errors and never zero (CVE-2024-40635).

use spec::runtime::User;

use super::rootfs::Tree;
use crate::failure::{Failure, Result};

/// The largest user or group number, as runc has it.
const MAX_ID: i64 = i32::MAX as i64;

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
    members: Vec<&'a str>,
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        Some(Account { name, uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
    })
}

fn groups(group: &str) -> impl Iterator<Item = Group<'_>> {
    group.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let gid = fields.next()?.parse().ok()?;
        let members =
            fields.next().unwrap_or_default().split(',').filter(|member| !member.is_empty()).collect();
        Some(Group { name, gid, members })
    })
}

/// A number in range, or a name.
fn number(text: &str, whole: &str, what: &str) -> Result<Option<u32>> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    let out_of_range = || Failure::new(format!("invalid USER value {whole:?}: {what} out of range"));
    match text.parse::<i64>() {
        Ok(value) if (0..=MAX_ID).contains(&value) => {
            u32::try_from(value).map(Some).map_err(|_| out_of_range())
        }
        _ => Err(out_of_range()),
    }
}

/// Finds who `text` is in the image. Group members of the user become additional groups.
pub fn resolve(tree: &Tree, text: &str) -> Result<User> {
    let passwd = tree.read("etc/passwd")?;
    let group = tree.read("etc/group")?;
    look_up(text, passwd.as_deref().unwrap_or_default(), group.as_deref().unwrap_or_default())
}

fn look_up(text: &str, passwd: &str, group: &str) -> Result<User> {
    let parts: Vec<&str> = text.split(':').collect();
    let (user, wanted_group) = match parts[..] {
        [user] => (user, None),
        [user, group] => (user, Some(group)),
        _ => return Err(Failure::new(format!("invalid USER value {text}"))),
    };
    let uid = if user.is_empty() && wanted_group.is_some() { Some(0) } else { number(user, text, "uid")? };
    let account = match uid {
        Some(uid) => accounts(passwd).find(|account| account.uid == uid),
        None => Some(accounts(passwd).find(|account| account.name == user).ok_or_else(|| {
            Failure::new(format!("no users found: user {user:?} is not in the image's /etc/passwd"))
        })?),
    };
    let uid = uid.or(account.as_ref().map(|account| account.uid)).unwrap_or(0);
    let gid = match wanted_group {
        None => account.as_ref().map_or(0, |account| account.gid),
        Some("") => 0,
        Some(wanted) => match number(wanted, text, "gid")? {
            Some(gid) => gid,
            None => {
                groups(group).find(|group| group.name == wanted).map(|group| group.gid).ok_or_else(|| {
                    Failure::new(format!(
                        "no groups found: group {wanted:?} is not in the image's /etc/group"
                    ))
                })?
            }
        },
    };
    // The primary group comes first, as containerd lists it, and every group that names the user as a member.
    let mut additional_gids = vec![gid];
    if let Some(account) = &account {
        for group in groups(group).filter(|group| group.members.contains(&account.name)) {
            if !additional_gids.contains(&group.gid) {
                additional_gids.push(group.gid);
            }
        }
    }
    Ok(User { uid, gid, additional_gids, ..User::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:w:/:/bin/false\nbroken\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\nlogs:x:50:web,other\n";

    #[test]
    fn names_and_numbers_are_found() {
        let user = look_up("web", PASSWD, GROUP).unwrap();
        assert_eq!((user.uid, user.gid, user.additional_gids), (33, 34, vec![34, 50]));
        let user = look_up("33:logs", PASSWD, GROUP).unwrap();
        assert_eq!((user.uid, user.gid), (33, 50));
        let user = look_up("1000", PASSWD, GROUP).unwrap();
        assert_eq!((user.uid, user.gid), (1000, 0));
    }

    #[test]
    fn empty_user_or_group_beside_a_colon_is_zero() {
        for (text, wanted) in
            [("web:", (33, 0)), ("1000:", (1000, 0)), (":2000", (0, 2000)), (":logs", (0, 50))]
        {
            let user = look_up(text, PASSWD, GROUP).unwrap();
            assert_eq!((user.uid, user.gid), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_out_of_range_is_never_root() {
        for text in ["4294967296", "-1", "2147483648", "99999999999999999999", "0:4294967296"] {
            assert!(look_up(text, PASSWD, GROUP).unwrap_err().to_string().contains("out of range"), "{text}");
        }
        for text in ["nobody", "web:nogroup", "a:b:c"] {
            assert!(look_up(text, PASSWD, GROUP).is_err(), "{text}");
        }
    }
}
