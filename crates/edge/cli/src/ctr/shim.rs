//! `ctr shim`: speaks to a shim without the daemon.

use std::path::PathBuf;
use std::time::Duration;

use api::Message;
use api::containerd::task::v3 as wire;
use clap::Subcommand;
use serde_json::json;

use super::Global;
use crate::failure::{Failure, OrFail, Result};
use crate::stdio::{self, Names};
use crate::ui::{self, quantity};

/// How long a shim may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The group: which shim, and its commands.
#[derive(clap::Args, Debug)]
pub struct Shim {
    /// Shim ID
    #[arg(long)]
    id: Option<String>,
    /// Shim address (default: computed from shim ID)
    #[arg(long)]
    shim_address: Option<String>,
    #[command(subcommand)]
    command: Command,
}

/// The group's commands.
#[derive(Subcommand, Debug)]
enum Command {
    /// Delete a container with a task
    Delete,
    /// Exec a new process in the task's container
    Exec(Exec),
    /// Shutdown shim if there is no active container
    Shutdown {
        /// Shim API version {2,3}
        #[arg(long, default_value_t = 3)]
        api_version: u8,
    },
    /// Start a container with a task
    Start,
    /// Get the state of all main process of the task
    State {
        /// Task ID
        #[arg(long, short)]
        task_id: Option<String>,
        /// Shim API version {2,3}
        #[arg(long, default_value_t = 3)]
        api_version: u8,
    },
}

/// Flags of `exec`.
#[derive(clap::Args, Debug)]
struct Exec {
    /// Specify the path to the stdin fifo
    #[arg(long, default_value = "")]
    stdin: String,
    /// Specify the path to the stdout fifo
    #[arg(long, default_value = "")]
    stdout: String,
    /// Specify the path to the stderr fifo
    #[arg(long, default_value = "")]
    stderr: String,
    /// Enable tty support
    #[arg(long, short)]
    tty: bool,
    /// Stay attached to the container and open the fifos
    #[arg(long, short)]
    attach: bool,
    /// Add environment vars
    #[arg(long = "env", short)]
    envs: Vec<String>,
    /// Current working directory
    #[arg(long, default_value = "/")]
    cwd: String,
    /// Runtime spec
    #[arg(long)]
    spec: Option<PathBuf>,
    /// The id of the new process
    exec_id: String,
    /// The command
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// A connection to one shim, in one version of the task interface.
struct Connection {
    client: shim::ttrpc::Client,
    version: u8,
}

impl Connection {
    fn call<Request: Message, Reply: Message + Default>(
        &mut self,
        method: &str,
        request: &Request,
    ) -> Result<Reply> {
        let service = format!("containerd.task.v{}.Task", self.version);
        Ok(self.client.call(&service, method, request).map_err(spec::Error::from)?)
    }
}

impl Shim {
    /// Runs the command.
    pub async fn run(self, global: &Global) -> Result {
        let version = match &self.command {
            Command::Shutdown { api_version } | Command::State { api_version, .. } => *api_version,
            Command::Delete | Command::Exec(_) | Command::Start => 3,
        };
        if !matches!(version, 2 | 3) {
            return Err(Failure::new(format!("--api-version {version}: 2 or 3")));
        }
        let id = self.id.clone().unwrap_or_default();
        let address = self.address(global, &id)?;
        let client =
            shim::ttrpc::Client::connect(&address, &global.namespace, TIMEOUT).map_err(spec::Error::from)?;
        let mut shim = Connection { client, version };
        match self.command {
            Command::Delete => {
                let reply: wire::DeleteResponse =
                    shim.call("Delete", &wire::DeleteRequest { id, ..Default::default() })?;
                Ok(ui::line(format!("container deleted and returned exit status {}", reply.exit_status))?)
            }
            Command::Exec(exec) => exec.run(&mut shim, &id).await,
            Command::Shutdown { .. } => {
                shim.call::<_, ()>("Shutdown", &wire::ShutdownRequest { id, now: false })
            }
            Command::Start => {
                let _started: wire::StartResponse =
                    shim.call("Start", &wire::StartRequest { id, ..Default::default() })?;
                Ok(())
            }
            Command::State { task_id, .. } => state(&mut shim, task_id.unwrap_or(id)),
        }
    }

    /// What `--shim-address` says, else what the shim's bundle says.
    fn address(&self, global: &Global, id: &str) -> Result<PathBuf> {
        if let Some(address) = &self.shim_address {
            return Ok(PathBuf::from(address.trim_start_matches("unix://")));
        }
        spec::name::check_identifier(id)
            .map_err(spec::Error::from)
            .or_fail("--id or --shim-address is needed")?;
        spec::name::check_identifier(&global.namespace).map_err(spec::Error::from)?;
        let state = global.address.parent().unwrap_or(std::path::Path::new("/run/containerd"));
        let bundle = state.join("io.containerd.runtime.v2.task").join(&global.namespace).join(id);
        if let Ok(text) = std::fs::read_to_string(bundle.join("bootstrap.json")) {
            let bootstrap: serde_json::Value = serde_json::from_str(&text)?;
            if let Some(address) = bootstrap["address"].as_str() {
                return Ok(PathBuf::from(address.trim_start_matches("unix://")));
            }
        }
        let text = std::fs::read_to_string(bundle.join("address"))
            .or_fail(format!("no shim has its bundle at {}", bundle.display()))?;
        Ok(PathBuf::from(text.trim().trim_start_matches("unix://")))
    }
}

fn state(shim: &mut Connection, id: String) -> Result {
    let state: wire::StateResponse = shim.call("State", &wire::StateRequest { id, ..Default::default() })?;
    let status = state.status();
    Ok(ui::json::print(&json!({
        "id": state.id,
        "bundle": state.bundle,
        "pid": state.pid,
        "status": super::tasks::status_word(status),
        "stdin": state.stdin,
        "stdout": state.stdout,
        "stderr": state.stderr,
        "terminal": state.terminal,
        "exit_status": state.exit_status,
        "exited_at": quantity::rfc3339(state.exited_at),
        "exec_id": state.exec_id,
    }))?)
}

impl Exec {
    async fn run(self, shim: &mut Connection, id: &str) -> Result {
        let process = match &self.spec {
            Some(file) => {
                let text = std::fs::read(file).or_fail(format!("cannot read {}", file.display()))?;
                spec::runtime::Process::from_slice(&text)?
            }
            None => spec::runtime::Process {
                args: self.command.clone(),
                cwd: self.cwd.clone(),
                env: self.envs.clone(),
                terminal: self.tty,
                no_new_privileges: true,
                ..Default::default()
            },
        };
        let names =
            Names { stdin: self.stdin.clone(), stdout: self.stdout.clone(), stderr: self.stderr.clone() };
        let copies = if self.attach { Some(stdio::copy(&names)?) } else { None };
        let request = wire::ExecProcessRequest {
            id: id.into(),
            exec_id: self.exec_id.clone(),
            terminal: self.tty,
            stdin: self.stdin,
            stdout: self.stdout,
            stderr: self.stderr,
            spec: Some(api::Any {
                type_url: super::tasks::PROCESS_TYPE.into(),
                value: serde_json::to_vec(&process)?,
            }),
        };
        shim.call::<_, ()>("Exec", &request)?;
        let request = wire::StartRequest { id: id.into(), exec_id: self.exec_id };
        let started: wire::StartResponse = shim.call("Start", &request)?;
        ui::line(format!("exec running with pid {}", started.pid))?;
        if let Some(copies) = copies {
            copies.finish().await;
        }
        Ok(())
    }
}
