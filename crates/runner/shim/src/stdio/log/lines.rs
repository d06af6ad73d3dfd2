//! Cutting output into the lines of a log. Pure.

use super::stamp::Stamp;

/// Which of the two outputs a line is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, or all of a terminal's.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    fn word(self) -> &'static [u8] {
        match self {
            Self::Stdout => b" stdout ",
            Self::Stderr => b" stderr ",
        }
    }
}

/// Whether the text of a line goes on in the next one.
#[derive(Clone, Copy)]
enum Tag {
    Full,
    Partial,
}

/// One output on its way into a log.
#[derive(Debug)]
pub struct Lines {
    stream: Stream,
    max: usize,
    /// What has come of a line so far; at most `max`, a carriage return and what one push brings.
    partial: Vec<u8>,
}

impl Lines {
    /// The lines of `stream`, none with more than `max` bytes of text.
    pub fn new(stream: Stream, max: usize) -> Self {
        Self { stream, max: max.max(1), partial: Vec::new() }
    }

    /// The stream that these are lines of.
    pub fn stream(&self) -> Stream {
        self.stream
    }

    /// Appends to `out` the lines that `bytes` complete.
    pub fn push(&mut self, mut bytes: &[u8], stamp: &Stamp, out: &mut Vec<u8>) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            if self.partial.is_empty() {
                self.whole(line, stamp, out);
            } else {
                let mut line_so_far = std::mem::take(&mut self.partial);
                line_so_far.extend_from_slice(line);
                self.whole(&line_so_far, stamp, out);
            }
            bytes = rest;
        }
        if !bytes.is_empty() {
            self.partial.extend_from_slice(bytes);
            // A carriage return may be the first half of the line's end, which does not count.
            let returned = usize::from(self.partial.ends_with(b"\r"));
            let cut = self.cut(&self.partial[..self.partial.len() - returned], stamp, out);
            self.partial.drain(..cut);
        }
    }

    /// Appends what stands there without its newline: no more will come.
    pub fn finish(&mut self, stamp: &Stamp, out: &mut Vec<u8>) {
        let tail = std::mem::take(&mut self.partial);
        let cut = self.cut(&tail, stamp, out);
        if cut < tail.len() {
            self.line(Tag::Partial, &tail[cut..], stamp, out);
        }
    }

    /// A line whose newline has come, with or without a carriage return before it.
    fn whole(&self, line: &[u8], stamp: &Stamp, out: &mut Vec<u8>) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let cut = self.cut(line, stamp, out);
        self.line(Tag::Full, &line[cut..], stamp, out);
    }

    /// Appends the parts of `text` that something still follows; returns where the last part begins.
    fn cut(&self, text: &[u8], stamp: &Stamp, out: &mut Vec<u8>) -> usize {
        let mut start = 0;
        while text.len() - start > self.max {
            self.line(Tag::Partial, &text[start..start + self.max], stamp, out);
            start += self.max;
        }
        start
    }

    fn line(&self, tag: Tag, text: &[u8], stamp: &Stamp, out: &mut Vec<u8>) {
        out.extend_from_slice(stamp.bytes());
        out.extend_from_slice(self.stream.word());
        out.extend_from_slice(match tag {
            Tag::Full => b"F ",
            Tag::Partial => b"P ",
        });
        out.extend_from_slice(text);
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    /// What `pieces` become, the time and the stream left out, when no line may be longer than four bytes.
    fn cut(pieces: &[&str]) -> String {
        let stamp = Stamp::new(UNIX_EPOCH);
        let mut lines = Lines::new(Stream::Stderr, 4);
        let mut out = Vec::new();
        for piece in pieces {
            lines.push(piece.as_bytes(), &stamp, &mut out);
        }
        lines.finish(&stamp, &mut out);
        assert!(lines.partial.is_empty());
        let head = "1970-01-01T00:00:00.000000000Z stderr ";
        let text = String::from_utf8(out).unwrap();
        // Not `lines`, which would take a carriage return for part of the newline.
        text.split_terminator('\n').map(|line| format!("{}|", line.strip_prefix(head).unwrap())).collect()
    }

    #[test]
    fn lines_end_with_their_newline_whatever_the_pieces() {
        assert_eq!(cut(&["ab\ncd\n"]), "F ab|F cd|");
        assert_eq!(cut(&["a", "b", "\nc", "d\n"]), "F ab|F cd|");
        assert_eq!(cut(&["\n\n"]), "F |F |");
        assert_eq!(cut(&[""]), "");
    }

    #[test]
    fn a_long_line_comes_in_parts() {
        assert_eq!(cut(&["abcd\n"]), "F abcd|");
        assert_eq!(cut(&["abcde\n"]), "P abcd|F e|");
        assert_eq!(cut(&["abcd", "efgh", "\n"]), "P abcd|F efgh|");
        assert_eq!(cut(&["abcdefghi"]), "P abcd|P efgh|P i|");
    }

    #[test]
    fn what_lacks_its_newline_is_a_part() {
        assert_eq!(cut(&["ab\ncd"]), "F ab|P cd|");
        assert_eq!(cut(&["abcd"]), "P abcd|");
    }

    #[test]
    fn a_carriage_return_belongs_to_the_newline_after_it_only() {
        assert_eq!(cut(&["ab\r\n", "\r\n", "abcd\r", "\n"]), "F ab|F |F abcd|");
        assert_eq!(cut(&["a\rb\n"]), "F a\rb|");
        assert_eq!(cut(&["abcd\r", "e\n"]), "P abcd|F \re|");
        assert_eq!(cut(&["ab\r"]), "P ab\r|");
    }
}
