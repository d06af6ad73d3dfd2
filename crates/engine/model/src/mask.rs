//! Field masks: which parts of a record an update replaces.

use std::collections::BTreeMap;

/// The paths of a `google.protobuf.FieldMask`; empty means every field that may change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mask {
    paths: Vec<String>,
}

impl Mask {
    /// A mask of these paths.
    pub fn new(paths: impl IntoIterator<Item = String>) -> Self {
        Self { paths: paths.into_iter().collect() }
    }

    /// The mask that names every field.
    pub fn all() -> Self {
        Self::default()
    }

    /// Whether it names every field.
    pub fn is_all(&self) -> bool {
        self.paths.is_empty()
    }

    /// The paths, as written.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.paths.iter().map(String::as_str)
    }
}

/// Sets `key` of `stored` to what `wanted` has; an absent or empty label value deletes it.
pub fn set_label(stored: &mut BTreeMap<String, String>, wanted: &BTreeMap<String, String>, key: &str) {
    match wanted.get(key) {
        Some(value) if !value.is_empty() => {
            stored.insert(key.to_owned(), value.clone());
        }
        _ => {
            stored.remove(key);
        }
    }
}

/// `labels` without those that have no value, which containerd never stores.
pub fn without_empty(labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    labels.iter().filter(|(_, value)| !value.is_empty()).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// Applies a mask that may only name labels (`labels`, `labels.X`; all of them when it is empty) to `stored`.
///
/// # Errors
/// The first path that names something else.
pub fn apply_to_labels<'m>(
    stored: &mut BTreeMap<String, String>,
    wanted: &BTreeMap<String, String>,
    mask: &'m Mask,
) -> Result<(), &'m str> {
    if mask.is_all() {
        *stored = without_empty(wanted);
        return Ok(());
    }
    for path in mask.paths() {
        match path.strip_prefix("labels.") {
            Some(key) => set_label(stored, wanted, key),
            None if path == "labels" => *stored = without_empty(wanted),
            None => return Err(path),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_mask_names_what_is_replaced() {
        let wanted = map(&[("a", "new"), ("b", ""), ("d.e", "x")]);
        let stored = map(&[("a", "1"), ("b", "2"), ("c", "3")]);
        for (paths, expected) in [
            (&[][..], map(&[("a", "new"), ("d.e", "x")])),
            (&["labels"][..], map(&[("a", "new"), ("d.e", "x")])),
            (&["labels.a"][..], map(&[("a", "new"), ("b", "2"), ("c", "3")])),
            (&["labels.b", "labels.c", "labels.d.e"][..], map(&[("a", "1"), ("d.e", "x")])),
        ] {
            let mut result = stored.clone();
            let mask = Mask::new(paths.iter().map(|path| (*path).to_owned()));
            assert_eq!(apply_to_labels(&mut result, &wanted, &mask), Ok(()));
            assert_eq!(result, expected, "{paths:?}");
        }
        let mask = Mask::new(["size".to_owned()]);
        assert_eq!(apply_to_labels(&mut stored.clone(), &wanted, &mask), Err("size"));
    }
}
