//! Man pages, completions and docs/ctr.md, all from the command line's own definition, so that none can drift.
//!
//! ```text
//! cargo run -p pages -- DIR      DIR/man/man1/*.1, DIR/bash-completion/..., DIR/zsh/..., DIR/fish/...
//! cargo run -p pages -- --docs   docs/ctr.md
//! ```

mod reference;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser};
use clap_complete::Shell;
use cli::ctr::Ctr;

#[derive(Parser)]
#[command(name = "pages", about = "Writes man pages, completions and docs/ctr.md")]
struct Args {
    /// Where man pages and completions go, such as target/dist/share
    dir: Option<PathBuf>,
    /// Write docs/ctr.md
    #[arg(long)]
    docs: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if args.docs {
        let path = reference::path();
        fs::write(&path, reference::text()).with_context(|| path.display().to_string())?;
        println!("{}", path.display());
    }
    if let Some(dir) = args.dir {
        manual(&dir.join("man/man1"))?;
        for (shell, place, name) in [
            (Shell::Bash, "bash-completion/completions", "ctr"),
            (Shell::Zsh, "zsh/site-functions", "_ctr"),
            (Shell::Fish, "fish/vendor_completions.d", "ctr.fish"),
        ] {
            let place = dir.join(place);
            fs::create_dir_all(&place).with_context(|| place.display().to_string())?;
            let mut file = File::create(place.join(name))?;
            clap_complete::generate(shell, &mut Ctr::command(), "ctr", &mut file);
        }
        println!("{}", dir.display());
    }
    Ok(())
}

/// One page for each command, as git has them: ctr.1, ctr-images.1, ctr-images-pull.1.
fn manual(dir: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    clap_mangen::generate_to(Ctr::command(), dir).context("write man pages")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_every_shell_its_words() {
        let dir = testkit::place::temp();
        manual(dir.path()).unwrap();
        for page in ["ctr.1", "ctr-images-pull.1", "ctr-tasks-exec.1"] {
            assert!(dir.path().join(page).is_file(), "{page}");
        }
    }

    #[test]
    fn the_reference_in_docs_is_the_current_one() {
        let kept = fs::read_to_string(reference::path()).unwrap_or_default();
        assert!(kept == reference::text(), "docs/ctr.md is old: `make docs`");
    }
}
