//! A configuration made from a template, once the node's ranges of addresses are known.
//!
//! Templates are in the language of Go's text/template, of which the parts are understood that such templates use:
//! fields, variables, `range`, `if` with `else`, comments, and the marks that trim blanks. Anything else is refused
//! with the action's own words.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use spec::error::{HasKind, Kind};

use super::list::{ConfigError, NetworkList};
use super::{IpNet, file};

/// Name of the file that is written.
const FILE: &str = "10-containerd-net.conflist";
/// Most ranges, most nested actions, and the longest result.
const RANGES_MAX: usize = 64;
const DEPTH_MAX: usize = 16;
const OUTPUT_MAX: usize = 1 << 20;

/// Why no configuration was made.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// A range of addresses is none.
    #[error("get routes: {0}")]
    Range(super::Error),
    /// The template cannot be read.
    #[error("failed to parse cni config template {path:?}")]
    Read {
        /// The template.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The template says something that is not understood.
    #[error("cni config template: {what}: {action:?}")]
    Action {
        /// What is wrong.
        what: &'static str,
        /// Where.
        action: String,
    },
    /// What came of it is no configuration.
    #[error("cni config template gives no valid config")]
    Result(#[source] ConfigError),
    /// The configuration cannot be written.
    #[error("failed to write cni config {path:?}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl HasKind for TemplateError {
    fn kind(&self) -> Kind {
        match self {
            Self::Range(_) => Kind::InvalidArgument,
            Self::Read { source, .. } | Self::Write { source, .. } => {
                Kind::from_errno(source.raw_os_error().unwrap_or(0))
            }
            Self::Action { .. } | Self::Result(_) => Kind::FailedPrecondition,
        }
    }
}

/// What a template can name.
#[derive(Clone, Debug, Default)]
pub struct Values {
    /// `.PodCIDR`
    pub pod_cidr: String,
    /// `.PodCIDRRanges`
    pub pod_cidr_ranges: Vec<String>,
    /// `.Routes`
    pub routes: Vec<String>,
}

impl Values {
    /// The values for `cidrs`, ranges of addresses with commas between.
    pub fn of_cidrs(cidrs: &str) -> Result<Self, TemplateError> {
        let mut values = Self::default();
        let (mut ipv4, mut ipv6) = (false, false);
        for cidr in cidrs.split(',').map(str::trim).take(RANGES_MAX) {
            let net: IpNet = cidr.parse().map_err(TemplateError::Range)?;
            (ipv4, ipv6) = (ipv4 || net.is_ipv4(), ipv6 || !net.is_ipv4());
            values.pod_cidr_ranges.push(cidr.to_owned());
        }
        values.pod_cidr = values.pod_cidr_ranges.first().cloned().unwrap_or_default();
        values.routes.extend(ipv4.then(|| "0.0.0.0/0".to_owned()));
        values.routes.extend(ipv6.then(|| "::/0".to_owned()));
        Ok(values)
    }
}

/// Writes the configuration that `template` gives for the ranges `cidrs` into `conf_dir`; whole or not at all.
pub fn write(conf_dir: &Path, template: &Path, cidrs: &str) -> Result<(), TemplateError> {
    let values = Values::of_cidrs(cidrs)?;
    let failed = |source| TemplateError::Read { path: template.to_owned(), source };
    let text = String::from_utf8(file::read(template).map_err(failed)?)
        .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    let config = render(&text, &values)?;
    NetworkList::parse(config.as_bytes()).map_err(TemplateError::Result)?;
    let path = conf_dir.join(FILE);
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(conf_dir)
        .and_then(|()| file::write(&path, config.as_bytes(), 0o644))
        .map_err(|source| TemplateError::Write { path, source })
}

/// A value while a template is run.
#[derive(Clone)]
enum Value {
    Text(String),
    List(Vec<String>),
    Number(usize),
}

impl Value {
    fn is_true(&self) -> bool {
        match self {
            Self::Text(text) => !text.is_empty(),
            Self::List(list) => !list.is_empty(),
            Self::Number(number) => *number != 0,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::List(list) => format!("[{}]", list.join(" ")),
            Self::Number(number) => number.to_string(),
        }
    }
}

/// A piece of a template: text, or the words of an action.
enum Piece<'a> {
    Text(&'a str),
    Action(&'a str),
}

/// Runs the template `text`.
pub fn render(text: &str, values: &Values) -> Result<String, TemplateError> {
    let pieces = split(text)?;
    let mut output = String::new();
    let mut scope = Scope { values, variables: Vec::new(), dot: None };
    let end = run(&pieces, 0, &mut scope, Some(&mut output), 0)?;
    match pieces.get(end) {
        None => Ok(output),
        Some(piece) => Err(wrong("unexpected", piece)),
    }
}

fn wrong(what: &'static str, piece: &Piece<'_>) -> TemplateError {
    let (Piece::Text(words) | Piece::Action(words)) = piece;
    TemplateError::Action { what, action: words.chars().take(100).collect() }
}

/// Splits a template into its pieces; `{{-` and `-}}` trim the text beside them.
fn split(text: &str) -> Result<Vec<Piece<'_>>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim = false;
    while let Some(start) = rest.find("{{") {
        let (before, from) = rest.split_at(start);
        let body = &from[2..];
        let end = body.find("}}").ok_or_else(|| wrong("unclosed action", &Piece::Text(from)))?;
        let mut action = &body[..end];
        let mut before = if trim { before.trim_start() } else { before };
        if let Some(trimmed) = action.strip_prefix('-').filter(|rest| rest.starts_with(char::is_whitespace)) {
            (action, before) = (trimmed, before.trim_end());
        }
        let trimmed = action.strip_suffix('-').filter(|rest| rest.ends_with(char::is_whitespace));
        trim = trimmed.is_some();
        pieces.push(Piece::Text(before));
        pieces.push(Piece::Action(trimmed.unwrap_or(action).trim()));
        rest = &body[end + 2..];
    }
    pieces.push(Piece::Text(if trim { rest.trim_start() } else { rest }));
    Ok(pieces)
}

struct Scope<'a> {
    values: &'a Values,
    variables: Vec<(String, Value)>,
    dot: Option<Value>,
}

