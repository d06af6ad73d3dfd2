//! Where a container's log is: below its pod's directory of logs, and nowhere else.

use std::path::{Component, Path, PathBuf};

use ::spec::Error;
use model::Result;

/// The path of a log; `None` when it is to be discarded.
///
/// # Errors
/// `InvalidArgument`: the directory is not absolute, or the path leaves it.
pub(super) fn of(directory: &str, path: &str) -> Result<Option<PathBuf>> {
    if directory.is_empty() || path.is_empty() {
        return Ok(None);
    }
    let wrong = || Error::invalid(format!("log path {path:?} of log directory {directory:?} is not valid"));
    let inside =
        Path::new(path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    let strange = |text: &str| text.contains('\0') || text.len() > 4096;
    if !Path::new(directory).is_absolute() || !inside || strange(directory) || strange(path) {
        return Err(wrong());
    }
    Ok(Some(Path::new(directory).join(path)))
}

/// The log as the shim is told: our own scheme, with what a URI has no letters for as `%XX`.
pub(super) fn uri(path: Option<&Path>, max_line: Option<usize>) -> String {
    let path = path.unwrap_or(Path::new("/dev/null"));
    let mut uri = String::from("cri://");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => {
                uri.push(char::from(*byte));
            }
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    format!("{uri}?max_line={}", max_line.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_stays_in_its_directory() {
        assert_eq!(of("/var/log/pods/a", "c/0.log").unwrap(), Some(PathBuf::from("/var/log/pods/a/c/0.log")));
        for nothing in [("", "c"), ("/a", "")] {
            assert_eq!(of(nothing.0, nothing.1).unwrap(), None);
        }
        for (directory, path) in
            [("/a", "../b"), ("/a", "b/../../c"), ("a", "b"), ("/a", "/etc/passwd"), ("/a", "b\0")]
        {
            assert!(of(directory, path).is_err(), "{directory} {path}");
        }
    }

    #[test]
    fn a_path_is_spelled_as_a_uri() {
        assert_eq!(
            uri(Some(Path::new("/a b/%/0.log")), Some(16384)),
            "cri:///a%20b/%25/0.log?max_line=16384"
        );
        assert_eq!(uri(None, None), "cri:///dev/null?max_line=0");
    }
}
