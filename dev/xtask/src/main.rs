//! The project's own tasks, run as `cargo xtask TASK`; the Makefile gives the usual ones short names.
//!
//! A task is a module with one `run`; it prints what it does and fails with a text that says what to change.

mod bench;
mod demo;
mod kubelet;
mod soak;
mod tidy;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own tasks")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Checks what the compiler cannot: the table of crates, names, docs, words that do not belong in code
    Tidy,
    /// Starts a registry and the daemon, pulls an image, runs a container, shows each command
    Demo,
    /// Starts a kubelet over the daemon and a static pod, shows what becomes of it
    Kubelet(kubelet::Args),
    /// Measures our daemon beside Debian's containerd and prints a table
    Bench(bench::Args),
    /// Repeats the life of a container and fails when anything is left behind
    Soak(soak::Args),
    /// Runs tests in an emulated machine that has nothing but cgroup v2, and systemd
    Vm(vm::Args),
}

fn main() -> ExitCode {
    let done = match Args::parse().task {
        Task::Tidy => tidy::run(),
        Task::Demo => demo::run(),
        Task::Kubelet(args) => kubelet::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Soak(args) => soak::run(&args),
        Task::Vm(args) => vm::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
