//! Image verifiers: programs of a directory that are asked, one after the other, before an image is fetched
//! (`io.containerd.image-verifier.v1.bindir`).
//!
//! Each is called with `-name`, `-digest` and `-stdin-media-type`, and has the descriptor on its standard input. One that
//! exits with 0 has no objection; its output is the reason.
//!
//! Invariant: an image that could not be judged is not pulled: only the directory's absence lets everything pass.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use async_trait::async_trait;
use image::Verifier;
use model::{Ctx, Error, Lane, Result};
use spec::{Descriptor, Kind};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// The media type of what a verifier reads.
const MEDIA_TYPE: &str = "application/vnd.oci.descriptor.v1+json";
/// How much of each output counts, and how much is read at all.
const MAX_OUTPUT: u64 = 32 << 10;

/// The verifiers of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Where they are.
    pub path: PathBuf,
    /// How many of them are asked, in order of their names; negative for all.
    pub most: i64,
    /// How long each may take.
    pub timeout: Duration,
}

#[async_trait]
impl Verifier for Directory {
    async fn verify(&self, ctx: &Ctx, name: &str, target: &Descriptor) -> Result<()> {
        let path = self.path.clone();
        let mut programs = ctx.blocking(Lane::Disk, move |_| programs(&path)).await?;
        if let Ok(most) = usize::try_from(self.most)
            && programs.len() > most
        {
            tracing::warn!(
                directory = %self.path.display(), programs = programs.len(), max_verifiers = most,
                "image verifiers beyond the first are not asked"
            );
            programs.truncate(most);
        }
        for program in programs {
            self.ask(&program, name, target).await.map_err(|error| {
                let of = format!("pull of {name} with digest {}", target.digest);
                error.context(format!("image verifier bindir blocked {of}"))
            })?;
        }
        Ok(())
    }
}

impl Directory {
    async fn ask(&self, program: &Path, name: &str, target: &Descriptor) -> Result<()> {
        let shown = program.file_name().unwrap_or_default().to_string_lossy();
        let input = serde_json::to_vec(target)
            .map_err(|error| Error::internal(format!("cannot write the descriptor: {error}")))?;
        let mut command = Command::new(program);
        command
            .args(["-name", name, "-digest", target.digest.as_str(), "-stdin-media-type", MEDIA_TYPE])
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // By the deadline too.
            .kill_on_drop(true);
        let run = tokio::time::timeout(self.timeout, run(command, &input)).await.map_err(|_| {
            Error::new(
                Kind::DeadlineExceeded,
                format!("verifier {shown} took longer than {:?}", self.timeout),
            )
        })?;
        let (status, output, errors) = run.map_err(|error| {
            Error::failed_precondition(format_args!("verifier {shown} does not run: {error}"))
        })?;
        if !errors.is_empty() {
            tracing::debug!(image_verifier = %shown, "{errors}");
        }
        if status.success() {
            tracing::debug!(image_verifier = %shown, image = name, "no objection: {output}");
            return Ok(());
        }
        let code = status.code().map_or_else(|| status.to_string(), |code| format!("exit code {code}"));
        let what = format!("verifier {shown} rejected image ({code}): {output}");
        Err(Error::new(Kind::PermissionDenied, what))
    }
}

/// The programs of the directory, by name; none when it is not there.
fn programs(dir: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error| Error::failed_precondition(format_args!("cannot read {}: {error}", dir.display()));
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let names: io::Result<Vec<OsString>> = entries.map(|entry| Ok(entry?.file_name())).collect();
    let mut names = names.map_err(failed)?;
    names.sort();
    Ok(names.into_iter().map(|name| dir.join(name)).collect())
}

/// Runs it to its end, with what counts of its outputs.
async fn run(mut command: Command, input: &[u8]) -> io::Result<(ExitStatus, String, String)> {
    let mut child = command.spawn()?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A verifier need not read what it is told.
            let _unread = stdin.write_all(input).await;
        }
    };
    let ((), output, errors) = tokio::join!(feed, read(stdout), read(stderr));
    Ok((child.wait().await?, output, errors))
}

/// What counts of an output; the rest is read and dropped, so that the program can end.
async fn read(output: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut output) = output else { return String::new() };
    let mut bytes = Vec::new();
    // What was read before an error is what there is.
    let _ended = (&mut output).take(MAX_OUTPUT).read_to_end(&mut bytes).await;
    let _rest = tokio::io::copy(&mut output, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn manifest() -> Descriptor {
        Descriptor::new(spec::media::MANIFEST, model::manifest::sha256(b"manifest"), 8)
    }

    async fn judge(scripts: &[(&str, &str)], most: i64) -> Result<()> {
        let dir = tempfile::tempdir().unwrap();
        for (name, script) in scripts {
            let path = dir.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let verifiers = Directory { path: dir.path().to_owned(), most, timeout: Duration::from_millis(1500) };
        let target = manifest();
        verifiers.verify(&Ctx::background(), "docker.io/library/x:1", &target).await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_first_objection_blocks_and_says_why() {
        let check = "grep -q '\"digest\":\"sha256:' && [ $2 = docker.io/library/x:1 ] && [ \"$6\" = application/vnd.oci.descriptor.v1+json ]";
        judge(&[("a", check), ("b", "yes | head -c 100000; exit 0")], 10).await.unwrap();
        let error = judge(&[("a", check), ("b", "echo unsigned; exit 3")], 10).await.unwrap_err();
        assert_eq!(error.kind(), Kind::PermissionDenied);
        let text = error.text();
        assert!(text.contains("blocked pull of docker.io/library/x:1 with digest sha256:"), "{text}");
        assert!(text.contains("verifier b rejected image (exit code 3): unsigned"), "{text}");
        judge(&[("a", check), ("b", "exit 3")], 1).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_cannot_judge_blocks_too() {
        let error = judge(&[("slow", "exec sleep 60")], -1).await.unwrap_err();
        assert_eq!(error.kind(), Kind::DeadlineExceeded);
        let dir = tempfile::tempdir().unwrap();
        let mut verifiers =
            Directory { path: dir.path().join("none"), most: 10, timeout: Duration::from_secs(5) };
        let target = manifest();
        verifiers.verify(&Ctx::background(), "x", &target).await.unwrap();
        verifiers.path = dir.path().to_owned();
        std::fs::write(dir.path().join("text"), "no program").unwrap();
        let error = verifiers.verify(&Ctx::background(), "x", &target).await.unwrap_err();
        assert!(error.text().contains("verifier text does not run"), "{error}");
    }
}
