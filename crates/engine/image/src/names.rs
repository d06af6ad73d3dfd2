//! Under which names an image is recorded: its own, and those that an import or a client adds.
//!
//! Invariant: names are written last, when everything that they name is in the store.

use std::time::SystemTime;

use model::image::{Image, Images};
use model::mask::Mask;
use model::{Cx, Labels};
use spec::{Descriptor, Error, Kind, Result, label};

/// The annotation that carries an image's whole name through an archive.
pub const IMAGE_NAME: &str = "io.containerd.image.name";
/// OCI's annotation: usually only a tag.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// A further name, or a rule that makes one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extra {
    /// The name, or its prefix.
    pub name: String,
    /// Whether `name` lacks its tag or digest.
    pub is_prefix: bool,
    /// Whether a whole name inside an archive may stand although it does not begin with the prefix.
    pub allow_overwrite: bool,
    /// Whether to also record `prefix@digest`.
    pub add_digest: bool,
    /// Whether to leave `prefix@digest` out where a name was found.
    pub skip_named_digest: bool,
}

/// Every name that a transfer writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The image's own name; may be empty in an import.
    pub name: String,
    /// Labels of every record.
    pub labels: Labels,
    /// Further names.
    pub extra: Vec<Extra>,
}

impl Names {
    /// Only `name`.
    pub fn of(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// The records for the top of a transfer.
    fn of_top(&self, target: &Descriptor) -> Vec<Image> {
        let own = (!self.name.is_empty()).then(|| record(&self.name, target, self.labels.clone()));
        let extra = self.extra.iter().filter(|extra| !extra.is_prefix || extra.add_digest).map(|extra| {
            let name = if extra.add_digest {
                format!("{}@{}", extra.name, target.digest)
            } else {
                extra.name.clone()
            };
            record(&name, target, self.extra_labels())
        });
        own.into_iter().chain(extra).collect()
    }

    /// The records for an entry of an archive's index, by its annotations.
    fn of_entry(&self, target: &Descriptor) -> Vec<Image> {
        let mut images = Vec::new();
        for extra in self.extra.iter().filter(|extra| extra.is_prefix) {
            let by_digest =
                || record(&format!("{}@{}", extra.name, target.digest), target, self.extra_labels());
            match annotated(target, &extra.name, extra.allow_overwrite) {
                None if extra.add_digest => images.push(by_digest()),
                None => {}
                Some(name) => {
                    images.push(record(&name, target, self.extra_labels()));
                    if extra.add_digest && !extra.skip_named_digest {
                        images.push(by_digest());
                    }
                }
            }
        }
        images
    }

    /// A further name lives no longer than the image's own, where there is one.
    fn extra_labels(&self) -> Labels {
        let mut labels = self.labels.clone();
        if !self.name.is_empty() {
            labels.insert("containerd.io/gc.bref.image".into(), self.name.clone());
            let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
            labels.insert(label::GC_EXPIRE.into(), now);
        }
        labels
    }

    /// Writes the records for the top of a transfer. `NotFound` when there is no name at all.
    pub fn store_top(&self, cx: &Cx<'_>, images: &dyn Images, target: &Descriptor) -> Result<Vec<Image>> {
        let records = self.of_top(target);
        if records.is_empty() {
            return Err(Error::not_found("no image name found"));
        }
        records.iter().map(|record| put(cx, images, record)).collect()
    }

    /// Writes the records for an entry of an archive's index; none when it has no name.
    pub fn store_entry(&self, cx: &Cx<'_>, images: &dyn Images, target: &Descriptor) -> Result<Vec<Image>> {
        self.of_entry(target).iter().map(|record| put(cx, images, record)).collect()
    }
}

/// Creates or replaces one record, whoever else does the same at the same time.
pub fn put(cx: &Cx<'_>, images: &dyn Images, image: &Image) -> Result<Image> {
    loop {
        match images.create(cx, image, None) {
            Err(error) if error.kind() == Kind::AlreadyExists => {}
            done => return done,
        }
        match images.update(cx, image, &Mask::all(), None) {
            Err(error) if error.kind() == Kind::NotFound => cx.check()?,
            done => return done,
        }
    }
}

fn record(name: &str, target: &Descriptor, labels: Labels) -> Image {
    let now = SystemTime::now();
    // What an index says of an entry's platform is no property of the image's target record.
    let target = Descriptor { platform: None, ..target.clone() };
    Image { name: name.into(), labels, target, created_at: now, updated_at: now }
}

/// The whole name that the annotations give under `prefix`.
fn annotated(target: &Descriptor, prefix: &str, allow_overwrite: bool) -> Option<String> {
    if prefix.is_empty() {
        return None;
    }
    let complete = |text: &str| {
        if !text.contains(['/', ':', '@']) {
            return Some(format!("{prefix}:{text}"));
        }
        let rest = text.strip_prefix(prefix);
        let fits = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ':', '@']));
        (allow_overwrite || fits).then(|| text.to_owned())
    };
    let annotation = |key: &str| target.annotations.get(key).filter(|text| !text.is_empty());
    match annotation(IMAGE_NAME) {
        // A whole name is taken as it is or not at all.
        Some(text) => complete(text).filter(|name| name == text),
        None => annotation(REF_NAME).and_then(|text| complete(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, name: &str) -> Descriptor {
        let mut entry = Descriptor::new(spec::media::MANIFEST, model::manifest::sha256(b"m"), 1);
        entry.annotations.insert(key.into(), name.into());
        entry
    }

    fn names(extra: Extra, entry: &Descriptor) -> Vec<String> {
        let names = Names { extra: vec![extra], ..Names::default() };
        names.of_entry(entry).into_iter().map(|image| image.name).collect()
    }

    #[test]
    fn an_archives_names_are_completed_and_filtered() {
        let prefix = Extra { name: "docker.io/library/a".into(), is_prefix: true, ..Extra::default() };
        assert_eq!(names(prefix.clone(), &entry(REF_NAME, "v1")), ["docker.io/library/a:v1"]);
        let own = "docker.io/library/a:v2";
        assert_eq!(names(prefix.clone(), &entry(IMAGE_NAME, own)), [own]);
        let other = entry(IMAGE_NAME, "docker.io/library/ab:v1");
        assert!(names(prefix.clone(), &other).is_empty());
        let free = Extra { allow_overwrite: true, ..prefix.clone() };
        assert_eq!(names(free.clone(), &other), ["docker.io/library/ab:v1"]);
        assert!(names(free.clone(), &entry(IMAGE_NAME, "v1")).is_empty(), "a tag is no whole name");
        let digested = Extra { add_digest: true, ..prefix.clone() };
        let by_digest = format!("docker.io/library/a@{}", other.digest);
        assert_eq!(names(digested.clone(), &other), std::slice::from_ref(&by_digest));
        let named = entry(REF_NAME, "v1");
        assert_eq!(names(digested.clone(), &named), ["docker.io/library/a:v1".to_owned(), by_digest]);
        let skipped = Extra { skip_named_digest: true, ..digested };
        assert_eq!(names(skipped, &named), ["docker.io/library/a:v1"]);
        assert!(names(Extra { name: String::new(), ..free }, &other).is_empty());
    }
}
