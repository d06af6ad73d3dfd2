//! Requests and responses as frames: what each end puts on the wire for one unary call.

use std::time::Duration;

use api::Message;
use api::google::rpc::Status;
use api::ttrpc::{KeyValue, Request, Response};
use spec::error::{Error, Kind};

use super::frame::{FrameError, FrameType, HEADER_LEN, Header};

/// The metadata key that names the containerd namespace of a call.
pub const NAMESPACE_KEY: &str = "containerd-namespace-ttrpc";

/// A unary request for `service`/`method`; `namespace` and `timeout` travel with it.
pub fn request(
    service: &str,
    method: &str,
    namespace: &str,
    timeout: Option<Duration>,
    payload: Vec<u8>,
) -> Request {
    let mut metadata = Vec::new();
    if !namespace.is_empty() {
        metadata.push(KeyValue { key: NAMESPACE_KEY.into(), value: namespace.into() });
    }
    let timeout_nano = timeout.map_or(0, |limit| i64::try_from(limit.as_nanos()).unwrap_or(i64::MAX));
    Request { service: service.into(), method: method.into(), payload, timeout_nano, metadata }
}

/// The response that answers a call: the reply's bytes, or the error as a status.
pub fn response(result: Result<Vec<u8>, Error>) -> Response {
    match result {
        Ok(payload) => Response { status: None, payload },
        Err(error) => Response {
            status: Some(Status {
                code: error.kind().code(),
                message: error.text().into(),
                details: Vec::new(),
            }),
            payload: Vec::new(),
        },
    }
}

/// The reply's bytes out of a response, or the error that its status is.
///
/// # Errors
/// The error that the other end reported, with its kind and its text.
pub fn reply(response: Response) -> Result<Vec<u8>, Error> {
    match response.status {
        Some(status) if status.code != 0 => Err(Error::new(Kind::from_code(status.code), status.message)),
        _ => Ok(response.payload),
    }
}

/// Appends `message` to `out` as one frame.
///
/// # Errors
/// The message is longer than a frame may be; `out` is unchanged.
pub fn append<M: Message>(
    stream: u32,
    kind: FrameType,
    message: &M,
    out: &mut Vec<u8>,
) -> Result<(), FrameError> {
    let length = message.encoded_len();
    let header = Header { length, stream, kind, flags: 0 }.encode()?;
    out.reserve_exact(HEADER_LEN + length);
    out.extend_from_slice(&header);
    // A Vec grows as needed, so encoding into it cannot run out of room.
    message.encode_raw(out);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::frame;
    use super::*;

    #[test]
    fn an_error_crosses_with_kind_and_text() {
        let error = Error::not_found("process x");
        let answer = reply(response(Err(error))).unwrap_err();
        assert_eq!((answer.kind(), answer.text()), (Kind::NotFound, "process x: not found"));
    }

    #[test]
    fn a_request_is_one_frame() {
        let sent = request("s", "M", "default", Some(Duration::from_secs(2)), vec![1, 2]);
        let mut out = Vec::new();
        append(7, FrameType::Request, &sent, &mut out).unwrap();
        let (header, end) = frame::split(&out).unwrap().unwrap();
        assert_eq!((header.stream, header.kind, end), (7, FrameType::Request, out.len()));
        let got = Request::decode(&out[HEADER_LEN..]).unwrap();
        assert_eq!(got, sent);
        assert_eq!(got.timeout_nano, 2_000_000_000);
        assert_eq!(got.metadata[0].key, NAMESPACE_KEY);
    }
}
