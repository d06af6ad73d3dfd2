//! AppArmor: which profile confines a container, and the usual one, loaded when it is first needed.
//!
//! Invariant: a profile that is asked for confines the container, or there is no container.

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use ::spec::Error;
use api::runtime::v1;
use api::runtime::v1::security_profile::ProfileType;
use model::Result;

use super::{failed, read_file};

/// The usual profile's name, by which nodes and tests know it.
const USUAL: &str = "cri-containerd.apparmor.d";
/// What the name of a loaded profile begins with in requests.
const LOCALHOST: &str = "localhost/";
/// The most bytes of the kernel's list of profiles.
const MAX_LIST: usize = 4 << 20;
/// How long the parser may take.
const PARSER: Duration = Duration::from_secs(30);

/// Where AppArmor is on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppArmor {
    /// The kernel's list of loaded profiles.
    profiles: PathBuf,
    /// Where pieces of profiles are.
    pieces: PathBuf,
    /// The program that loads profiles.
    parser: PathBuf,
}

impl AppArmor {
    /// That of the host; none where it confines nobody, or where this is itself a container.
    pub fn of_host() -> Option<Self> {
        let on = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
        let kernel = Path::new("/sys/kernel/security/apparmor");
        let parser = PathBuf::from("/sbin/apparmor_parser");
        let contained = std::env::var_os("container").is_some_and(|value| !value.is_empty());
        let works = on.starts_with('Y') && kernel.exists() && parser.exists() && !contained;
        works.then(|| Self { profiles: kernel.join("profiles"), pieces: "/etc/apparmor.d".into(), parser })
    }

    /// Whether `profile` is loaded.
    fn has(&self, profile: &str) -> Result<bool> {
        let list = read_file(&self.profiles, MAX_LIST)
            .map_err(|error| failed("cannot read the AppArmor profiles", &error))?;
        let begin = format!("{profile} (");
        Ok(list.split(|&byte| byte == b'\n').any(|line| line.starts_with(begin.as_bytes())))
    }

    /// Loads the usual profile, unless it is loaded.
    fn load_usual(&self) -> Result<()> {
        if self.has(USUAL)? {
            return Ok(());
        }
        let has_piece = |piece: &str| self.pieces.join(piece).exists();
        let own = std::fs::read_to_string("/proc/self/attr/current").unwrap_or_default();
        self.parse(&usual(has_piece, &own))
            .map_err(|why| Error::internal(format!("load apparmor profile {USUAL}: {why}")))
    }

    /// Has the parser load `profile`.
    fn parse(&self, profile: &str) -> std::result::Result<(), String> {
        let mut child = Command::new(&self.parser)
            .arg("-Kr")
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", self.parser.display()))?;
        // A profile fits into a pipe, so that this does not wait for the parser; one that has gone says why below.
        let _gone = child.stdin.take().map(|mut input| input.write_all(profile.as_bytes()));
        let ended = i32::try_from(child.id())
            .map_err(|error| error.to_string())
            .and_then(|pid| sys::process::pidfd(pid).map_err(|error| error.to_string()))
            .and_then(|pidfd| sys::process::ended(pidfd.as_fd(), PARSER).map_err(|error| error.to_string()));
        if ended != Ok(true) {
            let _gone = child.kill();
        }
        let status = child.wait().map_err(|error| error.to_string())?;
        if ended == Ok(true) && status.success() {
            return Ok(());
        }
        let mut said = Vec::new();
        let output = child.stderr.take().map(|output| output.take(1024).read_to_end(&mut said));
        let said = if matches!(output, Some(Ok(_))) { String::from_utf8_lossy(&said) } else { "".into() };
        Err(format!("parser error({:?}): {status}", said.trim()))
    }
}

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
        (ProfileType::RuntimeDefault, _) => on.load_usual().map(|()| USUAL.to_owned()),
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

/// The usual profile's text: everything but mounts, and writes to what of /proc and /sys is the host's. `own` is the
/// label of the daemon, which may send signals.
fn usual(has_piece: impl Fn(&str) -> bool, own: &str) -> String {
    let own = own.split_whitespace().next().unwrap_or("unconfined");
    let mut text = String::new();
    if has_piece("abi/3.0") {
        text.push_str("abi <abi/3.0>,\n");
    }
    text.push_str(if has_piece("tunables/global") {
        "include <tunables/global>\n"
    } else {
        "@{PROC}=/proc/\n"
    });
    text.push_str(&format!("profile {USUAL} flags=(attach_disconnected, mediate_deleted) {{\n"));
    if has_piece("abstractions/base") {
        text.push_str("  include <abstractions/base>\n");
    }
    text.push_str("  capability,\n  file,\n  network,\n  umount,\n");
    for peer in ["unconfined", "runc", "crun", own] {
        text.push_str(&format!("  signal (receive) peer={peer},\n"));
    }
    text.push_str(&format!("  signal (send, receive) peer={USUAL},\n"));
    text.push_str(&format!("  ptrace (read, readby, trace, tracedby) peer={USUAL},\n"));
    for rule in DENIED {
        text.push_str(&format!("  deny {rule},\n"));
    }
    text.push_str("}\n");
    text
}

/// What the usual profile denies. Of /proc only processes' own directories and `sys/kernel/shm*` may be written; of
/// /sys only cgroups.
const DENIED: [&str; 21] = [
    "mount",
    "@{PROC}/* w",
    "@{PROC}/[^1-9s]*/** w",
    "@{PROC}/s[^y]*/** w",
    "@{PROC}/sy[^s]*/** w",
    "@{PROC}/sys?*/** w",
    "@{PROC}/sys/[^k]** w",
    "@{PROC}/sys/k[^e]** w",
    "@{PROC}/sys/ke[^r]** w",
    "@{PROC}/sys/kernel/[^s]** w",
    "@{PROC}/sys/kernel/s[^h]** w",
    "@{PROC}/sys/kernel/sh[^m]** w",
    "@{PROC}/{kcore,sysrq-trigger} rwklx",
    "/sys/[^f]*/** wklx",
    "/sys/f[^s]*/** wklx",
    "/sys/fs/[^c]*/** wklx",
    "/sys/fs/c[^g]*/** wklx",
    "/sys/fs/cg[^r]*/** wklx",
    "/sys/firmware/** rwklx",
    "/sys/kernel/security/** rwklx",
    "/sys/devices/virtual/powercap/** rwklx",
];

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A host with a list of profiles and a parser that keeps what it is given, or fails.
    fn host(dir: &Path, loaded: &str, parser: &str) -> AppArmor {
        std::fs::write(dir.join("profiles"), loaded).unwrap();
        let parser_path = dir.join("parser");
        std::fs::write(&parser_path, format!("#!/bin/sh\n{parser}\n")).unwrap();
        std::fs::set_permissions(&parser_path, std::fs::Permissions::from_mode(0o755)).unwrap();
        AppArmor { profiles: dir.join("profiles"), pieces: dir.join("pieces"), parser: parser_path }
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

    #[test]
    fn the_usual_profile_uses_the_pieces_that_are_there() {
        let text = usual(|_| true, "containerd (enforce)\n");
        for line in ["abi <abi/3.0>,", "include <abstractions/base>", "peer=containerd,"] {
            assert!(text.contains(line), "{line}");
        }
        let text = usual(|_| false, "");
        assert!(text.starts_with("@{PROC}=/proc/\nprofile") && !text.contains("include"));
    }
}
