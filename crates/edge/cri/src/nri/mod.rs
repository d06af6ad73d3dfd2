//! Node Resource Interface: plugins that see and adjust pods and containers.

use api::runtime::v1;
use model::Result;

use crate::state::{Container, ContainerRecord, Pod};

/// The plugins. None is connected: every hook lets everything pass.
#[derive(Debug, Default)]
pub struct Nri;

impl Nri {
    /// A pod's sandbox runs; an error refuses the pod.
    pub async fn run_pod(&self, _pod: &Pod) -> Result<()> {
        Ok(())
    }

    /// A pod's resources are about to change; an error refuses it.
    pub async fn update_pod(
        &self,
        _pod: &Pod,
        _overhead: Option<&v1::LinuxContainerResources>,
        _resources: Option<&v1::LinuxContainerResources>,
    ) -> Result<()> {
        Ok(())
    }

    /// A pod's resources have changed.
    pub async fn post_update_pod(&self, _pod: &Pod) -> Result<()> {
        Ok(())
    }

    /// A pod's sandbox was stopped.
    pub async fn stop_pod(&self, _pod: &Pod) -> Result<()> {
        Ok(())
    }

    /// A pod goes.
    pub async fn remove_pod(&self, _pod: &Pod) -> Result<()> {
        Ok(())
    }

    /// A container is about to be made: plugins may adjust its spec.
    pub async fn create_container(
        &self,
        _pod: &Pod,
        _container: &ContainerRecord,
        _spec: &mut ::spec::runtime::Spec,
    ) -> Result<()> {
        Ok(())
    }

    /// A container was made.
    pub async fn post_create_container(&self, _pod: &Pod, _container: &Container) -> Result<()> {
        Ok(())
    }

    /// A container is about to be started; an error refuses it.
    pub async fn start_container(&self, _pod: &Pod, _container: &Container) -> Result<()> {
        Ok(())
    }

    /// A container was started.
    pub async fn post_start_container(&self, _pod: &Pod, _container: &Container) -> Result<()> {
        Ok(())
    }

    /// A container's resources are about to change: plugins may adjust them.
    pub async fn update_container(
        &self,
        _pod: &Pod,
        _container: &Container,
        _resources: &mut v1::LinuxContainerResources,
    ) -> Result<()> {
        Ok(())
    }

    /// A container's resources have changed.
    pub async fn post_update_container(&self, _pod: &Pod, _container: &Container) -> Result<()> {
        Ok(())
    }

    /// A container has ended.
    pub async fn stop_container(&self, _pod: &Pod, _container: &Container) -> Result<()> {
        Ok(())
    }

    /// A container goes.
    pub async fn remove_container(&self, _pod: &Pod, _container: &Container) -> Result<()> {
        Ok(())
    }
}
