//! Values of D-Bus and how they are written. The D-Bus specification, "Type System" and "Marshaling".

/// One value with its type.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `y`
    Byte(u8),
    /// `b`
    Bool(bool),
    /// `n`
    I16(i16),
    /// `q`
    U16(u16),
    /// `i`
    I32(i32),
    /// `u`
    U32(u32),
    /// `x`
    I64(i64),
    /// `t`
    U64(u64),
    /// `d`
    F64(f64),
    /// `s`
    Str(String),
    /// `o`
    Path(String),
    /// `g`
    Signature(String),
    /// `a` and the type of the elements, which an empty array could not tell.
    Array(String, Vec<Value>),
    /// `(...)`
    Struct(Vec<Value>),
    /// `v`
    Variant(Box<Value>),
}

impl Value {
    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Str(text.into())
    }

    /// An array of bytes.
    pub fn bytes(bytes: &[u8]) -> Self {
        Self::Array("y".into(), bytes.iter().map(|&byte| Self::Byte(byte)).collect())
    }

    /// Its type.
    pub fn signature(&self) -> String {
        match self {
            Self::Byte(_) => "y".into(),
            Self::Bool(_) => "b".into(),
            Self::I16(_) => "n".into(),
            Self::U16(_) => "q".into(),
            Self::I32(_) => "i".into(),
            Self::U32(_) => "u".into(),
            Self::I64(_) => "x".into(),
            Self::U64(_) => "t".into(),
            Self::F64(_) => "d".into(),
            Self::Str(_) => "s".into(),
            Self::Path(_) => "o".into(),
            Self::Signature(_) => "g".into(),
            Self::Array(element, _) => format!("a{element}"),
            Self::Struct(fields) => format!("({})", signature_of(fields)),
            Self::Variant(_) => "v".into(),
        }
    }

    /// Appends it to `out`, whose first byte is aligned to eight.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Byte(byte) => out.push(*byte),
            Self::Bool(value) => put(out, &u32::from(*value).to_le_bytes()),
            Self::I16(value) => put(out, &value.to_le_bytes()),
            Self::U16(value) => put(out, &value.to_le_bytes()),
            Self::I32(value) => put(out, &value.to_le_bytes()),
            Self::U32(value) => put(out, &value.to_le_bytes()),
            Self::I64(value) => put(out, &value.to_le_bytes()),
            Self::U64(value) => put(out, &value.to_le_bytes()),
            Self::F64(value) => put(out, &value.to_le_bytes()),
            Self::Str(text) | Self::Path(text) => {
                put(out, &(text.len() as u32).to_le_bytes());
                out.extend_from_slice(text.as_bytes());
                out.push(0);
            }
            Self::Signature(text) => put_signature(out, text),
            Self::Array(element, items) => put_array(out, element, items),
            Self::Struct(fields) => {
                align(out, 8);
                fields.iter().for_each(|field| field.write(out));
            }
            Self::Variant(value) => {
                put_signature(out, &value.signature());
                value.write(out);
            }
        }
    }
}

/// The types of `values`, one after the other.
pub(super) fn signature_of(values: &[Value]) -> String {
    values.iter().map(Value::signature).collect()
}

/// The length counts the elements alone: neither itself nor the padding before the first of them.
fn put_array(out: &mut Vec<u8>, element: &str, items: &[Value]) {
    put(out, &0u32.to_le_bytes());
    let length_at = out.len() - 4;
    align(out, alignment(element));
    let first_at = out.len();
    items.iter().for_each(|item| item.write(out));
    let length = (out.len() - first_at) as u32;
    out[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
}

/// A signature is at most 255 bytes long; ours are far shorter.
fn put_signature(out: &mut Vec<u8>, text: &str) {
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    out.push(length);
    out.extend_from_slice(&text.as_bytes()[..usize::from(length)]);
    out.push(0);
}

/// A number is aligned to its own size.
fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    // A text's length comes through here too: four bytes either way.
    align(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Fills up with zeros.
pub(super) fn align(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

/// What a value whose signature begins with that of `signature` is aligned to.
pub(super) fn alignment(signature: &str) -> usize {
    match signature.as_bytes().first() {
        Some(b'y' | b'g' | b'v') => 1,
        Some(b'n' | b'q') => 2,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        value.write(&mut out);
        out
    }

    #[test]
    fn a_text_has_its_length_and_a_zero() {
        assert_eq!(written(&Value::text("ab")), [2, 0, 0, 0, b'a', b'b', 0]);
    }

    #[test]
    fn an_arrays_length_leaves_the_padding_out() {
        let numbers = Value::Array("t".into(), vec![Value::U64(7)]);
        assert_eq!(written(&numbers), [8, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(written(&Value::Array("(ss)".into(), Vec::new())), [0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(numbers.signature(), "at");
    }

    #[test]
    fn a_variant_brings_its_type() {
        let value = Value::Variant(Box::new(Value::U32(5)));
        assert_eq!(written(&value), [1, b'u', 0, 0, 5, 0, 0, 0]);
    }

    #[test]
    fn a_property_is_a_name_and_a_variant() {
        let property = Value::Struct(vec![Value::text("A"), Value::Variant(Box::new(Value::Bool(true)))]);
        assert_eq!(property.signature(), "(sv)");
        assert_eq!(written(&property), [1, 0, 0, 0, b'A', 0, 1, b'b', 0, 0, 0, 0, 1, 0, 0, 0]);
    }
}
