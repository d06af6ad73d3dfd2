//! Labels by request, and files that get them.

use testkit::needs;

use super::*;

/// As the policy of Fedora says it.
const POLICY: &str = "# comment\nprocess = \"system_u:system_r:container_t:s0\"\nfile = \"system_u:object_r:container_file_t:s0\"\n\
                      ro_file=\"system_u:object_r:container_ro_file_t:s0\"\n";

fn host() -> SeLinux {
    SeLinux::of_contexts(POLICY).unwrap()
}

fn options(user: &str, kind: &str, level: &str) -> v1::SeLinuxOption {
    v1::SeLinuxOption { user: user.into(), role: String::new(), r#type: kind.into(), level: level.into() }
}

#[test]
fn pods_have_levels_of_their_own_and_containers_their_pods() {
    let (on, free) = (host(), |_: &str| false);
    let pod = of_pod(Some(&on), None, 1024, &free).unwrap();
    let own = level(&pod.process).to_owned();
    assert!(own.starts_with("s0:c") && is_level(&own), "{own}");
    assert_eq!(pod.process, format!("system_u:system_r:container_t:{own}"));
    assert_eq!(pod.mount, format!("system_u:object_r:container_file_t:{own}"));
    assert_eq!(of_container(Some(&on), None, 1024, &pod.process).unwrap(), pod);
    // Of three categories there are three pairs.
    let taken = |level: &str| level != "s0:c0,c2";
    assert_eq!(level(&of_pod(Some(&on), None, 3, &taken).unwrap().process), "s0:c0,c2");
    assert!(of_pod(Some(&on), None, 3, &|_| true).is_err());
}

#[test]
fn what_is_asked_for_is_the_label() {
    let on = host();
    let asked = options("user_u", "spc_t", "s0:c1,c7");
    let pod = of_pod(Some(&on), Some(&asked), 1024, &|_| true).unwrap();
    assert_eq!(pod.process, "user_u:system_r:spc_t:s0:c1,c7");
    assert_eq!(pod.mount, "user_u:object_r:container_file_t:s0:c1,c7");
    let other = of_container(Some(&on), Some(&options("", "", "s0:c2,c3")), 1024, &pod.process).unwrap();
    assert_eq!(other.process, "system_u:system_r:container_t:s0:c2,c3");
    for wrong in [options("a:b", "", ""), options("", "x\n", ""), options("", "", "s0:c1:c2")] {
        assert!(of_pod(None, Some(&wrong), 1024, &|_| false).is_err(), "{wrong:?}");
        assert!(of_container(None, Some(&wrong), 1024, "").is_err(), "{wrong:?}");
    }
    assert_eq!(of_pod(None, Some(&asked), 1024, &|_| false).unwrap(), Labels::default());
    assert_eq!(of_container(None, None, 1024, "a:b:c").unwrap(), Labels::default());
}

#[test]
fn levels_have_a_form() {
    for (text, fine) in [
        ("s0", true),
        ("s0-s1", true),
        ("s0:c0", true),
        ("s0:c0,c1023", true),
        ("s0:c0.c5,c7", true),
        ("s0-s0:c0.c1023", true),
        ("", false),
        ("s10", false),
        ("s0:", false),
        ("s0:c", false),
        ("s0:c12345", false),
        ("s0:c1.c2.c3", false),
        ("s0-s1-s2", false),
        ("s0:c1 ", false),
        ("s0\n", false),
        ("c1", false),
    ] {
        assert_eq!(is_level(text), fine, "{text:?}");
    }
}

#[test]
fn policies_say_how_containers_are_labelled_or_nothing() {
    assert_eq!(host().file.kind, "container_file_t");
    assert_eq!(SeLinux::of_contexts("process = \"a:b\"\nfile = \"a:b:c\""), None);
    assert_eq!(SeLinux::of_contexts("process = \"a:b:c\""), None);
    let flat = SeLinux::of_contexts("process = \"a:b:c\"\nfile = \"d:e:f\"").unwrap();
    assert_eq!(of_pod(Some(&flat), None, 1024, &|_| false).unwrap().process, "a:b:c");
    assert_eq!(value("A=1\n#A=2\nA = \"3\"", "A").as_deref(), Some("3"));
}

#[test]
fn a_tree_is_relabelled_and_nothing_beside_it() {
    needs!(root);
    let dir = tempfile::tempdir().unwrap();
    let (volume, beside) = (dir.path().join("volume"), dir.path().join("beside"));
    std::fs::create_dir_all(volume.join("a/b")).unwrap();
    std::fs::write(volume.join("a/b/file"), "").unwrap();
    std::fs::write(&beside, "").unwrap();
    std::os::unix::fs::symlink(&beside, volume.join("a/link")).unwrap();
    let label = |path: &Path| {
        let parent = at::open(at::here(), path.parent().unwrap().as_os_str(), DIRECTORY, 0).unwrap();
        sys::xattr::get_at(parent.as_fd(), path.file_name().unwrap(), OsStr::new(ATTRIBUTE)).unwrap()
    };
    for wanted in ["a:b:c:s0:c1,c2", "a:b:c:s0:c3,c4"] {
        relabel(&volume, wanted).unwrap();
        for path in ["", "a", "a/b", "a/b/file"] {
            let path = if path.is_empty() { volume.clone() } else { volume.join(path) };
            assert_eq!(label(&path).as_deref(), Some(wanted.as_bytes()), "{}", path.display());
        }
    }
    assert_eq!(label(&beside), None);
    relabel(Path::new("/nowhere/at/all"), "").unwrap();
    for never in ["/", "/etc", "/usr"] {
        assert!(relabel(Path::new(never), "a:b:c").is_err(), "{never}");
    }
}
