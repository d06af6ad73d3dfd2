//! Plugins that are installed with the node: files `NN-name` in one directory, their configuration in another.
//!
//! Invariant: a file that cannot be a plugin, or a configuration that cannot be read, costs its own plugin alone.

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use ::spec::{Error, Kind};
use model::Result;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::plugin::{Known, check_index, check_name};

/// The longest configuration of a plugin.
const MAX_CONFIG: u64 = 1 << 20;
/// The most plugins that are started.
const MAX_PLUGINS: usize = 64;
/// The descriptor on which a plugin finds its connection.
const SOCKET: i32 = 3;

/// A plugin's file and what is known of it.
#[derive(Clone, Debug)]
pub struct Installed {
    /// Its program.
    pub program: PathBuf,
    /// Its index, name and configuration.
    pub known: Known,
}

/// The plugins in `dir`, in their order, with their configurations from `configs`. Blocks.
pub fn discover(dir: &Path, configs: &Path) -> Vec<Installed> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        // Through links, as a package may install them.
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
            continue;
        }
        match installed(path, &name, configs) {
            Ok(plugin) => found.push(plugin),
            Err(error) => tracing::warn!(file = name, %error, "not an NRI plugin"),
        }
    }
    found.sort_by(|a, b| (&a.known.index, &a.known.base).cmp(&(&b.known.index, &b.known.base)));
    if found.len() > MAX_PLUGINS {
        tracing::warn!(count = found.len(), most = MAX_PLUGINS, "there are too many NRI plugins");
        found.truncate(MAX_PLUGINS);
    }
    found
}

fn installed(program: PathBuf, name: &str, configs: &Path) -> Result<Installed> {
    let (index, base) = name
        .split_once('-')
        .ok_or_else(|| Error::invalid(format!("invalid plugin name {name:?}, idx-pluginname expected")))?;
    check_index(index)?;
    check_name(base)?;
    for file in [format!("{name}.conf"), format!("{base}.conf")] {
        if let Some(config) = read_config(&configs.join(file))? {
            return Ok(Installed {
                program,
                known: Known { index: index.into(), base: base.into(), config },
            });
        }
    }
    let known = Known { index: index.into(), base: base.into(), config: String::new() };
    Ok(Installed { program, known })
}

fn read_config(path: &Path) -> Result<Option<String>> {
    let failed = |error: std::io::Error| {
        Error::new(Kind::Unavailable, format!("cannot read {}: {error}", path.display()))
    };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut text = String::new();
    file.take(MAX_CONFIG + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_CONFIG {
        return Err(Error::invalid(format!("{} is longer than {MAX_CONFIG} bytes", path.display())));
    }
    Ok(Some(text))
}

/// Starts a plugin on one end of a socket pair. It is killed when its handle is dropped.
///
/// # Errors
/// Its program cannot be run.
pub fn launch(plugin: &Installed) -> Result<(UnixStream, Child)> {
    let failed = |error: std::io::Error| {
        Error::new(Kind::Unavailable, format!("cannot start {}: {error}", plugin.program.display()))
    };
    let (near, far) = UnixStream::pair().map_err(failed)?;
    let far: OwnedFd =
        far.into_std().and_then(|far| far.set_nonblocking(false).map(|()| far.into())).map_err(failed)?;
    let mut command = std::process::Command::new(&plugin.program);
    command
        .env_clear()
        .env("NRI_PLUGIN_NAME", &plugin.known.base)
        .env("NRI_PLUGIN_IDX", &plugin.known.index)
        .env("NRI_PLUGIN_SOCKET", SOCKET.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    sys::process::pass(&mut command, far, SOCKET);
    let child = Command::from(command).kill_on_drop(true).spawn().map_err(failed)?;
    Ok((near, child))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(dir: &Path, name: &str, mode: u32) {
        std::fs::write(dir.join(name), "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(dir.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn plugins_are_found_in_their_order_with_their_configuration() {
        let (dir, configs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (name, mode) in [
            ("20-b", 0o755),
            ("10-z", 0o755),
            ("10-a", 0o755),
            ("30-no-program", 0o644),
            ("README", 0o755),
            ("1-x", 0o755),
            ("40-bad name", 0o755),
        ] {
            program(dir.path(), name, mode);
        }
        std::fs::write(configs.path().join("10-a.conf"), "own").unwrap();
        std::fs::write(configs.path().join("a.conf"), "shared").unwrap();
        std::fs::write(configs.path().join("b.conf"), "by name").unwrap();
        let found = discover(dir.path(), configs.path());
        let seen: Vec<_> = found
            .iter()
            .map(|one| (one.known.index.as_str(), one.known.base.as_str(), one.known.config.as_str()))
            .collect();
        assert_eq!(seen, [("10", "a", "own"), ("10", "z", ""), ("20", "b", "by name")]);
        assert!(discover(&dir.path().join("none"), configs.path()).is_empty());
    }

    #[tokio::test]
    async fn a_plugin_finds_its_name_and_its_socket() {
        use tokio::io::AsyncReadExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("10-a");
        std::fs::write(
            &path,
            "#!/bin/sh\necho \"$NRI_PLUGIN_IDX $NRI_PLUGIN_NAME $NRI_PLUGIN_SOCKET\" >&3\n",
        )
        .unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let found = discover(dir.path(), dir.path());
        let (mut socket, mut child) = launch(&found[0]).unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "10 a 3\n");
        assert!(child.wait().await.unwrap().success());
    }
}
