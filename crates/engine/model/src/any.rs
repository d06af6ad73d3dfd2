//! A message of a type that this layer does not know: runtime options, specs, extensions, event payloads.

/// A serialised message with the name of its type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Any {
    /// The type's name, in containerd's form: no `type.googleapis.com/`.
    pub type_url: String,
    /// The message; protobuf, or JSON for Go types without a protobuf form (such as the OCI runtime spec).
    pub value: Vec<u8>,
}
