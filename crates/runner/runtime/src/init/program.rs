//! Which file `args[0]` means, found as the user of the process inside the container, before it is started.
//!
//! The texts are Go's `os/exec` ones: clients match on them.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use sys::path::at;

use super::InitError;
use crate::create::plan::Process;

/// The file to execute.
pub(super) fn find(process: &Process) -> Result<CString, InitError> {
    let name = process.args.first().map(|arg| OsStr::from_bytes(arg.as_bytes())).unwrap_or_default();
    let path = search(name, variable(process, b"PATH").unwrap_or_default(), executable)
        .map_err(|why| InitError::text_only(format!("exec: {:?}: {why}", name.display().to_string())))?;
    CString::new(path.into_os_string().as_bytes())
        .map_err(|_| InitError::text_only("exec: zero byte in path"))
}

/// The value of a variable of the process's environment; the last one counts.
pub(super) fn variable<'a>(process: &'a Process, name: &[u8]) -> Option<&'a OsStr> {
    process.env.iter().rev().find_map(|entry| {
        let value = entry.as_bytes().strip_prefix(name)?.strip_prefix(b"=")?;
        Some(OsStr::from_bytes(value))
    })
}

/// Go's `exec.LookPath`: a name with a slash is a path, any other is looked for in the directories of `path`.
fn search(
    name: &OsStr,
    path: &OsStr,
    executable: impl Fn(&Path) -> Result<(), String>,
) -> Result<PathBuf, String> {
    if name.as_bytes().contains(&b'/') {
        return executable(Path::new(name)).map(|()| PathBuf::from(name));
    }
    for dir in path.as_bytes().split(|&byte| byte == b':') {
        let dir = if dir.is_empty() { OsStr::new(".") } else { OsStr::from_bytes(dir) };
        let file = Path::new(dir).join(name);
        if executable(&file).is_ok() {
            if !file.is_absolute() {
                return Err("cannot run executable found relative to current directory".into());
            }
            return Ok(file);
        }
    }
    Err("executable file not found in $PATH".into())
}

/// Whether `path` is a file that this process may execute.
fn executable(path: &Path) -> Result<(), String> {
    let stat = std::fs::metadata(path).map_err(|error| {
        format!("stat {}: {}", path.display(), sys::error::words(error.raw_os_error().unwrap_or(0)))
    })?;
    if stat.is_dir() {
        return Err("is a directory".into());
    }
    at::may_execute(path).map_err(|error| error.words())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, path: &str, files: &[&str]) -> Result<PathBuf, String> {
        search(OsStr::new(name), OsStr::new(path), |file| {
            if files.iter().any(|known| Path::new(known) == file) { Ok(()) } else { Err("stat: no".into()) }
        })
    }

    #[test]
    fn a_name_is_looked_for_in_order() {
        let files = ["/usr/bin/sh", "/bin/sh", "./here"];
        assert_eq!(found("sh", "/sbin:/bin:/usr/bin", &files).unwrap(), Path::new("/bin/sh"));
        assert_eq!(found("no", "/bin", &files).unwrap_err(), "executable file not found in $PATH");
        assert_eq!(found("/usr/bin/sh", "", &files).unwrap(), Path::new("/usr/bin/sh"));
        assert!(found("here", "/bin:", &files).unwrap_err().contains("relative to current directory"));
    }

    #[test]
    fn the_text_is_gos() {
        assert_eq!(
            executable(Path::new("/no/such")).unwrap_err(),
            "stat /no/such: no such file or directory"
        );
        assert_eq!(executable(Path::new("/")).unwrap_err(), "is a directory");
    }
}
