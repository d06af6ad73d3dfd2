//! `runc spec`.

use runtime::template;
use spec::Result;

use super::{exactly, invalid, io_error};
use crate::args;
use crate::output;

/// Writes a first config.json; one that is there is left alone.
pub fn spec(args: &args::Spec) -> Result<u8> {
    exactly("spec", &args.args, 0)?;
    let directory = args.bundle.clone().filter(|path| !path.as_os_str().is_empty()).unwrap_or_default();
    let path = directory.join("config.json");
    let document = if args.rootless {
        template::rootless_example(rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
    } else {
        template::example()
    };
    let text = output::pretty(&document, "\t")?;
    match std::fs::File::options().write(true).create_new(true).open(&path) {
        Ok(mut file) => {
            std::io::Write::write_all(&mut file, &text).map_err(|error| io_error("write", &path, &error))?;
            Ok(0)
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(invalid("File config.json exists. Remove it first"))
        }
        Err(error) => Err(io_error("open", &path, &error)),
    }
}
