//! Bytes thrown at everything that reads what others wrote: `cargo run --release -p fuzz -- tar --seconds 60`.
//!
//! It needs no nightly compiler: inputs come from mutating seeds, and an input that leads to an outcome not seen
//! before (another error, another shape) joins the seeds. An input that panics, takes too long or breaks a target's
//! promise is kept under `target/fuzz/TARGET/` and ends the run with an error.

mod mutate;
mod targets;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

use mutate::Random;
use targets::{NAMES, Target};

/// An input may take so long, whatever it is.
const SLOW: Duration = Duration::from_secs(10);

/// Inputs that are kept for mutating.
const CORPUS: usize = 4000;

/// Longest input that is tried.
const LONGEST: usize = 1 << 20;

#[derive(Parser)]
#[command(name = "fuzz", about = "Throws bytes at one of our readers for a bounded time")]
struct Args {
    /// What to throw them at
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(NAMES))]
    target: String,
    /// How long
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Repeats the run of that number
    #[arg(long)]
    seed: Option<u64>,
    /// Tries this one input instead
    #[arg(long)]
    input: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let Some(mut target) = targets::open(&args.target) else { return ExitCode::FAILURE };
    if let Some(path) = args.input {
        return match std::fs::read(&path) {
            Ok(bytes) => {
                println!("{}", (target.run)(&bytes));
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("{}: {error}", path.display());
                ExitCode::FAILURE
            }
        };
    }
    let seed = args.seed.unwrap_or_else(mutate::seed);
    println!("{}: seed {seed}, {} s", args.target, args.seconds);
    match throw(&mut target, seed, Duration::from_secs(args.seconds), usize::MAX) {
        Ok(told) => {
            println!("{told}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            let path = keep(&args.target, &failure.input);
            eprintln!("{}\ninput kept in {}", failure.text, path.display());
            ExitCode::FAILURE
        }
    }
}

/// An input that a target did not stand.
#[derive(Debug)]
struct Failure {
    text: String,
    input: Vec<u8>,
}

/// Throws inputs for `limit` or `count` of them; tells how many there were and how many outcomes they had.
fn throw(target: &mut Target, seed: u64, limit: Duration, count: usize) -> Result<String, Failure> {
    let mut random = Random::new(seed);
    let mut corpus = (target.seeds)();
    let mut outcomes = BTreeSet::new();
    let began = Instant::now();
    let mut tried = 0;
    while tried < count && began.elapsed() < limit {
        let mut input =
            if tried < corpus.len() { corpus[tried].clone() } else { mutate::one(&mut random, &corpus) };
        input.truncate(LONGEST);
        (target.mend)(&mut random, &mut input);
        tried += 1;
        let start = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(&input)));
        let took = start.elapsed();
        let failed = |text: String| Failure { text, input: input.clone() };
        let Ok(outcome) = outcome else { return Err(failed("it panicked, or broke its promise".into())) };
        if took > SLOW {
            return Err(failed(format!("it took {took:?}")));
        }
        if corpus.len() < CORPUS && outcomes.insert(class(&outcome)) {
            corpus.push(input);
        }
    }
    Ok(format!("{tried} inputs, {} outcomes, in {:?}", outcomes.len(), began.elapsed()))
}

/// The plain words of an outcome: numbers and quoted parts differ from input to input.
fn class(outcome: &str) -> String {
    let plain = |word: &&str| word.trim_end_matches([':', ',', ';']).chars().all(|c| c.is_ascii_alphabetic());
    outcome.split_whitespace().filter(plain).take(16).collect::<Vec<_>>().join(" ")
}

fn keep(target: &str, input: &[u8]) -> PathBuf {
    let dir = testkit::place::target().join("fuzz").join(target);
    let path = dir.join(testkit::image::sha256(input).replace(':', "-"));
    let _ = std::fs::create_dir_all(dir);
    let _ = std::fs::write(&path, input);
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn stands(name: &str, count: usize) {
        let mut target = targets::open(name).expect("a target of that name");
        if let Err(failure) = throw(&mut target, 1, Duration::from_secs(20), count) {
            panic!("{}: {}", failure.text, String::from_utf8_lossy(&failure.input));
        }
    }

    #[test]
    fn filters_stand_a_thousand_inputs() {
        stands("filter", 1000);
    }

    #[test]
    fn manifests_stand_a_thousand_inputs() {
        stands("manifest", 1000);
    }

    #[test]
    fn hosts_stand_a_thousand_inputs() {
        stands("hosts", 1000);
    }

    #[test]
    fn layers_stand_two_hundred_inputs() {
        testkit::needs!(root);
        stands("tar", 200);
    }

    #[test]
    fn outcomes_that_differ_in_numbers_are_one() {
        assert_eq!(class("line 7: key \"a\" twice"), class("line 12: key \"b\" twice"));
    }
}
