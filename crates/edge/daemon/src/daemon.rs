//! The daemon's life: open the engine, take over shims, serve, stop.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use grpc::proxy::Proxy;
use model::event::Exchange;
use model::snapshot::Snapshotter;
use model::{Ctx, Lane, Result};
use snapshot::{Native, Overlay, OverlayConfig, Walking};
use spec::Error;
use store::{Sharing, Store};
use task::Tasks;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::config::Settings;
use crate::engine::{Engine, Transfer};
use crate::lock::Lock;
use crate::losses::{Losses, Opened};
use crate::metrics;
use crate::notify::notify;
use crate::orphans;
use crate::plugin::{Loading, Plugins, Proxied};
use crate::server::{self, unix};
use crate::stream::Streams;

/// How long requests that are being answered may take once the daemon is told to stop. Streams and waits have no end
/// of their own, so this is also how long a stop takes while someone watches.
const DRAIN: Duration = Duration::from_secs(2);

/// The content store's directory, below the root.
const CONTENT: &str = "io.containerd.content.v1.content";

/// The kind of snapshot drivers.
const SNAPSHOTTER: &str = "io.containerd.snapshotter.v1";

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// It cannot start: another daemon has the root directory or a socket, or a store does not open.
pub async fn run(settings: Settings) -> Result<()> {
    let started = Instant::now();
    tracing::info!(revision = crate::REVISION, version = crate::VERSION, "starting containerd");
    sys::process::set_umask(0o022);
    adjust_oom_score(settings.oom_score);
    raise_open_files();
    // The root holds every image's files; the state directory is walked through by containers' own users.
    make_dir(&settings.root, 0o700)?;
    make_dir(&settings.state, 0o711)?;
    if let Some(temporary) = &settings.temporary {
        make_dir(temporary, 0o700)?;
    }
    let _lock = Lock::take(&settings.root)?;
    if !settings.cgroup.is_empty() {
        crate::cgroup::join(&settings.cgroup)?;
    }
    let program = std::env::current_exe()
        .map_err(|error| Error::internal(format!("cannot find this program: {error}")))?;
    let opening = settings.clone();
    let engine =
        Ctx::background().blocking(Lane::Disk, move |_| open(&opening, program).map(Arc::new)).await?;
    let (uid, gid) = settings.owner;
    let grpc = unix::listen(&settings.address, uid, gid)?;
    let (uid, gid) = settings.ttrpc_owner;
    let ttrpc = unix::listen(&settings.ttrpc_address, uid, gid)?;
    let metrics = match engine.plugins.serves("server.v1", "metrics") {
        true => Some(metrics::listen(&settings.metrics).await?),
        false => None,
    };
    let (stop, stopped) = watch::channel(false);
    let events = tokio::spawn(server::ttrpc::serve(engine.exchange.clone(), ttrpc, stopped.clone()));
    let metrics = metrics.map(|listener| {
        let daemon_only =
            settings.metrics_of_daemon_only || !engine.plugins.serves("monitor.task.v1", "cgroups");
        tokio::spawn(metrics::serve(Arc::clone(&engine), listener, daemon_only))
    });
    engine.tasks.reload().await?;
    let orphans = tokio::spawn(orphans::report(Arc::clone(&engine)));
    tracing::info!(address = %settings.ttrpc_address.display(), "serving...");
    tracing::info!(address = %settings.address.display(), "serving...");
    let limits = server::grpc::Limits { receive: settings.receive_bytes, send: settings.send_bytes };
    let mut told = stopped.clone();
    let until = async move {
        // An error means that the other end is gone, which is a stop too.
        let _told = told.wait_for(|stop| *stop).await;
    };
    let cri = match engine.plugins.serves("grpc.v1", "cri") {
        true => crate::cri::open(&engine, &settings)?,
        false => None,
    };
    let mut serving =
        tokio::spawn(server::grpc::serve(Arc::clone(&engine), cri.clone(), grpc, limits, until));
    if let Some(cri) = &cri {
        cri.start().await?;
    }
    tell("READY=1");
    tracing::info!("containerd successfully booted in {:.6}s", started.elapsed().as_secs_f64());
    let settling = tokio::spawn(crate::memory::give_back_after_start());
    // Neither arm is resumed: the first to end ends the daemon.
    let outcome = tokio::select! {
        ended = &mut serving => Err(Error::internal(format!("the gRPC server ended: {ended:?}"))),
        signal = told_to_stop() => signal,
    };
    tell("STOPPING=1");
    stop.send_replace(true);
    if tokio::time::timeout(DRAIN, &mut serving).await.is_err() {
        tracing::debug!("giving up requests that did not end in time");
        serving.abort();
    }
    settling.abort();
    orphans.abort();
    events.abort();
    if let Some(metrics) = metrics {
        metrics.abort();
    }
    drop(cri);
    for socket in [&settings.address, &settings.ttrpc_address] {
        // The next daemon replaces a socket that stays behind.
        let _gone = fs::remove_file(socket);
    }
    close(engine).await;
    outcome
}

