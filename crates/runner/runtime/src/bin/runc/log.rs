//! The log, in the two formats that shims and people read.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::time::SystemTime;

use spec::Error;

use crate::args::Global;

/// Where errors and warnings go.
#[derive(Debug)]
pub struct Log {
    /// `None` is stderr.
    file: Option<File>,
    is_json: bool,
    is_debug: bool,
}

impl Log {
    /// The log that the flags ask for.
    pub fn open(global: &Global) -> Result<Self, Error> {
        let is_json = match global.log_format.as_str() {
            "" | "text" => false,
            "json" => true,
            other => {
                return Err(Error::new(spec::Kind::InvalidArgument, format!("invalid log-format: {other}")));
            }
        };
        let open = |path: &std::path::PathBuf| {
            let file = File::options().create(true).append(true).open(path);
            file.map_err(|error| Error::internal(format!("open {}: {}", path.display(), words(&error))))
        };
        let file = global.log.as_ref().filter(|path| !path.as_os_str().is_empty()).map(open).transpose()?;
        Ok(Self { file, is_json, is_debug: global.debug })
    }

    /// A text log on stderr.
    pub fn stderr() -> Self {
        Self { file: None, is_json: false, is_debug: false }
    }

    /// Whether the log is not stderr.
    pub fn is_file(&self) -> bool {
        self.file.is_some()
    }

    /// Whether [`Self::debug`] logs anything.
    pub fn is_debug(&self) -> bool {
        self.is_debug
    }

    /// Logs what helps to find an error, with `--debug` alone.
    pub fn debug(&self, text: &str) {
        if self.is_debug {
            self.write("debug", text);
        }
    }

    /// Logs an error.
    pub fn error(&self, text: &str) {
        self.write("error", text);
    }

    /// Logs a warning.
    pub fn warn(&self, text: &str) {
        self.write("warning", text);
    }

    fn write(&self, level: &str, text: &str) {
        let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let line =
            line(level, text, &time, self.is_json, self.file.is_none() && std::io::stderr().is_terminal());
        // A log that cannot be written has no place to say so.
        let _ = match &self.file {
            Some(file) => (&*file).write_all(line.as_bytes()),
            None => std::io::stderr().write_all(line.as_bytes()),
        };
    }
}

fn line(level: &str, text: &str, time: &str, is_json: bool, is_terminal: bool) -> String {
    if is_json {
        return format!("{}\n", serde_json::json!({ "level": level, "msg": text, "time": time }));
    }
    if is_terminal {
        let short = level.get(..4).unwrap_or(level).to_uppercase();
        return format!("{short}[0000] {text}\n");
    }
    format!("time=\"{time}\" level={level} msg={text:?}\n")
}

/// The kernel's words for an I/O error.
pub fn words(error: &std::io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), sys::error::words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_that_shims_parse() {
        let line = |is_json| line("error", "a \"b\"", "2026-11-21T03:32:43Z", is_json, false);
        assert_eq!(
            line(true),
            "{\"level\":\"error\",\"msg\":\"a \\\"b\\\"\",\"time\":\"2026-11-21T03:32:43Z\"}\n"
        );
        assert_eq!(line(false), "time=\"2026-11-21T03:32:43Z\" level=error msg=\"a \\\"b\\\"\"\n");
    }
}
