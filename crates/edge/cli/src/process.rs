//! A process of a task, from the client that started it: wait, signals, window size, end of input.

use api::containerd::services::tasks::v1 as wire;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::failure::{Failure, Result};
use crate::stdio::{self, Copies, Fifos, Names, RawTerminal};

/// How many signals wait to be forwarded.
const FORWARDED: usize = 64;
/// Signals that stay ours: of faults of this process, that nobody can catch, of its pipes and children, of its sockets,
/// and of its threads.
const NOT_FORWARDED: [i32; 11] = [4, 7, 8, 9, 11, 13, 17, 19, 23, 32, 33];

/// A process: the task's first when `exec_id` is empty.
#[derive(Clone, Debug)]
pub struct Process<'a> {
    /// The daemon.
    pub client: &'a Client,
    /// The container.
    pub id: &'a str,
    /// The exec, or nothing.
    pub exec_id: &'a str,
}

/// How a process's streams are wired.
#[derive(Debug)]
pub enum Wiring {
    /// To our own, through FIFOs.
    Attached(Fifos),
    /// Elsewhere: to a logger, or nowhere.
    Elsewhere(Names),
}

impl Wiring {
    /// What the daemon is told.
    pub fn names(&self) -> &Names {
        match self {
            Self::Attached(fifos) => &fifos.names,
            Self::Elsewhere(names) => names,
        }
    }

    /// Decides by the flags that every command with a process has.
    pub fn choose(flags: &WiringFlags, id: &str, terminal: bool) -> Result<Self> {
        match (&flags.log_uri, flags.null_io) {
            (Some(_), _) if terminal => Err(Failure::new("can't use log-uri with tty")),
            (Some(_), _) if flags.fifo_dir.is_some() => Err(Failure::new("can't use log-uri with fifo-dir")),
            (Some(uri), _) => Ok(Self::Elsewhere(Names::logger(uri))),
            (None, true) if terminal => Err(Failure::new("tty and null-io cannot be used together")),
            (None, true) => Ok(Self::Elsewhere(Names::default())),
            (None, false) => Ok(Self::Attached(Fifos::create(flags.fifo_dir.as_deref(), id, terminal)?)),
        }
    }

    /// Starts to copy, unless the streams go elsewhere.
    pub fn copy(&self) -> Result<Option<Copies>> {
        match self {
            Self::Attached(fifos) => fifos.copy().map(Some),
            Self::Elsewhere(_) => Ok(None),
        }
    }

    /// Holds the FIFOs open while a process starts that nobody attaches to: a shim may wait for its reader.
    pub fn hold(&self) -> Result<Vec<std::fs::File>> {
        match self {
            Self::Attached(fifos) => fifos.hold(),
            Self::Elsewhere(_) => Ok(vec![]),
        }
    }

    /// Leaves the streams in place for a process that goes on without us.
    pub fn keep(self) {
        if let Self::Attached(fifos) = self {
            fifos.keep();
        }
    }
}

/// Flags that say where streams go.
#[derive(clap::Args, Debug, Clone, Default)]
pub struct WiringFlags {
    /// Send all IO to /dev/null
    #[arg(long)]
    pub null_io: bool,
    /// Log uri
    #[arg(long)]
    pub log_uri: Option<String>,
    /// Directory used for storing IO FIFOs
    #[arg(long)]
    pub fifo_dir: Option<std::path::PathBuf>,
}

