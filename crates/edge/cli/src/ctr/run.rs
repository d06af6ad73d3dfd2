//! `ctr run`.

use std::path::PathBuf;

use super::tasks::{NewTask, new_task};
use crate::client::Client;
use crate::container::create::{self, Create};
use crate::container::flags::{ContainerFlags, RunFlags};
use crate::container::network;
use crate::failure::{Failure, OrFail, Result};
use crate::process::{Process, Wiring, WiringFlags};
use crate::stdio::RawTerminal;

/// Flags of `run`.
#[derive(clap::Args, Debug)]
pub struct Run {
    /// Remove the container after running, cannot be used with --detach
    #[arg(long)]
    rm: bool,
    /// Detach from the task after it has started execution, cannot be used with --rm
    #[arg(long, short)]
    detach: bool,
    /// Dump the generated OCI config to a file
    #[arg(long, value_name = "FILE")]
    dump_config: Option<PathBuf>,
    #[command(flatten)]
    wiring: WiringFlags,
    #[command(flatten)]
    flags: ContainerFlags,
    #[command(flatten)]
    run: RunFlags,
    /// Image or root file system; the container's id with --config
    #[arg(value_name = "IMAGE|ROOTFS")]
    image: String,
    /// The new container's id
    id: Option<String>,
    /// The command
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Run {
    /// Makes a container and its task, starts it, and stays with it unless detached.
    pub async fn run(self, client: &Client) -> Result {
        if self.rm && self.detach {
            return Err(Failure::new("flags --detach and --rm cannot be specified together"));
        }
        let id = match (&self.flags.config, &self.id) {
            (Some(_), None) => self.image.clone(),
            (Some(_), Some(_)) => {
                return Err(Failure::new("with spec config file, only container id should be provided"));
            }
            (None, Some(id)) => id.clone(),
            (None, None) => return Err(Failure::new("container id must be provided")),
        };
        let create = Create {
            flags: &self.flags,
            run: &self.run,
            image: &self.image,
            id: &id,
            command: &self.command,
        };
        let created = create.make(client).await?;
        // The record holds the snapshot now; ending the lease needs no waiting for.
        let (result, released) = tokio::join!(self.run_task(client, &id, &created), created.release(client));
        if self.rm {
            match (create::delete_made(client, &created.container).await, &result) {
                (Err(failure), Ok(_)) => return Err(failure.context("failed to cleanup container")),
                (Err(failure), Err(_)) => {
                    crate::ui::say(format!("ctr: failed to cleanup container: {failure}"))
                }
                (Ok(()), _) => {}
            }
        }
        let code = result?;
        released?;
        match code {
            0 => Ok(()),
            code => Err(Failure::exit(code)),
        }
    }

    /// Runs the task to its end, or to its start when detached; gives its exit status.
    async fn run_task(&self, client: &Client, id: &str, created: &create::Created) -> Result<u32> {
        if let Some(file) = &self.dump_config {
            let text = serde_json::to_vec_pretty(&created.spec)?;
            std::fs::write(file, text).or_fail(format!("cannot write {}", file.display()))?;
        }
        let terminal = created.spec.process.as_ref().is_some_and(|process| process.terminal);
        let _raw = if terminal && !self.detach { Some(RawTerminal::enter()?) } else { None };
        let wiring = Wiring::choose(&self.wiring, id, terminal)?;
        let copies = if self.detach { None } else { wiring.copy()? };
        let _held = if self.detach { wiring.hold()? } else { vec![] };
        let task = NewTask {
            id,
            rootfs: created.rootfs.clone(),
            names: wiring.names(),
            terminal,
            no_pivot: self.flags.no_pivot,
            runtime: created.container.runtime.as_ref(),
        };
        let pid = match new_task(client, task).await {
            Ok(pid) => pid,
            Err(failure) if failure.is_already_exists() => {
                // The id is that of a task without a container, which another engine left: no record stays beside it.
                if let Err(left) = create::delete_made(client, &created.container).await {
                    crate::ui::say(format!("ctr: failed to cleanup container: {left}"));
                }
                return Err(failure.hint(format!("`ctr task rm -f {id}` ends the task that has this id")));
            }
            Err(failure) => return Err(failure),
        };
        let process = Process { client, id, exec_id: "" };
        let outcome = self.start_and_follow(&process, pid, terminal, copies.is_some()).await;
        let stays = self.detach && outcome.is_ok();
        if self.run.cni && !stays {
            // What the outcome was stays the thing to tell.
            if let Err(failure) = network::detach(client, id).await {
                crate::ui::say(format!("ctr: {failure}"));
            }
        }
        if self.detach && outcome.is_ok() {
            wiring.keep();
            return Ok(0);
        }
        if outcome.is_err() {
            // The task did not start, or we lost it: it goes, whatever it is doing.
            super::tasks::kill_and_delete(client, id).await;
            return outcome;
        }
        if let Some(copies) = copies {
            copies.finish().await;
        }
        super::tasks::delete_own(client, id).await?;
        outcome
    }

    async fn start_and_follow(
        &self,
        process: &Process<'_>,
        pid: u32,
        terminal: bool,
        attached: bool,
    ) -> Result<u32> {
        if let Some(file) = &self.flags.pid_file {
            super::tasks::write_pid_file(file, pid)?;
        }
        if self.run.cni {
            network::attach(process.client, process.id, pid).await?;
        }
        if self.detach {
            process.start().await?;
            return Ok(0);
        }
        // The wait is asked for before the start, so that a process that ends at once is not missed.
        let end = async {
            let (_pid, status) = tokio::try_join!(process.start(), process.wait())?;
            Ok(status)
        };
        process.follow(terminal, attached, end).await?
    }
}
