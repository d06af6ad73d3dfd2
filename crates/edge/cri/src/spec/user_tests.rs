//! Who runs in a container, request by request.

use super::*;

fn accounts() -> Accounts {
    Accounts {
        passwd: "# who\nroot:x:0:0::/:/bin/sh\nalice:x:1000:1001::/:/bin/sh\n\nbig:x:4294967296:1:::\nbad:x:y:1:::\n\
                 minus:x:-1:1:::\n1234:x:55:56:::\n"
            .into(),
        group: "root:x:0:\nalice:x:1001:\nextra:x:5000:bob,alice\nnumber:x:6000:0\nhuge:x:99999999999:alice\n".into(),
    }
}

fn number(value: i64) -> Option<v1::Int64Value> {
    Some(v1::Int64Value { value })
}

fn user(image: &str, change: impl FnOnce(&mut v1::LinuxContainerSecurityContext)) -> Result<User> {
    let mut security = v1::LinuxContainerSecurityContext::default();
    change(&mut security);
    of_container(&security, image, &accounts())
}

#[test]
fn an_images_user_is_one_of_its_own_or_an_error() {
    for (text, found) in [
        ("", Some((0, 0))),
        ("root", Some((0, 0))),
        ("0", Some((0, 0))),
        ("alice", Some((1000, 1001))),
        ("1000", Some((1000, 1001))),
        ("77", Some((77, 0))),
        ("77:88", Some((77, 88))),
        ("alice:extra", Some((1000, 5000))),
        ("alice:0", Some((1000, 0))),
        ("1234", Some((1234, 0))),
        ("2147483647", Some((2147483647, 0))),
        ("2147483648", None),
        ("4294967296", None),
        ("-1", None),
        ("99999999999999999999", None),
        ("0:4294967296", None),
        ("mallory", None),
        ("alice:nogroup", None),
        ("big", None),
        ("bad", None),
        ("minus", None),
        ("alice:", Some((1000, 0))),
        ("1000:", Some((1000, 0))),
        (":2000", Some((0, 2000))),
        (":extra", Some((0, 5000))),
        (":", Some((0, 0))),
        ("a:b:c", None),
        ("alice\nroot", None),
        (" root", None),
    ] {
        let user = user(text, |_| ()).ok().map(|user| (user.uid, user.gid));
        assert_eq!(user, found, "{text:?}");
    }
}

#[test]
fn the_kubelets_user_wins_over_the_images() {
    let uid = |user: Result<User>| user.map(|user| (user.uid, user.gid)).ok();
    assert_eq!(uid(user("root", |one| one.run_as_user = number(1000))), Some((1000, 1001)));
    assert_eq!(uid(user("root", |one| one.run_as_username = "alice".into())), Some((1000, 1001)));
    let both = user("root", |one| (one.run_as_user, one.run_as_group) = (number(1000), number(7)));
    assert_eq!(uid(both), Some((1000, 7)));
    assert!(user("alice", |one| one.run_as_group = number(7)).is_err());
    assert!(user("root", |one| one.run_as_user = number(-5)).is_err());
    assert!(user("root", |one| one.run_as_user = number(1 << 32)).is_err());
    assert!(user("root", |one| one.run_as_username = "mallory".into()).is_err());
}

#[test]
fn groups_are_merged_or_strict() {
    let groups = |user: Result<User>| user.map(|user| user.additional_gids).ok();
    assert_eq!(groups(user("alice", |_| ())), Some(vec![1001, 5000]));
    assert_eq!(groups(user("1000", |one| one.supplemental_groups = vec![9, 9])), Some(vec![9, 1001, 5000]));
    let strict = v1::SupplementalGroupsPolicy::Strict as i32;
    let apart = user("alice", |one| {
        one.supplemental_groups_policy = strict;
        one.supplemental_groups = vec![9];
    });
    assert_eq!(groups(apart), Some(vec![9, 1001]));
    assert!(user("alice", |one| one.supplemental_groups_policy = 7).is_err());
    assert!(user("alice", |one| one.supplemental_groups = vec![-1]).is_err());
    assert!(user("alice", |one| one.supplemental_groups = vec![1 << 31]).is_err());
    let many = (0..=i64::try_from(MAX_GROUPS).unwrap()).collect();
    assert!(user("alice", |one| one.supplemental_groups = many).is_err());
}

#[test]
fn a_sandboxs_user_has_the_groups_that_are_asked_for() {
    let mut security = v1::LinuxSandboxSecurityContext::default();
    let user = of_sandbox(&security, "alice", &accounts()).unwrap();
    assert_eq!((user.uid, user.gid, user.additional_gids), (1000, 1001, vec![1001]));
    (security.run_as_user, security.run_as_group) = (number(65535), number(65535));
    security.supplemental_groups = vec![3];
    let user = of_sandbox(&security, "", &Accounts::default()).unwrap();
    assert_eq!((user.uid, user.gid, user.additional_gids), (65535, 65535, vec![3, 65535]));
}

#[test]
fn an_images_files_are_read_inside_it_only() {
    let dir = tempfile::tempdir().unwrap();
    let root = || Root::open_dir(dir.path()).unwrap();
    assert_eq!(Accounts::of_root(&root()).unwrap(), Accounts::default());
    std::fs::create_dir(dir.path().join("etc")).unwrap();
    // A link out of the image leads to the image's own file.
    std::os::unix::fs::symlink("/../../etc/shadow", dir.path().join("etc/passwd")).unwrap();
    std::fs::write(dir.path().join("etc/shadow"), "in:x:1:1:::").unwrap();
    assert_eq!(Accounts::of_root(&root()).unwrap().passwd, "in:x:1:1:::");
    std::fs::create_dir(dir.path().join("etc/group")).unwrap();
    assert!(Accounts::of_root(&root()).is_err());
    std::fs::remove_dir(dir.path().join("etc/group")).unwrap();
    let large = std::fs::File::create(dir.path().join("etc/group")).unwrap();
    large.set_len(MAX_FILE as u64 + 1).unwrap();
    assert!(Accounts::of_root(&root()).is_err());
}
