//! resolv.conf, as far as a result can hold it.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::cni::{Dns, Error};

/// Longest file that is read.
const MOST: u64 = 64 << 10;

/// Reads the file `path`.
pub fn read(path: &Path) -> Result<Dns, Error> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MOST).read_to_string(&mut text))
        .map_err(|error| Error::io(format!("open {}: {error}", path.display())))?;
    Ok(parse(&text))
}

fn parse(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        let mut words = line.split_whitespace();
        let Some(key) = words.next() else { continue };
        let mut values = words.map(str::to_owned).peekable();
        if values.peek().is_none() {
            continue;
        }
        match key {
            "nameserver" => dns.nameservers.extend(values.next()),
            "domain" => dns.domain = values.next().unwrap_or_default(),
            "search" => dns.search.extend(values),
            "options" => dns.options.extend(values),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_unknown_keys_are_passed_over() {
        let dns = parse(
            "# x\nnameserver 10.0.0.1 junk\n nameserver ::1\n;c\ndomain a.b\nsearch a b\nsortlist 1\noptions ndots:2\nsearch",
        );
        assert_eq!(dns.nameservers, ["10.0.0.1", "::1"]);
        assert_eq!((dns.domain.as_str(), dns.search.len(), dns.options.len()), ("a.b", 2, 1));
    }
}
