//! Mounts whose files show other owners: containerd's options `uidmap=` and `gidmap=`, `container:host:length[,...]`.
//!
//! A bind is shifted itself. An overlay cannot be; its lower layers are, and what is written to its upper one is the
//! container's own. Layers are shifted where nobody else sees it: on a thread with a mount namespace that ends with it.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::{Attributes, Change, Propagation, attach_at, change, copy, fstab, propagate_path};
use crate::error::{Error, Result, call};
use crate::namespace::{self, Kind};
use crate::path::at;

/// How owners are shifted: texts of `uid_map` and `gid_map`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maps {
    uid: String,
    gid: String,
}

impl Maps {
    /// The maps that `options` name, and the other options.
    ///
    /// # Errors
    /// `EINVAL`: a map is none, or one is there without the other.
    pub fn take<S: AsRef<str>>(options: &[S]) -> Result<(Option<Self>, Vec<&str>)> {
        let (mut uid, mut gid, mut rest) = (None, None, Vec::new());
        for option in options.iter().map(AsRef::as_ref) {
            match option.split_once('=') {
                Some(("uidmap", map)) => uid = Some(text(map)?),
                Some(("gidmap", map)) => gid = Some(text(map)?),
                _ => rest.push(option),
            }
        }
        match (uid, gid) {
            (None, None) => Ok((None, rest)),
            (Some(uid), Some(gid)) => Ok((Some(Self { uid, gid }), rest)),
            _ => Err(Error::new(libc::EINVAL, "mount(uidmap and gidmap go together)")),
        }
    }

    /// The same mount as [`fstab::detached`] makes, with shifted owners. Linux 5.12, an overlay 5.19.
    pub fn mount(&self, name: &str, source: &OsStr, options: &[&str]) -> Result<OwnedFd> {
        let split = fstab::split(options);
        let (user, _) = namespace::make_mapped(&self.uid, &self.gid, Kind::User)?;
        let bind = split.bind.or(match name {
            "bind" => Some(false),
            "rbind" => Some(true),
            _ => None,
        });
        if let Some(recursive) = bind {
            let tree = copy(at::here(), Path::new(source), recursive)?;
            shift(tree.as_fd(), user.as_fd(), recursive)?;
            fstab::prepare(tree.as_fd(), &split)?;
            return Ok(tree);
        }
        let lower = split.data.iter().find_map(|option| option.strip_prefix("lowerdir="));
        let Some(lower) = lower.filter(|_| name == "overlay") else {
            return Err(Error::new(libc::ENOTSUP, format!("mount({name}, uidmap)")));
        };
        apart(|| {
            for layer in lower.split(':') {
                let tree = copy(at::here(), Path::new(layer), false)?;
                shift(tree.as_fd(), user.as_fd(), false)?;
                attach_at(tree.as_fd(), Path::new(layer))?;
            }
            // Where it is put here matters to nobody: the copy is what leaves.
            let place = Path::new(lower.split(':').next().unwrap_or(lower));
            fstab::mount(name, source, options, place)?;
            copy(at::here(), place, false)
        })
    }
}

/// Whether owners can be shifted in the file system of `dir` and in overlays on it.
pub fn works(dir: &Path) -> bool {
    let shifted = || {
        let (user, _) = namespace::make_mapped("0 65536 1\n", "0 65536 1\n", Kind::User)?;
        shift(copy(at::here(), dir, false)?.as_fd(), user.as_fd(), false)
    };
    let release = rustix::system::uname();
    let mut numbers = release.release().to_str().unwrap_or_default().split(['.', '-']).map(str::parse::<u32>);
    let version = (numbers.next(), numbers.next());
    matches!(version, (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= (5, 19)) && shifted().is_ok()
}

fn shift(mount: BorrowedFd<'_>, user: BorrowedFd<'_>, recursive: bool) -> Result<()> {
    let shifted = Change { set: Attributes::IDMAP, user_ns: Some(user), ..Change::default() };
    change(mount, shifted, recursive)
}

/// Runs `work` on a thread of its own, in a mount namespace that nobody else sees and that ends with it.
fn apart<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let number = OnceLock::new();
    let done = std::thread::scope(|scope| {
        let inside = || {
            let _first = number.set(rustix::thread::gettid().as_raw_nonzero().get());
            namespace::unshare(Kind::Mount.flag())?;
            propagate_path(Path::new("/"), Propagation::Private, true)?;
            work()
        };
        let lost = |what: &str| Error::new(libc::EAGAIN, format!("clone({what})"));
        let thread = std::thread::Builder::new().name("mapped mount".into()).spawn_scoped(scope, inside);
        let thread = thread.map_err(|error| lost(&error.to_string()))?;
        thread.join().map_err(|_| lost("the thread panicked"))?
    });
    if let Some(&number) = number.get() {
        until_gone(number);
    }
    done
}

/// Waits for the kernel to take apart a thread that was joined: callers count on being alone again.
fn until_gone(number: i32) {
    let path = format!("/proc/self/task/{number}");
    let end = Instant::now() + Duration::from_secs(1);
    while Path::new(&path).exists() && Instant::now() < end {
        std::thread::yield_now();
    }
}

/// `container:host:length[,...]` as the kernel's files have it.
fn text(map: &str) -> Result<String> {
    let wrong = || call!("mount", map)(rustix::io::Errno::INVAL);
    let mut text = String::new();
    for range in map.split(',') {
        let numbers: Vec<u32> =
            range.split(':').map(str::parse).collect::<std::result::Result<_, _>>().map_err(|_| wrong())?;
        let [inside, outside, length] = numbers[..] else { return Err(wrong()) };
        let _infallible = writeln!(text, "{inside} {outside} {length}");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_taken_out_of_options() {
        let (maps, rest) =
            Maps::take(&["ro", "uidmap=0:7:10,10:100:5", "gidmap=0:8:10", "index=off"]).unwrap();
        let wanted = Maps { uid: "0 7 10\n10 100 5\n".into(), gid: "0 8 10\n".into() };
        assert_eq!((maps, rest), (Some(wanted), vec!["ro", "index=off"]));
        assert_eq!(Maps::take(&["ro"]).unwrap(), (None, vec!["ro"]));
        for options in [&["uidmap=0:1:2"][..], &["uidmap=", "gidmap=0:1:2"], &["uidmap=0:1", "gidmap=0:-1:2"]]
        {
            assert!(Maps::take(options).is_err(), "{options:?}");
        }
    }
}
