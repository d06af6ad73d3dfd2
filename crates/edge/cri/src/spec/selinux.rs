//! SELinux: the labels of pods and containers, their own categories, and the labels of files that are theirs.
//!
//! A context is `user:role:type:level`. Processes of one pod have one level of two categories that no other pod has
//! (MCS), unless the kubelet says which; files that are mounted for them get it too.
//!
//! Invariant: nothing of the host outside what the kubelet marks for relabelling is ever relabelled, and no link is
//! followed on the way.

use std::ffi::OsStr;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use ::spec::Error;
use api::runtime::v1;
use model::Result;
use sys::path::at;

use super::{Labels, failed};

/// Where distributions say how containers are labelled, before the policy does.
const CONTEXTS: &str = "/usr/share/containers/selinux/contexts";
/// The attribute of a file's label.
const ATTRIBUTE: &str = "security.selinux";
/// How often a level is drawn until nobody has it.
const TRIES: usize = 1000;
/// How deep a tree to be relabelled may be: each level holds a descriptor.
const MAX_DEPTH: usize = 512;
/// What would break the host.
const NEVER: [&str; 24] = [
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/etc/passwd",
    "/etc/pki",
    "/etc/shadow",
    "/home",
    "/lib",
    "/lib64",
    "/media",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/srv",
    "/sys",
    "/tmp",
    "/usr",
    "/var",
    "/var/lib",
    "/var/log",
];

/// How this host labels containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeLinux {
    process: Context,
    file: Context,
}

/// A label in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Context {
    user: String,
    role: String,
    kind: String,
    level: String,
}

impl Context {
    fn parse(text: &str) -> Result<Self> {
        let mut parts = text.splitn(4, ':').map(str::to_owned);
        let (Some(user), Some(role), Some(kind)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(Error::invalid(format_args!("{text:?} is no SELinux label")));
        };
        Ok(Self { user, role, kind, level: parts.next().unwrap_or_default() })
    }
}

impl fmt::Display for Context {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}:{}:{}", self.user, self.role, self.kind)?;
        if self.level.is_empty() { Ok(()) } else { write!(to, ":{}", self.level) }
    }
}

impl SeLinux {
    /// That of the host; none where no policy is in force or it says nothing of containers.
    pub fn of_host() -> Option<Self> {
        let read = |path: &str| std::fs::read_to_string(path).ok();
        let own = read("/proc/self/attr/current")?;
        if !Path::new("/sys/fs/selinux/enforce").exists() || own.trim_end_matches(['\0', '\n']) == "kernel" {
            return None;
        }
        let config = read("/etc/selinux/config").unwrap_or_default();
        let policy = value(&config, "SELINUXTYPE").unwrap_or_else(|| "targeted".into());
        let contexts =
            read(CONTEXTS).or_else(|| read(&format!("/etc/selinux/{policy}/contexts/lxc_contexts")))?;
        Self::of_contexts(&contexts)
    }

    fn of_contexts(text: &str) -> Option<Self> {
        let context = |key: &str| Context::parse(&value(text, key)?).ok();
        Some(Self { process: context("process")?, file: context("file")? })
    }

    /// The labels by `asked`; where it says no level and the policy has levels, one that is not `taken`.
    fn labels(&self, asked: &Asked, categories: u32, taken: &dyn Fn(&str) -> bool) -> Result<Labels> {
        let (mut process, mut file) = (self.process.clone(), self.file.clone());
        if asked.level.is_empty() && !process.level.is_empty() {
            process.level = fresh_level(categories, taken)?;
            file.level.clone_from(&process.level);
        }
        let over = |part: &mut String, asked: &String| {
            if !asked.is_empty() {
                part.clone_from(asked);
            }
        };
        over(&mut process.user, &asked.user);
        over(&mut process.role, &asked.role);
        over(&mut process.kind, &asked.kind);
        over(&mut process.level, &asked.level);
        over(&mut file.user, &asked.user);
        over(&mut file.level, &asked.level);
        Ok(Labels { process: process.to_string(), mount: file.to_string() })
    }
}

/// What a request says of labels.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    user: String,
    role: String,
    kind: String,
    level: String,
}

impl Asked {
    fn of(options: &v1::SeLinuxOption) -> Result<Self> {
        if !options.level.is_empty() && !is_level(&options.level) {
            return Err(Error::invalid(format_args!(
                "the format of 'level' {:?} is not correct",
                options.level
            )));
        }
        for part in [&options.user, &options.role, &options.r#type] {
            if !part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte)) {
                return Err(Error::invalid(format_args!("{part:?} is no part of an SELinux label")));
            }
        }
        Ok(Self {
            user: options.user.clone(),
            role: options.role.clone(),
            kind: options.r#type.clone(),
            level: options.level.clone(),
        })
    }
}

/// The labels of a pod. `taken` says whether another pod has a level.
///
/// # Errors
/// What is asked for is no label; every level is taken.
pub fn of_pod(
    on: Option<&SeLinux>,
    options: Option<&v1::SeLinuxOption>,
    categories: u32,
    taken: &dyn Fn(&str) -> bool,
) -> Result<Labels> {
    let asked = options.map(Asked::of).transpose()?.unwrap_or_default();
    on.map_or_else(|| Ok(Labels::default()), |on| on.labels(&asked, categories, taken))
}

