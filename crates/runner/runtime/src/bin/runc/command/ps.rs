//! `runc ps`.

use spec::Result;

use super::{first_id, invalid, load};
use crate::args::{self, Global};
use crate::output;

/// Prints the processes of a container: their pids, or ps's lines about them.
pub fn ps(global: &Global, args: &args::Ps) -> Result<u8> {
    let container = load(global, first_id("ps", &args.args)?)?;
    let pids = container.processes()?;
    match args.format.as_str() {
        "json" => output::json_line(&Some(&pids).filter(|pids| !pids.is_empty()))?,
        "table" => output::bytes(table(&pids, &args.args[1..])?.as_bytes())?,
        _ => return Err(invalid("invalid format option")),
    }
    Ok(0)
}

fn table(pids: &[i32], options: &[String]) -> Result<String> {
    let default = [String::from("-ef")];
    let options = if options.is_empty() { &default[..] } else { options };
    let run = std::process::Command::new("ps").args(options).output();
    let output = run.map_err(|error| invalid(format!("exec ps: {}", crate::log::words(&error))))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(invalid(format!("{}: {text}{said}", output.status)));
    }
    select(&text, pids).ok_or_else(|| invalid("couldn't find PID field in ps output"))
}

/// The title and the lines whose PID column holds one of `pids`.
fn select(text: &str, pids: &[i32]) -> Option<String> {
    let mut lines = text.lines();
    let title = lines.next()?;
    let column = title.split_whitespace().position(|word| word == "PID")?;
    let wanted = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|word| word.parse().ok());
        pid.is_some_and(|pid: i32| pids.contains(&pid))
    };
    Some(std::iter::once(title).chain(lines.filter(wanted)).map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_chosen_by_the_pid_column() {
        let text = "UID PID PPID CMD\nroot 7 1 sleep 8\nroot 8 7 sh\n";
        assert_eq!(select(text, &[7]).unwrap(), "UID PID PPID CMD\nroot 7 1 sleep 8\n");
        assert_eq!(select("UID CMD\n", &[7]), None);
    }
}
