//! Tasks that have no container in the store: an earlier engine started them and kept its records elsewhere.
//!
//! They run on and are never ended unasked. The log and the server's warnings name them, with the command that ends them.

use std::sync::Arc;

use api::containerd::services::introspection::v1::DeprecationWarning;
use model::{Ctx, Lane, Result};
use spec::{Kind, Namespace};

use crate::engine::Engine;

/// Id of the warning that names such a task.
const WARNING: &str = "io.containerd.berth/task-without-container";

/// A task without a container.
#[derive(Debug, PartialEq, Eq)]
struct Orphan {
    namespace: Namespace,
    id: String,
}

impl Orphan {
    /// What it is and what to do.
    fn text(&self) -> String {
        let Self { namespace, id } = self;
        format!(
            "task {id:?} in namespace {namespace:?} has no container: an earlier engine started it; \
             end it with `ctr -n {namespace} task rm -f {id}`",
            namespace = namespace.as_str()
        )
    }
}

/// Logs every task without a container.
pub async fn report(engine: Arc<Engine>) {
    match find(&engine).await {
        Ok(orphans) => orphans.iter().for_each(|orphan| tracing::warn!("{}", orphan.text())),
        Err(error) => tracing::warn!(%error, "cannot look for tasks without a container"),
    }
}

/// The warnings that name every task without a container.
pub async fn warnings(engine: &Arc<Engine>) -> Result<Vec<DeprecationWarning>> {
    let warning = |orphan: Orphan| DeprecationWarning {
        id: WARNING.into(),
        message: orphan.text(),
        last_occurrence: Some(api::timestamp(std::time::SystemTime::now())),
    };
    Ok(find(engine).await?.into_iter().map(warning).collect())
}

async fn find(engine: &Arc<Engine>) -> Result<Vec<Orphan>> {
    let mut orphans = Vec::new();
    for task in engine.tasks.all() {
        let (store, id) = (Arc::clone(&engine.store), task.id().to_owned());
        let ctx = Ctx::in_namespace(task.namespace().clone());
        match ctx.blocking(Lane::Disk, move |cx| store.containers().get(cx, &id).map(drop)).await {
            Err(error) if error.kind() == Kind::NotFound => {
                orphans.push(Orphan { namespace: task.namespace().clone(), id: task.id().to_owned() });
            }
            found => found?,
        }
    }
    Ok(orphans)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn task_without_container_is_named_with_the_command_that_ends_it() {
        let orphan = Orphan { namespace: "k8s.io".parse().unwrap(), id: "one".into() };
        assert_eq!(
            orphan.text(),
            "task \"one\" in namespace \"k8s.io\" has no container: an earlier engine started it; \
             end it with `ctr -n k8s.io task rm -f one`"
        );
    }
}
