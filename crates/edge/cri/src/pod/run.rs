//! Makes a pod and starts it: its network, its namespaces, its cgroup.
//!
//! ```text
//! name ─► files ─► root ─► network ─► records, lease ─► task (created, started) ─► ready ─► events, exit watch
//! ```
//!
//! Invariant: every step registers its own undo; a pod that could not be made whole leaves nothing. An undo that fails
//! ends the undoing, so that nothing goes that the failed one needs when it is tried again; the pod stays as not ready, in
//! the next daemon too, until the kubelet removes it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use ::spec::{ContainerId, Error, Kind, Labels, LeaseId};
use api::runtime::v1;
use model::sandbox::Sandbox;
use model::snapshot::Mount;
use model::task::{Create, Exit, Stdio, Task};
use model::undo::Undo;
use model::{Ctx, Lane, Result};

use super::record::{self, Rootfs};
use super::{draft, files, network, request as wanted};
use crate::spec::pod::{self as builder, PodInput};
use crate::spec::user::Accounts;
use crate::spec::{Labels as Labelled, PodFiles, UserNamespace, selinux};
use crate::state::{Pod, PodPhase, PodRecord, PodState, Reserved};
use crate::{Cri, container, fault, nanos, now_nanos};

/// The most bytes of a part of a pod's name.
const MAX_NAME: usize = 512;

/// What the sandbox runs on.
struct Root {
    rootfs: Rootfs,
    path: String,
    mounts: Vec<Mount>,
    process: ::spec::image::ProcessConfig,
    accounts: Accounts,
}

impl Cri {
    /// Makes a pod and starts it: its network, its namespaces, its cgroup.
    pub(crate) async fn run_pod_sandbox(
        self: &Arc<Self>,
        request: v1::RunPodSandboxRequest,
    ) -> Result<v1::RunPodSandboxResponse> {
        let config = request.config.ok_or_else(|| Error::invalid("sandbox config must not be empty"))?;
        let name = name_of(&config)?;
        wanted::check(&config)?;
        let handler = self.choose_handler(&config, &request.runtime_handler)?;
        self.mapping(&config, &self.snapshotter_of(&handler))?;
        let id = container::new_id()?;
        let reserved = self.pod_names.reserve(&name, &id)?;
        let on_host = crate::state::namespaces(&config).network == v1::NamespaceMode::Node as i32;
        let netns = if on_host { None } else { Some(self.fresh_netns().await?) };
        let labels = self.labels(&config)?;
        let record = PodRecord {
            id: id.clone(),
            name,
            runtime_handler: request.runtime_handler,
            handler,
            created_at: now_nanos(),
            netns,
            process_label: labels.process,
            mount_label: labels.mount,
            config,
        };
        let cri = Arc::clone(self);
        Self::whole(async move { cri.make_pod(record, reserved).await }).await?;
        Ok(v1::RunPodSandboxResponse { pod_sandbox_id: id })
    }

    async fn make_pod(self: &Arc<Self>, record: PodRecord, reserved: Reserved) -> Result<()> {
        let pod = Arc::new(Pod::new(record, PodState::default()));
        let _turn = pod.turn.lock().await;
        let mut undo = Undo::default();
        match self.make_steps(&pod, &mut undo).await {
            Ok(task) => {
                undo.commit();
                reserved.keep();
                let files = self.pod_files(&pod.record.id);
                if let Err(error) = self.ctx().blocking(Lane::Disk, move |_| draft::finish(&files)).await {
                    // Only if the store loses it is it listed by this file, which is what it is for.
                    tracing::warn!(id = %pod.record.id, %error, "cannot note that a pod is made");
                }
                let created = v1::ContainerEventType::ContainerCreatedEvent;
                self.tell(created, &pod.record.id, &pod.record.id);
                self.tell(v1::ContainerEventType::ContainerStartedEvent, &pod.record.id, &pod.record.id);
                self.watch_pod(&pod, task);
                Ok(())
            }
            Err(error) => {
                self.pods.remove(&pod.record.id);
                let undone = tokio::time::timeout(self.config.cleanup_timeout, undo.unwind()).await;
                let late = |_| Err(Error::internal("it took too long"));
                let Err(left) = undone.unwrap_or_else(late) else { return Err(error) };
                // The kubelet sees it, and its removal tries again.
                pod.state.send_modify(|state| state.phase = PodPhase::NotReady);
                reserved.keep();
                self.pods.add(Arc::clone(&pod));
                let text = format!("{} (and undoing failed: {})", error.text(), left.text());
                Err(Error::new(error.kind(), text))
            }
        }
    }

