//! The root file and what it imports, checked and merged.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

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
    load_over(defaults(), path, required)
}

fn load_over(mut values: Values, path: &Path, required: bool) -> Result<Loaded, ConfigError> {
    let path =
        &std::path::absolute(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
    let mut loader = Loader { seen: BTreeSet::new(), warnings: Vec::new() };
    let set = match read_file(path) {
        Ok(text) => loader.file(path, &text, VERSION)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !required => Values::default(),
        Err(source) => return Err(ConfigError::Read { path: path.into(), source }),
    };
    let drop_ins = patterns(&values);
    for (table, keys) in set.tables() {
        for (key, value) in keys {
            values.set(table, key, value.clone());
        }
    }
    // A file adds to the default drop-in directory; an empty list alone leaves it out.
    let own = patterns(&values);
    if !own.is_empty() {
        let added: Vec<_> = drop_ins.into_iter().filter(|pattern| !own.contains(pattern)).collect();
        let all = added.into_iter().chain(own).map(Value::Text).collect();
        values.set("", "imports", Value::List(all));
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
            let stated = entry.key.clone();
            let entry = migrate::entry(entry, version);
            let is_renamed = stated != entry.key;
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
                    match (values.get(&table, &entry.key), entry.value) {
                        // An old key and the new one may both be there: lists hold both, else the new one is meant.
                        (Some(Value::List(have)), Value::List(more)) => {
                            let both = have.iter().cloned().chain(more).collect();
                            values.set(&table, &entry.key, Value::List(both));
                        }
                        (Some(_), _) if is_renamed => {}
                        (_, value) => values.set(&table, &entry.key, value),
                    }
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
        let listed = |values: &Values, path: &Path| {
            patterns(values).into_iter().map(|pattern| (pattern, path.to_owned())).collect::<Vec<_>>()
        };
        let mut pending = listed(values, root);
        while !pending.is_empty() {
            let (pattern, of) = pending.remove(0);
            for path in matches(&pattern, &of)? {
                if self.seen.contains(&path) {
                    continue;
                }
                if self.seen.len() > MAX_FILES {
                    let reason = format!("more than {MAX_FILES} files");
                    return Err(ConfigError::Value { key: "imports".into(), reason });
                }
                let text =
                    read_file(&path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
                let set = self.file(&path, &text, VERSION)?;
                pending.extend(listed(&set, &path));
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

fn patterns(values: &Values) -> Vec<String> {
    values.get("", "imports").map_or_else(Vec::new, Value::texts)
}

/// The files that an import names, in order: a path relative to the importing file, or a pattern where it has a star.
/// What a pattern names need not exist.
fn matches(pattern: &str, of: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let path = clean(&of.parent().unwrap_or(Path::new("/")).join(pattern));
    if !pattern.contains('*') {
        return Ok(vec![path]);
    }
    let mut found = vec![PathBuf::new()];
    for part in path.components() {
        let Component::Normal(name) = part else {
            found.iter_mut().for_each(|path| path.push(part));
            continue;
        };
        if !name.as_bytes().iter().any(|byte| b"*?[\\".contains(byte)) {
            found.iter_mut().for_each(|path| path.push(name));
            continue;
        }
        let below = found.iter().map(|dir| entries(dir, name.as_bytes())).collect::<Result<Vec<_>, _>>()?;
        found = below.concat();
    }
    found.retain(|path| path.exists());
    Ok(found)
}

/// The entries of `dir` whose names match, in order; none where it is no directory.
fn entries(dir: &Path, pattern: &[u8]) -> Result<Vec<PathBuf>, ConfigError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(source) => return Err(ConfigError::Read { path: dir.into(), source }),
    };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| glob(pattern, entry.file_name().as_bytes()))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    Ok(found)
}

/// `path` without `.` and `..`, by its words alone: a file that is imported twice has one name.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(clean.pop()),
            other => clean.push(other),
        }
    }
    clean
}

/// Whether `text` matches a pattern of `*`, `?`, `[a-z]`, `[^a-z]`, `\\` before a plain character, and plain characters.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
            continue;
        }
        match one(&pattern[p..], text[t]) {
            Some(length) => {
                p += length;
                t += 1;
            }
            None => match star {
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

/// The length of the pattern's first part if it matches `byte`.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'\\', plain, ..] => (plain == byte).then_some(2),
        [b'[', ref set @ ..] => {
            let is_negated = set.first() == Some(&b'^');
            let start = usize::from(is_negated);
            let end = start + set.get(start..)?.iter().position(|byte| *byte == b']')?;
            let is_in = within(&set[start..end], byte);
            (is_in != is_negated).then_some(end + 2)
        }
        [plain, ..] => (plain == byte).then_some(1),
    }
}

