//! A snapshot driver that runs in another process and speaks containerd's snapshots service over a unix socket:
//! stargz, nydus, soci and their like, as `proxy_plugins` names them.
//!
//! The trait's verbs block; the calls run on the daemon's runtime, and the verb waits for their answers.
//!
//! Invariant: no verb waits longer than its request's deadline, nor ever longer than [`LONGEST`].
//! Invariant: a driver that hangs holds up nobody who does not ask it.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use api::containerd::services::snapshots::v1 as wire;
use model::mask::Mask;
use model::snapshot::{Commit, Info, Mount, REBASE, Snapshotter, Usage};
use model::{Cx, Error, Filters, Result};
use spec::{Kind, Labels};
use tokio::runtime::Handle;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::channel::{self, LEASE, MAX_MESSAGE, NAMESPACE};
use crate::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use crate::convert::{FromWire, nouns, required, unsigned};
use crate::status::from_status;

/// How long a verb may take that has no deadline: such a driver may fetch from a registry before it answers.
pub const LONGEST: Duration = Duration::from_secs(300);

/// How often a verb that waits looks whether its caller has left.
const LOOK: Duration = Duration::from_millis(200);

/// How many snapshots a list may have.
const MOST: usize = 1 << 20;

/// A driver in another process.
#[derive(Clone, Debug)]
pub struct Proxy {
    name: String,
    address: String,
    client: SnapshotsClient<Channel>,
    runtime: Handle,
    capabilities: Vec<&'static str>,
}

impl Proxy {
    /// The driver that calls itself `name` and listens on `socket`, with those of the `capabilities` that mean something
    /// here. It is connected when it is first asked. Called inside a tokio runtime, where its calls will run.
    pub fn new(name: &str, socket: &Path, capabilities: &[String]) -> Self {
        let known = [REBASE, "remap-ids", "only-remap-ids"];
        let has = |word: &&'static str| capabilities.iter().any(|capability| capability == word);
        Self {
            name: name.to_owned(),
            address: socket.display().to_string(),
            client: SnapshotsClient::new(channel::lazy(socket))
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE),
            runtime: Handle::current(),
            capabilities: known.into_iter().filter(has).collect(),
        }
    }

    /// Makes a call and waits for its answer.
    fn call<M, T, F>(
        &self,
        cx: &Cx<'_>,
        message: M,
        call: impl FnOnce(SnapshotsClient<Channel>, Request<M>) -> F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Status>> + Send + 'static,
    {
        cx.check()?;
        let deadline = Instant::now() + LONGEST;
        let deadline = cx.ctx().deadline().map_or(deadline, |own| own.min(deadline));
        let mut request = Request::new(message);
        let headers = [
            (NAMESPACE, cx.ctx().namespace().ok().map(|namespace| namespace.as_str())),
            (LEASE, cx.lease().map(|lease| lease.as_str())),
        ];
        for (key, value) in headers {
            if let Some(value) = value.and_then(|value| MetadataValue::try_from(value).ok()) {
                request.metadata_mut().insert(key, value);
            }
        }
        request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        let (tell, told) = sync_channel(1);
        let answer = call(self.client.clone(), request);
        let task = self.runtime.spawn(async move {
            // Whoever asked may have given up.
            let _given_up = tell.send(answer.await);
        });
        let answer = cx.outside(|| self.wait(cx, &told, deadline)).flatten();
        if answer.is_err() {
            task.abort();
        }
        answer
    }

    fn wait<T>(&self, cx: &Cx<'_>, told: &Receiver<Result<T, Status>>, deadline: Instant) -> Result<T> {
        loop {
            match told.recv_timeout(LOOK) {
                Ok(answer) => return answer.map_err(|status| self.failed(&status)),
                Err(RecvTimeoutError::Timeout) => {
                    cx.check()?;
                    if Instant::now() >= deadline {
                        return Err(self.late());
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::new(Kind::Unavailable, "the daemon is stopping"));
                }
            }
        }
    }

    fn late(&self) -> Error {
        let text = format!("snapshotter {} at {} did not answer in time", self.name, self.address);
        Error::new(Kind::DeadlineExceeded, text)
    }

    /// What the driver said; where it said nothing, who it is that is silent.
    fn failed(&self, status: &Status) -> Error {
        let error = from_status(status);
        match error.kind() {
            Kind::Unavailable | Kind::Unknown => {
                let text = format!("snapshotter {} at {}: {}", self.name, self.address, error.text());
                Error::new(error.kind(), text)
            }
            _ => error,
        }
    }

    fn snapshotter(&self) -> String {
        self.name.clone()
    }
}

impl Snapshotter for Proxy {
    fn capabilities(&self) -> &[&'static str] {
        &self.capabilities
    }

    fn stat(&self, cx: &Cx<'_>, key: &str) -> Result<Info> {
        let message = wire::StatSnapshotRequest { snapshotter: self.snapshotter(), key: key.to_owned() };
        let answer = self.call(cx, message, async |mut client: SnapshotsClient<Channel>, request| {
            client.stat(request).await.map(tonic::Response::into_inner)
        })?;
        Info::from_wire(required(answer.info, "snapshot info")?)
    }