    async fn make_steps(self: &Arc<Self>, pod: &Arc<Pod>, undo: &mut Undo) -> Result<Arc<dyn Task>> {
        let id = &pod.record.id;
        let handler = self.handler(pod)?.clone();
        // First of all on disk: by its directories the next daemon finds what a dead one left.
        self.make_files(pod, undo).await?;
        fault::after("pod files")?;
        let made = self.pod_root(pod, undo).await?;
        fault::after("pod root")?;
        let setup = match &pod.record.netns {
            Some(netns) => Some(self.join_network(pod, netns, undo).await?),
            None => None,
        };
        pod.state.send_modify(|state| network::note(state, setup, self.config.runtime.cni.ip_pref));
        let (cri, of, by) = (Arc::clone(self), Arc::clone(pod), handler.clone());
        let ctx = self.ctx();
        // Profiles are read.
        let (made, spec) =
            ctx.blocking(Lane::Disk, move |_| cri.pod_spec(&of, &by, &made).map(|spec| (made, spec))).await?;
        let kept = record::stored(&pod.record, &handler, &made.rootfs, &spec)?;
        let runtime = kept.runtime.clone();
        let spec_json = kept.spec.as_ref().map(|any| any.value.clone()).unwrap_or_default();
        self.keep_records(record::sandbox(&pod.record, &handler, &kept), kept, undo).await?;
        fault::after("pod records")?;
        let create = Create {
            namespace: self.namespace.clone(),
            id: id.parse::<ContainerId>()?,
            runtime: runtime.name,
            runtime_options: runtime.options,
            task_options: None,
            spec: spec_json,
            rootfs: made.mounts,
            stdio: Stdio::default(),
            beside: None,
        };
        self.engine
            .tasks
            .create(create)
            .await
            .map_err(|error| error.context("failed to create containerd task"))?;
        let task = self.engine.tasks.get(&self.namespace, id)?;
        let gone = Arc::clone(&task);
        undo.push("remove the sandbox's task", move || async move { end_task(&*gone).await.map(drop) });
        fault::after("pod created")?;
        let pid = task.start("").await.map_err(|error| error.context("failed to start sandbox task"))?;
        pod.state.send_modify(|state| state.pid = pid);
        fault::after("pod started")?;
        let told = self.nri.run_pod(pod).await.map_err(|error| error.context("NRI RunPodSandbox failed"))?;
        fault::after("pod ready")?;
        pod.state.send_modify(|state| state.phase = PodPhase::Ready);
        self.pods.add(Arc::clone(pod));
        drop(told);
        Ok(task)
    }

    /// A lease with the pod's id holds what its containers are made of.
    async fn take_lease(self: &Arc<Self>, id: &str, undo: &mut Undo) -> Result<()> {
        let lease: LeaseId = id.parse()?;
        self.on_disk(&self.ctx(), move |engine, cx| {
            engine.leases.create(cx, Some(&lease), &Labels::default()).map(drop)
        })
        .await
        .map_err(|error| error.context("failed to create lease for sandbox"))?;
        let (cri, id) = (Arc::clone(self), id.to_owned());
        undo.push("delete the lease", move || async move { cri.drop_lease(&id).await });
        Ok(())
    }

    /// Ends a pod's lease. May be repeated.
    pub(crate) async fn drop_lease(&self, id: &str) -> Result<()> {
        let id = id.to_owned();
        gone(self.on_disk(&self.ctx(), move |engine, cx| engine.leases.delete(cx, &id)).await)
    }

