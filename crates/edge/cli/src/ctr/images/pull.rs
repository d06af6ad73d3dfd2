//! `ctr images pull` and `ctr content fetch`: from a registry into the image store, by the daemon's transfer service.

use std::path::PathBuf;
use std::time::Instant;

use api::containerd::services::transfer::v1::{TransferOptions, TransferRequest, Tuning};
use api::containerd::types::Platform as WirePlatform;
use api::containerd::types::transfer::{
    Data, HttpDebug, ImageStore, OciRegistry, Progress, RegistryResolver, UnpackConfiguration,
};
use spec::{Platform, Reference};

use super::args;
use crate::client::Client;
use crate::failure::{Failure, Result};
use crate::image;
use crate::stream::{self, Credentials};
use crate::ui;
use crate::ui::progress::{Display, Form};
use crate::ui::quantity;

/// Flags that `pull` and `content fetch` share.
#[derive(clap::Args, Debug)]
struct Choice {
    #[command(flatten)]
    registry: args::Registry,
    #[command(flatten)]
    label: args::Label,
    /// Pull content from a specific platform
    #[arg(long = "platform")]
    platforms: Vec<String>,
    /// Pull content and metadata from all platforms
    #[arg(long)]
    all_platforms: bool,
    /// (Deprecated: use skip-metadata) Pull metadata for all platforms
    #[arg(long, hide = true)]
    all_metadata: bool,
    /// Skips metadata for unused platforms (Image may be unable to be pushed without metadata)
    #[arg(long)]
    skip_metadata: bool,
    /// Form of the progress
    #[arg(long, value_enum, default_value_t = Form::Lines)]
    progress: Form,
}

impl Choice {
    /// The platforms asked for; nothing means all.
    fn platforms(&self) -> Result<Vec<Platform>> {
        if self.all_platforms && !self.platforms.is_empty() {
            return Err(Failure::new("cannot specify both --platform and --all-platforms"));
        }
        platforms(&self.platforms, self.all_platforms)
    }

    /// Where the image goes, without unpacking it.
    fn store(&self, name: &str, platforms: &[Platform]) -> ImageStore {
        ImageStore {
            name: name.to_owned(),
            labels: args::labels(&self.label.labels),
            platforms: platforms.iter().map(to_wire).collect(),
            all_metadata: !self.skip_metadata,
            ..Default::default()
        }
    }

    /// Transfers `store.name` from its registry into `store`; gives how long unpacking went on after the download.
    async fn fetch(&self, client: &Client, store: ImageStore, how: Tuning) -> Result<std::time::Duration> {
        let name = store.name.clone();
        let (registry, _hosts) = registry(client, &self.registry, &name).await?;
        let (source, destination) = (api::encode_any(&registry), api::encode_any(&store));
        transfer(client, source, destination, how, Display::new(self.progress, &name)).await
    }
}

/// Flags of `pull`.
#[derive(clap::Args, Debug)]
pub struct Pull {
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    snapshotter: args::Snapshotter,
    /// Print the resulting image's chain ID
    #[arg(long)]
    print_chainid: bool,
    /// Set the max concurrent downloads for each pull; 0 for what the daemon's configuration says
    #[arg(long, default_value_t = 0)]
    max_concurrent_downloads: u32,
    #[command(flatten)]
    local: args::Local,
    /// Synchronize the underlying filesystem containing files when unpack images, false by default
    #[arg(long)]
    sync_fs: bool,
    /// The image's reference
    reference: String,
}

impl Pull {
    /// Pulls, unpacks, and says so.
    pub async fn run(self, client: &Client) -> Result {
        let platforms = self.choice.platforms()?;
        let snapshotter = client.snapshotter(self.snapshotter.snapshotter.as_deref()).await?;
        let unpack = if platforms.is_empty() { vec![Platform::host()] } else { platforms.clone() };
        let unpacks = unpack.iter().map(|platform| UnpackConfiguration {
            platform: Some(to_wire(platform)),
            snapshotter: snapshotter.clone(),
        });
        let store =
            ImageStore { unpacks: unpacks.collect(), ..self.choice.store(&self.reference, &platforms) };
        let how =
            Tuning { sync_fs: self.sync_fs, concurrent: self.max_concurrent_downloads, ..Tuning::default() };
        let unpacked_in = self.choice.fetch(client, store, how).await?;
        let image = image::get(client, &self.reference).await?;
        for platform in &unpack {
            ui::line(format!("unpacking {platform} {}...", image.target.digest))?;
            if self.print_chainid {
                let chosen = image::choose(client, &image, Some(platform)).await?;
                let chain_id = chosen.chain_id().map(|id| id.to_string()).unwrap_or_default();
                ui::line(format!("image chain ID: {chain_id}"))?;
            }
        }
        Ok(ui::line(format!("done: {}", quantity::duration(unpacked_in)))?)
    }
}