impl Process<'_> {
    /// Starts it.
    pub async fn start(&self) -> Result<u32> {
        let request = wire::StartRequest { container_id: self.id.into(), exec_id: self.exec_id.into() };
        Ok(self.client.tasks().start(request).await?.into_inner().pid)
    }

    /// Waits for its end; the daemon may be restarted meanwhile.
    pub async fn wait(&self) -> Result<u32> {
        let mut attempts = 0;
        loop {
            let request = wire::WaitRequest { container_id: self.id.into(), exec_id: self.exec_id.into() };
            match self.client.tasks().wait(request).await {
                Ok(response) => return Ok(response.into_inner().exit_status),
                Err(status) if is_disconnect(&status) && attempts < 50 => {
                    attempts += 1;
                    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                }
                Err(status) => return Err(status.into()),
            }
        }
    }

    /// Sends it a signal.
    pub async fn kill(&self, signal: u32, all: bool) -> Result {
        let request =
            wire::KillRequest { container_id: self.id.into(), exec_id: self.exec_id.into(), signal, all };
        self.client.tasks().kill(request).await?;
        Ok(())
    }

    /// Does what an attached client does while `end` has not come: passes signals or the window's size on, and the end
    /// of input.
    pub async fn follow<T>(&self, terminal: bool, attached: bool, end: impl Future<Output = T>) -> Result<T> {
        let signals =
            async { if terminal { self.follow_window().await } else { self.forward_signals().await } };
        let input = async {
            if attached {
                stdio::input_ended().await;
                self.close_input().await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! { // the side tasks hold nothing that matters once the process has ended
            result = end => Ok(result),
            result = signals => Err(result.err().unwrap_or_else(|| Failure::new("signals ended"))),
            () = input => Err(Failure::new("input ended")),
        }
    }

    async fn close_input(&self) {
        let request =
            wire::CloseIoRequest { container_id: self.id.into(), exec_id: self.exec_id.into(), stdin: true };
        // The process may have ended with its input.
        let _ended = self.client.tasks().close_io(request).await;
    }

    async fn follow_window(&self) -> Result {
        let mut changes = signal(SignalKind::window_change())?;
        loop {
            let (width, height) = RawTerminal::size();
            let request = wire::ResizePtyRequest {
                container_id: self.id.into(),
                exec_id: self.exec_id.into(),
                width,
                height,
            };
            // Before the start and after the end there is nothing to resize.
            let _early_or_late = self.client.tasks().resize_pty(request).await;
            changes.recv().await;
        }
    }

    async fn forward_signals(&self) -> Result {
        // What is followed is asked for first: this takes a moment, in which it is on its way.
        tokio::task::yield_now().await;
        let (tell, mut told) = mpsc::channel(FORWARDED);
        // They end with this set, when nobody forwards any more.
        let mut listeners = JoinSet::new();
        for number in (1..=64).filter(|number| !NOT_FORWARDED.contains(number)) {
            let mut arrivals = signal(SignalKind::from_raw(number))?;
            let tell = tell.clone();
            listeners.spawn(async move {
                while arrivals.recv().await.is_some() {
                    if tell.send(number.unsigned_abs()).await.is_err() {
                        return;
                    }
                }
            });
        }
        drop(tell);
        while let Some(number) = told.recv().await {
            match self.kill(number, false).await {
                Err(failure) if !failure.is_not_found() => {
                    crate::ui::say(format!("ctr: forward signal {number}: {failure}"))
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether the connection, and not the call, failed.
fn is_disconnect(status: &tonic::Status) -> bool {
    matches!(status.code(), tonic::Code::Unavailable | tonic::Code::Unknown)
        && (status.message().contains("transport") || status.message().contains("connect"))
}

/// Reads `TERM`, `SIGTERM`, `sigterm` or `15`.
pub fn parse_signal(text: &str) -> Result<u32> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    if let Ok(number) = text.parse::<u32>()
        && (1..=64).contains(&number)
    {
        return Ok(number);
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |base: u32, rest: &str| rest.parse::<u32>().ok().map(|n| base.wrapping_add(n));
    let number = match name {
        "CLD" => Some(17),
        "POLL" => Some(29),
        "IOT" => Some(6),
        "RTMIN" => Some(34),
        "RTMAX" => Some(64),
        _ if name.starts_with("RTMIN+") => real_time(34, &name[6..]),
        _ if name.starts_with("RTMAX-") => name[6..].parse::<u32>().ok().and_then(|n| 64_u32.checked_sub(n)),
        _ => NAMES.iter().position(|known| *known == name).and_then(|at| u32::try_from(at + 1).ok()),
    };
    number
        .filter(|number| (1..=64).contains(number))
        .ok_or_else(|| Failure::new(format!("unknown signal {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in
            [("TERM", 15), ("SIGQUIT", 3), ("sigkill", 9), ("9", 9), ("RTMIN+3", 37), ("SIGRTMAX-1", 63)]
        {
            assert_eq!(parse_signal(text).unwrap(), number, "{text}");
        }
        for text in ["", "0", "65", "NOPE", "RTMIN+99", "-1"] {
            assert!(parse_signal(text).is_err(), "{text}");
        }
    }
}
