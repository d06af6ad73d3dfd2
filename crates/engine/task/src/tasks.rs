//! Every task of the daemon: what the tasks service calls.

use std::sync::Arc;

use api::containerd::types::RuntimeInfo;
use model::Any;
use model::event::Exchange;
use spec::{Error, Namespace};

use crate::Config;
use model::task::Create;

use crate::create;
use crate::launch::Launcher;
use crate::registry::Registry;
use crate::reload;
use crate::task::Task;

/// What creating, owning and reloading tasks share.
#[derive(Debug)]
pub struct Shared {
    pub config: Arc<Config>,
    pub launcher: Launcher,
    pub registry: Registry,
    pub exchange: Exchange,
}

/// The daemon's tasks. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Tasks {
    shared: Arc<Shared>,
}

impl Tasks {
    /// The tasks of the daemon that `config` describes; events about dead shims go to `exchange`.
    pub fn new(config: Config, exchange: Exchange) -> Self {
        let config = Arc::new(config);
        let launcher = Launcher::new(Arc::clone(&config));
        Self { shared: Arc::new(Shared { config, launcher, registry: Registry::default(), exchange }) }
    }

    /// Takes over the shims that an earlier daemon left; returns when the quick ones have answered.
    ///
    /// # Errors
    /// The state directory cannot be looked at.
    pub async fn reload(&self) -> Result<(), Error> {
        reload::run(&self.shared).await
    }

    /// Creates a task; answers the process id of its init. It ends whole even if this future is dropped.
    ///
    /// # Errors
    /// `AlreadyExists`; what failed, with everything taken back.
    pub async fn create(&self, request: Create) -> Result<u32, Error> {
        let created = tokio::spawn(create::run(Arc::clone(&self.shared), request)).await;
        created.map_err(|panic| Error::internal(format!("creating the task failed: {panic}")))?
    }

    /// One task. `NotFound` when there is none.
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, namespace: &Namespace, id: &str) -> Result<Arc<Task>, Error> {
        Ok(self.shared.registry.get(namespace, id)?)
    }

    /// Every task of a namespace, by id.
    pub fn list(&self, namespace: &Namespace) -> Vec<Arc<Task>> {
        self.shared.registry.list(namespace)
    }

    /// Every task of every namespace, but those on their way in or out.
    pub fn all(&self) -> Vec<Arc<Task>> {
        self.shared.registry.all()
    }

    /// A program that comes with the daemon, such as `containerd-pause`, found as shims are: beside the daemon's own
    /// first, then on `PATH`.
    pub fn program(&self, name: &str) -> Option<std::path::PathBuf> {
        self.shared.launcher.program(name)
    }

    /// What a runtime is and can do; runs its shim's program.
    ///
    /// # Errors
    /// There is no such program, or it fails.
    pub async fn runtime_info(&self, runtime: &str, options: Option<Any>) -> Result<RuntimeInfo, Error> {
        let options = options.map(|any| api::Any { type_url: any.type_url, value: any.value });
        Ok(self.shared.launcher.info(runtime, options).await?)
    }
}
