//! Every container of a pod at once.

use std::sync::{Arc, PoisonError};

use ::spec::Error;
use futures_util::future::join_all;
use model::Result;

use crate::Cri;
use crate::state::{Container, Pod};

impl Cri {
    /// The containers of the pod `id`.
    pub(crate) fn containers_of(&self, id: &str) -> Vec<Arc<Container>> {
        let mut containers = self.containers.list();
        containers.retain(|container| container.record.pod_id == id);
        containers
    }

    /// Stops every container of a pod at once, without grace.
    ///
    /// # Errors
    /// Some would not stop in time; every one was tried.
    pub(crate) async fn stop_pod_containers(self: &Arc<Self>, pod: &Pod) -> Result<()> {
        let containers = self.containers_of(&pod.record.id);
        all(containers.iter().map(|container| self.stop(container))).await
    }

    /// Removes every container of a pod at once; those that still run are stopped. What is left of others goes too.
    ///
    /// # Errors
    /// Some would not go; every one was tried.
    pub(crate) async fn remove_pod_containers(self: &Arc<Self>, pod: &Pod) -> Result<()> {
        let containers = self.containers_of(&pod.record.id);
        let removed = all(containers.iter().map(|container| self.remove(container))).await;
        removed.and(self.remove_remains(pod).await)
    }

    async fn remove_remains(&self, pod: &Pod) -> Result<()> {
        let remains = || pod.remains.lock().unwrap_or_else(PoisonError::into_inner);
        let left = std::mem::take(&mut *remains());
        all(left.into_iter().map(|one| async move {
            let removed = self.remove_parts(&one.id, &one.snapshotter).await;
            if removed.is_err() {
                remains().push(one);
            }
            removed
        }))
        .await
    }
}

/// Does all of them at once; the first error comes back with the texts of the others.
async fn all<F: Future<Output = Result<()>>>(verbs: impl Iterator<Item = F>) -> Result<()> {
    let failures: Vec<Error> = join_all(verbs).await.into_iter().filter_map(Result::err).collect();
    let Some(first) = failures.first() else { return Ok(()) };
    let texts: Vec<&str> = failures.iter().map(Error::text).collect();
    Err(Error::new(first.kind(), texts.join("; ")))
}
