//! Transfers between registries, archives and the image store.
//!
//! The request names its two ends as messages; progress, credentials and archive bytes travel on streams that the client
//! has opened before, by name.

mod bytes;
mod credentials;
mod progress;
mod store;

use std::io::Write as _;
use std::sync::Arc;

use api::Any;
use api::containerd::services::transfer::v1::{self as wire, Tuning};
use api::containerd::types::transfer::{
    HttpDebug, ImageExportStream, ImageImportStream, ImageStore, OciRegistry, RegistryResolver,
};
use grpc::containerd::services::transfer::v1::transfer_server;
use grpc::convert::{nouns, required};
use image::{Services, archive, pull, push, registry};
use model::diff::Apply;
use model::{Ctx, Error, Lane, Result};
use spec::Reference;
use tonic::{Request, Response, Status};

use super::{Transfer, on_disk};
use crate::request::{answer, open};
use progress::Progress;

/// Where `hosts.toml` files are when neither the request nor the configuration says.
const HOSTS_DIR: &str = "/etc/containerd/certs.d:/etc/docker/certs.d";

/// How many blobs of one transfer travel at once.
fn at_once(how: &Tuning, configured: usize) -> usize {
    match usize::try_from(how.concurrent) {
        Ok(0) | Err(_) => configured,
        Ok(count) => count,
    }
}

/// One end of a transfer.
enum End {
    Registry(OciRegistry),
    Store(ImageStore),
    Import(ImageImportStream),
    Export(ImageExportStream),
}

impl End {
    fn decode(any: &Any) -> Result<Self> {
        fn of<M: api::Message + api::Name + Default>(any: &Any) -> Result<Option<M>> {
            api::decode_any(any).map_err(Error::invalid)
        }
        if let Some(end) = of(any)? {
            return Ok(Self::Registry(end));
        }
        if let Some(end) = of(any)? {
            return Ok(Self::Store(end));
        }
        if let Some(end) = of(any)? {
            return Ok(Self::Import(end));
        }
        match of(any)? {
            Some(end) => Ok(Self::Export(end)),
            None => Err(Error::unimplemented(format_args!("transfer of {:?}", any.type_url))),
        }
    }

    /// The streams that it names.
    fn streams(&self) -> Vec<String> {
        match self {
            Self::Registry(end) => {
                let resolver = end.resolver.clone().unwrap_or_default();
                vec![resolver.auth_stream, resolver.logs_stream]
            }
            Self::Store(_) => Vec::new(),
            Self::Import(end) => vec![end.stream.clone()],
            Self::Export(end) => vec![end.stream.clone()],
        }
    }
}

#[tonic::async_trait]
impl transfer_server::Transfer for Transfer {
    async fn transfer(&self, request: Request<wire::TransferRequest>) -> Result<Response<()>, Status> {
        answer(self.run(request).await)
    }
}

impl Transfer {
    async fn run(&self, request: Request<wire::TransferRequest>) -> Result<()> {
        let (ctx, message) = open(request)?;
        let namespace = ctx.namespace()?.clone();
        let mut streams = Vec::new();
        let outcome = self.between(&ctx, message, &mut streams).await;
        // A client that waits on a stream shall not wait for one that no transfer will take any more.
        streams.iter().for_each(|name| drop(self.0.streams.take(&namespace, name)));
        outcome
    }

