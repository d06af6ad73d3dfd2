//! `ctr`, containerd's client.

use std::process::ExitCode;

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            cli::ui::say(format!("ctr: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(cli::ctr::main(std::env::args_os()));
    // Reads of standard input cannot be interrupted; the process ends with its work, not with its input.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let text = failure.to_string();
            if !text.is_empty() {
                cli::ui::say(format!("ctr: {text}"));
            }
            ExitCode::from(failure.code())
        }
    }
}
