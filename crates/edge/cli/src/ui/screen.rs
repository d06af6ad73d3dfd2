//! A few lines that are drawn again and again on a terminal; plain lines, each once, elsewhere.

use std::collections::HashSet;
use std::io::{self, IsTerminal, Write};

const GREEN: &str = "\x1b[32m";
const RESET: &str = "\x1b[0m";
/// Bars are this wide, their ends included.
const BAR: usize = 40;

/// Standard output as a place for live lines.
#[derive(Debug)]
pub struct Screen {
    live: bool,
    color: bool,
    drawn: usize,
    said: HashSet<String>,
}

impl Screen {
    /// Live on a terminal, plain elsewhere; colour unless `NO_COLOR` is set.
    pub fn stdout() -> Self {
        let live = io::stdout().is_terminal();
        let color = live && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { live, color, drawn: 0, said: HashSet::new() }
    }

    /// Whether lines are redrawn.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// `|+++++-----|`, with `part` (0 to 1) of it done.
    pub fn bar(&self, part: f64) -> String {
        let inside = BAR - 2;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "0 to 38"
        )]
        let done = ((inside as f64) * part.clamp(0.0, 1.0)) as usize;
        let (green, reset) = if self.color { (GREEN, RESET) } else { ("", "") };
        format!("|{green}{}{reset}{}|", "+".repeat(done), "-".repeat(inside - done))
    }

    /// Replaces what was drawn by `text`; only on a terminal.
    pub fn draw(&mut self, text: &str) {
        if !self.live {
            return;
        }
        let width = rustix::termios::tcgetwinsize(io::stdout()).map_or(0, |size| usize::from(size.ws_col));
        let mut out = String::new();
        if self.drawn > 0 {
            out.push_str(&format!("\x1b[{}A\x1b[J", self.drawn));
        }
        out.push_str(text);
        self.drawn = text.lines().map(|line| rows(line, width)).sum();
        let mut stdout = io::stdout().lock();
        // A terminal that went away is noticed by the signal it sends.
        let _gone = stdout.write_all(out.as_bytes()).and_then(|()| stdout.flush());
    }

    /// Prints a line that stays: always on a pipe (once for each text), never on a terminal.
    pub fn plain(&mut self, text: &str) {
        if !self.live && self.said.insert(text.to_owned()) {
            let _gone = writeln!(io::stdout(), "{text}");
        }
    }
}

/// How many rows of a terminal `width` columns wide a line takes; control sequences take none.
fn rows(line: &str, width: usize) -> usize {
    let mut columns: usize = 0;
    let mut in_sequence = false;
    for c in line.chars() {
        match c {
            '\x1b' => in_sequence = true,
            'm' if in_sequence => in_sequence = false,
            _ if !in_sequence => columns += 1,
            _ => {}
        }
    }
    if width == 0 { 1 } else { columns.max(1).div_ceil(width) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_forty_wide() {
        let screen = Screen { live: false, color: false, drawn: 0, said: HashSet::new() };
        assert_eq!(screen.bar(1.0), format!("|{}|", "+".repeat(38)));
        assert_eq!(screen.bar(0.5), format!("|{}{}|", "+".repeat(19), "-".repeat(19)));
    }

    #[test]
    fn long_lines_take_more_rows() {
        assert_eq!(rows("", 80), 1);
        assert_eq!(rows(&"x".repeat(81), 80), 2);
        assert_eq!(rows(&format!("{GREEN}{}{RESET}", "x".repeat(80)), 80), 1);
    }
}