/// Closes the engine. A garbage collection that takes longer is cut off by the process's end, as by a crash.
async fn close(engine: Arc<Engine>) {
    let (closed, done) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        drop(engine);
        // Nobody waits any longer once it has taken too long.
        let _late = closed.send(());
    });
    if tokio::time::timeout(DRAIN, done).await.is_err() {
        tracing::debug!("stopping in the middle of a garbage collection");
    }
}

fn tell(state: &str) {
    if let Err(error) = notify(state) {
        tracing::warn!(%error, "cannot tell systemd {state}");
    }
}

/// Waits for SIGTERM or SIGINT; SIGUSR1 only says that the daemon is alive.
async fn told_to_stop() -> Result<()> {
    let listen =
        |kind| signal(kind).map_err(|error| Error::internal(format!("cannot listen to signals: {error}")));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut user = listen(SignalKind::user_defined1())?;
    loop {
        // Each arm is cancel-safe: a signal that was not received stays pending.
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = user.recv() => {
                let metrics = tokio::runtime::Handle::current().metrics();
                tracing::info!(tasks = metrics.num_alive_tasks(), workers = metrics.num_workers(), "alive");
            }
        }
    }
    tracing::info!("stopping");
    Ok(())
}

fn make_dir(dir: &Path, mode: u32) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(dir)
        .map_err(|error| Error::internal(format!("cannot make {}: {error}", dir.display())))
}

/// Sets how willingly the kernel ends this process. Lowering needs a capability that a daemon in a container lacks.
fn adjust_oom_score(score: i64) {
    if score == 0 {
        return;
    }
    if let Err(error) = fs::write("/proc/self/oom_score_adj", score.to_string()) {
        tracing::warn!(%error, "cannot set oom_score_adj to {score}");
    }
}