/// Flags of `content fetch`.
#[derive(clap::Args, Debug)]
pub struct Fetch {
    #[command(flatten)]
    choice: Choice,
    /// Pull all metadata including manifests and configs, and no layers
    #[arg(long)]
    metadata_only: bool,
    /// The image's reference
    reference: String,
}

impl Fetch {
    /// Fetches without unpacking.
    pub async fn run(self, client: &Client) -> Result {
        let platforms = self.choice.platforms()?;
        let store = self.choice.store(&self.reference, &platforms);
        let how = Tuning { metadata_only: self.metadata_only, ..Tuning::default() };
        self.choice.fetch(client, store, how).await.map(drop)
    }
}

/// The platforms asked for; this host's when none was; nothing means all.
pub fn platforms(words: &[String], all: bool) -> Result<Vec<Platform>> {
    if all {
        return Ok(vec![]);
    }
    if words.is_empty() {
        return Ok(vec![Platform::host()]);
    }
    let parsed: std::result::Result<_, _> = words.iter().map(|word| word.parse::<Platform>()).collect();
    Ok(parsed.map_err(spec::Error::from)?)
}

/// A platform for the wire.
pub fn to_wire(platform: &Platform) -> WirePlatform {
    WirePlatform {
        os: platform.os.clone(),
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
    }
}

/// Fails when the daemon would not see `how`: containerd's own transfer service has no such fields.
async fn check_tuning(client: &Client, how: &Tuning) -> Result {
    let set = [
        (how.sync_fs, "--sync-fs"),
        (how.concurrent > 0, "a bound on concurrent blobs"),
        (how.discard_unpacked_layers, "--discard-unpacked-layers"),
        (how.non_distributable, "--allow-non-distributable-blobs"),
        (how.metadata_only, "--metadata-only"),
    ];
    let Some((_, what)) = set.into_iter().find(|(set, _)| *set) else { return Ok(()) };
    let filters = vec!["type==io.containerd.transfer.v1".to_owned()];
    let request = api::containerd::services::introspection::v1::PluginsRequest { filters };
    let plugins = client.introspection().plugins(request).await?.into_inner().plugins;
    if plugins.iter().any(|plugin| plugin.capabilities.iter().any(|word| word == model::pull::TUNING)) {
        return Ok(());
    }
    Err(Failure::new(format!("this daemon's transfer service takes no {what}")))
}

/// Runs one transfer with its progress on `display`.
pub async fn transfer(
    client: &Client,
    source: api::Any,
    destination: api::Any,
    how: Tuning,
    display: Display,
) -> Result<std::time::Duration> {
    check_tuning(client, &how).await?;
    let progress = stream::open(client, "progress").await?;
    let tuning = (how != Tuning::default()).then_some(how);
    let options = Some(TransferOptions { progress_stream: progress.id.clone(), tuning });
    let display = std::cell::RefCell::new(display);
    let mut service = client.transfer();
    let request = TransferRequest { source: Some(source), destination: Some(destination), options };
    let draw = async {
        let mut tick = tokio::time::interval(std::time::Duration::from_millis(100));
        loop {
            tick.tick().await;
            display.borrow_mut().draw();
        }
    };
    let steps = progress.each(|step: Progress| display.borrow_mut().update(step));
    // The progress stream ends after the transfer: what it still holds is shown before the end is.
    let done = async {
        let transfer = service.transfer(request);
        tokio::pin!(steps);
        tokio::pin!(transfer);
        let result = tokio::select! { // both are polled in place; neither is lost when the other is first
            result = &mut transfer => {
                let grace = std::time::Duration::from_secs(1);
                let _late = tokio::time::timeout(grace, &mut steps).await;
                result
            }
            () = &mut steps => transfer.await,
        };
        result
    };
    let result = tokio::select! { // drawing holds nothing that could be lost
        result = done => result,
        () = draw => return Err(Failure::new("the display ended")),
    };
    let display = display.into_inner();
    result?;
    Ok(display.finish())
}

