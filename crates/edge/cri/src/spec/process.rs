//! The program: its arguments, environment and directory.

use std::collections::BTreeMap;

use ::spec::Error;
use ::spec::image::ProcessConfig;
use ::spec::runtime::DEFAULT_PATH_ENV;
use api::runtime::v1;
use model::Result;

/// The kubelet's command and arguments over the image's entrypoint and command, as Docker combines them.
///
/// # Errors
/// Nobody says what to run; an argument holds a zero byte, which no program could be given.
pub fn args(config: &v1::ContainerConfig, image: &ProcessConfig) -> Result<Vec<String>> {
    let mut args = config.command.clone();
    let mut rest = &config.args;
    if args.is_empty() {
        if rest.is_empty() {
            rest = &image.cmd;
        }
        // An entrypoint of one empty word is how a Dockerfile takes its parent's away.
        if image.entrypoint != [""] {
            args.clone_from(&image.entrypoint);
        }
    }
    args.extend_from_slice(rest);
    if args.is_empty() {
        return Err(Error::invalid("no command specified"));
    }
    for argument in &args {
        without_zero(argument, "argument")?;
    }
    Ok(args)
}

/// The environment: a search path, the terminal's type, the pod's host name, the image's variables, the kubelet's.
/// A later one replaces an earlier one of the same name in its place.
///
/// # Errors
/// A variable that the kubelet gives has no valid name, or holds a zero byte.
pub fn env(
    base: &[String],
    hostname: &str,
    config: &v1::ContainerConfig,
    image: &ProcessConfig,
) -> Result<Vec<String>> {
    let mut env = Environment::default();
    base.iter().for_each(|variable| env.set(variable.clone()));
    env.set(DEFAULT_PATH_ENV.to_owned());
    if config.tty {
        env.set("TERM=xterm".to_owned());
    }
    env.set(format!("HOSTNAME={hostname}"));
    for variable in &image.env {
        without_zero(variable, "environment variable of the image")?;
        env.set(variable.clone());
    }
    for variable in &config.envs {
        let name = &variable.key;
        if name.is_empty() || name.contains('=') {
            return Err(Error::invalid(format_args!("environment variable name {name:?}")));
        }
        let Ok(value) = std::str::from_utf8(&variable.value) else {
            return Err(Error::invalid(format_args!("environment variable {name:?} is not UTF-8")));
        };
        let variable = format!("{name}={value}");
        without_zero(&variable, "environment variable")?;
        env.set(variable);
    }
    Ok(env.list)
}

/// The environment that an image alone gives.
///
/// # Errors
/// A variable holds a zero byte.
pub fn image_env(image: &ProcessConfig) -> Result<Vec<String>> {
    let mut env = Environment::default();
    env.set(DEFAULT_PATH_ENV.to_owned());
    for variable in &image.env {
        without_zero(variable, "environment variable of the image")?;
        env.set(variable.clone());
    }
    Ok(env.list)
}

/// The directory to start in: the kubelet's, else the image's, else the root.
///
/// # Errors
/// It holds a zero byte.
pub fn cwd(wanted: &str, image: &ProcessConfig) -> Result<String> {
    let cwd = [wanted, &image.working_dir, "/"].into_iter().find(|cwd| !cwd.is_empty()).unwrap_or("/");
    without_zero(cwd, "working directory")?;
    // A relative one has always meant: from the root.
    Ok(if cwd.starts_with('/') { cwd.to_owned() } else { format!("/{cwd}") })
}

/// Variables in the order in which their names first came.
#[derive(Default)]
struct Environment {
    list: Vec<String>,
    places: BTreeMap<String, usize>,
}

impl Environment {
    /// Sets a variable. One without `=` or without a name, which images may hold, is none.
    fn set(&mut self, variable: String) {
        let Some((name, _)) = variable.split_once('=') else { return };
        if name.is_empty() {
            return;
        }
        if let Some(&place) = self.places.get(name) {
            self.list[place] = variable;
        } else {
            self.places.insert(name.to_owned(), self.list.len());
            self.list.push(variable);
        }
    }
}

fn without_zero(text: &str, what: &str) -> Result<()> {
    if text.contains('\0') {
        return Err(Error::invalid(format_args!("{what} {text:?} holds a zero byte")));
    }
    Ok(())
}

#[cfg(test)]
#[path = "process_tests.rs"]
mod tests;
