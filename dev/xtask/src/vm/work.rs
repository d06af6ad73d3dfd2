//! The guest's second disk: the work tree, programs and test binaries at their own paths, and a script that runs them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tempfile::TempDir;
use testkit::place;

/// What the guest is to do.
pub enum Errand<'a> {
    /// Run tests of `packages`, as `args` tell nextest.
    Tests {
        /// Names of packages.
        packages: &'a [String],
        /// Arguments of `nextest run`.
        args: &'a [String],
    },
    /// Run a shell command in the work tree.
    Command(&'a str),
}

impl Errand<'_> {
    /// Whether it runs more programs than those of the packages under test, which nextest builds.
    fn needs_programs(&self) -> bool {
        match self {
            Self::Tests { packages, .. } => packages.iter().any(|package| package == "testkit"),
            Self::Command(_) => true,
        }
    }
}

/// A packed disk, removed with this value.
pub struct Work {
    dir: TempDir,
}

impl Work {
    /// The disk's image.
    pub fn image(&self) -> PathBuf {
        self.dir.path().join("work.img")
    }
}

/// Builds what `errand` needs and packs it.
pub fn pack(vm: &Path, errand: &Errand<'_>) -> anyhow::Result<Work> {
    fs::create_dir_all(vm)?;
    let dir = tempfile::Builder::new().prefix("work-").tempdir_in(vm)?;
    let stage = Stage { root: dir.path().join("disk") };
    fs::create_dir_all(stage.root.join("files"))?;
    println!("vm: building");
    let metadata =
        cargo(&["metadata", "--format-version=1", "--locked", "--filter-platform=x86_64-unknown-linux-gnu"])?;
    if errand.needs_programs() {
        cargo(&["build", "--quiet", "--workspace", "--bins"])?;
    }
    stage.tree()?;
    fs::write(stage.root.join("cargo.json"), &metadata)?;
    let line = match errand {
        Errand::Tests { packages, args } => stage.tests(packages, args)?,
        Errand::Command(command) => (*command).to_owned(),
    };
    stage.programs(&serde_json::from_slice(&metadata)?)?;
    fs::write(stage.root.join("run"), script(&line))?;
    let work = Work { dir };
    let image = work.image();
    let made = Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-O", "^has_journal", "-E", "lazy_itable_init=1", "-d"])
        .args([&stage.root, &image])
        .arg("4G")
        .stdout(Stdio::null())
        .status()
        .context("run mke2fs")?;
    ensure!(made.success(), "mke2fs failed");
    // The image has it all; hard links into the work tree should not outlive their need.
    fs::remove_dir_all(&stage.root)?;
    Ok(work)
}

/// The directory that becomes the disk: `files/ABSOLUTE/PATH`, `run`, `cargo.json`, `binaries.json`, `cargo-nextest`.
struct Stage {
    root: PathBuf,
}

impl Stage {
    fn at(&self, path: &Path) -> PathBuf {
        self.root.join("files").join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The work tree as git lists it.
    fn tree(&self) -> anyhow::Result<()> {
        let tree = place::workspace();
        let listed = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(&tree)
            .output();
        let listed = String::from_utf8(listed.context("run git")?.stdout)?;
        for name in listed.split_terminator('\0') {
            let path = tree.join(name);
            // A file that was deleted but not yet committed is still listed.
            if path.is_file() {
                self.bring(&path, |from, to| fs::copy(from, to).map(drop))?;
            }
        }
        fs::create_dir_all(self.at(&place::target()))?;
        Ok(())
    }

    /// The programs that people run: those of crates/, not those of dev/.
    fn programs(&self, metadata: &Value) -> anyhow::Result<()> {
        for package in array(&metadata["packages"]) {
            let manifest = package["manifest_path"].as_str().unwrap_or_default();
            if !Path::new(manifest).starts_with(place::workspace().join("crates")) {
                continue;
            }
            for target in array(&package["targets"]) {
                if array(&target["kind"]).iter().any(|kind| kind == "bin") {
                    let name = target["name"].as_str().context("a target without a name")?;
                    let path = place::target().join("debug").join(name);
                    if path.is_file() {
                        self.bring(&path, strip)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The test binaries; returns the command line that runs them.
    fn tests(&self, packages: &[String], args: &[String]) -> anyhow::Result<String> {
        let mut list = vec!["nextest", "list", "--list-type=binaries-only", "--message-format=json"];
        for package in packages {
            list.extend(["--package", package]);
        }
        let binaries = cargo(&list)?;
        let parsed: Value = serde_json::from_slice(&binaries).context("parse nextest's list")?;
        let found = parsed["rust-binaries"].as_object().context("nextest lists no binaries")?;
        for binary in found.values() {
            let path = binary["binary-path"].as_str().context("a test binary without a path")?;
            self.bring(Path::new(path), strip)?;
        }
        fs::write(self.root.join("binaries.json"), &binaries)?;
        let nextest = place::program("cargo-nextest").context("cargo-nextest is not on PATH")?;
        fs::copy(nextest, self.root.join("cargo-nextest"))?;
        let args: Vec<String> = args.iter().map(|arg| quoted(arg)).collect();
        Ok(format!(
            "/berth/cargo-nextest nextest run --profile vm --cargo-metadata /berth/cargo.json \
             --binaries-metadata /berth/binaries.json {}",
            args.join(" ")
        ))
    }

    fn bring(
        &self,
        path: &Path,
        how: impl FnOnce(&Path, &Path) -> std::io::Result<()>,
    ) -> anyhow::Result<()> {
        let to = self.at(path);
        fs::create_dir_all(to.parent().context("a file has a directory")?)?;
        how(path, &to).with_context(|| format!("bring {}", path.display()))
    }
}

/// Debug information is nine tenths of a binary, and no use to a guest.
fn strip(from: &Path, to: &Path) -> std::io::Result<()> {
    let stripped = Command::new("strip").args(["--strip-debug", "-o"]).args([to, from]).status();
    if stripped.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    fs::copy(from, to).map(drop)
}

/// Standard output of a cargo command in the work tree.
fn cargo(args: &[&str]) -> anyhow::Result<Vec<u8>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let done = Command::new(cargo)
        .args(args)
        .current_dir(place::workspace())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output();
    let done = done.with_context(|| format!("run cargo {}", args[0]))?;
    ensure!(done.status.success(), "cargo {} failed", args.join(" "));
    Ok(done.stdout)
}

/// What the guest runs from its second disk.
fn script(line: &str) -> String {
    let mut binds = String::new();
    for path in [place::workspace(), place::target()] {
        let path = quoted(&path.display().to_string());
        binds += &format!("mkdir -p {path} && mount --bind /berth/files{path} {path} || exit 1\n");
    }
    let no_skip = match std::env::var_os("BERTH_NO_SKIP") {
        Some(_) => "export BERTH_NO_SKIP=1\n",
        None => "",
    };
    let target = quoted(&place::target().display().to_string());
    let tree = quoted(&place::workspace().display().to_string());
    format!(
        "{binds}{no_skip}\
         export HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin CARGO_TARGET_DIR={target}\n\
         cd {tree} || exit 1\n\
         {line}\n\
         status=$?\n\
         [ -e {target}/skips.txt ] && {{ echo; echo skipped:; sort -u {target}/skips.txt; }}\n\
         exit $status\n"
    )
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}