/// The labels of a container in the pod of the process label `of_pod`, which is its own unless it asks for another.
///
/// # Errors
/// What is asked for is no label.
pub fn of_container(
    on: Option<&SeLinux>,
    options: Option<&v1::SeLinuxOption>,
    categories: u32,
    of_pod: &str,
) -> Result<Labels> {
    let mut asked = options.map(Asked::of).transpose()?.unwrap_or_default();
    let Some(on) = on else { return Ok(Labels::default()) };
    if asked == Asked::default() && !of_pod.is_empty() {
        let Context { user, role, kind, level } = Context::parse(of_pod)?;
        asked = Asked { user, role, kind, level };
    }
    on.labels(&asked, categories, &|_| false)
}

/// The level of a label; empty when it has none.
pub fn level(label: &str) -> &str {
    label.splitn(4, ':').nth(3).unwrap_or_default()
}

/// A level of two categories below `categories`.
fn fresh_level(categories: u32, taken: &dyn Fn(&str) -> bool) -> Result<String> {
    use ring::rand::SecureRandom as _;
    let random = ring::rand::SystemRandom::new();
    for _ in 0..TRIES {
        let mut bytes = [0; 8];
        random.fill(&mut bytes).map_err(|_| Error::internal("the system gave no random bytes"))?;
        let [a, b, c, d, e, f, g, h] = bytes;
        let pick = |four: [u8; 4]| u32::from_le_bytes(four) % categories.max(2);
        let (one, other) = (pick([a, b, c, d]), pick([e, f, g, h]));
        let level = format!("s0:c{},c{}", one.min(other), one.max(other));
        if one != other && !taken(&level) {
            return Ok(level);
        }
    }
    Err(Error::new(::spec::Kind::ResourceExhausted, "no SELinux level is left: raise selinux_category_range"))
}

/// `sN`, `sN-sN`, each with `:cN`, `.cN` and `,cN` behind, as the kubelet may say it.
fn is_level(text: &str) -> bool {
    let (sensitivity, categories) = text.split_once(':').map_or((text, None), |(s, c)| (s, Some(c)));
    let number = |text: &str, begin: char, digits: usize| {
        text.strip_prefix(begin).is_some_and(|rest| {
            (1..=digits).contains(&rest.len()) && rest.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    let mut levels = sensitivity.split('-');
    levels.clone().count() <= 2
        && levels.all(|level| number(level, 's', 1))
        && categories.is_none_or(|categories| {
            categories.split(',').all(|range| {
                let mut ends = range.split('.');
                ends.clone().count() <= 2 && ends.all(|end| number(end, 'c', 4))
            })
        })
}

/// The value of `key` in a file of `key = "value"`.
fn value(text: &str, key: &str) -> Option<String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
    let mut found = lines.filter_map(|line| line.split_once('=')).filter(|(name, _)| name.trim() == key);
    found.next_back().map(|(_, value)| value.trim().trim_matches('"').to_owned())
}

/// Gives `path`, a path of the host without links, and all below it a label. What cannot have one is left.
///
/// # Errors
/// It is a directory of the host's own, or too deep; a file cannot be labelled.
pub fn relabel(path: &Path, label: &str) -> Result<()> {
    if label.is_empty() {
        return Ok(());
    }
    if NEVER.iter().any(|never| Path::new(never) == path) {
        return Err(Error::invalid(format_args!("SELinux relabeling of {} is not allowed", path.display())));
    }
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::invalid(format_args!("SELinux relabeling of {} is not allowed", path.display())));
    };
    let relabelled = at::open(at::here(), dir.as_os_str(), DIRECTORY, 0)
        .and_then(|dir| tree(dir.as_fd(), name, label.as_bytes(), MAX_DEPTH));
    match relabelled {
        Err(error) if error.errno() == ENOTSUP => Ok(()),
        done => done.map_err(|error| failed(format_args!("relabel {}", path.display()), &error)),
    }
}

/// What is in a directory first, it itself last: one that has its label is done.
fn tree(dir: BorrowedFd<'_>, name: &OsStr, label: &[u8], depth: usize) -> sys::Result<()> {
    match at::stat(dir, name) {
        Ok(stat) if stat.is_dir() => {
            if depth == 0 {
                return Err(sys::Error::new(ELOOP, format!("relabel({name:?}, deeper than {MAX_DEPTH})")));
            }
            let opened = at::open(dir, name, DIRECTORY, 0)?;
            for (entry, _) in at::entries(opened.as_fd())? {
                tree(opened.as_fd(), &entry, label, depth - 1)?;
            }
        }
        // It went away meanwhile.
        Err(error) if error.errno() == ENOENT => return Ok(()),
        other => drop(other?),
    }
    let attribute = OsStr::new(ATTRIBUTE);
    if sys::xattr::get_at(dir, name, attribute).is_ok_and(|own| own.as_deref() == Some(label)) {
        return Ok(());
    }
    match sys::xattr::set_at(dir, name, attribute, label) {
        Err(error) if error.errno() == ENOENT => Ok(()),
        done => done,
    }
}

/// Numbers of Linux: this crate links no libc.
const DIRECTORY: i32 = 0o20_0000;
const ENOENT: i32 = 2;
const ELOOP: i32 = 40;
const ENOTSUP: i32 = 95;

#[cfg(test)]
#[path = "selinux_tests.rs"]
mod tests;
