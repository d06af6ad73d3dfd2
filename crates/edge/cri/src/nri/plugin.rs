//! One plugin: its registration, its configuration, what it wants to hear, and calls of it.

use std::time::Duration;

use ::spec::{Error, HasKind as _, Kind};
use api::Message;
use api::nri::pkg::api::v1alpha1::{self as pb, Event};
use model::Result;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::wire::{Asked, CallError, Wire};

/// The version of the interface that we speak.
const VERSION: &str = "v0.12.0";
/// Every event that there is.
const ALL_EVENTS: i32 = (1 << (Event::Last as i32 - 1)) - 1;
/// The longest name of a plugin.
const MAX_NAME: usize = 128;
/// The fewest pods and containers that one message of a synchronisation has.
const FEWEST: usize = 8;

/// How long a plugin may take, and what it is told of us.
#[derive(Clone, Debug)]
pub struct Terms {
    /// To register.
    pub registration: Duration,
    /// To answer.
    pub request: Duration,
    /// Our version.
    pub version: &'static str,
}

/// What is known of a plugin that we started, before it registers.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its index.
    pub index: String,
    /// Its name behind the index.
    pub base: String,
    /// Its configuration.
    pub config: String,
}

/// A plugin that has registered.
#[derive(Debug)]
pub struct Plugin {
    /// Two digits: when its turn is.
    pub index: String,
    /// Its name behind the index.
    pub base: String,
    events: i32,
    limit: Duration,
    wire: Wire,
}

impl Plugin {
    /// Waits on `socket` for a plugin to register, and configures it. What it asks from now on comes out of the queue.
    ///
    /// # Errors
    /// It does not register in time, its name or index is not valid, or it refuses its configuration.
    pub async fn register(
        socket: UnixStream,
        known: Option<Known>,
        terms: &Terms,
    ) -> Result<(Self, mpsc::Receiver<Asked>)> {
        let (wire, mut asked) = Wire::over(socket);
        let first = tokio::time::timeout(terms.registration, asked.recv()).await;
        let first = first.map_err(|_| Error::new(Kind::DeadlineExceeded, "plugin registration timed out"))?;
        let first =
            first.ok_or_else(|| Error::unavailable("failed to register plugin, connection closed"))?;
        let named =
            first.decode::<pb::RegisterPluginRequest>("RegisterPlugin").and_then(|request| match &known {
                // Its file names it, whatever it says itself.
                Some(known) => Ok((known.index.clone(), known.base.clone())),
                None => {
                    check_index(&request.plugin_idx)?;
                    check_name(&request.plugin_name)?;
                    Ok((request.plugin_idx, request.plugin_name))
                }
            });
        let (index, base) = match named {
            Ok(named) => named,
            Err(error) => {
                let answer = Error::new(error.kind(), error.text().to_owned());
                wire.answer(&first, Err(answer));
                return Err(error);
            }
        };
        wire.answer(&first, Ok(pb::Empty {}.encode_to_vec()));
        let millis = |limit: Duration| i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
        let request = pb::ConfigureRequest {
            config: known.map(|known| known.config).unwrap_or_default(),
            runtime_name: "containerd".into(),
            runtime_version: terms.version.into(),
            registration_timeout: millis(terms.registration),
            request_timeout: millis(terms.request),
            nri_version: VERSION.into(),
        };
        let reply: pb::ConfigureResponse =
            wire.call("Configure", terms.request, &request).await.map_err(|error| {
                Error::new(error.kind(), format!("failed to configure plugin {index}-{base}: {error}"))
            })?;
        let events = if reply.events == 0 { ALL_EVENTS } else { reply.events };
        if events & !ALL_EVENTS != 0 {
            return Err(Error::invalid(format!("invalid plugin events: {:#x}", events & !ALL_EVENTS)));
        }
        Ok((Self { index, base, events, limit: terms.request, wire }, asked))
    }

    /// `index-base`, as errors and owners name it.
    pub fn name(&self) -> String {
        format!("{}-{}", self.index, self.base)
    }

    /// Whether it wants to hear of `event`.
    pub fn hears(&self, event: Event) -> bool {
        self.events & (1 << (event as i32 - 1)) != 0
    }

    /// Whether it is gone.
    pub fn is_closed(&self) -> bool {
        self.wire.is_closed()
    }

    /// Ends it.
    pub fn close(&self) {
        self.wire.close();
    }

