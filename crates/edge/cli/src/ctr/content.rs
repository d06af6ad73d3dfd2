//! `ctr content`.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use api::containerd::services::content::v1 as wire;
use clap::Subcommand;
use regex::bytes::Regex;
use spec::Digest;

use super::args;
use crate::client::Client;
use crate::failure::{Failure, Result};
use crate::image;
use crate::ui::{self, Table, quantity};

/// The group's commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Display active transfers
    Active {
        /// Total timeout for fetch
        #[arg(long, short, env = "CONTAINERD_FETCH_TIMEOUT", default_value = "0s", value_parser = args::duration)]
        timeout: Duration,
        /// Path to content store root
        #[arg(long, default_value = "/tmp/content")]
        root: PathBuf,
        /// Show only references that match
        #[arg(default_value = "")]
        regexp: String,
    },
    /// Permanently delete one or more blobs
    #[command(visible_aliases = ["del", "remove", "rm"])]
    Delete {
        /// Their digests
        #[arg(required = true)]
        digests: Vec<String>,
    },
    /// Edit a blob and return a new digest
    Edit {
        /// Validate the result against a format (json, mediatype, etc.)
        #[arg(long, default_value = "")]
        validate: String,
        /// Select editor (vim, emacs, etc.)
        #[arg(long, env = "EDITOR", default_value = "vi")]
        editor: String,
        /// The blob's digest
        digest: Digest,
    },
    /// Fetch all content for an image into containerd
    Fetch(Box<super::images::pull::Fetch>),
    /// Get the data for an object
    Get {
        /// Its digest
        digest: Digest,
    },
    /// Accept content into the store
    Ingest {
        /// Validate against provided size
        #[arg(long, default_value_t = 0)]
        expected_size: i64,
        /// Verify content against expected digest
        #[arg(long, default_value = "")]
        expected_digest: String,
        /// Name of the ingest
        key: String,
    },
    /// List all blobs in the store
    #[command(visible_alias = "ls")]
    List {
        /// Print only the blob digest
        #[arg(long, short)]
        quiet: bool,
        /// Filters
        filters: Vec<String>,
    },
    /// Add labels to content
    Label {
        /// The blob's digest
        digest: Digest,
        /// KEY=VALUE sets, KEY= clears
        labels: Vec<String>,
    },
    /// Prune content from the content store
    #[command(subcommand)]
    Prune(Prune),
}

/// The commands of `prune`.
#[derive(Subcommand, Debug)]
pub enum Prune {
    /// Prunes preference labels from the content store (layers only by default)
    References {
        /// Allow garbage collection to cleanup asynchronously
        #[arg(long = "async")]
        no_wait: bool,
        /// Just show updates without applying
        #[arg(long)]
        dry: bool,
    },
}

impl Command {
    /// Runs the command.
    pub async fn run(self, client: &Client) -> Result {
        match self {
            // The root was for clients that read the store's files; the daemon knows where they are.
            Self::Active { timeout: _, root: _, regexp } => active(client, &regexp).await,
            Self::Delete { digests } => delete(client, &digests).await,
            Self::Edit { validate, editor, digest } => edit(client, &digest, &editor, &validate).await,
            Self::Fetch(fetch) => fetch.run(client).await,
            Self::Get { digest } => copy_to_stdout(client, digest.as_str()).await,
            Self::Ingest { expected_size, expected_digest, key } => {
                ingest(client, key, expected_size, expected_digest).await
            }
            Self::List { quiet, filters } => list(client, quiet, filters).await,
            Self::Label { digest, labels } => label(client, &digest, &labels).await,
            Self::Prune(Prune::References { no_wait, dry }) => prune(client, no_wait, dry).await,
        }
    }
}

/// Writes a blob to standard output as it arrives.
pub async fn copy_to_stdout(client: &Client, digest: &str) -> Result {
    let request = wire::ReadContentRequest { digest: digest.to_owned(), ..Default::default() };
    let mut stream = client.content().read(request).await?.into_inner();
    let mut stdout = std::io::stdout().lock();
    while let Some(response) = stream.message().await? {
        stdout.write_all(&response.data)?;
    }
    Ok(stdout.flush()?)
}

