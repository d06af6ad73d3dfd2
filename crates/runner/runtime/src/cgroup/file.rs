//! Reading and writing the small files of a cgroup directory.

use std::io::{self, Read, Write};
use std::path::Path;

use sys::Error;

/// Values are at most a few lines; `cgroup.procs` and `memory.numa_stat` of large hosts a few hundred KiB.
const MAX_BYTES: u64 = 4 << 20;

/// Writes `values` to the existing file `name` of `directory`, each in one call, as the kernel wants it.
pub(super) fn write_each(directory: &Path, name: &str, values: &[String]) -> Result<(), Error> {
    let path = directory.join(name);
    let open = std::fs::OpenOptions::new().write(true).open(&path);
    let mut file = open.map_err(|error| failed(&error, "open", &path))?;
    values.iter().try_for_each(|value| {
        let written = file.write_all(value.as_bytes());
        written.map_err(|error| Error::new(errno(&error), format!("write({path:?}, {value:?})")))
    })
}

/// Writes `value` to the existing file `name` of `directory` in one call, as the kernel wants it.
pub(super) fn write(directory: &Path, name: &str, value: &str) -> Result<(), Error> {
    let path = directory.join(name);
    let result = std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut file| file.write_all(value.as_bytes()));
    result.map_err(|error| Error::new(errno(&error), format!("write({path:?}, {value:?})")))
}

/// The text of a file.
pub(super) fn read(path: &Path) -> Result<String, Error> {
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text))
        .map_err(|error| failed(&error, "read", path))?;
    Ok(text)
}

/// The text of the file `name` of `directory`; `None` if the kernel does not offer it there.
pub(super) fn read_optional(directory: &Path, name: &str) -> Result<Option<String>, Error> {
    match read(&directory.join(name)) {
        Ok(text) => Ok(Some(text)),
        // EOPNOTSUPP: the file is there, the feature is off (pressure, threaded cgroups).
        Err(error) if is_absent(&error) || error.is(EOPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The number in the file `name` of `directory`: 0 if there is none, all ones for `max`.
pub(super) fn read_number(directory: &Path, name: &str) -> Result<u64, Error> {
    Ok(read_optional(directory, name)?.map_or(0, |text| number(&text)))
}

/// A number as the kernel writes it: all ones for `max`, and for what is not a number (-1 of v1 limits) too.
pub(super) fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(u64::MAX)
}

/// The lines `key value` of `text`.
pub(super) fn pairs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        Some((key, value.trim().parse().ok()?))
    })
}

/// The value of `key` among the lines `key value` of `text`.
pub(super) fn value_of(text: &str, key: &str) -> Option<u64> {
    pairs(text).find(|(found, _)| *found == key).map(|(_, value)| value)
}

pub(super) const EPERM: i32 = 1;
pub(super) const ENOENT: i32 = 2;
pub(super) const ESRCH: i32 = 3;
pub(super) const EACCES: i32 = 13;
pub(super) const EBUSY: i32 = 16;
pub(super) const EEXIST: i32 = 17;
pub(super) const ENODEV: i32 = 19;
pub(super) const EINVAL: i32 = 22;
pub(super) const EROFS: i32 = 30;
const EOPNOTSUPP: i32 = 95;

/// Whether a file, or the cgroup around it, is not there (any more).
pub(super) fn is_absent(error: &Error) -> bool {
    error.is(ENOENT) || error.is(ENODEV)
}

/// The failure of `call` on `path`.
pub(super) fn failed(error: &io::Error, call: &str, path: &Path) -> Error {
    Error::new(errno(error), format!("{call}({path:?})"))
}

fn errno(error: &io::Error) -> i32 {
    const EIO: i32 = 5;
    error.raw_os_error().unwrap_or(EIO)
}

/// Makes the directory `path` and its parents; whether it was not there before.
pub(super) fn make(path: &Path) -> Result<bool, Error> {
    match make_one(path) {
        Ok(()) => Ok(true),
        Err(error) if error.is(EEXIST) => Ok(false),
        Err(error) if error.is(ENOENT) => {
            make(path.parent().ok_or(error)?)?;
            match make_one(path) {
                Ok(()) => Ok(true),
                Err(error) if error.is(EEXIST) => Ok(false),
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

/// Whatever the caller's umask is, only the owner may make cgroups or move tasks in there.
fn make_one(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().mode(0o755).create(path);
    made.map_err(|error| failed(&error, "mkdir", path))
}
