//! Names as the kubelet and people type them.

use ::spec::{Digest, Error, Reference};
use model::Result;

/// The name in full: `nginx` is `docker.io/library/nginx:latest`; of a tag and a digest the digest counts.
///
/// # Errors
/// `InvalidArgument`: the text is no name.
pub fn full(text: &str) -> Result<Reference> {
    let shown: String = text.chars().take(256).collect();
    let fail = |error: Error| error.context(format_args!("failed to parse image reference {shown:?}"));
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)) {
        let reason =
            format_args!("invalid repository name ({text}), cannot specify 64-byte hexadecimal strings");
        return Err(fail(Error::invalid(reason)));
    }
    let reference = Reference::familiar(text).map_err(|error| fail(error.into()))?;
    match reference.digest() {
        Some(digest) if reference.tag().is_some() => {
            let canonical = format!("{}@{digest}", reference.locator());
            canonical.parse().map_err(|error| fail(Error::from(error)))
        }
        _ => Ok(reference),
    }
}

/// The name by digest of what `reference` turned out to name.
pub fn by_digest(reference: &Reference, digest: &Digest) -> String {
    match reference.digest() {
        Some(_) => reference.to_string(),
        None => format!("{}@{digest}", reference.locator()),
    }
}

/// Sorts the names of an image into those with a tag and those with a digest; the id is neither.
pub fn split<'a>(names: impl Iterator<Item = &'a String>) -> (Vec<String>, Vec<String>) {
    let (mut tags, mut digests) = (Vec::new(), Vec::new());
    for name in names {
        let Ok(reference) = name.parse::<Reference>() else { continue };
        if reference.digest().is_some() {
            digests.push(name.clone());
        } else {
            tags.push(name.clone());
        }
    }
    (tags, digests)
}

/// Whether `pinned`, as the configuration has it, is the record `name`.
pub fn is_pinned(pinned: &str, name: &str) -> bool {
    !pinned.is_empty()
        && (pinned == name || full(pinned).is_ok_and(|reference| reference.to_string() == name))
}

/// Splits an image's `user[:group]` into a number or a name; both none when it says nothing.
pub fn user(text: &str) -> (Option<i64>, String) {
    let user = text.split(':').next().unwrap_or_default();
    match user.parse::<i64>() {
        Ok(uid) => (Some(uid), String::new()),
        Err(_) => (None, user.chars().filter(|c| !c.is_control()).take(256).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_tag_beside_a_digest_does_not_count() {
        let both = full(&format!("nginx:1.2@{DIGEST}")).unwrap();
        assert_eq!(both.to_string(), format!("docker.io/library/nginx@{DIGEST}"));
        assert_eq!(full("nginx").unwrap().to_string(), "docker.io/library/nginx:latest");
        assert_eq!(full(&"a".repeat(64)).unwrap_err().kind(), ::spec::Kind::InvalidArgument);
        let error = full("UPPER/x").unwrap_err();
        assert!(error.text().starts_with("failed to parse image reference \"UPPER/x\": "), "{error}");
    }

    #[test]
    fn names_are_sorted_by_what_they_end_in() {
        let names = ["a.io/b:1".to_owned(), format!("a.io/b@{DIGEST}"), DIGEST.to_owned()];
        let (tags, digests) = split(names.iter());
        assert_eq!((tags.as_slice(), digests.as_slice()), (&names[..1], &names[1..2]));
    }

    #[test]
    fn a_pin_may_be_a_short_name() {
        assert!(is_pinned("pause:3.10", "docker.io/library/pause:3.10"));
        assert!(is_pinned("r.io/pause:3.10", "r.io/pause:3.10"));
        assert!(!is_pinned("", ""));
    }

    #[test]
    fn a_user_is_a_number_or_a_name() {
        assert_eq!(user("1000:50"), (Some(1000), String::new()));
        assert_eq!(user("www-data:www"), (None, "www-data".into()));
        assert_eq!(user(""), (None, String::new()));
        assert_eq!(user("99999999999999999999"), (None, "99999999999999999999".into()));
    }
}