    /// What the sandbox runs on: the built-in pause, or the configured image's snapshot.
    async fn pod_root(self: &Arc<Self>, pod: &Pod, undo: &mut Undo) -> Result<Root> {
        let name = self.config.images.sandbox_image.clone();
        if name.is_empty() {
            let (rootfs, program) = (self.pause_rootfs(), self.config.pause_program.clone());
            let path = rootfs.display().to_string();
            self.ctx().blocking(Lane::Disk, move |_| files::make_pause_rootfs(&rootfs, &program)).await?;
            return Ok(Root {
                rootfs: Rootfs::default(),
                path,
                mounts: Vec::new(),
                process: builder::builtin(),
                accounts: Accounts::default(),
            });
        }
        let image = self.ensure_image(&name, &pod.record.handler).await;
        let image =
            image.map_err(|error| error.context(format_args!("failed to get sandbox image {name:?}")))?;
        let snapshotter = self.snapshotter_of(&pod.record.handler);
        self.ensure_unpacked(&image, &snapshotter).await?;
        self.take_lease(&pod.record.id, undo).await?;
        fault::after("pod lease")?;
        let (driver, id, chain_id) =
            (self.engine.snapshotter(&snapshotter)?, pod.record.id.clone(), image.chain_id.clone());
        let lease: LeaseId = id.parse()?;
        let (making, key) = (Arc::clone(&driver), id.clone());
        let labels = self.mapping(&pod.record.config, &snapshotter)?;
        let ctx = self.ctx().with_lease(lease);
        let undoing = self.ctx();
        undo.push("remove the sandbox's snapshot", move || async move {
            gone(undoing.blocking(Lane::Disk, move |cx| driver.remove(cx, &id)).await)
        });
        let (mounts, accounts) = self
            .on_disk(&ctx, move |_, cx| {
                let mounts = making.prepare(cx, &key, &chain_id, &labels)?;
                fault::after("pod snapshot")?;
                let accounts = Accounts::of_snapshot(&mounts)?;
                Ok((mounts, accounts))
            })
            .await?;
        let process = image.config.config.clone();
        Ok(Root {
            rootfs: Rootfs { image: name, snapshotter },
            path: "rootfs".into(),
            mounts,
            process,
            accounts,
        })
    }

    async fn make_files(self: &Arc<Self>, pod: &Pod, undo: &mut Undo) -> Result<()> {
        let files = self.pod_files(&pod.record.id);
        let removing = files.clone();
        undo.push("remove the pod's files", move || async move {
            Ctx::background().blocking(Lane::Disk, move |_| removing.remove()).await
        });
        let record = pod.record.clone();
        let make = move |_: &model::Cx<'_>| {
            files.make(&record.config)?;
            draft::write(&files, &record)
        };
        self.ctx().blocking(Lane::Disk, make).await
    }

    /// The SELinux labels of a new pod.
    fn labels(&self, config: &v1::PodSandboxConfig) -> Result<Labelled> {
        let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
        let options = security.and_then(|security| security.selinux_options.as_ref());
        let runtime = &self.config.runtime;
        let pods = self.pods.list();
        let taken = |level: &str| pods.iter().any(|pod| selinux::level(&pod.record.process_label) == level);
        selinux::of_pod(self.host.selinux(runtime), options, runtime.selinux_category_range, &taken)
    }

    /// Labels of the snapshots of a pod of `config`: how owners are shifted where it has a user namespace.
    pub(crate) fn mapping(&self, config: &v1::PodSandboxConfig, snapshotter: &str) -> Result<Labels> {
        match UserNamespace::of(&crate::state::namespaces(config))? {
            None => Ok(Labels::default()),
            Some(userns) => userns.labels(snapshotter, self.engine.snapshotter(snapshotter)?.capabilities()),
        }
    }

    fn pod_spec(
        &self,
        pod: &Pod,
        handler: &crate::config::Handler,
        made: &Root,
    ) -> Result<::spec::runtime::Spec> {
        let files = self.pod_files(&pod.record.id);
        let seen = PodFiles {
            hostname: files.hostname(),
            hosts: files.hosts(),
            resolv_conf: files.resolv_conf(),
            shm: files.shm(),
        };
        let record = &pod.record;
        let labels = Labelled { process: record.process_label.clone(), mount: record.mount_label.clone() };
        let input = PodInput {
            id: &pod.record.id,
            config: &pod.record.config,
            handler,
            runtime: &self.config.runtime,
            host: &self.host,
            image: &made.process,
            image_name: &made.rootfs.image,
            root: &made.path,
            accounts: &made.accounts,
            netns: pod.record.netns.as_deref(),
            labels: &labels,
            files: &seen,
            userns: &files.userns(),
        };
        let facts = builder::facts(&input)?;
        builder::build(&input, &facts)
            .map_err(|error| error.context("failed to generate sandbox container spec"))
    }

    async fn keep_records(
        self: &Arc<Self>,
        sandbox: Sandbox,
        kept: model::container::Container,
        undo: &mut Undo,
    ) -> Result<()> {
        let id = kept.id.clone();
        self.on_disk(&self.ctx(), move |engine, cx| engine.sandboxes.create_pod(cx, &sandbox, &kept))
            .await
            .map_err(|error| error.context("failed to create containerd container"))?;
        let cri = Arc::clone(self);
        undo.push("delete the sandbox's records", move || async move { cri.drop_pod_records(&id).await });
        Ok(())
    }

    /// Deletes a pod's records and its lease. May be repeated.
    pub(super) async fn drop_pod_records(&self, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.on_disk(&self.ctx(), move |engine, cx| engine.sandboxes.delete_pod(cx, &id)).await
    }

    /// Waits for the end of a pod's sandbox from now on.
    pub(crate) fn watch_pod(self: &Arc<Self>, pod: &Arc<Pod>, task: Arc<dyn Task>) {
        self.in_background(watch(Arc::downgrade(self), Arc::clone(pod), task));
    }
}

