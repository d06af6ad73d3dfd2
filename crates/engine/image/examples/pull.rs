//! Pulls an image into fresh stores below a directory and prints how long each stage took.
//!
//! `pull DIR REFERENCE [overlayfs|native]`

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use image::pull::{self, Pull};
use image::{Services, Unpack, registry};
use model::Ctx;
use model::event::Exchange;
use model::snapshot::Snapshotter;
use snapshot::{Native, Overlay, OverlayConfig, Walking};
use spec::{Error, Platform, Result};
use store::{Config, Sharing, Store};

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [dir, reference, rest @ ..] = words.as_slice() else {
        return Err(Error::invalid("usage: pull DIR REFERENCE [overlayfs|native]"));
    };
    let name = rest.first().map_or("overlayfs", String::as_str);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| Error::internal(error.to_string()))?;
    runtime.block_on(run(Path::new(dir), reference, name))
}

async fn run(dir: &Path, reference: &str, name: &str) -> Result<()> {
    let at = |part: &str| {
        let path = dir.join(part);
        std::fs::create_dir_all(&path).map(|()| path).map_err(|error| Error::internal(error.to_string()))
    };
    let driver: Arc<dyn Snapshotter> = match name {
        "native" => Arc::new(Native::open(&at("native")?)?),
        _ => Arc::new(Overlay::open(OverlayConfig { root: at("overlayfs")?, ..OverlayConfig::default() })?),
    };
    let store = Store::open(Config {
        root: at("root")?,
        sharing: Sharing::Shared,
        snapshotters: BTreeMap::from([(name.to_owned(), driver)]),
        events: Exchange::default(),
    })?;
    let services = Services {
        content: store.content(),
        images: store.images(),
        leases: store.leases(),
        differ: Arc::new(Walking::new(store.content()).with_temporary(at("mounts")?)),
    };
    let unpack = Unpack {
        platform: Platform::host(),
        snapshotter: name.into(),
        driver: store.snapshotter(name)?,
        told_of: None,
    };
    let order = Pull {
        platforms: vec![Platform::host()],
        unpack: vec![unpack],
        registry: registry::Config { default_scheme: Some("http".into()), ..registry::Config::default() },
        ..Pull::new(reference.parse()?)
    };
    let (start, seen) = (Instant::now(), Arc::new(Mutex::new(BTreeMap::new())));
    let sink: image::progress::Sink = Arc::new(move |event| {
        let mut seen = seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let last = seen.insert(event.name.clone(), event.event.clone());
        if last.as_deref() != Some(&event.event) {
            let short: String = event.name.chars().take(24).collect();
            println!("{:8.3} {short:24} {} {}", start.elapsed().as_secs_f64(), event.event, event.total);
        }
    });
    let ctx = Ctx::in_namespace("default".parse().map_err(Error::from)?);
    pull::run(&ctx, &services, order, Some(sink)).await?;
    println!("{:8.3} done", start.elapsed().as_secs_f64());
    Ok(())
}
