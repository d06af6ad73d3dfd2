//! `berth-cni`: the standard CNI plugins as one program.

use std::process::ExitCode;

fn main() -> ExitCode {
    net::plugin::main()
}