/// Waits for the sandbox's end, and tells it.
async fn watch(cri: Weak<Cri>, pod: Arc<Pod>, task: Arc<dyn Task>) {
    let exit = loop {
        match task.wait("").await {
            Ok(exit) => break Some(exit),
            Err(error) if error.kind() == Kind::NotFound => break None,
            Err(error) => tracing::warn!(id = %pod.record.id, %error, "cannot wait for the sandbox's end"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let Some(cri) = cri.upgrade() else { return };
        if cri.engine.tasks.get(&cri.namespace, &pod.record.id).is_err() {
            break None;
        }
    };
    let Some(cri) = cri.upgrade() else { return };
    if let Err(error) = gone(task.delete().await.map(drop)) {
        tracing::warn!(id = %pod.record.id, %error, "the sandbox's task stays behind");
    }
    cri.pod_ended(&pod, exit);
}

impl Cri {
    /// Notes that a pod's sandbox has ended, and tells it once.
    pub(crate) fn pod_ended(self: &Arc<Self>, pod: &Pod, exit: Option<Exit>) {
        let news = pod.state.send_if_modified(|state| {
            let news = state.exit.is_none();
            state.phase = PodPhase::NotReady;
            state.pid = 0;
            if news {
                state.exit =
                    Some(exit.as_ref().map_or((255, now_nanos()), |exit| (exit.status, nanos(exit.at))));
            }
            news
        });
        if news {
            self.tell(v1::ContainerEventType::ContainerStoppedEvent, &pod.record.id, &pod.record.id);
        }
    }
}

/// How long a sandbox may take to end once it is killed.
const DEATH: Duration = Duration::from_secs(10);

/// SIGKILL.
pub(super) const SIGKILL: u32 = 9;

/// Kills and deletes a sandbox's task. May be repeated.
///
/// # Errors
/// The shim does not do it in time.
pub(crate) async fn end_task(task: &dyn Task) -> Result<Option<Exit>> {
    gone(task.kill("", SIGKILL, true).await)?;
    match tokio::time::timeout(DEATH, task.wait("")).await {
        Err(_) => {
            return Err(Error::new(
                Kind::DeadlineExceeded,
                "the sandbox does not end although it was killed",
            ));
        }
        Ok(Err(error)) if error.kind() != Kind::NotFound => return Err(error),
        Ok(_) => {}
    }
    match task.delete().await {
        Ok(exit) => Ok(Some(exit)),
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Success also when there is nothing any more.
pub(super) fn gone(outcome: Result<()>) -> Result<()> {
    match outcome {
        Err(error) if error.kind() == Kind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// `name_namespace_uid_attempt`, which is unique on a node.
fn name_of(config: &v1::PodSandboxConfig) -> Result<String> {
    let metadata = config.metadata.as_ref();
    let metadata = metadata.ok_or_else(|| Error::invalid("sandbox config must include metadata"))?;
    for part in [&metadata.name, &metadata.namespace, &metadata.uid] {
        if part.len() > MAX_NAME || part.contains(|c: char| c.is_control()) {
            return Err(Error::invalid(format!("{part:?} cannot be part of a pod's name")));
        }
    }
    let v1::PodSandboxMetadata { name, uid, namespace, attempt } = metadata;
    Ok(format!("{name}_{namespace}_{uid}_{attempt}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &str) -> v1::PodSandboxConfig {
        let metadata =
            v1::PodSandboxMetadata { name: name.into(), uid: "u".into(), namespace: "ns".into(), attempt: 2 };
        v1::PodSandboxConfig { metadata: Some(metadata), ..v1::PodSandboxConfig::default() }
    }

    #[test]
    fn a_pods_name_is_that_of_its_attempt() {
        assert_eq!(name_of(&config("a")).unwrap(), "a_ns_u_2");
        for hostile in ["a\nb".to_owned(), "x".repeat(MAX_NAME + 1)] {
            assert_eq!(name_of(&config(&hostile)).unwrap_err().kind(), Kind::InvalidArgument);
        }
        assert!(name_of(&v1::PodSandboxConfig::default()).is_err());
    }
}
