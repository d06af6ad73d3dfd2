//! The end of a task: deleted on request, or cleaned up after its shim died.

use std::sync::Arc;

use api::containerd::events::{TaskDelete, TaskExit};
use api::containerd::task::v3::{DeleteRequest, DeleteResponse, ShutdownRequest};
use api::{Message, Name};
use model::{Any, Ctx, Lane};
use spec::{Error, HasKind, Kind};

use crate::bundle::Bundle;
use crate::deadline;
use crate::task::{Task, exit};
use crate::tasks::Shared;
use crate::ttrpc::CallError;
use model::task::Exit;

/// The status of a container whose end nobody saw, when not even its shim's `delete` can tell.
const UNKNOWN_STATUS: u32 = 255;

/// Deletes `task`; says whether it is gone, and what to answer.
pub async fn delete(shared: &Arc<Shared>, task: &Arc<Task>) -> (bool, Result<Exit, Error>) {
    let request = DeleteRequest { id: task.id().into(), exec_id: String::new() };
    let answer = task.call::<_, DeleteResponse>("Delete", Some(deadline::DELETE), &request).await;
    let answer = match answer {
        Ok(response) => Ok(exit(response.pid, response.exit_status, response.exited_at)),
        Err(CallError::Closed) => return (true, Ok(clean_up(shared, task).await)),
        // The shim has no such container: what it left behind goes, and the caller hears why.
        Err(error) if error.kind() == Kind::NotFound => Err(Error::from(error)),
        Err(error) => return (false, Err(error.into())),
    };
    shared.registry.ending(task);
    shut_down(task).await;
    let removed = remove(task.bundle()).await;
    shared.registry.remove(task);
    (true, answer.and_then(|exit| removed.map(|()| exit)))
}

/// Removes what belongs to a task that its shim never made: nobody was told of it, so nobody hears of its end.
pub async fn forget(shared: &Arc<Shared>, task: &Arc<Task>) {
    shared.registry.ending(task);
    shut_down(task).await;
    if let Err(error) = shared.launcher.delete(task.program(), task.bundle()).await {
        tracing::warn!(id = task.id(), error = %Error::from(error), "failed to delete a leaked shim's container");
    }
    if let Err(error) = remove(task.bundle()).await {
        tracing::error!(id = task.id(), %error, "failed to remove the bundle of a leaked shim");
    }
    shared.registry.remove(task);
}

/// Ends the shim, unless other containers live in it.
async fn shut_down(task: &Task) {
    let request = ShutdownRequest { id: task.id().into(), now: false };
    match task.call::<_, ()>("Shutdown", Some(task.deadlines().shutdown), &request).await {
        // A shim may end before its answer is out.
        Ok(()) | Err(CallError::Closed) => {}
        Err(error) => tracing::warn!(id = task.id(), %error, "failed to shut down the shim"),
    }
}

/// Cleans up after a shim that died: kills what it left, tells everyone, removes the bundle.
pub async fn clean_up(shared: &Arc<Shared>, task: &Arc<Task>) -> Exit {
    let bundle = task.bundle();
    tracing::warn!(id = task.id(), namespace = %bundle.namespace, "cleaning up after shim disconnected");
    shared.registry.ending(task);
    let exit = match shared.launcher.delete(task.program(), bundle).await {
        Ok(response) => {
            let pid = if response.pid == 0 { task.pid() } else { response.pid };
            exit(pid, response.exit_status, response.exited_at)
        }
        Err(error) => {
            tracing::error!(id = task.id(), error = %Error::from(error), "failed to delete dead shim");
            exit(task.pid(), UNKNOWN_STATUS, None)
        }
    };
    if let Err(error) = remove(bundle).await {
        tracing::error!(id = task.id(), %error, "failed to remove the bundle of a dead shim");
    }
    shared.registry.remove(task);
    publish(shared, bundle, &exit);
    exit
}

/// Tells what the dead shim no longer can.
pub fn publish(shared: &Shared, bundle: &Bundle, exit: &Exit) {
    let id = bundle.id.as_str().to_owned();
    let exited_at = Some(api::timestamp(exit.at));
    let ended = TaskExit {
        container_id: id.clone(),
        id: id.clone(),
        pid: exit.pid,
        exit_status: exit.status,
        exited_at,
    };
    let deleted = TaskDelete {
        container_id: id,
        pid: exit.pid,
        exit_status: exit.status,
        exited_at,
        ..TaskDelete::default()
    };
    shared.exchange.publish(&bundle.namespace, "/tasks/exit", any(&ended));
    shared.exchange.publish(&bundle.namespace, "/tasks/delete", any(&deleted));
}

fn any<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::full_name(), value: message.encode_to_vec() }
}

/// Removes a bundle, off the async threads.
pub async fn remove(bundle: &Bundle) -> Result<(), Error> {
    let bundle = bundle.clone();
    Ctx::background().blocking(Lane::Disk, move |_| Ok(bundle.remove()?)).await
}
