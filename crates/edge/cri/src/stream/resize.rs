//! Sizes of the client's terminal: JSON documents, one after the other.

use serde::Deserialize;
use serde_json::Value;

/// A size in characters.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase", default)]
pub struct Size {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// The longest that a size may be; more is no size.
const MAX: usize = 4096;

/// Puts pieces of a stream together to sizes.
#[derive(Debug, Default)]
pub struct Sizes {
    bytes: Vec<u8>,
}

impl Sizes {
    /// Takes a further piece; answers the last whole size in it that is one. What is no JSON is forgotten.
    pub fn take(&mut self, piece: &[u8]) -> Option<Size> {
        self.bytes.extend(piece.iter().take(MAX));
        let mut documents = serde_json::Deserializer::from_slice(&self.bytes).into_iter::<Value>();
        let (mut last, mut used, mut broken) = (None, 0, false);
        while let Some(document) = documents.next() {
            match document.and_then(|document| spec::json::from_value(&document)) {
                Ok(size) => (last, used) = (Some(size), documents.byte_offset()),
                Err(error) => broken = !error.is_eof(),
            }
        }
        if broken || self.bytes.len() - used > MAX {
            self.bytes.clear();
        } else {
            self.bytes.drain(..used);
        }
        last.filter(|size: &Size| size.width > 0 && size.height > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_come_in_any_pieces() {
        let mut sizes = Sizes::default();
        assert_eq!(sizes.take(br#"{"Width":80,"He"#), None);
        assert_eq!(sizes.take(br#"ight":24}"#), Some(Size { width: 80, height: 24 }));
        assert_eq!(sizes.take(br#"{"width":8,"HEIGHT":9}"#), Some(Size { width: 8, height: 9 }));
        let two = br#"{"Width":1,"Height":2}{"Width":3,"Height":4}"#;
        assert_eq!(sizes.take(two), Some(Size { width: 3, height: 4 }));
        assert_eq!(sizes.take(br#"{"Width":0,"Height":4}"#), None);
        assert_eq!(sizes.take(b"garbage"), None);
        assert_eq!(sizes.take(br#"{"Width":5,"Height":6}"#), Some(Size { width: 5, height: 6 }));
        assert_eq!(sizes.take(&[b'['; 10_000]), None);
    }
}
