//! Makes a container in a ready pod; it does not run yet.
//!
//! ```text
//! name ─► image ─► directories ─► snapshot (under the pod's lease) ─► spec ─► plugins ─► status file ─► record
//! ```

use std::path::Path;
use std::sync::{Arc, PoisonError};

use ::spec::{Error, LeaseId};
use api::runtime::v1;
use model::container::{Container as Stored, Runtime};
use model::snapshot::Snapshotter;
use model::undo::Undo;
use model::{Lane, Result};

use super::remove::gone;
use super::save::{self, Durable};
use super::{io_failed, log_path, new_id, record, signal, volume};
use crate::image::ImageInfo;
use crate::pod::record::runtime_name;
use crate::spec::PodFiles;
use crate::spec::container::{self as builder, Built, ContainerInput};
use crate::spec::resources;
use crate::spec::user::Accounts;
use crate::spec::userns;
use crate::state::{Container, ContainerRecord, ContainerState, Phase, Pod, Remains};
use crate::{Cri, fault, now_nanos};

/// What a request has become so far.
struct Draft {
    record: ContainerRecord,
    image: Arc<ImageInfo>,
    volumes: Vec<v1::Mount>,
}

impl Cri {
    /// Makes a container in a ready pod; it does not run yet.
    pub(crate) async fn create_container(
        self: &Arc<Self>,
        request: v1::CreateContainerRequest,
    ) -> Result<v1::CreateContainerResponse> {
        let config = request.config.ok_or_else(|| Error::invalid("container config must not be empty"))?;
        let pod = self.pods.get(&request.pod_sandbox_id).map_err(|error| {
            error.context(format_args!("failed to find sandbox id {:?}", request.pod_sandbox_id))
        })?;
        let name = name_of(&config, &pod)?;
        let linux = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
        if let Some(options) = linux.and_then(|security| security.namespace_options.as_ref()) {
            crate::pod::check_namespaces(options)?;
        }
        let id = new_id()?;
        let reserved = self.container_names.reserve(&name, &id)?;
        let cri = Arc::clone(self);
        let answer = id.clone();
        Self::whole(async move {
            let mut undo = Undo::default();
            match cri.create_steps(&pod, id.clone(), name, config, &mut undo).await {
                Ok(container) => {
                    undo.commit();
                    reserved.keep();
                    let (id, pod_id) = (&container.record.id, &pod.record.id);
                    cri.tell(v1::ContainerEventType::ContainerCreatedEvent, id, pod_id);
                    if let Err(error) = cri.nri.post_create_container(&pod, &container).await {
                        tracing::warn!(%id, %error, "NRI post-create notification failed");
                    }
                    Ok(())
                }
                Err(error) => Err(cri.unmake(&pod, id, undo, error).await),
            }
        })
        .await?;
        Ok(v1::CreateContainerResponse { container_id: answer })
    }

    /// Takes back what was made of the container `id`; what resists is tried again when its pod goes.
    async fn unmake(&self, pod: &Pod, id: String, undo: Undo, error: Error) -> Error {
        let Err(left) = undo.unwind().await else { return error };
        let snapshotter = self.snapshotter_of(&pod.record.handler);
        pod.remains.lock().unwrap_or_else(PoisonError::into_inner).push(Remains { id, snapshotter });
        Error::new(error.kind(), format!("{} (and undoing failed: {})", error.text(), left.text()))
    }

    async fn create_steps(
        self: &Arc<Self>,
        pod: &Arc<Pod>,
        id: String,
        name: String,
        config: v1::ContainerConfig,
        undo: &mut Undo,
    ) -> Result<Arc<Container>> {
        if !pod.is_ready() {
            return Err(Error::failed_precondition(format_args!("sandbox {:?} is not ready", pod.record.id)));
        }
        let mut draft = self.draft(pod, id, name, config).await?;
        self.make_dirs(&mut draft, undo).await?;
        fault::after("container directories")?;
        let driver = self.engine.snapshotter(&draft.record.snapshotter)?;
        let accounts = self.make_snapshot(pod, &draft, driver, undo).await?;
        let record = &mut draft.record;
        self.mount_images(pod, &record.snapshotter, &mut record.config.mounts).await?;
        fault::after("container snapshot")?;
        // Profiles, devices and mounts' sources are read.
        let (cri, of) = (Arc::clone(self), Arc::clone(pod));
        let ctx = self.ctx();
        let abilities = self.abilities_of(&pod.record.handler).await.unwrap_or_default();
        let (mut draft, mut built) = ctx
            .blocking(Lane::Disk, move |_| {
                cri.container_spec(&of, &draft, &accounts, abilities).map(|built| (draft, built))
            })
            .await?;
        let made = self.nri.create_container(pod, &draft.record, &mut built.spec).await?;
        if let Some(told) = made.told() {
            let cri = Arc::clone(self);
            undo.push("tell plugins that the container is not made", move || async move {
                cri.nri.unmake(told).await;
                Ok(())
            });
        }
        fault::after("container adjusted")?;
        draft.record.process_label = built.process_label;
        let state = ContainerState {
            created_at: now_nanos(),
            // As they are set, plugins' changes with them, and not as they were asked for.
            resources: Some(v1::ContainerResources {
                linux: Some(resources::told(&built.spec)),
                windows: None,
            }),
            ..ContainerState::default()
        };
        let kept = self.stored(pod, &draft, &built.spec)?;
        let (dir, saved) = (self.container_root(&draft.record.id), state.clone());
        let (cri, gone_id) = (Arc::clone(self), draft.record.id.clone());
        undo.push("delete the container's record", move || async move {
            gone(cri.on_disk(&cri.ctx(), move |engine, cx| engine.containers.delete(cx, &gone_id)).await)
        });
        self.on_disk(&self.ctx(), move |engine, cx| {
            save::save(&dir, &saved, Durable::No)?;
            fault::after("container status")?;
            engine.containers.create(cx, &kept).map(drop)
        })
        .await
        .map_err(|error| error.context("failed to create containerd container"))?;
        fault::after("container record")?;
        let container = Arc::new(Container::new(draft.record, state));
        if let Some(process) = built.spec.process {
            // Nobody else knows the container yet.
            let _first = container.process.set(Arc::new(process));
        }
        self.containers.add(Arc::clone(&container));
        drop(made);
        Ok(container)
    }

