//! `containerd oci-hook`: a hook of the OCI runtime that runs another program with facts of the container put into its
//! arguments and environment.
//!
//! `{{id}}`, `{{bundle}}`, `{{rootfs}}`, `{{pid}}`, `{{status}}` and `{{annotation "KEY"}}` are what containerd's own
//! command has; it reads them as Go's templates, of which nothing else is understood here.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use spec::runtime::{MAX_CONFIG_BYTES, State};
use spec::{Error, Result};

/// The most that is read of the state that the runtime writes to standard input, in bytes.
const MAX_STATE_BYTES: u64 = 4 << 20;

/// What is to be run.
#[derive(clap::Args, Debug)]
pub struct OciHook {
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl OciHook {
    /// Replaces this process by the program, with the container's state on standard input already read.
    ///
    /// # Errors
    /// The state, the bundle or a template is not valid, or the program cannot be executed.
    pub fn run(self) -> Result<()> {
        let facts = Facts::read(&mut std::io::stdin().lock())?;
        let args = self.command.iter().map(|arg| c_string(facts.render(arg)?.into_bytes()));
        let args = args.collect::<Result<Vec<_>>>()?;
        let env = std::env::vars_os().map(|(name, value)| {
            let pair = [name.into_vec(), value.into_vec()].join(&b'=');
            match String::from_utf8(pair) {
                Ok(text) => c_string(facts.render(&text)?.into_bytes()),
                Err(other) => c_string(other.into_bytes()),
            }
        });
        let env = env.collect::<Result<Vec<_>>>()?;
        let program = args.first().ok_or_else(|| Error::invalid("no program to run"))?;
        Err(Error::internal(format!("cannot run the hook: {}", sys::process::exec(program, &args, &env))))
    }
}

fn c_string(bytes: Vec<u8>) -> Result<CString> {
    CString::new(bytes).map_err(|_| Error::invalid("an argument of the hook contains a zero byte"))
}

/// What templates may name.
struct Facts {
    state: State,
    rootfs: PathBuf,
}

impl Facts {
    fn read(input: &mut dyn Read) -> Result<Self> {
        let what = "the container's state on standard input";
        let text = whole(input, MAX_STATE_BYTES, what)?;
        let state: State = serde_json::from_slice(&text).map_err(|error| unreadable(what, &error))?;
        let file = Path::new(&state.bundle).join("config.json");
        let what = file.display().to_string();
        let mut opened = File::open(&file).map_err(|error| unreadable(&what, &error))?;
        let text = whole(&mut opened, MAX_CONFIG_BYTES, &what)?;
        // The root alone is looked at: the rest is the runtime's to judge.
        let config: serde_json::Value =
            serde_json::from_slice(&text).map_err(|error| unreadable(&what, &error))?;
        let root = config["root"]["path"].as_str();
        let root = root.ok_or_else(|| Error::invalid(format!("{what} has no root.path")))?;
        // An absolute path stays as it is.
        let rootfs = Path::new(&state.bundle).join(root);
        Ok(Self { state, rootfs })
    }

    /// `text` with its actions replaced.
    fn render(&self, text: &str) -> Result<String> {
        let wrong = || Error::invalid(format!("unsupported template in {text:?}"));
        let (mut rendered, mut rest) = (String::new(), text);
        while let Some((before, after)) = rest.split_once("{{") {
            let (action, after) = after.split_once("}}").ok_or_else(wrong)?;
            let (before, action) = match action.strip_prefix("- ") {
                Some(action) => (before.trim_end(), action),
                None => (before, action),
            };
            let (action, after) = match action.strip_suffix(" -") {
                Some(action) => (action, after.trim_start()),
                None => (action, after),
            };
            rendered.push_str(before);
            rendered.push_str(&self.value(action.trim()).ok_or_else(wrong)?);
            rest = after;
        }
        rendered.push_str(rest);
        Ok(rendered)
    }

    fn value(&self, action: &str) -> Option<String> {
        let state = &self.state;
        if let Some(key) = action.strip_prefix("annotation") {
            let key = quoted(key.trim_start())?;
            return Some(state.annotations.get(key).cloned().unwrap_or_default());
        }
        Some(match action {
            "id" => state.id.clone(),
            "bundle" => state.bundle.clone(),
            "rootfs" => String::from_utf8_lossy(self.rootfs.as_os_str().as_bytes()).into_owned(),
            "pid" => state.pid.to_string(),
            "status" => state.status.to_string(),
            _ => return None,
        })
    }
}

/// The text of a string constant without escapes.
fn quoted(word: &str) -> Option<&str> {
    let quote = word.chars().next().filter(|quote| matches!(quote, '"' | '`'))?;
    let text = word.strip_prefix(quote)?.strip_suffix(quote)?;
    if text.contains(quote) || quote == '"' && text.contains('\\') { None } else { Some(text) }
}

fn whole(input: &mut dyn Read, max_bytes: u64, what: &str) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    input.take(max_bytes).read_to_end(&mut text).map_err(|error| unreadable(what, &error))?;
    Ok(text)
}

fn unreadable(what: &str, error: &dyn std::fmt::Display) -> Error {
    Error::invalid(format!("cannot read {what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(root: &str) -> Result<Facts> {
        let dir = tempfile::tempdir().unwrap();
        let config = format!(r#"{{"ociVersion": "1.2.0", "root": {{"path": "{root}"}}}}"#);
        std::fs::write(dir.path().join("config.json"), config).unwrap();
        let state = format!(
            r#"{{"ociVersion": "1.2.0", "id": "c1", "status": "created", "pid": 42, "bundle": "{}",
                "annotations": {{"a.b/c": "value"}}}}"#,
            dir.path().display()
        );
        Facts::read(&mut state.as_bytes())
    }

    #[test]
    fn actions_are_replaced_by_the_containers_facts() {
        let facts = facts("/root fs").unwrap();
        for (text, expected) in [
            ("plain", "plain"),
            ("--id={{id}} {{ pid }}", "--id=c1 42"),
            ("{{status}}", "created"),
            ("{{rootfs}}/etc", "/root fs/etc"),
            ("a {{- id -}} b", "ac1b"),
            (r#"{{annotation "a.b/c"}}"#, "value"),
            ("{{annotation `a.b/c`}}", "value"),
            (r#"{{annotation "none"}}|"#, "|"),
            ("}} {", "}} {"),
        ] {
            assert_eq!(facts.render(text).unwrap(), expected, "{text}");
        }
        for text in
            ["{{id", "{{unknown}}", "{{annotation}}", r#"{{annotation "a" "b"}}"#, "{{id | printf}}", "{{}}"]
        {
            assert!(facts.render(text).is_err(), "{text}");
        }
    }

    #[test]
    fn relative_root_is_in_the_bundle() {
        let facts = facts("rootfs").unwrap();
        assert_eq!(
            facts.render("{{rootfs}}").unwrap(),
            format!("{}/rootfs", facts.render("{{bundle}}").unwrap())
        );
    }

    #[test]
    fn state_without_a_bundle_is_refused() {
        assert!(Facts::read(&mut &b"{}"[..]).is_err());
        assert!(Facts::read(&mut &b""[..]).is_err());
    }
}
