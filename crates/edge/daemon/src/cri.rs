//! Kubernetes' interface, joined to the engine.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cri::{Config, Cri};
use image::names::Names;
use image::registry::{self, Ask, Credential, Credentials};
use image::{Services, Unpack, pull};
use model::diff::Apply;
use model::pull::{Login, LoginFor, LoginHost, Pull, Puller};
use model::snapshot::Snapshotter;
use model::{Ctx, Error, Result};
use spec::{Descriptor, Kind, Platform, Reference};

use crate::config::Settings;
use crate::engine::Engine;
use crate::mirrors;

/// The server over `engine`; none when it is disabled.
///
/// # Errors
/// The configuration names what is not there.
pub fn open(engine: &Arc<Engine>, settings: &Settings) -> Result<Option<Arc<Cri>>> {
    let Some(config) = &settings.cri else { return Ok(None) };
    let store = &engine.store;
    let mut snapshotters: BTreeMap<String, Arc<dyn Snapshotter>> = BTreeMap::new();
    for name in store.snapshotter_names() {
        snapshotters.insert(name.to_owned(), store.snapshotter(name)?);
    }
    let puller = Pulling { engine: Arc::clone(engine), registry: config.images.registry.clone() };
    let directory = |name: &String| {
        let own = match name.as_str() {
            "overlayfs" => settings.overlay.root.clone(),
            "native" => settings.native_root.clone(),
            _ => {
                let mut proxies = settings.proxies.iter();
                let proxy = proxies.find(|proxy| proxy.name == *name);
                proxy.and_then(|proxy| proxy.exports.get("root")).map(PathBuf::from)
            }
        };
        let usual = || settings.root.join(format!("io.containerd.snapshotter.v1.{name}"));
        (name.clone(), own.unwrap_or_else(usual))
    };
    let snapshotter_roots: BTreeMap<String, PathBuf> = snapshotters.keys().map(directory).collect();
    let engine = cri::Engine {
        containers: store.containers(),
        images: store.images(),
        content: store.content(),
        sandboxes: store.sandboxes(),
        leases: store.leases(),
        puller: Arc::new(puller),
        collector: Arc::<store::Store>::clone(store),
        snapshotters,
        snapshotter_roots,
        copy_out: snapshot::copy_out,
        tasks: Arc::new(engine.tasks.clone()),
        exchange: engine.exchange.clone(),
        root: settings.root.clone(),
        state: settings.state.clone(),
        version: crate::VERSION,
        trouble: {
            let losses = Arc::clone(&engine.losses);
            Arc::new(move |cx| losses.trouble(cx))
        },
        lacks_records: store.lacks_records(),
    };
    let mut config: Config = config.clone();
    if let Some(program) = pause_program() {
        config.pause_program = program;
    }
    Cri::new(engine, config).map(Some)
}

/// The program of pods without a pause image: in `libexec` next to this program's directory, beside this program, or on
/// the search path.
fn pause_program() -> Option<PathBuf> {
    const NAME: &str = "containerd-pause";
    let own = std::env::current_exe().ok()?;
    let dir = own.parent()?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = [dir.join("../libexec"), dir.to_owned()].into_iter().chain(std::env::split_paths(&path));
    dirs.map(|dir| dir.join(NAME)).find(|program| program.is_file())
}

/// Pulls for the kubelet, by the same code that serves everybody else.
struct Pulling {
    engine: Arc<Engine>,
    registry: cri::config::Registry,
}

impl Pulling {
    fn services(&self) -> Services {
        let store = &self.engine.store;
        Services {
            content: store.content(),
            images: store.images(),
            leases: store.leases(),
            differ: Arc::clone(&self.engine.differ),
        }
    }

    /// Where to unpack; `name` is what the driver is told of the image where it wants to know.
    fn unpack(&self, unpack: &model::pull::Unpack, name: Option<&Reference>) -> Result<Unpack> {
        Ok(Unpack {
            platform: unpack.platform.clone(),
            driver: self.engine.store.snapshotter(&unpack.snapshotter)?,
            snapshotter: unpack.snapshotter.clone(),
            told_of: name.filter(|_| unpack.annotate).map(ToString::to_string),
        })
    }

    fn registry(&self, pull: &Pull) -> Result<registry::Config> {
        let mut config = mirrors::config(&pull.reference, &self.registry, &self.engine.transfer.config_path)?;
        config.credentials = Arc::new(Known(Arc::clone(&pull.login)));
        if pull.concurrent > 0 {
            config.limits.concurrent = pull.concurrent;
        }
        Ok(config)
    }

    /// Pulls, and gives up when nothing comes for as long as the pull says.
    async fn within_patience(
        &self,
        ctx: &Ctx,
        wanted: pull::Pull,
        stall_timeout: Duration,
    ) -> Result<Descriptor> {
        let (services, traffic) = (self.services(), Arc::clone(&wanted.registry.traffic));
        let stall = async {
            if stall_timeout.is_zero() {
                std::future::pending::<()>().await;
            }
            traffic.stalled(stall_timeout).await;
        };
        tokio::select! {
            pulled = pull::run(ctx, &services, wanted, None) => Ok(pulled?.target),
            // A pull that is dropped leaves what a killed one leaves: the collector's, or a later pull's to go on with.
            () = stall => {
                let text = format!("no progress in {stall_timeout:?} (image_pull_progress_timeout): context canceled");
                Err(Error::new(Kind::DeadlineExceeded, text))
            }
        }
    }
}

/// The logins that a pull came with.
pub(crate) struct Known(pub(crate) LoginFor);

#[async_trait]
impl Credentials for Known {
    async fn get(&self, ask: &Ask) -> Result<Credential> {
        let host =
            if ask.redirected { LoginHost::Redirected(&ask.host) } else { LoginHost::Endpoint(&ask.host) };
        Ok(match (self.0)(host)? {
            None => Credential::None,
            Some(Login::Password { user, secret }) => Credential::Password { user, secret },
            Some(Login::Token(token)) => Credential::Refresh(token),
        })
    }
}

#[async_trait]
impl Puller for Pulling {
    async fn pull(&self, ctx: &Ctx, pull: Pull) -> Result<Descriptor> {
        let wanted = pull::Pull {
            names: Names { labels: pull.labels.clone(), ..Names::of(pull.reference.to_string()) },
            platforms: vec![pull.unpack.platform.clone()],
            unpack: vec![self.unpack(&pull.unpack, Some(&pull.reference))?],
            apply: Apply { sync_fs: pull.unpack.sync_fs },
            discard_layers: pull.discard_layers,
            registry: self.registry(&pull)?,
            verifier: self.engine.verifier.clone(),
            ..pull::Pull::new(pull.reference.clone())
        };
        let pulled = self.within_patience(ctx, wanted, pull.stall_timeout).await;
        crate::memory::give_back();
        pulled
    }

    async fn unpack(&self, ctx: &Ctx, target: Descriptor, unpack: model::pull::Unpack) -> Result<()> {
        let stored = pull::UnpackStored {
            target,
            platforms: vec![Platform::clone(&unpack.platform)],
            unpack: vec![self.unpack(&unpack, None)?],
            apply: Apply { sync_fs: unpack.sync_fs },
        };
        let unpacked: Result<_, Error> = pull::unpack(ctx, &self.services(), stored, None).await;
        unpacked.map(drop)
    }
}
