//! What the processes of a container have open.

use std::fs;

/// How many descriptors there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Open {
    /// Of anything.
    pub all: u64,
    /// Of sockets.
    pub sockets: u64,
}

/// Counts the descriptors of `pids`; a process that is gone has none.
pub(super) fn count(pids: &[u32]) -> Open {
    let mut open = Open::default();
    for descriptor in pids.iter().filter_map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).ok()).flatten() {
        open.all += 1;
        // One that was closed meanwhile leads nowhere.
        let target = descriptor.and_then(|descriptor| fs::read_link(descriptor.path()));
        if target.is_ok_and(|target| target.as_os_str().as_encoded_bytes().starts_with(b"socket:")) {
            open.sockets += 1;
        }
    }
    open
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;

    #[test]
    fn sockets_are_counted_apart() {
        // Two that differ in one descriptor: whatever else they inherit from the runner of this test is the same.
        let sleeper = |stdout: Stdio| Command::new("sleep").arg("60").stdout(stdout).spawn().unwrap();
        let (_ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut sleepers = [sleeper(Stdio::null()), sleeper(OwnedFd::from(theirs).into())];
        // Until they sleep they have libraries open.
        let settled = testkit::wait::within(Duration::from_secs(20), || {
            let [plain, socket] = [&sleepers[0], &sleepers[1]].map(|one| count(&[one.id()]));
            let apart = socket == Open { sockets: plain.sockets + 1, ..plain };
            (plain.all >= 3 && apart).then_some(())
        });
        for one in &mut sleepers {
            one.kill().unwrap();
            one.wait().unwrap();
        }
        assert!(settled.is_some());
        assert_eq!(count(&[sleepers[0].id()]), Open::default(), "who is gone has none");
    }
}
