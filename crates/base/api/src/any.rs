//! `google.protobuf.Any` as containerd writes it: the type URL is the bare message name, without `type.googleapis.com/`.

use prost::{DecodeError, Message, Name};
use prost_types::Any;

/// Packs `message`; the type URL is its full name, as Go's typeurl package writes it.
pub fn encode_any<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::full_name(), value: message.encode_to_vec() }
}

/// Unpacks `any` when it holds an `M`, with or without a host part in its type URL; `None` when it holds something else.
///
/// # Errors
/// The payload claims to be an `M` and is not.
pub fn decode_any<M: Message + Name + Default>(any: &Any) -> Result<Option<M>, DecodeError> {
    let name = any.type_url.rsplit('/').next().unwrap_or_default();
    if name != M::full_name() {
        return Ok(None);
    }
    M::decode(any.value.as_slice()).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containerd::events::TaskStart;

    #[test]
    fn the_type_url_is_the_bare_name() {
        let event = TaskStart { container_id: "a".into(), pid: 7 };
        let any = encode_any(&event);
        assert_eq!(any.type_url, "containerd.events.TaskStart");
        assert_eq!(decode_any::<TaskStart>(&any).unwrap(), Some(event));
    }

    #[test]
    fn a_host_part_is_accepted() {
        let any = Any { type_url: "type.googleapis.com/containerd.events.TaskStart".into(), value: vec![] };
        assert_eq!(decode_any::<TaskStart>(&any).unwrap(), Some(TaskStart::default()));
    }
}
