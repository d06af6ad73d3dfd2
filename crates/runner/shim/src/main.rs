//! `containerd-shim-runc-v2`: the actions of a shim binary, and the process that serves.

use std::process::ExitCode;

use shim::args::{Action, Args};
use shim::{bootstrap, serve};

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(error) => return fail(&error),
    };
    if args.version {
        return report(bootstrap::version());
    }
    if args.info {
        return report(bootstrap::info(&mut std::io::stdin().lock()));
    }
    if args.namespace.is_empty() {
        return fail(&"shim namespace cannot be empty");
    }
    match args.action {
        Action::Start => report(bootstrap::start(&args, &mut std::io::stdin().lock())),
        Action::Delete => report(bootstrap::delete(&args)),
        Action::Serve => match serve::run(&args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error.text()),
        },
    }
}

/// Writes an action's reply, which the daemon reads to its end, or its error.
fn report(result: spec::error::Result<Vec<u8>>) -> ExitCode {
    use std::io::Write;
    match result {
        Ok(reply) => match std::io::stdout().lock().write_all(&reply) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        },
        Err(error) => fail(&error.text()),
    }
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    shim::log::plain(format_args!("containerd-shim-runc-v2: {error}"));
    ExitCode::FAILURE
}
