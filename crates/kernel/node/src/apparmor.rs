//! AppArmor: which profiles are loaded, and the usual one, loaded when it is first needed.
//!
//! Invariant: no text but a plain name gets into a profile.

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use ::spec::{Error, Kind, Result};

use crate::read_file;

/// The usual profile's name, by which nodes and tests know it.
pub const USUAL: &str = "cri-containerd.apparmor.d";
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
        works.then(|| Self::at(kernel.join("profiles"), "/etc/apparmor.d".into(), parser))
    }

    /// That whose list of profiles, pieces and parser are elsewhere.
    pub fn at(profiles: PathBuf, pieces: PathBuf, parser: PathBuf) -> Self {
        Self { profiles, pieces, parser }
    }

    /// Whether `profile` is loaded.
    ///
    /// # Errors
    /// The kernel's list cannot be read.
    pub fn has(&self, profile: &str) -> Result<bool> {
        let list = read_file(&self.profiles, MAX_LIST).map_err(|error| {
            let text = format!("cannot read the AppArmor profiles: {error}");
            Error::new(Kind::from_errno(error.errno()), text)
        })?;
        let begin = format!("{profile} (");
        Ok(list.split(|&byte| byte == b'\n').any(|line| line.starts_with(begin.as_bytes())))
    }

    /// Loads the usual profile under `name`, unless that is loaded.
    ///
    /// # Errors
    /// `name` is none for a profile; the parser fails.
    pub fn load_usual(&self, name: &str) -> Result<()> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if name.is_empty() || !name.bytes().all(plain) {
            return Err(Error::invalid(format_args!("apparmor profile {name:?} has no possible name")));
        }
        if self.has(name)? {
            return Ok(());
        }
        let has_piece = |piece: &str| self.pieces.join(piece).exists();
        let own = std::fs::read_to_string("/proc/self/attr/current").unwrap_or_default();
        self.parse(&usual(name, has_piece, &own))
            .map_err(|why| Error::internal(format!("load apparmor profile {name}: {why}")))
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

/// The usual profile's text: everything but mounts, and writes to what of /proc and /sys is the host's. `own` is the
/// label of this process, which may send signals.
fn usual(name: &str, has_piece: impl Fn(&str) -> bool, own: &str) -> String {
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
    text.push_str(&format!("profile {name} flags=(attach_disconnected, mediate_deleted) {{\n"));
    if has_piece("abstractions/base") {
        text.push_str("  include <abstractions/base>\n");
    }
    text.push_str("  capability,\n  file,\n  network,\n  umount,\n");
    for peer in ["unconfined", "runc", "crun", own] {
        text.push_str(&format!("  signal (receive) peer={peer},\n"));
    }
    text.push_str(&format!("  signal (send, receive) peer={name},\n"));
    text.push_str(&format!("  ptrace (read, readby, trace, tracedby) peer={name},\n"));
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
    use super::*;

    /// A host with a list of profiles and a parser that keeps what it is given, or fails.
    fn host(dir: &Path, loaded: &str, parser: &str) -> AppArmor {
        let files = testkit::apparmor::files(dir, loaded, parser);
        AppArmor::at(files.profiles, files.pieces, files.parser)
    }

    #[test]
    fn the_usual_profile_is_loaded_once_it_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("kept");
        let on = host(dir.path(), "there (enforce)\n", &format!("/bin/cat > {}", kept.display()));
        on.load_usual("there").unwrap();
        assert!(!kept.exists(), "it is loaded");
        on.load_usual("mine").unwrap();
        let text = std::fs::read_to_string(kept).unwrap();
        assert!(text.contains("profile mine flags") && text.contains("deny mount,"), "{text}");
        let on = host(dir.path(), "", "echo 'syntax error' >&2; exit 3");
        let error = on.load_usual(USUAL).unwrap_err();
        assert!(error.text().contains("syntax error"), "{error}");
        for wrong in ["", "a b", "a{", "a\nb", "/a"] {
            assert!(on.load_usual(wrong).unwrap_err().text().contains("no possible name"), "{wrong:?}");
        }
    }

    #[test]
    fn the_usual_profile_uses_the_pieces_that_are_there() {
        let text = usual(USUAL, |_| true, "containerd (enforce)\n");
        for line in ["abi <abi/3.0>,", "include <abstractions/base>", "peer=containerd,"] {
            assert!(text.contains(line), "{line}");
        }
        let text = usual(USUAL, |_| false, "");
        assert!(text.starts_with("@{PROC}=/proc/\nprofile") && !text.contains("include"));
    }
}