    /// What the request alone and the image say.
    async fn draft(
        self: &Arc<Self>,
        pod: &Pod,
        id: String,
        name: String,
        config: v1::ContainerConfig,
    ) -> Result<Draft> {
        let wanted = config.image.as_ref().map_or("", |image| image.image.as_str());
        let image = self.image_for(wanted, &pod.record.handler).await;
        let image =
            image.map_err(|error| error.context(format_args!("failed to resolve image {wanted:?}")))?;
        let snapshotter = self.snapshotter_of(&pod.record.handler);
        self.ensure_unpacked(&image, &snapshotter).await?;
        let log = log_path::of(&pod.record.config.log_directory, &config.log_path)?;
        let stop_signal = match signal::asked(config.stop_signal)? {
            Some(asked) => asked,
            None => image.config.config.stop_signal.clone(),
        };
        let first = |names: &[String]| names.first().cloned();
        let record = ContainerRecord {
            id,
            name,
            pod_id: pod.record.id.clone(),
            image_id: image.id.clone(),
            image_ref: first(&image.repo_digests).unwrap_or_else(|| image.id.clone()),
            image_name: first(&image.repo_tags).unwrap_or_default(),
            log_path: log,
            stop_signal,
            snapshotter,
            process_label: String::new(),
            config,
        };
        Ok(Draft { record, image, volumes: Vec::new() })
    }

    /// The container's directories, and those of the volumes that its image defines.
    async fn make_dirs(self: &Arc<Self>, draft: &mut Draft, undo: &mut Undo) -> Result<()> {
        let id = draft.record.id.clone();
        let dirs = [self.container_root(&id), self.container_state(&id)];
        let removing = dirs.clone();
        let ctx = self.ctx();
        undo.push("remove the container's directories", move || async move {
            ctx.blocking(Lane::Disk, move |_| {
                fault::after("container snapshot undone")?;
                removing.iter().try_for_each(|dir| super::remove::remove_dir(dir))
            })
            .await
        });
        let wanted = match self.config.runtime.ignore_image_defined_volumes {
            true => Vec::new(),
            false => volume::wanted(&draft.image.config, &draft.record.config.mounts)?,
        };
        draft.volumes = self
            .ctx()
            .blocking(Lane::Disk, move |_| {
                use std::os::unix::fs::DirBuilderExt as _;
                for dir in &dirs {
                    let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(dir);
                    made.map_err(|error| io_failed(format_args!("cannot make {}", dir.display()), &error))?;
                }
                volume::make(&dirs[0].join("volumes"), &wanted)
            })
            .await?;
        Ok(())
    }

    /// The container's root file system, and the users in it.
    async fn make_snapshot(
        self: &Arc<Self>,
        pod: &Pod,
        draft: &Draft,
        driver: Arc<dyn Snapshotter>,
        undo: &mut Undo,
    ) -> Result<Accounts> {
        let lease: LeaseId = pod.record.id.parse()?;
        let ctx = self.ctx().with_lease(lease);
        let (key, parent) = (draft.record.id.clone(), draft.image.chain_id.clone());
        let making = Arc::clone(&driver);
        let (undoing, gone_key) = (self.ctx(), key.clone());
        undo.push("remove the container's snapshot", move || async move {
            gone(undoing.blocking(Lane::Disk, move |cx| driver.remove(cx, &gone_key)).await)
        });
        let labels = self.mapping(&pod.record.config, &draft.record.snapshotter)?;
        let (volumes, state) = (draft.volumes.clone(), self.state_dir().join("mounts"));
        let accounts = self.on_disk(&ctx, move |engine, cx| {
            let mounts = userns::unshifted(&making.prepare(cx, &key, &parent, &labels)?);
            let filled = volumes.iter().try_for_each(|volume| {
                let (inside, to) = (Path::new(&volume.container_path), Path::new(&volume.host_path));
                (engine.copy_out)(cx, &state, &mounts, inside, to).map(drop)
            });
            filled.and_then(|()| Accounts::of_snapshot(&mounts))
        });
        accounts.await.map_err(|error| error.context("failed to create snapshot"))
    }

