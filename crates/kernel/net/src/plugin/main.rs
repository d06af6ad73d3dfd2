//! The plugins as one program: its name, or its first argument, says which.

use std::env;
use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};
use serde_json::{Value, json};

use super::{NAMES, find};
use crate::cni::{Call, Command, Error, NetworkConfig, Plugin, Version, code};

/// Name of the program itself.
const PROGRAM: &str = "berth-cni";
/// Longest configuration that is read.
const INPUT_MAX: u64 = 8 << 20;
/// When a call gives up. Runtimes set no limit of their own; kubelet's is four minutes.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs the plugin that the program's name or its first argument names; or `install DIRECTORY`.
pub fn main() -> ExitCode {
    let mut args = env::args_os();
    let called = args.next().map(PathBuf::from).unwrap_or_default();
    let name = called.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if let Some(plugin) = find(name) {
        return run(name, plugin);
    }
    let args: Vec<OsString> = args.collect();
    let words: Vec<&str> = args.iter().filter_map(|arg| arg.to_str()).collect();
    match words.as_slice() {
        ["install", directory] => match install(Path::new(directory)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&format!("{PROGRAM}: {error}")),
        },
        [name] if find(name).is_some() => find(name).map_or(ExitCode::FAILURE, |plugin| run(name, plugin)),
        _ => fail(&format!("usage: {PROGRAM} {{{}}}\n       {PROGRAM} install DIRECTORY", NAMES.join("|"))),
    }
}

fn fail(text: &str) -> ExitCode {
    // Standard error is talk; that it is closed changes nothing.
    let _ = writeln!(std::io::stderr(), "{text}");
    ExitCode::FAILURE
}

/// One call, its parameters in the environment and on standard input.
fn run(name: &str, plugin: &dyn Plugin) -> ExitCode {
    let versions: Vec<&str> = plugin.versions().iter().map(|version| version.as_str()).collect();
    let Some(command) = env::var("CNI_COMMAND").ok().filter(|command| !command.is_empty()) else {
        let about = format!("CNI {name} plugin {PROGRAM} {}", env!("CARGO_PKG_VERSION"));
        fail(&format!("{about}\nCNI protocol versions supported: {}", versions.join(", ")));
        return ExitCode::SUCCESS;
    };
    let (output, code) = match answer(&command, plugin, &versions) {
        Ok(output) => (output, ExitCode::SUCCESS),
        Err(error) => (Some(json!(error)), ExitCode::FAILURE),
    };
    match output.map_or(Ok(()), |output| print(&output)) {
        Ok(()) => code,
        Err(error) => fail(&format!("{name}: {error}")),
    }
}

fn answer(command: &str, plugin: &dyn Plugin, versions: &[&str]) -> Result<Option<Value>, Error> {
    let command: Command = command.parse()?;
    if command == Command::Version {
        return Ok(Some(json!({"cniVersion": Version::CURRENT.as_str(), "supportedVersions": versions})));
    }
    let mut input = Vec::new();
    std::io::stdin()
        .take(INPUT_MAX)
        .read_to_end(&mut input)
        .map_err(|error| Error::io(format!("error reading from stdin: {error}")))?;
    let call = read_call(NetworkConfig::parse(&input)?)?;
    match plugin.run(command, &call)? {
        Some(result) => result.to_json(call.config.version).map(Some),
        None => Ok(None),
    }
}

fn read_call(config: NetworkConfig) -> Result<Call, Error> {
    let text = |name: &str| match env::var(name) {
        Ok(text) => Ok(text),
        Err(env::VarError::NotPresent) => Ok(String::new()),
        Err(error) => Err(Error::new(code::INVALID_ENVIRONMENT, format!("{name}: {error}"))),
    };
    let netns = text("CNI_NETNS")?;
    let args = text("CNI_ARGS")?;
    let mut pairs = Vec::new();
    for pair in args.split(';').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| Error::new(code::INVALID_ENVIRONMENT, format!("ARGS: invalid pair {pair:?}")))?;
        pairs.push((key.to_owned(), value.to_owned()));
    }
    Ok(Call {
        container_id: text("CNI_CONTAINERID")?,
        netns: Some(netns).filter(|path| !path.is_empty()).map(PathBuf::from),
        ifname: text("CNI_IFNAME")?,
        args: pairs,
        path: env::var_os("CNI_PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default(),
        config,
        deadline: Instant::now() + LIMIT,
    })
}

/// Prints as Go's library prints: indented by four blanks.
fn print(value: &Value) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(b"    ")))?;
    bytes.push(b'\n');
    std::io::stdout().write_all(&bytes)
}

/// Puts this program into `directory`, and a link for every plugin beside it. What is there is replaced, each at once.
fn install(directory: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let staged = directory.join(format!(".{PROGRAM}.new"));
    let place = |name: &str| std::fs::rename(&staged, directory.join(name));
    let program = directory.join(PROGRAM);
    let current = env::current_exe()?.canonicalize()?;
    if program.canonicalize().ok().as_deref() != Some(current.as_path()) {
        std::fs::copy(&current, &staged)?;
        place(PROGRAM)?;
    }
    for name in NAMES {
        match std::fs::remove_file(&staged) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => symlink(PROGRAM, &staged)?,
        }
        place(name)?;
    }
    Ok(())
}
