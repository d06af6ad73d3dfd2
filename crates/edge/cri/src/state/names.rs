//! Names that the kubelet gives: `name_namespace_uid_attempt` of a pod, and a container's in it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use ::spec::Error;
use model::Result;

/// Names in use, and by which id.
#[derive(Clone, Debug, Default)]
pub struct Names(Arc<Mutex<BTreeMap<String, String>>>);

/// A name taken for a verb that may still fail: given back when this is dropped without [`Reserved::keep`].
#[derive(Debug)]
pub struct Reserved {
    names: Names,
    name: Option<String>,
}

impl Names {
    /// Takes `name` for `id`.
    ///
    /// # Errors
    /// `AlreadyExists`: another id has it, in containerd's words.
    pub fn reserve(&self, name: &str, id: &str) -> Result<Reserved> {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match names.get(name) {
            Some(holder) if holder != id => Err(Error::new(
                ::spec::Kind::AlreadyExists,
                format!("failed to reserve name {name:?}: name {name:?} is reserved for {holder:?}"),
            )),
            _ => {
                names.insert(name.to_owned(), id.to_owned());
                Ok(Reserved { names: self.clone(), name: Some(name.to_owned()) })
            }
        }
    }

    /// Gives back every name of `id`.
    pub fn release(&self, id: &str) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.retain(|_, holder| holder != id);
    }
}

impl Reserved {
    /// Keeps the name until [`Names::release`].
    pub fn keep(mut self) {
        self.name = None;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            self.names.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_belongs_to_one_id_until_it_is_given_back() {
        let names = Names::default();
        drop(names.reserve("a_ns_u_0", "1").unwrap());
        names.reserve("a_ns_u_0", "2").unwrap().keep();
        let error = names.reserve("a_ns_u_0", "3").unwrap_err();
        assert_eq!(error.kind(), ::spec::Kind::AlreadyExists);
        assert!(error.text().contains("is reserved for \"2\""), "{}", error.text());
        names.release("2");
        names.reserve("a_ns_u_0", "3").unwrap().keep();
    }
}
