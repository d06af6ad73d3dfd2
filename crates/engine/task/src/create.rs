//! Creating a task: bundle, shim, connection, container; each step knows how to take itself back.

use std::path::PathBuf;
use std::sync::Arc;

use api::containerd::task::v3::{CreateTaskRequest, CreateTaskResponse, ShutdownRequest};
use api::containerd::types;
use model::snapshot::Mount;
use model::task::Create;
use model::undo::Undo;
use model::{Any, Ctx, Lane};
use spec::{ContainerId, Error};

use crate::bootstrap::Endpoint;
use crate::bundle::Bundle;
use crate::launch::LaunchError;
use crate::log::Log;
use crate::task::{Parts, Task};
use crate::tasks::Shared;
use crate::ttrpc::Client;
use crate::{deadline, end, owner};

/// Creates a task whose place is taken, takes everything back when a step fails, and answers the init's process id.
pub async fn run(shared: Arc<Shared>, create: Create) -> Result<u32, Error> {
    let place = shared.registry.reserve(&create.namespace, &create.id)?;
    let mut undo = Undo::default();
    match steps(&shared, create, &mut undo).await {
        Ok((task, seat, pid)) => {
            undo.commit();
            task.set_pid(pid);
            place.fill(Arc::clone(&task));
            owner::start(shared, task, seat);
            Ok(pid)
        }
        Err(error) => Err(undo.roll_back(error).await),
    }
}

async fn steps(
    shared: &Arc<Shared>,
    create: Create,
    undo: &mut Undo,
) -> Result<(Arc<Task>, owner::Seat, u32), Error> {
    let start_failed = |error: LaunchError| Error::from(error).context("failed to start shim");
    let program = shared.launcher.find(&create.runtime).map_err(start_failed)?;
    let bundle = Bundle::new(&shared.config, &create.namespace, &create.id);
    make_bundle(&bundle, create.spec.clone(), program.clone(), undo).await?;
    let log = Log::open(&bundle.path, bundle.namespace.as_str(), bundle.id.as_str())
        .map_err(|error| Error::internal(format!("open shim log pipe: {error}")))?;
    let (shim, endpoint) = match &create.beside {
        Some(other) => join_shim(shared, &bundle, &program, other, undo).await?,
        None => start_shim(shared, &create, &bundle, &program, undo).await?,
    };
    let (owner, ended, seat) = owner::seat();
    let deadlines = shared.config.deadlines;
    let log = Some(log);
    let task = Arc::new(Task::new(Parts { bundle, program, shim, endpoint, log, owner, ended, deadlines }));
    let rejoin = Arc::clone(&task);
    undo.push("shut down the shim", move || async move {
        let request = ShutdownRequest { id: rejoin.id().into(), now: true };
        // The shim may be what failed; its container goes by `shim delete`, the next step.
        let _answer = rejoin.call::<_, ()>("Shutdown", Some(rejoin.deadlines().shutdown), &request).await;
        Ok(())
    });
    let request = request(&task, create);
    let response: CreateTaskResponse = task
        .call_any_version("Create", deadline::CREATE, &request)
        .await
        .map_err(|error| Error::from(error).context("failed to create shim task"))?;
    Ok((task, seat, response.pid))
}

async fn make_bundle(bundle: &Bundle, spec: Vec<u8>, program: PathBuf, undo: &mut Undo) -> Result<(), Error> {
    let made = bundle.clone();
    Ctx::background()
        .blocking(Lane::Disk, move |_| {
            made.create(&spec)?;
            // Recorded first: whenever this daemon dies, the next knows what to clean up with.
            Ok(made.record_program(&program)?)
        })
        .await?;
    let bundle = bundle.clone();
    undo.push("remove the bundle", move || async move { end::remove(&bundle).await });
    Ok(())
}

/// Takes the shim of another task, and the connection to it.
async fn join_shim(
    shared: &Arc<Shared>,
    bundle: &Bundle,
    program: &std::path::Path,
    other: &ContainerId,
    undo: &mut Undo,
) -> Result<(Arc<Client>, Endpoint), Error> {
    let other = shared.registry.get(&bundle.namespace, other.as_str())?;
    delete_on_undo(shared, bundle, program, undo);
    record(bundle, other.endpoint()).await?;
    Ok((Arc::clone(other.shim()), other.endpoint().clone()))
}

fn delete_on_undo(shared: &Arc<Shared>, bundle: &Bundle, program: &std::path::Path, undo: &mut Undo) {
    let (launcher, program, bundle) = (shared.launcher.clone(), program.to_owned(), bundle.clone());
    undo.push("delete the container", move || async move {
        launcher.delete(&program, &bundle).await.map_err(Error::from).map(drop)
    });
}

/// Leaves the way to the shim in the bundle, for the next daemon.
async fn record(bundle: &Bundle, endpoint: &Endpoint) -> Result<(), Error> {
    let (bundle, endpoint) = (bundle.clone(), endpoint.clone());
    Ctx::background().blocking(Lane::Disk, move |_| Ok(bundle.record_endpoint(&endpoint)?)).await
}

async fn start_shim(
    shared: &Arc<Shared>,
    create: &Create,
    bundle: &Bundle,
    program: &std::path::Path,
    undo: &mut Undo,
) -> Result<(Arc<Client>, Endpoint), Error> {
    let options = create.runtime_options.clone().or_else(|| create.task_options.clone()).map(wire_any);
    let started = shared.launcher.start(program, bundle, options).await;
    // A program that was not run, or ended by itself, has left nothing; one that was killed may have.
    let ended_by_itself = match &started {
        Err(LaunchError::Failed { status, .. }) => status.code().is_some(),
        Err(LaunchError::Run { .. }) => true,
        _ => false,
    };
    if !ended_by_itself {
        delete_on_undo(shared, bundle, program, undo);
    }
    let endpoint = started.map_err(|error| Error::from(error).context("failed to start shim"))?;
    let shim = tokio::time::timeout(shared.config.deadlines.load, Client::connect(&endpoint.path()))
        .await
        .map_err(|_| Error::unavailable("failed to start shim: its socket does not accept"))?
        .map_err(|error| Error::from(error).context("failed to start shim"))?;
    record(bundle, &endpoint).await?;
    Ok((Arc::new(shim), endpoint))
}

fn request(task: &Task, create: Create) -> CreateTaskRequest {
    let mount = |mount: Mount| types::Mount {
        r#type: mount.kind,
        source: mount.source,
        target: mount.target,
        options: mount.options,
    };
    CreateTaskRequest {
        id: task.id().into(),
        bundle: task.bundle().path.to_string_lossy().into_owned(),
        rootfs: create.rootfs.into_iter().map(mount).collect(),
        terminal: create.stdio.terminal,
        stdin: create.stdio.stdin,
        stdout: create.stdio.stdout,
        stderr: create.stdio.stderr,
        options: create.task_options.or(create.runtime_options).map(wire_any),
        ..CreateTaskRequest::default()
    }
}

fn wire_any(any: Any) -> api::Any {
    api::Any { type_url: any.type_url, value: any.value }
}