/// The registry side of a transfer, with the streams it needs already open and answered.
pub async fn registry(
    client: &Client,
    flags: &args::Registry,
    reference: &str,
) -> Result<(OciRegistry, Option<HostsDir>)> {
    let parsed: Reference = reference.parse().map_err(spec::Error::from)?;
    let mut resolver = RegistryResolver::default();
    let hosts = HostsDir::of(flags, &parsed)?;
    if let Some(dir) = hosts.as_ref().map(|hosts| &hosts.path).or(flags.hosts_dir.as_ref()) {
        resolver.host_dir = std::path::absolute(dir)?.display().to_string();
    }
    if flags.plain_http {
        resolver.default_scheme = "http".into();
    }
    if let Some(credentials) = credentials(flags, parsed.host())? {
        let stream = stream::open(client, "auth").await?;
        resolver.auth_stream = stream.id.clone();
        tokio::spawn(stream.answer(credentials));
    }
    let debug = match (flags.http_dump || client.debug(), flags.http_trace) {
        (true, true) => HttpDebug::Both,
        (true, false) => HttpDebug::Debug,
        (false, true) => HttpDebug::Trace,
        (false, false) => HttpDebug::Disabled,
    };
    if debug != HttpDebug::Disabled {
        let started = Instant::now();
        let say = move |text: &str| ui::say(format!("DEBU[{:04}] {text}", started.elapsed().as_secs()));
        say(&format!("fetching                                      image={reference:?}"));
        let stream = stream::open(client, "logs").await?;
        resolver.logs_stream = stream.id.clone();
        resolver.http_debug = debug.into();
        let lines = move |data: Data| String::from_utf8_lossy(&data.data).lines().for_each(&say);
        tokio::spawn(stream.each(lines));
    }
    Ok((OciRegistry { reference: reference.to_owned(), resolver: Some(resolver) }, hosts))
}

/// What `--user` and `--refresh` say; a password that is missing is asked for.
fn credentials(flags: &args::Registry, host: &str) -> Result<Option<Credentials>> {
    if let Some(refresh) = &flags.refresh {
        return Ok(Some(Credentials {
            host: host.to_owned(),
            username: String::new(),
            secret: refresh.clone(),
        }));
    }
    let Some(user) = &flags.user else { return Ok(None) };
    let (username, secret) = match user.split_once(':') {
        Some((username, secret)) => (username.to_owned(), secret.to_owned()),
        None => (user.clone(), ask_password()?),
    };
    Ok(Some(Credentials { host: host.to_owned(), username, secret }))
}

/// Reads a line without showing it.
fn ask_password() -> Result<String> {
    eprint!("Password: ");
    let hidden = crate::stdio::Hidden::stdin();
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    drop(hidden);
    eprintln!();
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// A hosts directory made for the TLS flags, which the transfer interface has no fields for.
#[derive(Debug)]
pub struct HostsDir {
    path: PathBuf,
}

impl HostsDir {
    /// The directory, or nothing when no TLS flag was given.
    fn of(flags: &args::Registry, reference: &Reference) -> Result<Option<Self>> {
        let tls = [&flags.tlscacert, &flags.tlscert, &flags.tlskey];
        if !flags.skip_verify && tls.iter().all(|file| file.is_none()) {
            return Ok(None);
        }
        if flags.hosts_dir.is_some() {
            return Err(Failure::new("--hosts-dir cannot be combined with --skip-verify or --tls*")
                .hint("skip_verify, ca and client are keys of hosts.toml"));
        }
        // The daemon trusts what it reads there, so nobody else may have made it.
        let path = crate::stdio::unique_dir(&std::env::temp_dir())?;
        let made = Self { path: path.clone() };
        std::fs::create_dir(path.join(reference.host()))?;
        let quoted = |file: &PathBuf| -> Result<String> { Ok(format!("{:?}", std::path::absolute(file)?)) };
        let mut text = format!(
            "server = \"https://{}\"\n",
            if reference.host() == "docker.io" { "registry-1.docker.io" } else { reference.host() }
        );
        if flags.skip_verify {
            text.push_str("skip_verify = true\n");
        }
        if let Some(ca) = &flags.tlscacert {
            text.push_str(&format!("ca = {}\n", quoted(ca)?));
        }
        match (&flags.tlscert, &flags.tlskey) {
            (Some(cert), Some(key)) => {
                text.push_str(&format!("client = [[{}, {}]]\n", quoted(cert)?, quoted(key)?))
            }
            (None, None) => {}
            _ => return Err(Failure::new("--tlscert and --tlskey go together")),
        }
        std::fs::write(path.join(reference.host()).join("hosts.toml"), text)?;
        Ok(Some(made))
    }
}

impl Drop for HostsDir {
    fn drop(&mut self) {
        // It lies in the temporary directory; one that stays does no harm.
        let _left = std::fs::remove_dir_all(&self.path);
    }
}