impl Scope<'_> {
    fn value(&self, words: &str) -> Option<Value> {
        let field = match words.strip_prefix('$') {
            Some(field) if field.starts_with('.') => field,
            Some(_) => {
                let variable = self.variables.iter().rev().find(|(name, _)| name == words);
                return variable.map(|(_, value)| value.clone());
            }
            None if words == "." => return self.dot.clone(),
            // Within a range the fields are those of the entry, which has none.
            None if self.dot.is_some() => return None,
            None => words,
        };
        Some(match field {
            ".PodCIDR" => Value::Text(self.values.pod_cidr.clone()),
            ".PodCIDRRanges" => Value::List(self.values.pod_cidr_ranges.clone()),
            ".Routes" => Value::List(self.values.routes.clone()),
            _ => return None,
        })
    }
}

/// Runs the pieces from `at` to the `end` or `else` that closes them, and returns its place. Without `output` they are
/// only passed over.
fn run(
    pieces: &[Piece<'_>],
    mut at: usize,
    scope: &mut Scope<'_>,
    mut output: Option<&mut String>,
    depth: usize,
) -> Result<usize, TemplateError> {
    while let Some(piece) = pieces.get(at) {
        let action = match piece {
            Piece::Text(text) => {
                emit(&mut output, text, piece)?;
                at += 1;
                continue;
            }
            Piece::Action(action) => *action,
        };
        let (verb, words) = action.split_once(char::is_whitespace).unwrap_or((action, ""));
        match verb {
            "end" | "else" => return Ok(at),
            "if" | "range" if depth == DEPTH_MAX => return Err(wrong("nested too deep", piece)),
            "if" => at = run_if(pieces, at, words.trim(), scope, output.as_deref_mut(), depth + 1)?,
            "range" => at = run_range(pieces, at, words.trim(), scope, output.as_deref_mut(), depth + 1)?,
            _ if action.starts_with("/*") && action.ends_with("*/") => {}
            _ if output.is_none() => {}
            _ => {
                let value = scope.value(action).ok_or_else(|| wrong("not understood", piece))?;
                emit(&mut output, &value.text(), piece)?;
            }
        }
        at += 1;
    }
    Ok(at)
}

fn emit(output: &mut Option<&mut String>, text: &str, piece: &Piece<'_>) -> Result<(), TemplateError> {
    if let Some(output) = output {
        output.push_str(text);
        if output.len() > OUTPUT_MAX {
            return Err(wrong("gives too much", piece));
        }
    }
    Ok(())
}

/// Whether the action at `at` is `verb` alone.
fn is_at(pieces: &[Piece<'_>], at: usize, verb: &str) -> bool {
    matches!(pieces.get(at), Some(Piece::Action(action)) if *action == verb)
}

/// Runs `if` to its `end`, whose place it returns.
fn run_if(
    pieces: &[Piece<'_>],
    at: usize,
    condition: &str,
    scope: &mut Scope<'_>,
    mut output: Option<&mut String>,
    depth: usize,
) -> Result<usize, TemplateError> {
    let chosen = match output {
        Some(_) => scope.value(condition).ok_or_else(|| wrong("not understood", &pieces[at]))?.is_true(),
        None => false,
    };
    let mut end = run(pieces, at + 1, scope, output.as_deref_mut().filter(|_| chosen), depth)?;
    if is_at(pieces, end, "else") {
        end = run(pieces, end + 1, scope, output.filter(|_| !chosen), depth)?;
    }
    if is_at(pieces, end, "end") { Ok(end) } else { Err(wrong("without end", &pieces[at])) }
}

/// Runs `range` to its `end`, whose place it returns.
fn run_range(
    pieces: &[Piece<'_>],
    at: usize,
    words: &str,
    scope: &mut Scope<'_>,
    mut output: Option<&mut String>,
    depth: usize,
) -> Result<usize, TemplateError> {
    let (names, list) = match words.split_once(":=") {
        Some((names, list)) => (names.split(',').map(str::trim).collect(), list.trim()),
        None => (Vec::new(), words),
    };
    let failed = || wrong("not understood", &pieces[at]);
    let entries = match (&output, scope.value(list)) {
        (None, _) => Vec::new(),
        (Some(_), Some(Value::List(entries))) => entries,
        (Some(_), _) => return Err(failed()),
    };
    if names.len() > 2 || names.iter().any(|name: &&str| !name.starts_with('$') || name.len() < 2) {
        return Err(failed());
    }
    for (index, entry) in entries.iter().enumerate() {
        let known = scope.variables.len();
        let entry = Value::Text(entry.clone());
        let values = match names.as_slice() {
            [] => vec![],
            [one] => vec![(*one, entry.clone())],
            [first, second, ..] => vec![(*first, Value::Number(index)), (*second, entry.clone())],
        };
        scope.variables.extend(values.into_iter().map(|(name, value)| (name.to_owned(), value)));
        let outer = scope.dot.replace(entry);
        run(pieces, at + 1, scope, output.as_deref_mut(), depth)?;
        scope.dot = outer;
        scope.variables.truncate(known);
    }
    // Passed over once more to find its end, and its `else`, which is for empty lists.
    let mut end = run(pieces, at + 1, scope, None, depth)?;
    if is_at(pieces, end, "else") {
        end = run(pieces, end + 1, scope, output.filter(|_| entries.is_empty()), depth)?;
    }
    if is_at(pieces, end, "end") { Ok(end) } else { Err(wrong("without end", &pieces[at])) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn values() -> Values {
        Values::of_cidrs("10.1.0.0/24, fd01::/64").unwrap()
    }

    #[test]
    fn the_templates_in_use_are_understood() {
        for (template, wanted) in [
            ("{{.PodCIDR}}", "10.1.0.0/24"),
            (
                r#"[{{range $i, $range := .PodCIDRRanges}}{{if $i}}, {{end}}[{"subnet": "{{$range}}"}]{{end}}]"#,
                r#"[[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd01::/64"}]]"#,
            ),
            ("{{range .Routes}}<{{.}}>{{end}}", "<0.0.0.0/0><::/0>"),
            ("{{range $r := .Routes}}{{$r}};{{else}}none{{end}}", "0.0.0.0/0;::/0;"),
            ("a {{- /* x */ -}}  b {{ if .PodCIDR }}y{{else}}n{{end}}", "ab y"),
            ("{{range .Routes}}{{$.PodCIDR}} {{end}}", "10.1.0.0/24 10.1.0.0/24 "),
        ] {
            assert_eq!(render(template, &values()).unwrap(), wanted, "{template}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for template in [
            "{{.Unknown}}",
            "{{printf \"x\"}}",
            "{{$x}}",
            "{{range .Routes}}",
            "{{if .PodCIDR}}x",
            "{{end}}",
            "{{range .PodCIDR}}{{end}}",
            "{{.PodCIDR",
            "{{range $a, $b, $c := .Routes}}{{end}}",
            "{{range .Routes}}{{.PodCIDR}}{{end}}",
        ] {
            assert!(render(template, &values()).is_err(), "{template}");
        }
        let deep = "{{if .PodCIDR}}".repeat(100) + &"{{end}}".repeat(100);
        assert!(render(&deep, &values()).is_err());
    }

    #[test]
    fn only_a_configuration_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let (template, conf) = (dir.path().join("template"), dir.path().join("net.d"));
        fs::write(
            &template,
            r#"{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"x","r":"{{.PodCIDR}}"}]}"#,
        )
        .unwrap();
        write(&conf, &template, "10.1.0.0/24").unwrap();
        assert!(fs::read_to_string(conf.join(FILE)).unwrap().contains("\"r\":\"10.1.0.0/24\""));
        assert!(matches!(write(&conf, &template, "10.1.0.0/24\"}"), Err(TemplateError::Range(_))));
        fs::write(&template, "{{.PodCIDR}}").unwrap();
        assert!(matches!(write(&conf, &template, "10.2.0.0/24"), Err(TemplateError::Result(_))));
        assert!(fs::read_to_string(conf.join(FILE)).unwrap().contains("10.1.0.0/24"));
        assert_eq!(fs::read_dir(&conf).unwrap().count(), 1);
    }
}
