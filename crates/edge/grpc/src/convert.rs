//! The wire's words and the engine's: one pair of conversions a noun, used by the daemon and by clients.
//!
//! Invariant: nothing from the wire passes unchecked: what has a type of its own in `spec` is parsed here.

mod container;
mod content;
mod image;
mod sandbox;
mod snapshot;

use api::FieldMask;
use model::mask::Mask;
use model::{Any, Error, Result};
use spec::Digest;

/// An engine's noun that has a message.
pub trait ToWire {
    /// Its message.
    type Wire;

    /// The message that says the same.
    fn to_wire(self) -> Self::Wire;
}

/// An engine's noun that comes in a message.
pub trait FromWire<Wire>: Sized {
    /// The noun that `wire` says.
    ///
    /// # Errors
    /// `InvalidArgument` when the message has no meaning.
    fn from_wire(wire: Wire) -> Result<Self>;
}

pub use api::{time, timestamp};

/// A list of nouns as a list of messages.
pub fn list<T: ToWire>(nouns: Vec<T>) -> Vec<T::Wire> {
    nouns.into_iter().map(ToWire::to_wire).collect()
}

/// A list of messages as a list of nouns.
///
/// # Errors
/// One of them has no meaning.
pub fn nouns<W, T: FromWire<W>>(messages: Vec<W>) -> Result<Vec<T>> {
    messages.into_iter().map(T::from_wire).collect()
}

/// A message that a request must have.
///
/// # Errors
/// It is absent: `InvalidArgument`, naming `what`.
pub fn required<T>(message: Option<T>, what: &str) -> Result<T> {
    message.ok_or_else(|| Error::invalid(format_args!("{what} is required")))
}

/// A digest in a request.
///
/// # Errors
/// It is none; the text quotes it.
pub fn digest(text: &str) -> Result<Digest> {
    text.parse().map_err(|error| Error::invalid(format_args!("{text:?}: {error}")))
}

/// A digest in a request that may be absent.
///
/// # Errors
/// It is there and is none.
pub fn optional_digest(text: &str) -> Result<Option<Digest>> {
    (!text.is_empty()).then(|| digest(text)).transpose()
}

/// A size as the wire's signed number.
pub fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// A size from the wire.
///
/// # Errors
/// It is negative.
pub fn unsigned(size: i64, what: &str) -> Result<u64> {
    u64::try_from(size).map_err(|_| Error::invalid(format_args!("{what} {size} is negative")))
}

/// A field mask; an absent one names every field.
pub fn mask(mask: Option<FieldMask>) -> Mask {
    mask.map_or_else(Mask::all, |mask| Mask::new(mask.paths))
}

impl ToWire for Any {
    type Wire = api::Any;

    fn to_wire(self) -> api::Any {
        api::Any { type_url: self.type_url, value: self.value }
    }
}

impl FromWire<api::Any> for Any {
    fn from_wire(wire: api::Any) -> Result<Self> {
        Ok(Self { type_url: wire.type_url, value: wire.value })
    }
}
