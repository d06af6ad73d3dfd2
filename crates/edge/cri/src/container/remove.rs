//! Removes a container.

use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;

use ::spec::{Error, Kind};
use api::runtime::v1;
use model::Result;
use sys::path::Root;

use super::failed;
use crate::Cri;
use crate::state::{Container, Phase};

impl Cri {
    /// Removes a container; one that runs is stopped.
    pub(crate) async fn remove_container(
        self: &Arc<Self>,
        request: v1::RemoveContainerRequest,
    ) -> Result<v1::RemoveContainerResponse> {
        if let Some(container) = self.containers.find(&request.container_id)? {
            let cri = Arc::clone(self);
            Self::whole(async move { cri.remove(&container).await }).await?;
        }
        Ok(v1::RemoveContainerResponse {})
    }

    /// Removes `container`. Its record goes last, so that a removal that failed half-way is found and repeated.
    pub(super) async fn remove(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let id = &container.record.id;
        if !matches!(container.phase(), Phase::Created | Phase::Exited) {
            self.stop(container)
                .await
                .map_err(|error| error.context(format_args!("failed to forcibly stop container {id:?}")))?;
        }
        let _turn = container.turn.lock().await;
        if self.containers.find(id)?.is_none() {
            return Ok(());
        }
        container.state.send_modify(|state| state.removing = true);
        if let Ok(task) = self.engine.tasks.get(&self.namespace, id) {
            crate::pod::end_task(&*task).await?;
        }
        if let Ok(pod) = self.pods.get(&container.record.pod_id)
            && let Err(error) = self.nri.remove_container(&pod, container).await
        {
            tracing::warn!(%id, %error, "NRI failed to remove container");
        }
        self.remove_parts(id, &container.record.snapshotter).await?;
        self.containers.remove(id);
        self.container_names.release(id);
        self.tell(v1::ContainerEventType::ContainerDeletedEvent, id, &container.record.pod_id);
        Ok(())
    }

    /// Removes what a container without a task is made of.
    pub(super) async fn remove_parts(&self, id: &str, snapshotter: &str) -> Result<()> {
        let dirs = [self.container_state(id), self.container_root(id)];
        let (id, driver) = (id.to_owned(), self.engine.snapshotter(snapshotter));
        self.on_disk(&self.ctx(), move |engine, cx| {
            match driver {
                Ok(driver) => gone(driver.remove(cx, &id))?,
                // A driver that is no longer configured keeps what it has.
                Err(error) => tracing::warn!(%id, %error, "the container's snapshot stays behind"),
            }
            dirs.iter().try_for_each(|dir| remove_dir(dir))?;
            gone(engine.containers.delete(cx, &id))
        })
        .await
        .map_err(|error| error.context("failed to delete containerd container"))
    }
}

/// Success also when there is nothing any more.
pub(super) fn gone(outcome: Result<()>) -> Result<()> {
    match outcome {
        Err(error) if error.kind() == Kind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// Removes a directory with all that is in it, but for what is mounted there. May be repeated.
pub(crate) fn remove_dir(dir: &Path) -> Result<()> {
    let what = || format!("cannot remove {}", dir.display());
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else {
        return Err(Error::internal(what()));
    };
    let parent = match Root::open_dir(parent) {
        Ok(parent) => parent,
        Err(error) if Kind::from_errno(error.errno()) == Kind::NotFound => return Ok(()),
        Err(error) => return Err(failed(what(), &error)),
    };
    sys::path::remove_tree(parent.as_fd(), name).map_err(|error| failed(what(), &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_goes_with_all_in_it_and_may_be_gone_already() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("containers").join("a");
        remove_dir(&victim).unwrap();
        std::fs::create_dir_all(victim.join("volumes/v")).unwrap();
        let kept = dir.path().join("kept");
        std::fs::write(&kept, "x").unwrap();
        std::os::unix::fs::symlink(&kept, victim.join("link")).unwrap();
        remove_dir(&victim).unwrap();
        assert!(!victim.exists() && kept.exists());
        remove_dir(&victim).unwrap();
    }
}
