//! The program `containerd`.

use std::process::ExitCode;

fn main() -> ExitCode {
    daemon::cli::main()
}