async fn active(client: &Client, regexp: &str) -> Result {
    let translated = spec::regexp::translate(regexp).map_err(|error| Failure::new(error.to_string()))?;
    let regexp = Regex::new(&translated).map_err(|error| Failure::new(error.to_string()))?;
    let request = wire::ListStatusesRequest::default();
    let statuses = client.content().list_statuses(request).await?.into_inner().statuses;
    let mut table = Table::new(["REF", "SIZE", "AGE"]);
    for status in statuses.into_iter().filter(|status| regexp.is_match(status.r#ref.as_bytes())) {
        let size = quantity::bytes(u64::try_from(status.offset).unwrap_or(0));
        table.row([status.r#ref, size, quantity::ago(quantity::time(status.started_at))]);
    }
    Ok(table.print()?)
}

async fn delete(client: &Client, digests: &[String]) -> Result {
    let mut last = Ok(());
    for text in digests {
        let digest: Digest = match text.parse() {
            Ok(digest) => digest,
            Err(error) => {
                last = Err(Failure::from(spec::Error::from(error))
                    .context(format!("failed parsing {text:?} as digest")));
                continue;
            }
        };
        match client.content().delete(wire::DeleteContentRequest { digest: digest.to_string() }).await {
            Ok(_) => ui::line(digest)?,
            Err(status) if status.code() == tonic::Code::NotFound => {}
            Err(status) => last = Err(Failure::from(status).context(format!("failed deleting {digest}"))),
        }
    }
    last
}

async fn list(client: &Client, quiet: bool, filters: Vec<String>) -> Result {
    let mut stream = client.content().list(wire::ListContentRequest { filters }).await?.into_inner();
    let mut table = Table::new(["DIGEST", "SIZE", "AGE", "LABELS"]).ragged();
    while let Some(response) = stream.message().await? {
        for info in response.info {
            if quiet {
                ui::line(info.digest)?;
                continue;
            }
            let size = quantity::bytes(u64::try_from(info.size).unwrap_or(0));
            let age = quantity::ago(quantity::time(info.created_at));
            table.row([info.digest, size, age, args::join_labels(&info.labels, "-")]);
        }
    }
    if quiet { Ok(()) } else { Ok(table.print()?) }
}

async fn label(client: &Client, digest: &Digest, words: &[String]) -> Result {
    let labels = args::labels(words);
    let update_mask = args::label_mask(&labels);
    let info = Some(wire::Info { digest: digest.to_string(), labels, ..Default::default() });
    let response = client.content().update(wire::UpdateRequest { info, update_mask }).await?.into_inner();
    Ok(ui::line(args::join_labels(&response.info.unwrap_or_default().labels, ""))?)
}

/// How much of standard input travels in one message.
const CHUNK: usize = 1 << 20;

/// Sends standard input into an ingest and commits it.
async fn ingest(client: &Client, key: String, size: i64, digest: String) -> Result {
    let (send, receive) = tokio::sync::mpsc::channel(4);
    let first = wire::WriteContentRequest {
        action: wire::WriteAction::Write.into(),
        r#ref: key.clone(),
        total: size,
        expected: digest.clone(),
        ..Default::default()
    };
    send.send(first).await.map_err(|_| Failure::new("the ingest ended early"))?;
    let reader = std::thread::spawn(move || read_into(&send, &key, size, &digest));
    let stream = tokio_stream::wrappers::ReceiverStream::new(receive);
    let mut responses = client.content().write(stream).await?.into_inner();
    while responses.message().await?.is_some() {}
    reader.join().map_err(|_| Failure::new("cannot read standard input"))?
}

fn read_into(
    send: &tokio::sync::mpsc::Sender<wire::WriteContentRequest>,
    key: &str,
    size: i64,
    digest: &str,
) -> Result {
    let mut offset = 0;
    let mut stdin = std::io::stdin().lock();
    let gone = || Failure::new("the ingest ended early");
    loop {
        let mut data = Vec::with_capacity(CHUNK);
        let count = stdin.by_ref().take(CHUNK as u64).read_to_end(&mut data)?;
        let last = count < CHUNK;
        let action = if last { wire::WriteAction::Commit } else { wire::WriteAction::Write };
        let message = wire::WriteContentRequest {
            action: action.into(),
            r#ref: key.to_owned(),
            total: size,
            expected: digest.to_owned(),
            offset,
            data,
            ..Default::default()
        };
        send.blocking_send(message).map_err(|_| gone())?;
        if last {
            return Ok(());
        }
        offset += i64::try_from(count).unwrap_or(i64::MAX);
    }
}

/// Opens a copy of the blob in an editor and stores what comes back.
async fn edit(client: &Client, digest: &Digest, editor: &str, validate: &str) -> Result {
    if !validate.is_empty() && validate != "json" {
        return Err(Failure::new(format!("--validate {validate}: only json can be validated")));
    }
    let bytes = image::read(client, digest)
        .await?
        .ok_or_else(|| Failure::new(format!("content digest {digest}: not found")))?;
    let path = std::env::temp_dir().join(format!("ctr-edit-{}", std::process::id()));
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
    file.write_all(&bytes)?;
    drop(file);
    let mut words = editor.split_whitespace();
    let program = words.next().unwrap_or("vi");
    let status = std::process::Command::new(program).args(words).arg(&path).status();
    let edited = std::fs::read(&path);
    std::fs::remove_file(&path)?;
    if !status?.success() {
        return Err(Failure::new(format!("{editor} failed; nothing was stored")));
    }
    let edited = edited?;
    if validate == "json" {
        serde_json::from_slice::<serde_json::Value>(&edited)?;
    }
    let new = model::manifest::sha256(&edited);
    let labels = [(
        spec::label::GC_ROOT.to_owned(),
        humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string(),
    )];
    store(client, &new, edited, labels.into()).await?;
    Ok(ui::line(new)?)
}

/// Stores a small blob.
async fn store(
    client: &Client,
    digest: &Digest,
    data: Vec<u8>,
    labels: std::collections::BTreeMap<String, String>,
) -> Result {
    let request = wire::WriteContentRequest {
        action: wire::WriteAction::Commit.into(),
        r#ref: format!("edit-{digest}"),
        total: i64::try_from(data.len()).unwrap_or(i64::MAX),
        expected: digest.to_string(),
        data,
        labels,
        ..Default::default()
    };
    let mut responses = client.content().write(tokio_stream::once(request)).await?.into_inner();
    while responses.message().await?.is_some() {}
    Ok(())
}

/// Removes the labels by which manifests keep their layers, so that a collection drops the compressed ones.
async fn prune(client: &Client, no_wait: bool, dry: bool) -> Result {
    let mut layers = Vec::new();
    let mut stream = client.content().list(wire::ListContentRequest::default()).await?.into_inner();
    while let Some(response) = stream.message().await? {
        for mut info in response.info {
            let is_layer = |key: &str| key.starts_with("containerd.io/gc.ref.content.l.");
            let removed: Vec<_> = info.labels.keys().filter(|key| is_layer(key)).cloned().collect();
            if !removed.is_empty() {
                info.labels.retain(|key, _| !is_layer(key));
                layers.push((info, removed));
            }
        }
    }
    for (info, removed) in layers {
        for key in &removed {
            ui::line(format!(
                "{} label={key} digest={}",
                if dry { "would remove" } else { "removed" },
                info.digest
            ))?;
        }
        if !dry {
            let update_mask =
                Some(api::FieldMask { paths: removed.iter().map(|key| format!("labels.{key}")).collect() });
            client.content().update(wire::UpdateRequest { info: Some(info), update_mask }).await?;
        }
    }
    if !dry && !no_wait {
        // A lease that ends with a collection is how a client asks for one.
        let id = super::lease(client).await?;
        let request = api::containerd::services::leases::v1::DeleteRequest { id, sync: true };
        client.leases().delete(request).await?;
    }
    Ok(())
}