    /// Answers what it asked.
    pub fn answer(&self, asked: &Asked, outcome: Result<Vec<u8>>) {
        self.wire.answer(asked, outcome);
    }

    /// Calls `method` because of `event`; `None` when it does not want to hear of it. A plugin that does not answer in
    /// time, or answers nonsense, is closed, and the request goes on without it.
    ///
    /// # Errors
    /// It refuses.
    pub async fn ask<Req: Message, Rep: Message + Default>(
        &self,
        event: Event,
        method: &'static str,
        request: &Req,
    ) -> Result<Option<Rep>> {
        if !self.hears(event) || self.is_closed() {
            return Ok(None);
        }
        let outcome = self.wire.call(method, self.limit, request).await;
        self.judge(method, outcome)
    }

    /// The same for an event that older plugins take as a change of state.
    ///
    /// # Errors
    /// It refuses.
    pub async fn tell<Req: Message>(
        &self,
        event: Event,
        method: &'static str,
        request: &Req,
        old: impl FnOnce() -> pb::StateChangeEvent,
    ) -> Result<()> {
        if !self.hears(event) || self.is_closed() {
            return Ok(());
        }
        let outcome: Result<pb::Empty, CallError> = self.wire.call(method, self.limit, request).await;
        let outcome = match outcome {
            Err(CallError::Remote(error)) if error.kind() == Kind::Unimplemented => {
                let change = pb::StateChangeEvent { event: event as i32, ..old() };
                self.wire.call("StateChange", self.limit, &change).await
            }
            outcome => outcome,
        };
        self.judge::<pb::Empty>(method, outcome).map(drop)
    }

    fn judge<Rep>(&self, method: &str, outcome: Result<Rep, CallError>) -> Result<Option<Rep>> {
        match outcome {
            Ok(reply) => Ok(Some(reply)),
            Err(error) if error.is_fatal() => {
                tracing::error!(plugin = self.name(), method, %error, "an NRI plugin is dropped");
                self.close();
                Ok(None)
            }
            Err(error) => {
                Err(Error::new(error.kind(), format!("NRI plugin {:?}: {method}: {error}", self.name())))
            }
        }
    }

    /// Tells every pod and container that there is, in as many messages as it takes, and returns what it wants changed.
    ///
    /// # Errors
    /// It does not answer, refuses, or cannot take more than one message.
    pub async fn synchronize(
        &self,
        mut pods: Vec<pb::PodSandbox>,
        mut containers: Vec<pb::Container>,
    ) -> Result<Vec<pb::ContainerUpdate>> {
        let deadline = tokio::time::Instant::from_std(::spec::time::deadline(self.limit));
        let (mut some_pods, mut some_containers) = (pods.len(), containers.len());
        loop {
            let more = some_pods < pods.len() || some_containers < containers.len();
            let request = pb::SynchronizeRequest {
                pods: pods.iter().take(some_pods).cloned().collect(),
                containers: containers.iter().take(some_containers).cloned().collect(),
                more,
            };
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            let reply: Result<pb::SynchronizeResponse, _> =
                self.wire.call("Synchronize", left, &request).await;
            match reply {
                Ok(reply) if !more => return Ok(reply.update),
                Ok(reply) if reply.more && reply.update.is_empty() => {
                    pods.drain(..some_pods.min(pods.len()));
                    containers.drain(..some_containers.min(containers.len()));
                }
                Ok(_) => return Err(Error::unimplemented("plugin does not handle split sync requests")),
                Err(error)
                    if error.kind() == Kind::ResourceExhausted && some_pods + some_containers > FEWEST =>
                {
                    (some_pods, some_containers) = (some_pods.div_ceil(2), some_containers.div_ceil(2));
                }
                Err(error) => {
                    return Err(Error::new(error.kind(), format!("failed to synchronize: {error}")));
                }
            }
        }
    }
}

/// Whether `index` is two digits.
///
/// # Errors
/// It is not.
pub fn check_index(index: &str) -> Result<()> {
    match index.as_bytes() {
        [tens, ones] if tens.is_ascii_digit() && ones.is_ascii_digit() => Ok(()),
        _ => Err(Error::invalid(format!("invalid plugin index {index:?}, must be 2 digits"))),
    }
}

/// Whether `name` can be a plugin's.
///
/// # Errors
/// It cannot.
pub fn check_name(name: &str) -> Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(fine) {
        return Err(Error::invalid(format!("invalid plugin name {name:?}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
