//! The big real image: pulled by our daemon and by Debian's, the two trees are the same to the byte.

use std::path::Path;
use std::time::Duration;

use testkit::command::Run;
use testkit::daemon::Daemon;
use testkit::registry::Registry;
use testkit::{debian, need, needs};

const LIMIT: Duration = Duration::from_secs(240);

/// Everything that a layer can say about a tree: names, types, modes, owners, sizes, links, times, content.
fn listing(root: &Path) -> String {
    let format = "%P|%y|%m|%U|%G|%s|%n|%l|%T@\\n";
    // A directory's size and link count are the file system's own.
    let script = format!(
        "cd {0} && find . -mindepth 1 ! -type d -printf '{format}' -o -mindepth 1 -printf '%P|%y|%m|%U|%G|%T@\\n' | LC_ALL=C sort; \
         find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum",
        root.display()
    );
    Run::new("sh").args(["-c", &script]).limit(LIMIT).ok()
}

#[test]
fn it_unpacks_as_gos_daemon_unpacks_it() {
    needs!(root, overlayfs, program "docker-registry", program "containerd", built "containerd", built "ctr");
    if need::lacks(debian::available()) {
        return;
    }
    let image = debian::image();
    let registry = Registry::start();
    let reference = registry.push("debian", "big", &image);
    let (ours, theirs) = (Daemon::start(), Daemon::debian().start());
    ours.ctr("image pull --plain-http").args([&reference]).limit(LIMIT).ok();
    theirs.go_ctr("image pull --plain-http").args([&reference]).limit(LIMIT).ok();
    let mut lists = Vec::new();
    for (daemon, mount) in [(&ours, ours.ctr("image mount")), (&theirs, theirs.go_ctr("image mount"))] {
        let target = daemon.dir().join("mnt");
        std::fs::create_dir(&target).unwrap();
        mount.args([&reference, target.to_str().unwrap()]).ok();
        lists.push(listing(&target));
        for (name, value) in [("user.berth", &b"yes"[..]), ("user.binary", b"\0\xff=\n")] {
            let mut buffer = [0; 16];
            let count = rustix::fs::getxattr(target.join("srv/odd/tagged"), name, &mut buffer[..]).unwrap();
            assert_eq!(&buffer[..count], value, "{name}");
        }
    }
    let (mine, gos) = (&lists[0], &lists[1]);
    assert!(mine.lines().count() > 2 * debian::DIRS * (debian::FILES - 10), "{} lines", mine.lines().count());
    let only = |a: &str, b: &str| {
        let b: std::collections::HashSet<_> = b.lines().collect();
        a.lines().filter(|line| !b.contains(line)).take(20).map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(mine == gos, "only ours: {:#?}\nonly Go's: {:#?}", only(mine, gos), only(gos, mine));
}

#[test]
fn programs_of_a_real_distribution_run() {
    needs!(root, overlayfs, program "docker-registry", built "containerd", built "ctr");
    if need::lacks(debian::available()) {
        return;
    }
    let (registry, daemon) = (Registry::start(), Daemon::start());
    let reference = registry.push("debian", "big", &debian::image());
    daemon.ctr("image pull --plain-http").args([&reference]).limit(LIMIT).ok();
    let script =
        "dpkg -l | grep -c ^ii; ls /etc/debian_version /srv/many/000; ls /srv/many/001; cat /srv/odd/second";
    let done = daemon.ctr("run --rm").args([&reference, "one", "bash", "-c", script]).run();
    assert!(done.stdout.ends_with("only\nlinked\n"), "{done}");
    assert!(
        done.stdout.lines().next().and_then(|line| line.parse::<u32>().ok()).is_some_and(|count| count > 50),
        "{done}"
    );
    assert!(
        done.stderr.contains("debian_version") && done.stderr.contains("/srv/many/000"),
        "deleted: {done}"
    );
}
