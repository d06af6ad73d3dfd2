//! AppArmor: which profile confines a container.
//!
//! Invariant: a profile that is asked for confines the container, or there is no container.

use ::spec::Error;
use api::runtime::v1;
use api::runtime::v1::security_profile::ProfileType;
use model::Result;
pub use node::apparmor::AppArmor;
use node::apparmor::USUAL;

/// What the name of a loaded profile begins with in requests.
const LOCALHOST: &str = "localhost/";

/// The profile of a container, by its name; empty for none. The usual one is loaded if need be.
///
/// # Errors
/// A profile is asked for that is not loaded, or where AppArmor confines nobody (`on` is none).
pub fn profile(
    on: Option<&AppArmor>,
    wanted: Option<&v1::SecurityProfile>,
    older: &str,
    privileged: bool,
) -> Result<String> {
    let asked = match wanted {
        Some(profile) => {
            let kind = ProfileType::try_from(profile.profile_type);
            let kind = kind.map_err(|_| Error::invalid("apparmor unknown ProfileType"))?;
            Some((kind, profile.localhost_ref.as_str()))
        }
        None => match older {
            "" => None,
            "runtime/default" | "docker/default" => Some((ProfileType::RuntimeDefault, "")),
            "unconfined" => Some((ProfileType::Unconfined, "")),
            text if text.starts_with(LOCALHOST) => Some((ProfileType::Localhost, text)),
            text => return Err(Error::invalid(format_args!("invalid profile {text:?}"))),
        },
    };
    let Some(on) = on else {
        return match asked {
            None | Some((ProfileType::Unconfined, _)) => Ok(String::new()),
            Some(_) => Err(Error::failed_precondition("apparmor is not supported")),
        };
    };
    match asked.unwrap_or((ProfileType::RuntimeDefault, "")) {
        (ProfileType::Unconfined | ProfileType::RuntimeDefault, name) if !name.is_empty() => {
            Err(Error::invalid(
                "apparmor config invalid LocalhostRef must only be set if ProfileType is Localhost",
            ))
        }
        (ProfileType::Unconfined, _) => Ok(String::new()),
        (ProfileType::RuntimeDefault, _) if privileged => Ok(String::new()),
        (ProfileType::RuntimeDefault, _) => on.load_usual(USUAL).map(|()| USUAL.to_owned()),
        (ProfileType::Localhost, name) => {
            let name = name.strip_prefix(LOCALHOST).unwrap_or(name);
            if name.is_empty() || name.contains(char::is_control) {
                return Err(Error::invalid(format_args!("apparmor profile {name:?} has no possible name")));
            }
            match on.has(name)? {
                true => Ok(name.to_owned()),
                false => Err(Error::not_found(format_args!("apparmor profile not found {name}"))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// A host with a list of profiles and a parser that keeps what it is given, or fails.
    fn host(dir: &Path, loaded: &str, parser: &str) -> AppArmor {
        let files = testkit::apparmor::files(dir, loaded, parser);
        AppArmor::at(files.profiles, files.pieces, files.parser)
    }

    fn of(kind: ProfileType, name: &str) -> Option<v1::SecurityProfile> {
        Some(v1::SecurityProfile { profile_type: kind as i32, localhost_ref: name.into() })
    }

    #[test]
    fn without_apparmor_a_profile_is_refused() {
        for (wanted, older, fine) in [
            (None, "", true),
            (None, "unconfined", true),
            (of(ProfileType::Unconfined, ""), "", true),
            (of(ProfileType::RuntimeDefault, ""), "", false),
            (of(ProfileType::Localhost, "x"), "", false),
            (None, "runtime/default", false),
            (None, "localhost/x", false),
        ] {
            let found = profile(None, wanted.as_ref(), older, false);
            assert_eq!(found.is_ok(), fine, "{wanted:?} {older:?}");
            assert!(fine || found.unwrap_err().text().contains("apparmor is not supported"));
        }
    }

    #[test]
    fn profiles_are_found_by_their_whole_name() {
        let dir = tempfile::tempdir().unwrap();
        let list = format!("mine (enforce)\nmine-too (complain)\n{USUAL} (enforce)\n");
        let on = host(dir.path(), &list, "exit 1");
        let find = |wanted: Option<v1::SecurityProfile>, older: &str, privileged: bool| {
            profile(Some(&on), wanted.as_ref(), older, privileged).ok()
        };
        assert_eq!(find(None, "", false).as_deref(), Some(USUAL));
        assert_eq!(find(None, "", true).as_deref(), Some(""));
        assert_eq!(find(of(ProfileType::Unconfined, ""), "", false).as_deref(), Some(""));
        assert_eq!(find(of(ProfileType::Localhost, "localhost/mine"), "", true).as_deref(), Some("mine"));
        assert_eq!(find(None, "localhost/mine-too", false).as_deref(), Some("mine-too"));
        for wrong in ["min", "", "mine (enforce)\nmine-too", "localhost/"] {
            assert_eq!(find(of(ProfileType::Localhost, wrong), "", false), None, "{wrong:?}");
        }
        assert_eq!(find(of(ProfileType::RuntimeDefault, "mine"), "", false), None);
        assert_eq!(find(None, "mine", false), None);
        assert_eq!(
            find(Some(v1::SecurityProfile { profile_type: 9, ..Default::default() }), "", false),
            None
        );
    }

    #[test]
    fn the_usual_profile_is_loaded_once_it_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("kept");
        let on = host(dir.path(), "", &format!("/bin/cat > {}", kept.display()));
        assert_eq!(profile(Some(&on), None, "", false).unwrap(), USUAL);
        let text = std::fs::read_to_string(kept).unwrap();
        assert!(
            text.contains("profile cri-containerd.apparmor.d ") && text.contains("deny mount,"),
            "{text}"
        );
        let on = host(dir.path(), "", "echo 'syntax error' >&2; exit 3");
        let error = profile(Some(&on), None, "", false).unwrap_err();
        assert!(error.text().contains("syntax error"), "{error}");
    }
}