/// Whether a set of characters and ranges has `byte`.
fn within(mut set: &[u8], byte: u8) -> bool {
    loop {
        set = match *set {
            [] => return false,
            [low, b'-', high, ref rest @ ..] => {
                if (low..=high).contains(&byte) {
                    return true;
                }
                rest
            }
            [plain, ref rest @ ..] => {
                if plain == byte {
                    return true;
                }
                rest
            }
        };
    }
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

    /// A configuration in a directory of its own, whose default drop-in directory is `default.d`.
    fn loaded_with_files(files: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("version = 2\n{text}\n")).unwrap();
        }
        let mut values = defaults();
        let pattern = dir.path().join("default.d/*.toml").display().to_string();
        values.set("", "imports", Value::List(vec![Value::Text(pattern)]));
        load_over(values, &dir.path().join("config.toml"), true)
    }

    fn disabled(files: &[(&str, &str)]) -> Vec<String> {
        let loaded = loaded_with_files(files).unwrap();
        loaded.values.get("", "disabled_plugins").map_or_else(Vec::new, Value::texts)
    }

    #[test]
    fn own_imports_add_to_the_default_directory() {
        let drop_in = ("default.d/1.toml", "disabled_plugins = ['a.default']");
        let own = ("own/2.toml", "disabled_plugins = ['a.own']");
        assert_eq!(disabled(&[("config.toml", ""), drop_in, own]), ["a.default"]);
        let both = ("config.toml", "imports = ['own/*.toml']");
        assert_eq!(disabled(&[both, drop_in, own]), ["a.default", "a.own"]);
        assert_eq!(disabled(&[("config.toml", "imports = []"), drop_in, own]), [""; 0]);
    }

    #[test]
    fn import_patterns_match_in_every_part_of_the_path() {
        let root =
            ("config.toml", "imports = ['parts/*/conf.d/[12]?.toml', './parts/../parts/x/conf.d/11.toml']");
        let files = [
            root,
            ("parts/x/conf.d/11.toml", "disabled_plugins = ['x.11']"),
            ("parts/y/conf.d/20.toml", "disabled_plugins = ['y.20']\nimports = ['../conf.d/20.toml']"),
            ("parts/y/conf.d/30.toml", "disabled_plugins = ['y.30']"),
            ("parts/file", ""),
        ];
        assert_eq!(disabled(&files), ["x.11", "y.20"]);
    }

    #[test]
    fn missing_import_is_an_error_unless_a_pattern_names_it() {
        let error = loaded_with_files(&[("config.toml", "imports = ['missing.toml']")]).unwrap_err();
        assert!(error.to_string().ends_with("/missing.toml"), "{error}");
        loaded_with_files(&[("config.toml", "imports = ['missing/*.toml']")]).unwrap();
    }

    #[test]
    fn keys_of_version_2_that_got_another_name_keep_their_effect() {
        let text = "[plugins.'io.containerd.runtime.v2.task']\nsched_core = true\n\
                    [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.kata]\nsandbox_mode = 'shim'\n\
                    [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.both]\n\
                    sandboxer = 'podsandbox'\nsandbox_mode = 'shim'";
        let loaded = loaded_with_files(&[("config.toml", text)]).unwrap();
        let env = loaded.values.get("plugins/io.containerd.shim.v1.manager", "env").unwrap().texts();
        assert_eq!(env, ["SCHED_CORE=1"]);
        let sandboxer = |name: &str| {
            let table = format!("plugins/io.containerd.cri.v1.runtime/containerd/runtimes/{name}");
            loaded.values.get(&table, "sandboxer").cloned()
        };
        assert_eq!(sandboxer("kata"), Some(Value::Text("shim".into())));
        assert_eq!(sandboxer("both"), Some(Value::Text("podsandbox".into())));
        assert!(
            !loaded.warnings.iter().any(|warning| warning.contains("unknown key")),
            "{:?}",
            loaded.warnings
        );
        let text = "[plugins.'io.containerd.shim.v1.manager']\nenv = ['A=1']\n\
                    [plugins.'io.containerd.runtime.v2.task']\nsched_core = false\n";
        for (text, expected) in
            [(text.to_owned(), &["A=1"][..]), (text.replace("false", "true"), &["SCHED_CORE=1", "A=1"])]
        {
            let loaded = loaded_with_files(&[("config.toml", &text)]).unwrap();
            assert_eq!(
                loaded.values.get("plugins/io.containerd.shim.v1.manager", "env").unwrap().texts(),
                expected
            );
        }
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, text, expected) in [
            ("*.toml", "a.toml", true),
            ("*.toml", "a.txt", false),
            ("a?*", "ab", true),
            ("a?*", "a", false),
            ("*a*b", "xaab", true),
            ("[0-9]*[^x]", "1ab", true),
            ("[0-9]*[^x]", "1ax", false),
            ("[ab]", "b", true),
            ("[ab", "a", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }
}
