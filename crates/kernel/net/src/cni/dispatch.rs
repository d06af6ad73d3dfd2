//! Which plugin a name means, and calling it: in this process when it is ours, as a program otherwise.
//!
//! A name means the program of that name in the first directory that has one. When that program is `berth-cni` (a link
//! to it, symbolic or hard), the same code runs in this process instead. When no directory has one, a plugin of that
//! name in this process serves, so that a node needs no plugins installed.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{Call, CallError, CniResult, Command, Error, Plugin, exec, inprocess};

/// The program that holds all our plugins.
const PROGRAM: &str = "berth-cni";

/// Where plugins come from.
#[derive(Clone, Debug)]
pub struct Plugins {
    /// Directories of programs, first match first.
    pub bin_dirs: Vec<PathBuf>,
    /// Whether ours run in this process.
    pub in_process: bool,
}

/// What a name means.
pub enum Found {
    /// A plugin in this process.
    Ours(&'static dyn Plugin),
    /// A program.
    Program(PathBuf),
}

impl Plugins {
    /// Finds the plugin `name`.
    pub fn find(&self, name: &str) -> Result<Found, CallError> {
        let ours = if self.in_process { crate::plugin::find(name) } else { None };
        match (exec::find(name, &self.bin_dirs), ours) {
            (Some(program), Some(ours)) if is_ours(&program) => Ok(Found::Ours(ours)),
            (Some(program), _) => Ok(Found::Program(program)),
            (None, Some(ours)) => Ok(Found::Ours(ours)),
            (None, None) => Err(CallError::Missing { plugin: name.to_owned(), path: self.bin_dirs.clone() }),
        }
    }

    /// Calls the plugin that the call's configuration names. Of [`Command::Add`] alone there is a result.
    pub fn call(&self, command: Command, call: &Call) -> Result<Option<CniResult>, CallError> {
        match self.find(&call.config.plugin)? {
            Found::Ours(plugin) => inprocess::run(plugin, command, call),
            Found::Program(program) => read(command, call, &exec::run(&program, command, call)?),
        }
    }
}

/// Calls `plugin` with the parameters and the configuration of `call`, as a plugin does that leaves addresses to
/// another. It runs on the caller's thread when it is ours.
pub fn delegate(plugin: &str, command: Command, call: &Call) -> Result<Option<CniResult>, Error> {
    if plugin == call.config.plugin {
        // No ADD of it was ever let through, so there is nothing to give back; a pod must not stay for it.
        if matches!(command, Command::Del | Command::Gc) {
            return Ok(None);
        }
        return Err(Error::config(format!("plugin {plugin:?} cannot serve itself")));
    }
    let plugins = Plugins { bin_dirs: call.path.clone(), in_process: true };
    match plugins.find(plugin)? {
        Found::Ours(plugin) => plugin.run(command, call),
        Found::Program(program) => Ok(read(command, call, &exec::run(&program, command, call)?)?),
    }
}

fn read(command: Command, call: &Call, output: &[u8]) -> Result<Option<CniResult>, CallError> {
    if command != Command::Add {
        return Ok(None);
    }
    CniResult::parse(output, call.config.version)
        .map(Some)
        .map_err(|source| CallError::Garbage { excerpt: exec::excerpt(output, 256), source })
}

/// Whether `program` is `berth-cni` under another name.
fn is_ours(program: &Path) -> bool {
    let Ok(real) = std::fs::canonicalize(program) else { return false };
    if real.file_name().is_some_and(|name| name == PROGRAM) {
        return true;
    }
    let about = |path: &Path| std::fs::metadata(path).map(|about| (about.dev(), about.ino())).ok();
    let beside = about(&real.with_file_name(PROGRAM));
    beside.is_some() && beside == about(&real)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;

    fn kind(plugins: &Plugins, name: &str) -> &'static str {
        match plugins.find(name) {
            Ok(Found::Ours(_)) => "ours",
            Ok(Found::Program(_)) => "program",
            Err(_) => "missing",
        }
    }

    #[test]
    fn a_link_to_our_program_is_ours_and_everything_else_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("first"), dir.path().join("second"));
        for dir in [&first, &second] {
            fs::create_dir(dir).unwrap();
        }
        File::create(second.join("berth-cni")).unwrap();
        symlink("berth-cni", second.join("bridge")).unwrap();
        fs::hard_link(second.join("berth-cni"), second.join("portmap")).unwrap();
        symlink("berth-cni", second.join("stranger")).unwrap();
        File::create(second.join("host-local")).unwrap();
        fs::create_dir(first.join("bridge")).unwrap();
        let mut plugins = Plugins { bin_dirs: vec![first.clone(), second], in_process: true };
        for (name, wanted) in [
            ("bridge", "ours"),
            ("portmap", "ours"),
            ("host-local", "program"),
            ("stranger", "program"),
            ("loopback", "ours"),
            ("calico", "missing"),
            ("../bridge", "missing"),
            ("", "missing"),
        ] {
            assert_eq!(kind(&plugins, name), wanted, "{name}");
        }
        // Somebody else's program in an earlier directory is what the configuration means.
        File::create(first.join("portmap")).unwrap();
        assert_eq!(kind(&plugins, "portmap"), "program");
        plugins.in_process = false;
        assert_eq!(kind(&plugins, "bridge"), "program");
        assert_eq!(kind(&plugins, "loopback"), "missing");
        let error = plugins.find("loopback").err().unwrap().to_string();
        assert!(error.starts_with("failed to find plugin \"loopback\" in path ["), "{error}");
    }
}
