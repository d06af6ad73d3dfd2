//! Qualified names of devices, `vendor/class=name`.

/// Whether `name` is a whole one.
pub fn is_qualified(name: &str) -> bool {
    let parts = name.split_once('=').and_then(|(kind, name)| Some((kind.split_once('/')?, name)));
    parts.is_some_and(|((vendor, class), name)| is_kind(vendor) && is_kind(class) && is_device(name))
}

/// Whether `text` can be a vendor or a class.
pub fn is_kind(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic()) && is_made_of(text, b"_-.")
}

/// Whether `text` can be a device's name within its kind.
pub fn is_device(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric()) && is_made_of(text, b"_-.:")
}

/// Letters, digits and `also`, the last one a letter or digit.
fn is_made_of(text: &str, also: &[u8]) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || also.contains(&byte))
        && text.ends_with(|last: char| last.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_whole_or_none() {
        for (name, whole) in [
            ("vendor.com/gpu=0", true),
            ("nvidia.com/gpu=all", true),
            ("v/c=a:b_c.d-e", true),
            ("vendor.com/gpu.mig=GPU-1:2", true),
            ("", false),
            ("gpu", false),
            ("/dev/null", false),
            ("vendor.com/gpu", false),
            ("vendor.com/gpu=", false),
            ("vendor.com=gpu", false),
            ("/gpu=0", false),
            ("0vendor/gpu=0", false),
            ("vendor./gpu=0", false),
            ("vendor.com/gpu/x=0", false),
            ("vendor.com/gpu=-0", false),
            ("vendor.com/gpu=0:", false),
            ("vendor.com/gpu=a=b", false),
            ("vendor.com/gpu=../x", false),
            ("vendör.com/gpu=0", false),
        ] {
            assert_eq!(is_qualified(name), whole, "{name}");
        }
    }
}