    fn update(&self, cx: &Cx<'_>, key: &str, labels: &Labels, mask: &Mask) -> Result<Info> {
        let info = wire::Info { name: key.to_owned(), labels: labels.clone(), ..wire::Info::default() };
        let paths: Vec<String> = mask.paths().map(str::to_owned).collect();
        let update_mask = (!paths.is_empty()).then_some(api::FieldMask { paths });
        let message =
            wire::UpdateSnapshotRequest { snapshotter: self.snapshotter(), info: Some(info), update_mask };
        let answer = self.call(cx, message, async |mut client: SnapshotsClient<Channel>, request| {
            client.update(request).await.map(tonic::Response::into_inner)
        })?;
        Info::from_wire(required(answer.info, "snapshot info")?)
    }

    fn usage(&self, cx: &Cx<'_>, key: &str) -> Result<Usage> {
        let message = wire::UsageRequest { snapshotter: self.snapshotter(), key: key.to_owned() };
        let answer = self.call(cx, message, async |mut client: SnapshotsClient<Channel>, request| {
            client.usage(request).await.map(tonic::Response::into_inner)
        })?;
        Ok(Usage { size: unsigned(answer.size, "size")?, inodes: unsigned(answer.inodes, "inodes")? })
    }

    fn mounts(&self, cx: &Cx<'_>, key: &str) -> Result<Vec<Mount>> {
        let message = wire::MountsRequest { snapshotter: self.snapshotter(), key: key.to_owned() };
        let answer = self.call(cx, message, async |mut client: SnapshotsClient<Channel>, request| {
            client.mounts(request).await.map(tonic::Response::into_inner)
        })?;
        nouns(answer.mounts)
    }

    fn prepare(&self, cx: &Cx<'_>, key: &str, parent: &str, labels: &Labels) -> Result<Vec<Mount>> {
        let message = wire::PrepareSnapshotRequest {
            snapshotter: self.snapshotter(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels: labels.clone(),
        };
        let answer = self.call(cx, message, async |mut client: SnapshotsClient<Channel>, request| {
            client.prepare(request).await.map(tonic::Response::into_inner)
        })?;
        nouns(answer.mounts)
    }

    fn view(&self, cx: &Cx<'_>, key: &str, parent: &str, labels: &Labels) -> Result<Vec<Mount>> {
        let message = wire::ViewSnapshotRequest {
            snapshotter: self.snapshotter(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels: labels.clone(),
        };
        let answer = self.call(cx, message, async |mut client: SnapshotsClient<Channel>, request| {
            client.view(request).await.map(tonic::Response::into_inner)
        })?;
        nouns(answer.mounts)
    }

    fn commit(&self, cx: &Cx<'_>, name: &str, key: &str, commit: &Commit) -> Result<()> {
        let message = wire::CommitSnapshotRequest {
            snapshotter: self.snapshotter(),
            name: name.to_owned(),
            key: key.to_owned(),
            labels: commit.labels.clone(),
            parent: commit.parent.clone().unwrap_or_default(),
        };
        self.call(cx, message, async |mut client: SnapshotsClient<Channel>, request| {
            client.commit(request).await.map(drop)
        })
    }

    fn remove(&self, cx: &Cx<'_>, key: &str) -> Result<()> {
        let message = wire::RemoveSnapshotRequest { snapshotter: self.snapshotter(), key: key.to_owned() };
        self.call(cx, message, async |mut client: SnapshotsClient<Channel>, request| {
            client.remove(request).await.map(drop)
        })
    }

    fn list(&self, cx: &Cx<'_>, filters: &Filters) -> Result<Vec<Info>> {
        let message = wire::ListSnapshotsRequest { snapshotter: self.snapshotter(), filters: Vec::new() };
        let all = self.call(cx, message, async |mut client: SnapshotsClient<Channel>, request| {
            let mut stream = client.list(request).await?.into_inner();
            let mut all = Vec::new();
            while let Some(some) = stream.message().await? {
                all.extend(some.info);
                if all.len() > MOST {
                    return Err(Status::resource_exhausted("the snapshotter lists too many snapshots"));
                }
            }
            Ok(all)
        })?;
        let mut found: Vec<Info> = nouns(all)?;
        found.retain(|info| filters.matches(info));
        Ok(found)
    }

    fn cleanup(&self, cx: &Cx<'_>) -> Result<()> {
        let message = wire::CleanupRequest { snapshotter: self.snapshotter() };
        self.call(cx, message, async |mut client: SnapshotsClient<Channel>, request| {
            client.cleanup(request).await.map(drop)
        })
    }
}

#[cfg(test)]
mod tests {
    use model::Ctx;

    use super::*;

    #[test]
    fn who_is_silent_is_named_and_nobody_waits_for_ever() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let _inside = runtime.enter();
        let dir = tempfile::tempdir().unwrap();
        let nobody = Proxy::new("far", &dir.path().join("none.sock"), &["rebase".into(), "odd".into()]);
        assert_eq!(nobody.capabilities(), [REBASE]);
        let error = Ctx::background().on_this_thread(|cx| nobody.stat(cx, "k")).unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
        assert!(error.text().contains("snapshotter far at "), "{error}");

        // Somebody who takes the connection and says nothing.
        let path = dir.path().join("mute.sock");
        let _mute = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let mute = Proxy::new("far", &path, &[]);
        let soon = Ctx::background().with_deadline(Instant::now() + Duration::from_millis(300));
        let error = soon.on_this_thread(|cx| mute.list(cx, &Filters::default())).unwrap_err();
        assert!(matches!(error.kind(), Kind::DeadlineExceeded | Kind::Canceled), "{error}");
    }
}
