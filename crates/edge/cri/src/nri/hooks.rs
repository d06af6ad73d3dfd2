//! The events, as pods' and containers' code tells them.

use ::spec::Error;
use ::spec::runtime::Spec;
use api::nri::pkg::api::v1alpha1::{self as pb, Event};
use api::runtime::v1;
use futures_util::future::join_all;
use model::Result;
use model::task::Exit;
use tokio::sync::OwnedRwLockReadGuard;

use super::collect::Collected;
use super::plugin::Plugin;
use super::{Nri, adjust, resources, validate, view};
use crate::state::{Container, ContainerRecord, Phase, Pod};
use crate::{Cri, cdi};

/// What plugins were told of a container that is being made. While it is held no plugin is told what there is.
#[derive(Debug)]
#[must_use = "until it is dropped the container must be known to everybody"]
pub struct Made {
    _hold: OwnedRwLockReadGuard<()>,
    told: Option<(pb::PodSandbox, pb::Container)>,
}

impl Made {
    /// What must be taken back should the container not come to be.
    pub fn told(&self) -> Option<(pb::PodSandbox, pb::Container)> {
        self.told.clone()
    }
}

/// Declares hooks that only tell.
macro_rules! pod_hooks {
    ($($(#[$doc:meta])* $name:ident: $event:ident, $method:literal, $request:ident;)*) => {
        $($(#[$doc])*
        pub async fn $name(&self, pod: &Pod) -> Result<()> {
            if self.is_idle() {
                return Ok(());
            }
            let pod = self.see_pod(pod).await?;
            let request = pb::$request { pod: Some(pod.clone()) };
            let old = || pb::StateChangeEvent { pod: Some(pod.clone()), ..pb::StateChangeEvent::default() };
            self.tell(Event::$event, $method, &request, old).await
        })*
    };
}

macro_rules! container_hooks {
    ($($(#[$doc:meta])* $name:ident: $event:ident, $method:literal, $request:ident;)*) => {
        $($(#[$doc])*
        pub async fn $name(&self, pod: &Pod, container: &Container) -> Result<()> {
            if self.is_idle() {
                return Ok(());
            }
            let (pod, container) = self.see(pod, container).await?;
            let request = pb::$request { pod: Some(pod), container: Some(container) };
            let old = || pb::StateChangeEvent {
                pod: request.pod.clone(),
                container: request.container.clone(),
                ..pb::StateChangeEvent::default()
            };
            self.tell(Event::$event, $method, &request, old).await
        })*
    };
}

impl Nri {
    /// A pod's sandbox runs; an error refuses the pod. The pod must be known to everybody before the guard is dropped.
    pub async fn run_pod(&self, pod: &Pod) -> Result<OwnedRwLockReadGuard<()>> {
        let hold = self.hold().await;
        if !self.is_idle() {
            self.runs(&pod.record.id);
        }
        if let Err(error) = self.run_pod_sandbox(pod).await {
            // Those that agreed hear that it is gone.
            for undone in [self.stop_pod(pod).await, self.remove_pod(pod).await] {
                if let Err(error) = undone {
                    tracing::warn!(id = %pod.record.id, %error, "an NRI plugin was not told of a pod's end");
                }
            }
            return Err(error);
        }
        Ok(hold)
    }

    pod_hooks! {
        run_pod_sandbox: RunPodSandbox, "RunPodSandbox", RunPodSandboxRequest;
        /// A pod's resources have changed.
        post_update_pod: PostUpdatePodSandbox, "PostUpdatePodSandbox", PostUpdatePodSandboxRequest;
        tell_stopped: StopPodSandbox, "StopPodSandbox", StopPodSandboxRequest;
        /// A pod goes.
        remove_pod: RemovePodSandbox, "RemovePodSandbox", RemovePodSandboxRequest;
    }

    /// A pod's sandbox was stopped; plugins hear it once.
    pub async fn stop_pod(&self, pod: &Pod) -> Result<()> {
        match self.no_longer_runs(&pod.record.id) {
            true => self.tell_stopped(pod).await,
            false => Ok(()),
        }
    }

    container_hooks! {
        /// A container was made.
        post_create_container: PostCreateContainer, "PostCreateContainer", PostCreateContainerRequest;
        /// A container is about to be started; an error refuses it.
        start_container: StartContainer, "StartContainer", StartContainerRequest;
        /// A container was started.
        post_start_container: PostStartContainer, "PostStartContainer", PostStartContainerRequest;
        /// A container's resources have changed.
        post_update_container: PostUpdateContainer, "PostUpdateContainer", PostUpdateContainerRequest;
        tell_removed: RemoveContainer, "RemoveContainer", RemoveContainerRequest;
    }

    /// A pod's resources are about to change; an error refuses it.
    pub async fn update_pod(
        &self,
        pod: &Pod,
        overhead: Option<&v1::LinuxContainerResources>,
        wanted: Option<&v1::LinuxContainerResources>,
    ) -> Result<()> {
        if self.is_idle() {
            return Ok(());
        }
        let request = pb::UpdatePodSandboxRequest {
            pod: Some(self.see_pod(pod).await?),
            overhead_linux_resources: overhead.map(resources::from_cri),
            linux_resources: wanted.map(resources::from_cri),
        };
        let _turn = self.turn.lock().await;
        for plugin in self.plugins() {
            let event = Event::UpdatePodSandbox;
            plugin.ask::<_, pb::UpdatePodSandboxResponse>(event, "UpdatePodSandbox", &request).await?;
        }
        Ok(())
    }

    /// A container is about to be made: plugins may adjust its spec, or refuse it. It must be known to everybody before
    /// what this returns is dropped.
    pub async fn create_container(
        &self,
        pod: &Pod,
        record: &ContainerRecord,
        spec: &mut Spec,
    ) -> Result<Made> {
        let hold = self.hold().await;
        if self.is_idle() && !self.validator.enable {
            return Ok(Made { _hold: hold, told: None });
        }
        let cri = self.cri()?;
        let pod = self.see_pod(pod).await?;
        let container = view::container(record, None, spec);
        let adjusted = async {
            let collected = self.collect(&pod, &container).await?;
            let edits =
                cri.cdi_edits(collected.adjust.cdi_devices.iter().map(|device| device.name.clone())).await?;
            adjust::apply(spec, &collected.adjust, &cri.host, &cri.config.runtime)
                .map_err(|error| error.context("failed to NRI-adjust container Spec"))?;
            cdi::apply(spec, &edits);
            Ok(collected)
        };
        let adjusted: Result<Collected> = adjusted.await;
        match adjusted {
            Ok(collected) => {
                cri.apply_updates(collected.updates.into_values().collect()).await;
                Ok(Made { _hold: hold, told: Some((pod, container)) })
            }
            Err(error) => {
                self.unmake((pod, container)).await;
                Err(error.context("failed to get NRI adjustment for container"))
            }
        }
    }

    /// A container that plugins were told of does not come to be.
    pub async fn unmake(&self, (pod, container): (pb::PodSandbox, pb::Container)) {
        let (pod, container) = (Some(pod), Some(container));
        let stop = pb::StopContainerRequest { pod: pod.clone(), container: container.clone() };
        if let Err(error) = self.stopped(stop).await {
            tracing::warn!(%error, "an NRI plugin was not told of a container's end");
        }
        let request = pb::RemoveContainerRequest { pod, container };
        let old = || pb::StateChangeEvent {
            pod: request.pod.clone(),
            container: request.container.clone(),
            ..pb::StateChangeEvent::default()
        };
        if let Err(error) = self.tell(Event::RemoveContainer, "RemoveContainer", &request, old).await {
            tracing::warn!(%error, "an NRI plugin was not told of a container's removal");
        }
    }

    /// What all plugins want of a container that is being made, if it may be.
    async fn collect(&self, pod: &pb::PodSandbox, container: &pb::Container) -> Result<Collected> {
        let mut collected = Collected::default();
        let mut seen = container.clone();
        let _turn = self.turn.lock().await;
        let plugins = self.plugins();
        for plugin in &plugins {
            let request =
                pb::CreateContainerRequest { pod: Some(pod.clone()), container: Some(seen.clone()) };
            let reply: Option<pb::CreateContainerResponse> =
                plugin.ask(Event::CreateContainer, "CreateContainer", &request).await?;
            let Some(reply) = reply else { continue };
            let name = plugin.name();
            collected.adjust(&name, &mut seen, reply.adjust.unwrap_or_default())?;
            collected.update_others(&name, &container.id, reply.update)?;
            self.cri()?.evict(&name, reply.evict);
        }
        self.validate(pod, container, &collected, &plugins).await?;
        Ok(collected)
    }

    async fn validate(
        &self,
        pod: &pb::PodSandbox,
        container: &pb::Container,
        collected: &Collected,
        plugins: &[std::sync::Arc<Plugin>],
    ) -> Result<()> {
        let event = Event::ValidateContainerAdjustment;
        let instance = |plugin: &std::sync::Arc<Plugin>| pb::PluginInstance {
            name: plugin.base.clone(),
            index: plugin.index.clone(),
        };
        let request = pb::ValidateContainerAdjustmentRequest {
            pod: Some(pod.clone()),
            container: Some(container.clone()),
            adjust: Some(collected.adjust.clone()),
            update: collected.updates.values().cloned().collect(),
            owners: Some(collected.owners.0.clone()),
            plugins: plugins.iter().map(instance).collect(),
        };
        if let Err(reason) = validate::check(&self.validator, &request, &collected.owners) {
            return Err(rejected(validate::NAME, &format!("validation error: {reason}")));
        }
        let judges = plugins.iter().filter(|plugin| plugin.hears(event) && !plugin.is_closed());
        let judged = judges.map(async |plugin| {
            let verdict: Result<Option<pb::ValidateContainerAdjustmentResponse>> =
                plugin.ask(event, "ValidateContainerAdjustment", &request).await;
            match verdict {
                Ok(Some(verdict)) if verdict.reject => Err(rejected(&plugin.name(), &verdict.reason)),
                Ok(Some(_)) => Ok(()),
                // It hears everything and judges nothing.
                Err(error) if error.kind() == ::spec::Kind::Unimplemented => Ok(()),
                Err(error) => Err(error),
                Ok(None) => Err(Error::unavailable(format!("validator plugin {:?} failed", plugin.name()))),
            }
        });
        join_all(judged).await.into_iter().collect()
    }

    /// A container's resources are about to change: plugins may adjust them.
    pub async fn update_container(
        &self,
        pod: &Pod,
        container: &Container,
        wanted: &mut v1::LinuxContainerResources,
    ) -> Result<()> {
        if self.is_idle() {
            return Ok(());
        }
        let cri = self.cri()?;
        let id = container.record.id.as_str();
        let (pod, container) = self.see(pod, container).await?;
        let mut limits = resources::from_cri(wanted);
        let mut collected = Collected::default();
        {
            let _turn = self.turn.lock().await;
            for plugin in self.plugins() {
                let request = pb::UpdateContainerRequest {
                    pod: Some(pod.clone()),
                    container: Some(container.clone()),
                    linux_resources: Some(limits.clone()),
                };
                let reply: Option<pb::UpdateContainerResponse> =
                    plugin.ask(Event::UpdateContainer, "UpdateContainer", &request).await?;
                let Some(reply) = reply else { continue };
                for own in collected.update(&plugin.name(), id, reply.update)? {
                    resources::overlay(&mut limits, &own);
                }
                cri.evict(&plugin.name(), reply.evict);
            }
        }
        let told = resources::to_cri(&limits);
        let swap = match told.memory_swap_limit_in_bytes {
            0 => wanted.memory_swap_limit_in_bytes,
            swap => swap,
        };
        *wanted = v1::LinuxContainerResources {
            oom_score_adj: wanted.oom_score_adj,
            memory_swap_limit_in_bytes: swap,
            ..told
        };
        cri.apply_updates(collected.updates.into_values().collect()).await;
        Ok(())
    }

    /// A container has ended.
    pub async fn stop_container(&self, pod: &Pod, container: &Container, exit: Option<&Exit>) -> Result<()> {
        if self.is_idle() || container.phase() == Phase::Exited {
            return Ok(());
        }
        let (pod, mut seen) = self.see(pod, container).await?;
        seen.state = pb::ContainerState::ContainerStopped as i32;
        if let Some(exit) = exit {
            seen.exit_code = i32::try_from(exit.status).unwrap_or(i32::MAX);
            seen.finished_at = crate::nanos(exit.at);
        }
        self.stopped(pb::StopContainerRequest { pod: Some(pod), container: Some(seen) }).await
    }

    async fn stopped(&self, request: pb::StopContainerRequest) -> Result<()> {
        let own = request.container.as_ref().map_or("", |container| &container.id);
        let mut collected = Collected::default();
        {
            let _turn = self.turn.lock().await;
            for plugin in self.plugins() {
                let reply: Option<pb::StopContainerResponse> =
                    plugin.ask(Event::StopContainer, "StopContainer", &request).await?;
                if let Some(reply) = reply {
                    collected.update(&plugin.name(), own, reply.update)?;
                }
            }
        }
        if !collected.updates.is_empty() {
            self.cri()?.apply_updates(collected.updates.into_values().collect()).await;
        }
        Ok(())
    }

    /// A container goes.
    pub async fn remove_container(&self, pod: &Pod, container: &Container) -> Result<()> {
        if self.is_idle() {
            return Ok(());
        }
        if container.now().started_at == 0 {
            // It never ran, so nobody has told its end.
            let (pod, container) = self.see(pod, container).await?;
            self.stopped(pb::StopContainerRequest { pod: Some(pod), container: Some(container) }).await?;
        }
        self.tell_removed(pod, container).await
    }

    async fn tell<Req: api::Message>(
        &self,
        event: Event,
        method: &'static str,
        request: &Req,
        old: impl Fn() -> pb::StateChangeEvent,
    ) -> Result<()> {
        let _turn = self.turn.lock().await;
        for plugin in self.plugins() {
            plugin.tell(event, method, request, &old).await?;
        }
        Ok(())
    }

    async fn see_pod(&self, pod: &Pod) -> Result<pb::PodSandbox> {
        let spec = pod_spec(&*self.cri()?, &pod.record.id).await;
        Ok(view::pod(&pod.record, &pod.now(), spec.as_ref()))
    }

    async fn see(&self, pod: &Pod, container: &Container) -> Result<(pb::PodSandbox, pb::Container)> {
        let spec = self.cri()?.stored_spec(container).await?;
        let seen = view::container(&container.record, Some(&container.now()), &spec);
        Ok((self.see_pod(pod).await?, seen))
    }
}

/// The spec of a pod's sandbox; none when its record is gone already.
async fn pod_spec(cri: &Cri, id: &str) -> Option<Spec> {
    let id = id.to_owned();
    let stored = cri.on_disk(&cri.ctx(), move |engine, cx| engine.containers.get(cx, &id)).await.ok()?;
    Spec::from_slice(&stored.spec?.value).ok()
}

fn rejected(validator: &str, reason: &str) -> Error {
    let reason = if reason.is_empty() { "unknown rejection reason" } else { reason };
    let text = format!("validator {validator:?} rejected container adjustment, reason: {reason}");
    Error::new(::spec::Kind::PermissionDenied, text)
}
