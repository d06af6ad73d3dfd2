//! Messages of D-Bus: calls as we write them, replies and signals as they come.
//!
//! Invariant: no length that a message names is believed before it is held against the bytes that are there.

use super::value::{Value, align, alignment, signature_of};

/// Bytes before the array of header fields ends its length: enough to know how long a message is.
pub const HEAD: usize = 16;

/// Longest message taken. The protocol allows 128 MiB; what systemd answers us has a few hundred bytes.
const LONGEST: usize = 1 << 20;

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// Codes of header fields.
mod field {
    pub(super) const PATH: u8 = 1;
    pub(super) const INTERFACE: u8 = 2;
    pub(super) const MEMBER: u8 = 3;
    pub(super) const ERROR_NAME: u8 = 4;
    pub(super) const REPLY_SERIAL: u8 = 5;
    pub(super) const DESTINATION: u8 = 6;
    pub(super) const SIGNATURE: u8 = 8;
}

/// A method and the object that has it.
#[derive(Clone, Copy, Debug)]
pub struct Method<'a> {
    /// Bus name of its owner.
    pub destination: &'a str,
    /// Path of the object.
    pub path: &'a str,
    /// Interface.
    pub interface: &'a str,
    /// Name.
    pub member: &'a str,
}

/// The message that calls `method` with `arguments`.
pub fn call(serial: u32, method: Method<'_>, arguments: &[Value]) -> Vec<u8> {
    let mut body = Vec::new();
    arguments.iter().for_each(|argument| argument.write(&mut body));
    let header =
        |code: u8, value: Value| Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))]);
    let mut fields = vec![
        header(field::PATH, Value::Path(method.path.into())),
        header(field::INTERFACE, Value::text(method.interface)),
        header(field::MEMBER, Value::text(method.member)),
        header(field::DESTINATION, Value::text(method.destination)),
    ];
    if !arguments.is_empty() {
        fields.push(header(field::SIGNATURE, Value::Signature(signature_of(arguments))));
    }
    // Little endian, no flags, protocol version 1.
    let mut message = vec![b'l', METHOD_CALL, 0, 1];
    message.extend_from_slice(&(body.len() as u32).to_le_bytes());
    message.extend_from_slice(&serial.to_le_bytes());
    Value::Array("(yv)".into(), fields).write(&mut message);
    align(&mut message, 8);
    message.extend_from_slice(&body);
    message
}

/// A message that is none, in a few words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Garbled(&'static str);

/// What came.
#[derive(Debug, PartialEq)]
pub enum Message {
    /// The answer to the call of that serial.
    Reply(u32, Vec<Value>),
    /// The call of that serial failed.
    Error(u32, String, Vec<Value>),
    /// A signal of that name.
    Signal(String, Vec<Value>),
    /// Something that is not for us.
    Other,
}

/// How long the message is that begins with `head`.
pub fn length(head: &[u8; HEAD]) -> Result<usize, Garbled> {
    let reader = Reader::of(head)?;
    let (body, fields) = (reader.number_at(4)? as usize, reader.number_at(12)? as usize);
    let total =
        fields.checked_add(HEAD).map(|end| end.next_multiple_of(8)).and_then(|end| end.checked_add(body));
    total.filter(|&total| total <= LONGEST).ok_or(Garbled("a message is too long"))
}

/// Reads a whole message.
pub fn read(bytes: &[u8]) -> Result<Message, Garbled> {
    let mut reader = Reader::of(bytes)?;
    let kind = *bytes.get(1).ok_or(SHORT)?;
    let fields_end = HEAD.checked_add(reader.number_at(12)? as usize).ok_or(SHORT)?;
    reader.at = HEAD;
    let (mut member, mut error, mut serial, mut signature) = (None, None, None, String::new());
    while reader.at < fields_end {
        reader.align(8)?;
        let code = reader.byte()?;
        let value = reader.variant(0)?;
        match (code, value) {
            (field::MEMBER, Value::Str(text)) => member = Some(text),
            (field::ERROR_NAME, Value::Str(text)) => error = Some(text),
            (field::REPLY_SERIAL, Value::U32(number)) => serial = Some(number),
            (field::SIGNATURE, Value::Signature(text)) => signature = text,
            _ => {}
        }
    }
    reader.at = fields_end;
    reader.align(8)?;
    // Read only for who needs it: other messages may hold types that we do not know.
    let mut arguments = || reader.basics(&signature);
    Ok(match (kind, serial, error, member) {
        (METHOD_RETURN, Some(serial), _, _) => Message::Reply(serial, arguments()?),
        (ERROR, Some(serial), Some(name), _) => Message::Error(serial, name, arguments()?),
        (SIGNAL, _, _, Some(member)) => Message::Signal(member, arguments()?),
        _ => Message::Other,
    })
}

