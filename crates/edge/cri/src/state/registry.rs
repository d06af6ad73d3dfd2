//! Everything of one sort by its id, which the kubelet and crictl may shorten.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use ::spec::Error;
use model::Result;

/// What a registry holds.
pub trait Registered {
    /// What errors call it: `sandbox`, `container`.
    const NOUN: &'static str;

    /// Its id.
    fn id(&self) -> &str;
}

/// Everything of one sort.
#[derive(Debug)]
pub struct Registry<T>(RwLock<BTreeMap<String, Arc<T>>>);

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<T: Registered> Registry<T> {
    /// Adds `item`; one with the same id is replaced.
    pub fn add(&self, item: Arc<T>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(item.id().to_owned(), item);
    }

    /// The one whose id is, or alone begins with, `id`.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` when several begin so, or `id` is empty.
    pub fn get(&self, id: &str) -> Result<Arc<T>> {
        if id.is_empty() {
            return Err(Error::invalid(format!("{} id must not be empty", T::NOUN)));
        }
        let items = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(item) = items.get(id) {
            return Ok(Arc::clone(item));
        }
        let mut fitting = items.range(id.to_owned()..).take_while(|(key, _)| key.starts_with(id));
        match (fitting.next(), fitting.next()) {
            (Some((_, item)), None) => Ok(Arc::clone(item)),
            (Some(_), Some(_)) => Err(Error::invalid(format!("{} id {id:?} is ambiguous", T::NOUN))),
            (None, _) => Err(Error::not_found(format_args!("{} {id:?}", T::NOUN))),
        }
    }

    /// The one that `id` names, if there is one: for verbs that may be repeated.
    ///
    /// # Errors
    /// `InvalidArgument` when several begin so, or `id` is empty.
    pub fn find(&self, id: &str) -> Result<Option<Arc<T>>> {
        match self.get(id) {
            Ok(item) => Ok(Some(item)),
            Err(error) if error.kind() == ::spec::Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All of them, by id.
    pub fn list(&self) -> Vec<Arc<T>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Forgets the one with exactly this id.
    pub fn remove(&self, id: &str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Thing(&'static str);

    impl Registered for Thing {
        const NOUN: &'static str = "thing";

        fn id(&self) -> &str {
            self.0
        }
    }

    #[test]
    fn an_id_may_be_shortened_while_it_is_clear() {
        let things = Registry::default();
        for id in ["abc", "abd", "b"] {
            things.add(Arc::new(Thing(id)));
        }
        assert_eq!(things.get("b").unwrap().id(), "b");
        assert_eq!(things.get("abc").unwrap().id(), "abc");
        assert_eq!(things.get("ab").err().unwrap().kind(), ::spec::Kind::InvalidArgument);
        assert_eq!(things.get("x").err().unwrap().kind(), ::spec::Kind::NotFound);
        assert_eq!(things.get("").err().unwrap().kind(), ::spec::Kind::InvalidArgument);
        assert!(things.find("x").unwrap().is_none());
        things.remove("abc");
        assert_eq!(things.get("ab").unwrap().id(), "abd");
    }
}