    /// Transfers between the two ends of `message`; the streams that it names go to `streams`.
    async fn between(
        &self,
        ctx: &Ctx,
        message: wire::TransferRequest,
        streams: &mut Vec<String>,
    ) -> Result<()> {
        let options = message.options.unwrap_or_default();
        let how = options.tuning.unwrap_or_default();
        streams.push(options.progress_stream.clone());
        let (source, target) =
            (required(message.source, "source")?, required(message.destination, "destination")?);
        let (from, to) = (End::decode(&source)?, End::decode(&target)?);
        streams.extend([&from, &to].into_iter().flat_map(End::streams));
        let stream = Some(options.progress_stream).filter(|id| !id.is_empty());
        let stream = stream.map(|id| self.0.streams.take(ctx.namespace()?, &id)).transpose()?;
        let progress = Progress::over(stream);
        let outcome = match (from, to) {
            (End::Registry(from), End::Store(to)) => self.pull(ctx, from, to, &how, &progress).await,
            (End::Store(from), End::Registry(to)) => self.push(ctx, from, to, &how, &progress).await,
            (End::Import(from), End::Store(to)) => self.import(ctx, from, to, &how, &progress).await,
            (End::Store(from), End::Export(to)) => self.export(ctx, from, to, &progress).await,
            (End::Store(from), End::Store(to)) => self.tag(ctx, &from, &to).await,
            (End::Import(from), End::Export(to)) => self.echo(ctx, &from, &to).await,
            _ => {
                let (from, to) = (&source.type_url, &target.type_url);
                Err(Error::unimplemented(format_args!("method Transfer not implemented for {from} to {to}")))
            }
        };
        // What was said is heard before the answer.
        progress.finish().await;
        // A transfer uses megabytes of buffers; an idle daemon shall not keep them.
        let trim = |_: &model::Cx<'_>| {
            crate::memory::give_back();
            Ok(())
        };
        // It cannot fail, and the outcome is the transfer's.
        let _trimmed = ctx.blocking(Lane::Disk, trim).await;
        outcome
    }

    fn services(&self) -> Services {
        let store = &self.0.store;
        Services {
            content: store.content(),
            images: store.images(),
            leases: store.leases(),
            differ: Arc::clone(&self.0.differ),
        }
    }

    async fn pull(
        &self,
        ctx: &Ctx,
        from: OciRegistry,
        to: ImageStore,
        how: &Tuning,
        progress: &Progress,
    ) -> Result<()> {
        let reference: Reference = from.reference.parse()?;
        let registry = self.registry(ctx, from.resolver, at_once(how, self.0.transfer.downloads))?;
        let unpack = store::unpacks(&self.0, &to)?;
        let names = store::names(&to, &from.reference);
        let pull = pull::Pull {
            names,
            platforms: nouns(to.platforms)?,
            all_metadata: to.all_metadata || how.metadata_only,
            metadata_only: how.metadata_only,
            manifest_limit: usize::try_from(to.manifest_limit).unwrap_or(usize::MAX),
            unpack,
            apply: Apply { sync_fs: how.sync_fs },
            discard_layers: how.discard_unpacked_layers,
            registry,
            verifier: self.0.verifier.clone(),
            ..pull::Pull::new(reference)
        };
        pull::run(ctx, &self.services(), pull, progress.sink()).await.map(drop)
    }

    async fn push(
        &self,
        ctx: &Ctx,
        from: ImageStore,
        to: OciRegistry,
        how: &Tuning,
        progress: &Progress,
    ) -> Result<()> {
        let reference: Reference = to.reference.parse()?;
        let registry = self.registry(ctx, to.resolver, at_once(how, self.0.transfer.uploads))?;
        let name = from.name.clone();
        let image = on_disk(&self.0, ctx, move |engine, cx| engine.store.images().get(cx, &name)).await?;
        let push = push::Push {
            reference,
            target: image.target,
            platforms: nouns(from.platforms)?,
            non_distributable: how.non_distributable,
            registry,
        };
        push::run(ctx, &self.services(), push, progress.sink()).await
    }

    async fn import(
        &self,
        ctx: &Ctx,
        from: ImageImportStream,
        to: ImageStore,
        how: &Tuning,
        progress: &Progress,
    ) -> Result<()> {
        let stream = self.0.streams.take(ctx.namespace()?, &from.stream)?;
        let import = archive::import::Import {
            names: store::names(&to, ""),
            unpack: store::unpacks(&self.0, &to)?,
            platforms: nouns(to.platforms)?,
            apply: Apply { sync_fs: how.sync_fs },
            discard_layers: how.discard_unpacked_layers,
            compress: from.force_compress,
        };
        let reader = Box::new(bytes::reader(stream));
        archive::import::run(ctx, &self.services(), import, reader, progress.sink()).await.map(drop)
    }

    async fn export(
        &self,
        ctx: &Ctx,
        from: ImageStore,
        to: ImageExportStream,
        progress: &Progress,
    ) -> Result<()> {
        let stream = self.0.streams.take(ctx.namespace()?, &to.stream)?;
        let images = store::named(&self.0, ctx, &from).await?;
        let export = archive::export::Export {
            images,
            platforms: if to.all_platforms { Vec::new() } else { nouns(to.platforms)? },
            skip_docker_manifest: to.skip_compatibility_manifest,
            skip_non_distributable: to.skip_non_distributable,
        };
        let (writer, sent) = bytes::writer(stream);
        let done =
            archive::export::run(ctx, &self.services(), export, Box::new(writer), progress.sink()).await;
        if done.is_err() {
            // Half an archive is of no use: what waits for the client to make room need not reach it.
            sent.abort();
        }
        done?;
        // The last bytes are on their way to the client.
        sent.await.map_err(|panic| Error::internal(format!("sending the archive failed: {panic}")))?
    }

    async fn tag(&self, ctx: &Ctx, from: &ImageStore, to: &ImageStore) -> Result<()> {
        let (from, names) = (from.name.clone(), store::names(to, ""));
        on_disk(&self.0, ctx, move |engine, cx| {
            let images = engine.store.images();
            let image = images.get(cx, &from)?;
            names.store_top(cx, images.as_ref(), &image.target).map(drop)
        })
        .await
    }

    /// Sends the bytes of one stream back on another, as clients do that try their streams.
    async fn echo(&self, ctx: &Ctx, from: &ImageImportStream, to: &ImageExportStream) -> Result<()> {
        let namespace = ctx.namespace()?;
        let reader = bytes::reader(self.0.streams.take(namespace, &from.stream)?);
        let (writer, sent) = bytes::writer(self.0.streams.take(namespace, &to.stream)?);
        let copied = ctx
            .blocking(Lane::Stream, move |_| {
                copy(reader, writer)
                    .map_err(|error| Error::unavailable(format!("cannot copy the stream: {error}")))
            })
            .await;
        if copied.is_err() {
            sent.abort();
        }
        copied?;
        sent.await.map_err(|panic| Error::internal(format!("sending the bytes failed: {panic}")))?
    }

    /// How to reach the registry of a request.
    fn registry(
        &self,
        ctx: &Ctx,
        resolver: Option<RegistryResolver>,
        concurrent: usize,
    ) -> Result<registry::Config> {
        let resolver = resolver.unwrap_or_default();
        let first = |texts: [&str; 3]| texts.into_iter().find(|text| !text.is_empty()).map(str::to_owned);
        let mut config = registry::Config {
            hosts_dir: first([&resolver.host_dir, &self.0.transfer.config_path, HOSTS_DIR]),
            default_scheme: Some(resolver.default_scheme.clone()).filter(|scheme| !scheme.is_empty()),
            headers: resolver.headers.clone().into_iter().collect(),
            ..registry::Config::default()
        };
        if concurrent > 0 {
            config.limits.concurrent = concurrent;
        }
        let namespace = ctx.namespace()?;
        if !resolver.auth_stream.is_empty() {
            let stream = self.0.streams.take(namespace, &resolver.auth_stream)?;
            config.credentials = Arc::new(credentials::Asked::over(stream));
        }
        if resolver.http_debug() != HttpDebug::Disabled && !resolver.logs_stream.is_empty() {
            let stream = self.0.streams.take(namespace, &resolver.logs_stream)?;
            config.log = Some(progress::log(stream));
        }
        Ok(config)
    }
}

/// Copies all of `reader`.
fn copy(mut reader: bytes::Reader, mut writer: bytes::Writer) -> std::io::Result<()> {
    std::io::copy(&mut reader, &mut writer)?;
    writer.flush()
}
