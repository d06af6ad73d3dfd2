//! The root file and what it imports, checked and merged.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::keys::{self, KEYS};
use super::read::{self, ConfigError, MAX_FILE};
use super::value::{Value, Values};
use super::{VERSION, migrate};

/// How many files may be imported in all.
const MAX_FILES: usize = 256;

/// A configuration and what was odd about it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    /// Every key's value: what files say, else the default.
    pub values: Values,
    /// What was ignored, each with file, line and key.
    pub warnings: Vec<String>,
}

/// Loads the file `path` and its imports. A missing file is an empty one, unless it is `required`.
///
/// # Errors
/// See [`ConfigError`].
pub fn load(path: &Path, required: bool) -> Result<Loaded, ConfigError> {
    let mut loader = Loader { seen: BTreeSet::new(), warnings: Vec::new() };
    let set = match read_file(path) {
        Ok(text) => loader.file(path, &text, VERSION)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !required => Values::default(),
        Err(source) => return Err(ConfigError::Read { path: path.into(), source }),
    };
    let mut values = defaults();
    for (table, keys) in set.tables() {
        for (key, value) in keys {
            values.set(table, key, value.clone());
        }
    }
    loader.imports(path, &mut values)?;
    values.set("", "version", Value::Integer(VERSION));
    check(&values)?;
    Ok(Loaded { values, warnings: loader.warnings })
}

/// The file `path` alone, at the newest version, without defaults and imports.
///
/// # Errors
/// See [`ConfigError`].
pub fn migrated(path: &Path) -> Result<Loaded, ConfigError> {
    let mut loader = Loader { seen: BTreeSet::new(), warnings: Vec::new() };
    let text = read_file(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
    let mut values = loader.file(path, &text, VERSION)?;
    values.set("", "version", Value::Integer(VERSION));
    Ok(Loaded { values, warnings: loader.warnings })
}

/// Every key at its default.
pub fn defaults() -> Values {
    let mut values = Values::default();
    for key in KEYS {
        values.set(key.table, key.name, literal(key.default));
    }
    values
}

/// A default as TOML writes it. The table of keys is tested, so nothing else comes here.
fn literal(text: &str) -> Value {
    read::entries(Path::new(""), &format!("x = {text}"))
        .ok()
        .and_then(|mut entries| entries.pop())
        .map_or_else(|| Value::Text(text.into()), |entry| entry.value)
}

fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(io::Error::other(format!("more than {MAX_FILE} bytes")));
    }
    Ok(text)
}

struct Loader {
    seen: BTreeSet<PathBuf>,
    warnings: Vec<String>,
}

impl Loader {
    /// One file's own values at version 4.
    fn file(&mut self, path: &Path, text: &str, most: i64) -> Result<Values, ConfigError> {
        self.seen.insert(path.to_owned());
        let entries = read::entries(path, text)?;
        let version = version(path, &entries, most)?;
        let mut values = Values::default();
        let mut idle = BTreeSet::new();
        for entry in entries {
            let entry = migrate::entry(entry, version);
            let table = entry.table.join("/");
            let name = match table.as_str() {
                "" => entry.key.clone(),
                _ => format!("{}.{}", entry.table.join("."), entry.key),
            };
            match keys::find(&table, &entry.key) {
                Some(key) if key.kind.admits(&entry.value) => {
                    if key.is_idle && entry.value != literal(key.default) {
                        let place = format!("{}:{}", path.display(), entry.line);
                        self.warnings.push(format!("{place}: {name} has no effect"));
                    }
                    values.set(&table, &entry.key, entry.value);
                }
                Some(key) => {
                    return Err(ConfigError::Type {
                        path: path.into(),
                        line: entry.line,
                        key: name,
                        wanted: key.kind.name(),
                        found: entry.value.kind(),
                    });
                }
                None if keys::is_foreign(&table) => {
                    let place = format!("{}:{}", path.display(), entry.line);
                    let warning = format!("{place}: {} has no effect", entry.table.join("."));
                    // Go's default file has these tables too, with nothing in them.
                    let says = keys::is_idle(&table) && !entry.value.is_zero();
                    if says && idle.insert(table.clone()) {
                        self.warnings.push(warning);
                    }
                    values.set(&table, &entry.key, entry.value);
                }
                None => {
                    let place = format!("{}:{}", path.display(), entry.line);
                    self.warnings.push(format!("{place}: unknown key {name} is ignored"));
                }
            }
        }
        Ok(values)
    }

