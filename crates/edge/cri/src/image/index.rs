//! Every image in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use ::spec::{Digest, Error};
use model::Result;
use tokio::sync::Mutex;

use super::pull::Pulls;
use super::read::Details;
use super::{ImageInfo, missing, name};

/// Every image, by id and by name.
#[derive(Default)]
pub(crate) struct Index {
    known: RwLock<Known>,
    /// Held from reading the store to noting what was read, so that what is newer in the store is noted later.
    pub(super) turn: Mutex<()>,
    /// Pulls under way.
    pub(super) pulls: Pulls,
}

#[derive(Default)]
struct Known {
    images: BTreeMap<String, Entry>,
    /// The id that each name leads to.
    names: HashMap<String, String>,
}

struct Entry {
    info: Arc<ImageInfo>,
    /// Its names, and whether each is pinned.
    names: BTreeMap<String, bool>,
}

impl Index {
    /// The image that a name, a digest, an id or the beginning of an id names.
    pub fn get(&self, text: &str) -> Result<Arc<ImageInfo>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let exact = if text.parse::<Digest>().is_ok() {
            known.images.get(text)
        } else {
            let full = name::full(text).ok().and_then(|full| known.names.get(&full.to_string()));
            // Whatever a record is called, also finds it: names in the store are free.
            full.or_else(|| known.names.get(text)).and_then(|id| known.images.get(id))
        };
        match exact {
            Some(entry) => Ok(Arc::clone(&entry.info)),
            None => known.shortened(text),
        }
    }

    /// Every image, by id.
    pub fn list(&self) -> Vec<Arc<ImageInfo>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.images.values().map(|entry| Arc::clone(&entry.info)).collect()
    }

    /// Every name of the image `id`, the id itself last.
    pub fn names(&self, id: &str) -> Vec<String> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let names = known.images.get(id).map(|entry| &entry.names);
        let mut names: Vec<String> = names.into_iter().flatten().map(|(name, _)| name.clone()).collect();
        names.sort_by_key(|name| name == id);
        names
    }

    /// Notes that `name` leads to the image of `details`.
    pub fn put(&self, name: &str, pinned: bool, details: &Details) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.names.get(name).is_some_and(|id| *id != details.id) {
            known.forget(name);
        }
        known.names.insert(name.to_owned(), details.id.clone());
        let entry = known
            .images
            .entry(details.id.clone())
            .or_insert_with(|| Entry { info: Arc::new(details.info()), names: BTreeMap::new() });
        entry.names.insert(name.to_owned(), pinned);
        entry.refresh();
    }

    /// Notes that there is no record `name` any more.
    pub fn remove(&self, name: &str) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).forget(name);
    }
}

impl Known {
    /// The only image whose id begins with `text`, with or without its algorithm.
    fn shortened(&self, text: &str) -> Result<Arc<ImageInfo>> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if hex.is_empty() || hex.len() > 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(missing(text));
        }
        let start = format!("sha256:{hex}");
        let mut fitting = self.images.range(start.clone()..).take_while(|(id, _)| id.starts_with(&start));
        match (fitting.next(), fitting.next()) {
            (Some((_, entry)), None) => Ok(Arc::clone(&entry.info)),
            (Some(_), Some(_)) => Err(Error::invalid(format!("image id {text:?} is ambiguous"))),
            (None, _) => Err(missing(text)),
        }
    }

    fn forget(&mut self, name: &str) {
        let Some(id) = self.names.remove(name) else { return };
        let Some(entry) = self.images.get_mut(&id) else { return };
        entry.names.remove(name);
        if entry.names.is_empty() {
            self.images.remove(&id);
        } else {
            entry.refresh();
        }
    }
}

impl Entry {
    /// Makes the answer anew from the names.
    fn refresh(&mut self) {
        let (repo_tags, repo_digests) = name::split(self.names.keys());
        let pinned = self.names.values().any(|pinned| *pinned);
        self.info = Arc::new(ImageInfo { repo_tags, repo_digests, pinned, ..ImageInfo::clone(&self.info) });
    }
}

#[cfg(test)]
mod tests {
    use model::manifest::sha256;

    use super::*;

    fn details(seed: &str) -> Details {
        Details {
            id: sha256(seed.as_bytes()).to_string(),
            target: ::spec::Descriptor::new(::spec::media::MANIFEST, sha256(b"m"), 1),
            manifest: ::spec::Descriptor::new(::spec::media::MANIFEST, sha256(b"m"), 1),
            chain_id: String::new(),
            size: 1,
            config: Arc::default(),
        }
    }

    #[test]
    fn an_image_lives_as_long_as_a_name_leads_to_it() {
        let index = Index::default();
        let (old, new) = (details("old"), details("new"));
        index.put("docker.io/library/a:latest", false, &old);
        index.put(&old.id, true, &old);
        let found = index.get("a").unwrap();
        assert_eq!(found.repo_tags, ["docker.io/library/a:latest"]);
        assert!(found.pinned && found.repo_digests.is_empty());
        assert_eq!(index.names(&old.id), ["docker.io/library/a:latest", old.id.as_str()]);

        index.put("docker.io/library/a:latest", false, &new);
        assert_eq!(index.get("a").unwrap().id, new.id);
        assert!(index.get(&old.id).unwrap().repo_tags.is_empty());
        index.remove(&old.id);
        assert_eq!(index.get(&old.id).unwrap_err().kind(), ::spec::Kind::NotFound);
        assert_eq!(index.list().len(), 1);
    }

    #[test]
    fn an_id_may_be_shortened() {
        let index = Index::default();
        let image = details("x");
        index.put(&image.id, false, &image);
        let hex = image.id.strip_prefix("sha256:").unwrap();
        for text in [&image.id, &image.id[..20], hex, &hex[..10]] {
            assert_eq!(index.get(text).unwrap().id, image.id, "{text}");
        }
        for text in ["", "sha256:", "zz", "../../x", &"f".repeat(4000)] {
            assert_eq!(index.get(text).unwrap_err().kind(), ::spec::Kind::NotFound, "{text}");
        }
    }
}
