//! Which tasks there are, and in which phase each is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spec::{ContainerId, Namespace};

use crate::queue::{self, Phase, Refusal, Verb};
use crate::task::Task;

type Key = (Namespace, ContainerId);

/// One place in the registry.
#[derive(Debug)]
struct Slot {
    phase: Phase,
    task: Option<Arc<Task>>,
}

/// Every task of the daemon. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    slots: Arc<Mutex<HashMap<Key, Slot>>>,
}

/// A place taken for a task that is being made; given back on drop unless it was filled.
#[derive(Debug)]
pub struct Reservation {
    registry: Registry,
    key: Key,
    filled: bool,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the place of a new task.
    ///
    /// # Errors
    /// It is taken.
    pub fn reserve(&self, namespace: &Namespace, id: &ContainerId) -> Result<Reservation, Refusal> {
        let key = (namespace.clone(), id.clone());
        let mut slots = self.lock();
        queue::admit(slots.get(&key).map(|slot| slot.phase), Verb::Create, id.as_str())?;
        slots.insert(key.clone(), Slot { phase: Phase::Creating, task: None });
        Ok(Reservation { registry: self.clone(), key, filled: false })
    }

    /// The task of a container.
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, namespace: &Namespace, id: &str) -> Result<Arc<Task>, Refusal> {
        let absent = || Refusal::Absent(id.into());
        let key = (namespace.clone(), id.parse().map_err(|_| absent())?);
        let slots = self.lock();
        let slot = slots.get(&key);
        queue::admit(slot.map(|slot| slot.phase), Verb::Use, id)?;
        slot.and_then(|slot| slot.task.clone()).ok_or_else(absent)
    }

    /// Every task of a namespace, by id.
    pub fn list(&self, namespace: &Namespace) -> Vec<Arc<Task>> {
        let slots = self.lock();
        let mut tasks: Vec<_> = slots
            .iter()
            .filter(|((of, _), slot)| of == namespace && slot.phase != Phase::Creating)
            .filter_map(|(_, slot)| slot.task.clone())
            .collect();
        drop(slots);
        tasks.sort_by(|a, b| a.bundle().id.cmp(&b.bundle().id));
        tasks
    }

    /// Every task, by namespace and id.
    pub fn all(&self) -> Vec<Arc<Task>> {
        let slots = self.lock();
        let mut tasks: Vec<_> = slots
            .values()
            .filter(|slot| slot.phase == Phase::Live)
            .filter_map(|slot| slot.task.clone())
            .collect();
        drop(slots);
        tasks.sort_by(|a, b| {
            (&a.bundle().namespace, &a.bundle().id).cmp(&(&b.bundle().namespace, &b.bundle().id))
        });
        tasks
    }

    /// Says that `task` is on its way out.
    pub fn ending(&self, task: &Task) {
        let key = (task.bundle().namespace.clone(), task.bundle().id.clone());
        if let Some(slot) = self.lock().get_mut(&key) {
            slot.phase = Phase::Ending;
        }
    }

    /// Forgets a task that is gone.
    pub fn remove(&self, task: &Task) {
        let key = (task.bundle().namespace.clone(), task.bundle().id.clone());
        self.lock().remove(&key);
    }
}

impl Reservation {
    /// Lets everyone see the finished task.
    pub fn fill(mut self, task: Arc<Task>) {
        self.filled = true;
        let slot = Slot { phase: Phase::Live, task: Some(task) };
        self.registry.lock().insert(self.key.clone(), slot);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.filled {
            self.registry.lock().remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_taken_once_and_given_back() {
        let registry = Registry::default();
        let (namespace, id) = ("ns".parse().unwrap(), "a".parse().unwrap());
        let place = registry.reserve(&namespace, &id).unwrap();
        assert!(matches!(registry.reserve(&namespace, &id), Err(Refusal::Exists(_))));
        assert!(matches!(registry.get(&namespace, "a"), Err(Refusal::Absent(_))));
        assert!(registry.reserve(&"other".parse().unwrap(), &id).is_ok());
        drop(place);
        assert!(registry.reserve(&namespace, &id).is_ok());
        assert!(matches!(registry.get(&namespace, "../a"), Err(Refusal::Absent(_))));
    }
}