const SHORT: Garbled = Garbled("a message ends too early");

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big_endian: bool,
}

impl<'a> Reader<'a> {
    fn of(bytes: &'a [u8]) -> Result<Self, Garbled> {
        let big_endian = match bytes.first() {
            Some(b'l') => false,
            Some(b'B') => true,
            _ => return Err(Garbled("a message has no byte order")),
        };
        Ok(Self { bytes, at: 0, big_endian })
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Garbled> {
        let end = self.at.checked_add(count).ok_or(SHORT)?;
        let taken = self.bytes.get(self.at..end).ok_or(SHORT)?;
        self.at = end;
        Ok(taken)
    }

    fn align(&mut self, to: usize) -> Result<(), Garbled> {
        let next = self.at.next_multiple_of(to);
        if next > self.bytes.len() {
            return Err(SHORT);
        }
        self.at = next;
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, Garbled> {
        Ok(self.take(1)?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Garbled> {
        self.align(N)?;
        let mut bytes = <[u8; N]>::try_from(self.take(N)?).map_err(|_| SHORT)?;
        if self.big_endian {
            bytes.reverse();
        }
        Ok(bytes)
    }

    fn number(&mut self) -> Result<u32, Garbled> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn number_at(&self, at: usize) -> Result<u32, Garbled> {
        Self { bytes: self.bytes, at, big_endian: self.big_endian }.number()
    }

    /// `count` bytes of text and a zero.
    fn text(&mut self, count: usize) -> Result<String, Garbled> {
        let text = std::str::from_utf8(self.take(count)?).map_err(|_| Garbled("a text is not UTF-8"))?;
        match self.byte()? {
            0 => Ok(text.to_owned()),
            _ => Err(Garbled("a text does not end")),
        }
    }

    fn signature(&mut self) -> Result<String, Garbled> {
        let count = self.byte()?;
        self.text(usize::from(count))
    }

    fn variant(&mut self, depth: usize) -> Result<Value, Garbled> {
        let signature = self.signature()?;
        match self.basic(&signature, depth)? {
            Some(value) if signature.len() == 1 => Ok(value),
            _ => Err(Garbled("a variant of a type that nobody asked for")),
        }
    }

    /// The values of basic types at the beginning of `signature`; what follows the first other type is left alone.
    fn basics(&mut self, signature: &str) -> Result<Vec<Value>, Garbled> {
        let mut values = Vec::new();
        for at in 0..signature.len() {
            let Some(rest) = signature.get(at..) else { break };
            match self.basic(rest, 0)? {
                Some(value) => values.push(value),
                None => break,
            }
        }
        Ok(values)
    }

    /// The value whose type is the first of `signature`; `None` if that is not a basic one or a variant.
    fn basic(&mut self, signature: &str, depth: usize) -> Result<Option<Value>, Garbled> {
        let Some(kind) = signature.bytes().next() else { return Ok(None) };
        if matches!(kind, b'a' | b'(' | b'{' | b'h') || depth > 4 {
            return Ok(None);
        }
        self.align(alignment(signature))?;
        Ok(Some(match kind {
            b'y' => Value::Byte(self.byte()?),
            b'b' => Value::Bool(self.number()? != 0),
            b'n' => Value::I16(i16::from_le_bytes(self.array()?)),
            b'q' => Value::U16(u16::from_le_bytes(self.array()?)),
            b'i' => Value::I32(i32::from_le_bytes(self.array()?)),
            b'u' => Value::U32(self.number()?),
            b'x' => Value::I64(i64::from_le_bytes(self.array()?)),
            b't' => Value::U64(u64::from_le_bytes(self.array()?)),
            b'd' => Value::F64(f64::from_le_bytes(self.array()?)),
            b's' | b'o' => {
                let count = self.number()? as usize;
                let text = self.text(count)?;
                if kind == b's' { Value::Str(text) } else { Value::Path(text) }
            }
            b'g' => Value::Signature(self.signature()?),
            b'v' => Value::Variant(Box::new(self.variant(depth + 1)?)),
            _ => return Err(Garbled("a type that is none")),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message as systemd sends it, with these header fields.
    fn incoming(kind: u8, fields: Vec<(u8, Value)>, body: &[Value]) -> Vec<u8> {
        let mut bytes = Vec::new();
        body.iter().for_each(|value| value.write(&mut bytes));
        let mut fields = fields;
        fields.push((field::SIGNATURE, Value::Signature(signature_of(body))));
        let fields = fields
            .into_iter()
            .map(|(code, value)| Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))]))
            .collect();
        let mut message = vec![b'l', kind, 0, 1];
        message.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        message.extend_from_slice(&9u32.to_le_bytes());
        Value::Array("(yv)".into(), fields).write(&mut message);
        align(&mut message, 8);
        message.extend_from_slice(&bytes);
        message
    }

    fn job_removed() -> Vec<u8> {
        let body = [Value::U32(4), Value::Path("/job/4".into()), Value::text("a.scope"), Value::text("done")];
        incoming(SIGNAL, vec![(field::MEMBER, Value::text("JobRemoved"))], &body)
    }

    #[test]
    fn a_call_says_how_long_it_is() {
        let method = Method { destination: "a.b", path: "/a", interface: "a.c", member: "D" };
        let message = call(7, method, &[Value::text("x"), Value::Array("(sv)".into(), Vec::new())]);
        let head: [u8; HEAD] = message[..HEAD].try_into().unwrap();
        assert_eq!(length(&head), Ok(message.len()));
        assert_eq!(&message[..12], [b'l', 1, 0, 1, 16, 0, 0, 0, 7, 0, 0, 0]);
        assert_eq!(read(&message), Ok(Message::Other));
    }

    #[test]
    fn replies_errors_and_signals_are_told_apart() {
        let to = |serial| (field::REPLY_SERIAL, Value::U32(serial));
        let reply = incoming(METHOD_RETURN, vec![to(3)], &[Value::Path("/job/4".into())]);
        assert_eq!(read(&reply), Ok(Message::Reply(3, vec![Value::Path("/job/4".into())])));
        let name = (field::ERROR_NAME, Value::text("org.x.No"));
        let error = incoming(ERROR, vec![to(4), name], &[Value::text("because")]);
        assert_eq!(read(&error), Ok(Message::Error(4, "org.x.No".into(), vec![Value::text("because")])));
        match read(&job_removed()).unwrap() {
            Message::Signal(member, values) => {
                assert_eq!((member.as_str(), &values[3]), ("JobRemoved", &Value::text("done")));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_follows_an_array_is_left_alone() {
        let body = [Value::text("x"), Value::bytes(b"abc"), Value::text("y")];
        let message = incoming(SIGNAL, vec![(field::MEMBER, Value::text("S"))], &body);
        assert_eq!(read(&message), Ok(Message::Signal("S".into(), vec![Value::text("x")])));
    }

    #[test]
    fn a_length_beyond_reason_is_refused() {
        let mut head = [0u8; HEAD];
        head[0] = b'l';
        head[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(length(&head).is_err());
        head[4..8].copy_from_slice(&8u32.to_le_bytes());
        head[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(length(&head).is_err());
    }

    proptest::proptest! {
        #[test]
        fn damage_never_does_harm(at in 0usize..200, byte: u8, cut in 0usize..200) {
            let mut message = job_removed();
            let at = at % message.len();
            message[at] = byte;
            message.truncate(message.len().saturating_sub(cut));
            let _ = read(&message);
            if let Ok(head) = <[u8; HEAD]>::try_from(&message[..HEAD.min(message.len())]) {
                let _ = length(&head);
            }
        }
    }
}