    fn container_spec(
        &self,
        pod: &Pod,
        draft: &Draft,
        accounts: &Accounts,
        abilities: v1::RuntimeHandlerFeatures,
    ) -> Result<Built> {
        let files = self.pod_files(&pod.record.id);
        let namespaces = pod.namespaces();
        let node = v1::NamespaceMode::Node as i32;
        let shm = if namespaces.ipc == node { "/dev/shm".into() } else { files.shm() };
        let seen = PodFiles {
            hostname: files.hostname(),
            hosts: files.hosts(),
            resolv_conf: files.resolv_conf(),
            shm,
        };
        let config = &draft.record.config;
        let input = ContainerInput {
            id: &draft.record.id,
            pod_id: &pod.record.id,
            config,
            pod_config: &pod.record.config,
            pod_label: &pod.record.process_label,
            handler: self.handler(pod)?,
            runtime: &self.config.runtime,
            host: &self.host,
            image: &draft.image.config.config,
            image_name: image_name(&draft.record),
            accounts,
            volumes: &draft.volumes,
            pod_pid: pod.state.borrow().pid,
            target_pid: self.target(pod, config)?,
            files: &seen,
            recursive_read_only: abilities.recursive_read_only_mounts,
        };
        builder::facts(&input).and_then(|facts| builder::build(&input, &facts)).map_err(|error| {
            let error = error.context("failed to generate spec opts");
            error.context(format_args!("failed to generate container {:?} spec", draft.record.id))
        })
    }

    /// The process whose namespace the container shares, when it asks for another container's.
    fn target(&self, pod: &Pod, config: &v1::ContainerConfig) -> Result<Option<u32>> {
        let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
        let options = security.and_then(|security| security.namespace_options.as_ref());
        let Some(options) = options.filter(|options| options.pid == v1::NamespaceMode::Target as i32) else {
            return Ok(None);
        };
        let target = self.containers.get(&options.target_id);
        let target = target.map_err(|error| error.context("invalid target container"))?;
        if target.record.pod_id != pod.record.id || target.phase() != Phase::Running {
            return Err(Error::failed_precondition(format_args!(
                "invalid target container: {:?} does not run in sandbox {:?}",
                options.target_id, pod.record.id
            )));
        }
        Ok(Some(target.now().pid))
    }

    fn stored(&self, pod: &Pod, draft: &Draft, spec: &::spec::runtime::Spec) -> Result<Stored> {
        let handler = self.handler(pod)?;
        let record = &draft.record;
        Ok(Stored {
            id: record.id.clone(),
            labels: record::labels(&record.config, &draft.image.config.config.labels)?,
            image: image_name(record).to_owned(),
            runtime: Runtime { name: runtime_name(handler), options: handler.options.clone() },
            spec: Some(record::spec_any(spec)?),
            snapshotter: record.snapshotter.clone(),
            snapshot_key: record.id.clone(),
            sandbox_id: pod.record.id.clone(),
            extensions: [record::extension(record)?].into(),
            created_at: std::time::UNIX_EPOCH,
            updated_at: std::time::UNIX_EPOCH,
        })
    }
}

/// The image by the best name that there is.
fn image_name(record: &ContainerRecord) -> &str {
    let named = record.config.image.as_ref().map_or("", |image| image.user_specified_image.as_str());
    [named, &record.image_name, &record.image_ref]
        .into_iter()
        .find(|name| !name.is_empty())
        .unwrap_or_default()
}

/// `name_pod_namespace_uid_attempt`, which is unique on a node.
fn name_of(config: &v1::ContainerConfig, pod: &Pod) -> Result<String> {
    let metadata = config.metadata.as_ref();
    let metadata = metadata.ok_or_else(|| Error::invalid("container config must include metadata"))?;
    if metadata.name.len() > 512 || metadata.name.contains(|c: char| c.is_control()) {
        return Err(Error::invalid(format!("{:?} cannot be a container's name", metadata.name)));
    }
    let of_pod = pod.record.config.metadata.clone().unwrap_or_default();
    Ok(format!("{}_{}_{}_{}_{}", metadata.name, of_pod.name, of_pod.namespace, of_pod.uid, metadata.attempt))
}
