//! `containerd-shim-runc-v2`: the actions of a shim binary, and the process that serves.

use std::io::{self, Write as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;

use shim::args::{Action, Args};
use shim::bootstrap::Started;
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
        return report(bootstrap::info(&mut io::stdin().lock()));
    }
    if args.namespace.is_empty() {
        return fail(&"shim namespace cannot be empty");
    }
    match args.action {
        Action::Start => match bootstrap::start(&args, &mut io::stdin().lock()) {
            Ok(Started { reply, here: None, .. }) => report(Ok(reply)),
            Ok(Started { reply, here: Some(listener), events }) => {
                stay(&Args { events: Some(events), ..args }, reply, listener)
            }
            Err(error) => fail(&error.text()),
        },
        Action::Delete => report(bootstrap::delete(&args)),
        Action::Serve => serve(&args),
    }
}

fn serve(args: &Args) -> ExitCode {
    match serve::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.text()),
    }
}

/// Tells the daemon that this process will serve, takes on the standard files of one that does, and does.
fn stay(args: &Args, reply: Vec<u8>, listener: UnixListener) -> ExitCode {
    let path = listener.local_addr().ok().and_then(|name| name.as_pathname().map(Path::to_path_buf));
    let ready = tell(&reply).and_then(|()| serve::take_standard_files(listener));
    match ready {
        Ok(()) => serve(args),
        Err(error) => {
            // Nobody knows of it, or could reach it.
            if let Some(path) = path {
                let _ = std::fs::remove_file(path);
            }
            fail(&error)
        }
    }
}

/// Writes an action's reply, which the daemon reads to its end, or its error.
fn report(result: spec::error::Result<Vec<u8>>) -> ExitCode {
    match result {
        Ok(reply) => match tell(&reply) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        },
        Err(error) => fail(&error.text()),
    }
}

fn tell(reply: &[u8]) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(reply)?;
    output.flush()
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    shim::log::plain(format_args!("containerd-shim-runc-v2: {error}"));
    ExitCode::FAILURE
}
