//! Errors as gRPC statuses, and back.

use spec::{Error, Kind};
use tonic::{Code, Status};

/// The longest text that travels: it goes in one header, and clients bound all of them together at 16 KiB.
const MAX_TEXT: usize = 3 << 10;

/// The status that tells a client of `error`.
pub fn to_status(error: &Error) -> Status {
    let text = error.text();
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Status::new(Code::from_i32(error.kind().code()), &text[..end])
}

/// The error that a server's status tells of.
pub fn from_status(status: &Status) -> Error {
    Error::new(Kind::from_code(i32::from(status.code())), status.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_crosses_with_kind_and_text() {
        let error = from_status(&to_status(&Error::not_found("image \"x\"")));
        assert_eq!((error.kind(), error.text()), (Kind::NotFound, "image \"x\": not found"));
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let status = to_status(&Error::internal("ä".repeat(4000)));
        assert!(status.message().len() <= MAX_TEXT && status.message().ends_with('ä'));
    }
}
