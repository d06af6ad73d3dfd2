//! AppArmor where there is none: a list of loaded profiles, and a program in the parser's place.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// What stands for the kernel's and the distribution's files.
#[derive(Clone, Debug)]
pub struct Files {
    /// The kernel's list of loaded profiles.
    pub profiles: PathBuf,
    /// Where pieces of profiles are: nowhere.
    pub pieces: PathBuf,
    /// The program that loads profiles.
    pub parser: PathBuf,
}

/// Makes them in `dir`, with `loaded` in the list and the shell's `script` as the parser.
pub fn files(dir: &Path, loaded: &str, script: &str) -> Files {
    let files =
        Files { profiles: dir.join("profiles"), pieces: dir.join("pieces"), parser: dir.join("parser") };
    fs::write(&files.profiles, loaded).expect("write the list of profiles");
    fs::write(&files.parser, format!("#!/bin/sh\n{script}\n")).expect("write the parser");
    fs::set_permissions(&files.parser, fs::Permissions::from_mode(0o755)).expect("make it a program");
    files
}