/// Raises the soft limit of open files to the hard one: every shim costs two, and the usual 1024 are soon used up.
fn raise_open_files() {
    let Some(files) = sys::rlimit::resource("RLIMIT_NOFILE") else { return };
    let raised = sys::rlimit::get(0, files).and_then(|(_, hard)| sys::rlimit::set(0, files, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// Opens everything below the root directory.
pub(crate) fn open(settings: &Settings, program: PathBuf) -> Result<Engine> {
    let exchange = Exchange::default();
    let mut exports = BTreeMap::new();
    for uri in Loading::unknown(&settings.disabled, &settings.proxies) {
        tracing::warn!("disabled_plugins: there is no plugin {uri:?}");
    }
    let mut loading = Loading::without(&settings.disabled)?;
    let (snapshotters, opened) = drivers(settings, &mut loading, &mut exports);
    let capabilities = capabilities(&snapshotters);
    loading.require(&settings.required, &settings.proxies)?;
    let store = Store::open(store::Config {
        root: settings.root.clone(),
        sharing: if settings.isolated { Sharing::Isolated } else { Sharing::Shared },
        snapshotters,
        events: exchange.clone(),
    })?;
    adopt_remains(&store)?;
    if loading.loads("io.containerd.gc.v1.scheduler") {
        store.start_gc(store::gc::Config {
            pause_threshold: settings.gc.pause_threshold,
            deletion_threshold: settings.gc.deletion_threshold,
            mutation_threshold: settings.gc.mutation_threshold,
            schedule_delay: settings.gc.schedule_delay,
            startup_delay: settings.gc.startup_delay,
        })?;
    }
    let temporary = settings.root.join("tmpmounts");
    if let Err(error) = snapshot::mount::clean_temporary(&temporary) {
        tracing::warn!(error = %Error::from(error), "cannot clean up temporary mounts");
    }
    let differ = Arc::new(Walking::new(store.content()).with_temporary(temporary));
    let tasks = Tasks::new(task_config(settings, program), exchange.clone());
    note(&mut exports, "io.containerd.content.v1.content", "root", settings.root.join(CONTENT));
    note(&mut exports, "io.containerd.metadata.v1.bolt", "policy", sharing_word(settings).into());
    note(
        &mut exports,
        "io.containerd.runtime.v2.task",
        "log-uri-schemes",
        "fifo,binary,binary-v2,file".into(),
    );
    if settings.cri.as_ref().is_none_or(|cri| cri.nri.disable) {
        loading.fail("io.containerd.nri.v1.nri", Error::new(spec::Kind::Unknown, "disabled: skip plugin"));
    }
    if settings.metrics.is_empty() {
        let why = "metrics are served at no address: skip plugin";
        loading.fail("io.containerd.server.v1.metrics", Error::new(spec::Kind::Unknown, why));
    }
    let losses = Losses::new(Arc::clone(&store), opened);
    let plugins = Plugins::new(&loading, &exports, &capabilities, &settings.proxies);
    let plugins =
        losses.notices().into_iter().fold(plugins, |plugins, (id, notice)| plugins.with_warning(&id, notice));
    Ok(Engine {
        store,
        losses: Arc::new(losses),
        differ,
        tasks,
        exchange,
        streams: Streams::default(),
        verifier: loading
            .loads("io.containerd.image-verifier.v1.bindir")
            .then(|| Arc::new(settings.verifiers.clone()) as Arc<dyn image::Verifier>),
        plugins,
        uuid: uuid(&settings.root)?,
        transfer: Transfer {
            config_path: settings.hosts_dir.clone(),
            downloads: settings.downloads,
            uploads: settings.uploads,
        },
    })
}

/// Lets go of what transfers of a daemon that died left half made, before the first collection looks.
fn adopt_remains(store: &Store) -> Result<()> {
    let namespaces = Ctx::background().on_this_thread(|cx| store.namespaces().list(cx))?;
    for (name, _) in namespaces {
        let ctx = Ctx::in_namespace(name.parse().map_err(Error::from)?);
        ctx.on_this_thread(|cx| image::remains::adopt(cx, &*store.leases()))?;
    }
    Ok(())
}

fn sharing_word(settings: &Settings) -> &'static str {
    if settings.isolated { "isolated" } else { "shared" }
}

type Exports = BTreeMap<&'static str, BTreeMap<String, String>>;
type Drivers = BTreeMap<String, Arc<dyn Snapshotter>>;

fn note(exports: &mut Exports, plugin: &'static str, key: &str, value: PathBuf) {
    exports.entry(plugin).or_default().insert(key.into(), value.display().to_string());
}

/// What the plugins of this process can do beyond the common, by their full names.
fn capabilities(drivers: &Drivers) -> BTreeMap<String, Vec<String>> {
    let transfer = ("io.containerd.transfer.v1.local".to_owned(), vec![model::pull::TUNING.to_owned()]);
    let of_drivers = drivers.iter().map(|(name, driver)| {
        let words = driver.capabilities().iter().map(|word| (*word).to_owned());
        (format!("{SNAPSHOTTER}.{name}"), words.collect())
    });
    of_drivers.chain([transfer]).collect()
}

/// Opens the snapshot drivers; one that does not open is an error in the plugin table, not the daemon's end.
fn drivers(
    settings: &Settings,
    loading: &mut Loading,
    exports: &mut Exports,
) -> (Drivers, BTreeMap<String, Opened>) {
    let (mut opened, mut local) = (Drivers::new(), BTreeMap::new());
    let mut keep = |name: &str, uri: &str, open: &mut dyn FnMut() -> Result<Arc<dyn Snapshotter>>| {
        if !loading.loads(uri) {
            return None;
        }
        match open() {
            Ok(driver) => {
                opened.insert(name.to_owned(), driver);
                None
            }
            Err(error) => {
                tracing::warn!(plugin = uri, %error, "failed to load plugin");
                let failure = error.to_string();
                loading.fail(uri, error);
                Some(failure)
            }
        }
    };
    let mut notice = None;
    let config = overlay_config(settings);
    let uri = "io.containerd.snapshotter.v1.overlayfs";
    note(exports, uri, "root", config.root.clone());
    let failure = keep("overlayfs", uri, &mut || {
        let driver = Overlay::open(config.clone())?;
        notice = driver.origin().notice();
        Ok(Arc::new(driver))
    });
    local.insert("overlayfs".to_owned(), Opened { notice: notice.take(), failure });
    let uri = "io.containerd.snapshotter.v1.native";
    let root = native_root(settings);
    note(exports, uri, "root", root.clone());
    let failure = keep("native", uri, &mut || {
        let driver = Native::open(&root)?;
        notice = driver.origin().notice();
        Ok(Arc::new(driver))
    });
    local.insert("native".to_owned(), Opened { notice: notice.take(), failure });
    for proxy in &settings.proxies {
        keep(&proxy.name, &proxy.uri(), &mut || open_proxy(proxy));
    }
    (opened, local)
}

/// How the overlayfs driver is opened.
pub(crate) fn overlay_config(settings: &Settings) -> OverlayConfig {
    let usual = || settings.root.join(format!("{SNAPSHOTTER}.overlayfs"));
    OverlayConfig {
        root: settings.overlay.root.clone().unwrap_or_else(usual),
        upperdir_label: settings.overlay.upperdir_label,
        sync_remove: settings.overlay.sync_remove,
        mount_options: settings.overlay.mount_options.clone(),
    }
}

/// The directory of the native driver.
pub(crate) fn native_root(settings: &Settings) -> PathBuf {
    let usual = || settings.root.join(format!("{SNAPSHOTTER}.native"));
    settings.native_root.clone().unwrap_or_else(usual)
}

/// A driver in another process. It need not run yet.
fn open_proxy(proxy: &Proxied) -> Result<Arc<dyn Snapshotter>> {
    if proxy.kind != SNAPSHOTTER {
        let what =
            format!("plugins of type {:?} in other processes are not supported: skip plugin", proxy.kind);
        return Err(Error::unimplemented(what));
    }
    Ok(Arc::new(Proxy::new(&proxy.name, Path::new(&proxy.address), &proxy.capabilities)))
}

/// What shims are told beside the daemon's own environment.
fn shim_env(settings: &Settings) -> Vec<String> {
    let temporary = settings.temporary.iter().map(|dir| format!("TMPDIR={}", dir.display()));
    temporary.chain(settings.shim_env.iter().cloned()).collect()
}

fn task_config(settings: &Settings, program: PathBuf) -> task::Config {
    task::Config {
        root: settings.root.clone(),
        state: settings.state.clone(),
        socket_dir: settings.socket_dir.clone(),
        grpc_address: settings.address.display().to_string(),
        ttrpc_address: settings.ttrpc_address.display().to_string(),
        program,
        debug: matches!(settings.log_level.as_str(), "debug" | "trace"),
        env: shim_env(settings),
        deadlines: settings.deadlines,
    }
}

/// The name of this daemon, made once.
fn uuid(root: &Path) -> Result<String> {
    let dir = root.join("io.containerd.grpc.v1.introspection");
    let path = dir.join("uuid");
    if let Ok(text) = fs::read_to_string(&path)
        && !text.trim().is_empty()
    {
        return Ok(text.trim().to_owned());
    }
    make_dir(&dir, 0o711)?;
    let failed = |error| Error::internal(format!("cannot make {}: {error}", path.display()));
    let text = fs::read_to_string("/proc/sys/kernel/random/uuid").map_err(failed)?;
    let draft = dir.join("uuid.new");
    fs::write(&draft, text.trim()).and_then(|()| fs::rename(&draft, &path)).map_err(failed)?;
    Ok(text.trim().to_owned())
}