    /// Merges every imported file, in order; a file is read once, so circles end.
    fn imports(&mut self, root: &Path, values: &mut Values) -> Result<(), ConfigError> {
        let patterns = |values: &Values, of: &Path| match values.get("", "imports") {
            Some(Value::List(list)) => list
                .iter()
                .filter_map(|item| match item {
                    Value::Text(text) => Some((text.clone(), of.to_owned())),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        };
        let mut pending: Vec<(String, PathBuf)> = patterns(values, root);
        while !pending.is_empty() {
            let (pattern, of) = pending.remove(0);
            for path in matches(&pattern, &of)? {
                if self.seen.contains(&path) || self.seen.len() > MAX_FILES {
                    continue;
                }
                let text =
                    read_file(&path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
                let set = self.file(&path, &text, VERSION)?;
                pending.extend(patterns(&set, &path));
                values.merge(set);
            }
        }
        Ok(())
    }
}

fn version(path: &Path, entries: &[read::Entry], most: i64) -> Result<i64, ConfigError> {
    let wrong = |reason| ConfigError::Version { path: path.into(), reason };
    let stated = entries.iter().find(|entry| entry.table.is_empty() && entry.key == "version");
    match stated.map(|entry| &entry.value) {
        None => Ok(1),
        Some(Value::Integer(version)) if (1..=most).contains(version) => Ok(*version),
        Some(Value::Integer(version)) => Err(wrong(format!(
            "expected containerd config version equal to or less than `{most}`, got `{version}`"
        ))),
        Some(other) => Err(wrong(format!("version must be an integer, not a {}", other.kind()))),
    }
}

/// The files that a pattern names, in order: relative to the importing file, `*` and `?` in the last part only.
fn matches(pattern: &str, of: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let path = of.parent().unwrap_or(Path::new("/")).join(pattern);
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    if !name.contains(['*', '?']) {
        return Ok(if path.exists() { vec![path] } else { Vec::new() });
    }
    let Some(dir) = path.parent() else { return Ok(Vec::new()) };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(ConfigError::Read { path: dir.into(), source }),
    };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(|text| glob(name.as_bytes(), text.as_bytes())))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    Ok(found)
}

/// Whether `text` matches a pattern of `*`, `?` and plain characters.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                // The last star takes one character more.
                Some((at, from)) => {
                    p = at + 1;
                    t = from + 1;
                    star = Some((at, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// What a key's type cannot say: plugins are named in full.
fn check(values: &Values) -> Result<(), ConfigError> {
    let wrong = |key: &str, reason: &str| ConfigError::Value { key: key.into(), reason: reason.into() };
    for key in ["disabled_plugins", "required_plugins"] {
        if let Some(Value::List(list)) = values.get("", key) {
            let short = list.iter().find(|item| matches!(item, Value::Text(text) if !text.contains('.')));
            if let Some(Value::Text(name)) = short {
                return Err(wrong(key, &format!("invalid plugin URI {name:?}: expect io.containerd.x.vx")));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(text: &str) -> Result<Loaded, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        let text = format!("{text}\n");
        let text = if text.contains("imports") { text } else { format!("imports = []\n{text}") };
        fs::write(&path, text).unwrap();
        load(&path, true)
    }

    #[test]
    fn every_default_is_of_its_keys_type() {
        for key in KEYS {
            assert!(key.kind.admits(&literal(key.default)), "{}.{}", key.table, key.name);
        }
    }

    #[test]
    fn an_unknown_key_warns_with_its_line_and_a_wrong_type_fails_with_its_line() {
        let fine = loaded("version = 2\n\n[debug]\n  colour = 'red'\n").unwrap();
        assert_eq!(fine.warnings.len(), 1);
        assert!(
            fine.warnings[0].ends_with("config.toml:5: unknown key debug.colour is ignored"),
            "{:?}",
            fine.warnings
        );
        let error = loaded("version = 2\n[grpc]\naddress = 7").unwrap_err().to_string();
        let expected =
            "config.toml:4: plugins.io.containerd.server.v1.grpc.address must be a string, not a integer";
        assert!(error.ends_with(expected), "{error}");
        let error = loaded("version = 2\n[debug\n").unwrap_err().to_string();
        assert!(error.contains("config.toml:3: "), "{error}");
    }

    #[test]
    fn what_has_no_effect_says_so_once() {
        let text = "version = 3\n[stream_processors.ocicrypt]\n  path = 'x'\n  returns = 'y'\n\
                    [debug]\n  log_trace_id = true\n[timeouts]\n  'io.containerd.timeout.bolt.open' = '0s'\n";
        let warnings = loaded(text).unwrap().warnings;
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].ends_with(": debug.log_trace_id has no effect"), "{warnings:?}");
        assert!(warnings[1].ends_with(": stream_processors.ocicrypt has no effect"), "{warnings:?}");
    }

    #[test]
    fn old_versions_mean_what_they_meant() {
        let old = loaded("[grpc]\naddress = '/x.sock'\n[plugins.cri]\nsandbox_image = 'p'\n").unwrap();
        let address = old.values.get("plugins/io.containerd.server.v1.grpc", "address");
        assert_eq!(address, Some(&Value::Text("/x.sock".into())));
        assert_eq!(old.warnings, Vec::<String>::new());
        assert!(
            loaded("version = 5").unwrap_err().to_string().contains("equal to or less than `4`, got `5`")
        );
    }

    #[test]
    fn imports_replace_append_and_end() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write(
            "config.toml",
            "version = 2\nimports = ['conf/*.toml']\ndisabled_plugins = ['a.b']\nroot = '/r'\n",
        );
        fs::create_dir(dir.path().join("conf")).unwrap();
        write(
            "conf/1.toml",
            "version = 2\nroot = '/other'\ndisabled_plugins = ['a.b', 'c.d']\nimports = ['1.toml']",
        );
        write("conf/2.toml", "version = 2\nroot = ''\n");
        write("conf/ignored.txt", "nonsense");
        let values = load(&dir.path().join("config.toml"), true).unwrap().values;
        assert_eq!(values.get("", "root"), Some(&Value::Text("/other".into())));
        let both = ["a.b", "c.d"].map(|text| Value::Text(text.into()));
        assert_eq!(values.get("", "disabled_plugins"), Some(&Value::List(both.into())));
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, text, expected) in [
            ("*.toml", "a.toml", true),
            ("*.toml", "a.txt", false),
            ("a?*", "ab", true),
            ("a?*", "a", false),
            ("*a*b", "xaab", true),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }
}
