//! What containers may do, seen from inside: the kubelet's security context, mounts and devices.

use std::fs;
use std::path::Path;
use std::process::Command;

use api::Message as _;
use api::nri::pkg::api::v1alpha1 as pb;
use api::runtime::v1;
use serde_json::json;
use testkit::image::{Build, Layer, busybox_tar};
use testkit::needs;
use testkit::tar::Archive;

use crate::client::{Kubelet, call};
use crate::node::Node;
use crate::nri_plugin::Plugin;

type Security = v1::LinuxContainerSecurityContext;

/// A pod in which containers are looked into.
struct Case {
    kubelet: Kubelet,
    config: v1::PodSandboxConfig,
    pod: String,
}

impl Case {
    fn new(name: &str, daemon: &str, change: impl FnOnce(&mut v1::LinuxPodSandboxConfig)) -> Self {
        let kubelet = Kubelet::with(daemon);
        let mut config = kubelet.pod(name);
        change(config.linux.get_or_insert_default());
        let pod = kubelet.run_pod(&config).unwrap();
        Self { kubelet, config, pod }
    }

    /// A container's configuration.
    fn container(&self, name: &str, change: impl FnOnce(&mut Security)) -> v1::ContainerConfig {
        let mut config = self.kubelet.container(name, "exec sleep 1000");
        change(config.linux.get_or_insert_default().security_context.get_or_insert_default());
        config
    }

    fn start(&self, config: v1::ContainerConfig) -> String {
        self.kubelet.start(&self.pod, &self.config, config)
    }

    /// What `script` says in a container, and how it ends.
    fn ask(&self, id: &str, script: &str) -> (i32, String) {
        let done = self.kubelet.exec(id, script, 10).unwrap();
        let text = String::from_utf8_lossy(&done.stdout).trim().to_owned();
        (done.exit_code, text)
    }

    /// What `script` says in a container in which it must work.
    fn say(&self, id: &str, script: &str) -> String {
        let (code, text) = self.ask(id, script);
        assert_eq!(code, 0, "{script}: {text}");
        text
    }

    fn end(self) {
        self.kubelet.remove_pod(&self.pod);
        self.kubelet.check_clean();
    }
}

fn profile(kind: v1::security_profile::ProfileType) -> Option<v1::SecurityProfile> {
    Some(v1::SecurityProfile { profile_type: kind.into(), localhost_ref: String::new() })
}

/// A set of a process's capabilities.
fn held(status: &str, set: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(set)).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap()
}

#[test]
fn system_calls_capabilities_and_privileges() {
    use v1::security_profile::ProfileType::{RuntimeDefault, Unconfined};
    needs!(root, overlayfs, built "containerd");
    let case = Case::new("process", "", |_| ());
    let confined = case.start(case.container("confined", |security| {
        security.seccomp = profile(RuntimeDefault);
        security.no_new_privs = true;
        security.capabilities = Some(v1::Capability {
            add_capabilities: vec!["SYS_TIME".into()],
            drop_capabilities: vec!["CAP_KILL".into()],
            ..v1::Capability::default()
        });
    }));
    let status = case.say(&confined, "cat /proc/self/status");
    assert!(status.contains("Seccomp:\t2") && status.contains("NoNewPrivs:\t1"), "{status}");
    let (effective, bounding) = (held(&status, "CapEff:"), held(&status, "CapBnd:"));
    let bit = |set: u64, number: u32| set >> number & 1;
    // CAP_KILL is 5, CAP_SYS_ADMIN 21, CAP_SYS_TIME 25.
    for (number, has) in [(5, 0), (21, 0), (25, 1)] {
        assert_eq!((bit(effective, number), bit(bounding, number)), (has, has), "capability {number}");
    }
    assert_ne!(case.ask(&confined, "unshare -U true").0, 0);
    let free = case.start(case.container("free", |security| security.seccomp = profile(Unconfined)));
    let status = case.say(&free, "cat /proc/self/status");
    assert!(status.contains("Seccomp:\t0") && status.contains("NoNewPrivs:\t0"), "{status}");
    assert_eq!(case.ask(&free, "unshare -U true").0, 0);
    let nothing = case.start(case.container("nothing", |security| {
        security.capabilities =
            Some(v1::Capability { drop_capabilities: vec!["ALL".into()], ..v1::Capability::default() });
    }));
    assert_eq!(held(&case.say(&nothing, "cat /proc/self/status"), "CapPrm:"), 0);
    case.end();
}

#[test]
fn files_that_are_hidden_read_only_or_the_privileged_containers_own() {
    needs!(root, overlayfs, built "containerd");
    let case = Case::new("files", "", |linux| {
        linux.security_context.get_or_insert_default().privileged = true;
        linux.sysctls = [("kernel.shm_rmid_forced".to_owned(), "1".to_owned())].into();
    });
    let sealed = case.start(case.container("sealed", |security| {
        security.readonly_rootfs = true;
        security.masked_paths = vec!["/proc/version".into(), "/sys/firmware".into()];
        security.readonly_paths = vec!["/proc/sys".into()];
    }));
    assert_ne!(case.ask(&sealed, "touch /x").0, 0);
    assert_eq!(case.say(&sealed, "touch /dev/shm/x && echo fine"), "fine");
    assert_eq!(case.say(&sealed, "wc -c < /proc/version"), "0");
    assert_ne!(case.ask(&sealed, "echo 0 > /proc/sys/kernel/shm_rmid_forced").0, 0);
    assert_eq!(case.say(&sealed, "cat /proc/sys/kernel/shm_rmid_forced"), "1");
    let sys = |id: &str| case.say(id, "grep ' /sys ' /proc/mounts");
    assert!(sys(&sealed).contains(" ro,"), "{}", sys(&sealed));
    assert_ne!(case.ask(&sealed, "test -e /dev/kmsg").0, 0);
    let privileged = case.start(case.container("privileged", |security| security.privileged = true));
    assert!(sys(&privileged).contains(" rw,"), "{}", sys(&privileged));
    assert_eq!(case.ask(&privileged, "test -c /dev/kmsg && head -c1 /dev/kmsg > /dev/null").0, 0);
    let mount = "mkdir /m && mount -t tmpfs none /m && echo mounted";
    assert_eq!(case.say(&privileged, mount), "mounted");
    let status = case.say(&privileged, "cat /proc/self/status");
    assert!(status.contains("Seccomp:\t0") && held(&status, "CapEff:") >> 21 & 1 == 1, "{status}");
    case.end();
}

#[test]
fn users_and_groups() {
    needs!(root, overlayfs, built "containerd");
    let case = Case::new("users", "", |_| ());
    let files = Archive::new()
        .dir("etc", 0o755)
        .file("etc/passwd", 0o644, b"root:x:0:0::/:/bin/sh\nalice:x:1000:1001::/:/bin/sh\n")
        .file("etc/group", 0o644, b"root:x:0:\nalice:x:1001:\nextra:x:5000:alice\n")
        .finish();
    let image = Build::new().layer(Layer::plain(busybox_tar())).layer(Layer::plain(files));
    let image = image.set("User", json!("alice")).build();
    let reference = "docker.io/library/alice:v1";
    let archive = case.kubelet.daemon.dir().join("alice.tar");
    fs::write(&archive, image.archive(reference)).unwrap();
    case.kubelet.daemon.ctr("-n k8s.io image import").args([&archive]).ok();
    let number = |value| Some(v1::Int64Value { value });
    let ids = |name: &str, change: &dyn Fn(&mut Security)| {
        let mut wanted = case.container(name, change);
        wanted.image = Some(v1::ImageSpec { image: reference.into(), ..v1::ImageSpec::default() });
        let id = case.start(wanted);
        case.say(&id, "echo $(id -u) $(id -g) $(id -G | tr ' ' '\\n' | sort -n)")
    };
    let strict = v1::SupplementalGroupsPolicy::Strict as i32;
    assert_eq!(ids("image", &|_| ()), "1000 1001 1001 5000");
    assert_eq!(ids("number", &|one| one.run_as_user = number(1000)), "1000 1001 1001 5000");
    let group = |one: &mut Security| {
        (one.run_as_user, one.run_as_group) = (number(1000), number(2000));
        one.supplemental_groups = vec![3000];
    };
    assert_eq!(ids("merge", &group), "1000 2000 2000 3000 5000");
    let apart = |one: &mut Security| {
        group(one);
        one.supplemental_groups_policy = strict;
    };
    assert_eq!(ids("strict", &apart), "1000 2000 2000 3000");
    assert_eq!(ids("stranger", &|one| one.run_as_user = number(77)), "77 0 0");
    let nobody = case.container("nobody", |one| one.run_as_username = "mallory".into());
    assert!(case.kubelet.create(&case.pod, &case.config, nobody).is_err());
    case.end();
}

/// A directory that is a shared mount; it goes with its mounts.
struct Shared<'a>(&'a Path);

impl<'a> Shared<'a> {
    fn new(path: &'a Path) -> Self {
        fs::create_dir_all(path.join("later")).unwrap();
        fs::create_dir_all(path.join("inside")).unwrap();
        let shared = Self(path);
        run("mount", &["--bind".as_ref(), path.as_os_str(), path.as_os_str()]);
        run("mount", &["--make-shared".as_ref(), path.as_os_str()]);
        shared
    }
}

impl Drop for Shared<'_> {
    fn drop(&mut self) {
        let _left = Command::new("umount").args(["-R", "-l"]).arg(self.0).status();
    }
}

fn run(program: &str, words: &[&std::ffi::OsStr]) {
    assert!(Command::new(program).args(words).status().unwrap().success(), "{program} {words:?}");
}

#[test]
fn mounts_propagate_as_asked_and_are_read_only_all_the_way_down() {
    use v1::MountPropagation::{PropagationBidirectional, PropagationHostToContainer};
    needs!(root, overlayfs, built "containerd");
    let case = Case::new("mounts", "", |linux| {
        linux.security_context.get_or_insert_default().privileged = true;
    });
    let dir = testkit::place::temp();
    let path = dir.path().join("shared");
    let shared = Shared::new(&path);
    let mount = |at: &str| v1::Mount {
        container_path: at.into(),
        host_path: path.display().to_string(),
        ..v1::Mount::default()
    };
    let mut wanted = case.container("receives", |_| ());
    wanted.mounts =
        vec![v1::Mount { propagation: PropagationHostToContainer.into(), ..mount("/m") }, mount("/private")];
    let receives = case.start(wanted);
    let mut wanted = case.container("sends", |security| security.privileged = true);
    wanted.mounts = vec![v1::Mount { propagation: PropagationBidirectional.into(), ..mount("/m") }];
    let sends = case.start(wanted);
    let later = path.join("later");
    run(
        "mount",
        &["-t", "tmpfs", "none"].map(AsRef::as_ref).into_iter().chain([later.as_ref()]).collect::<Vec<_>>(),
    );
    fs::write(later.join("file"), "seen").unwrap();
    assert_eq!(case.say(&receives, "cat /m/later/file"), "seen");
    assert_ne!(case.ask(&receives, "cat /private/later/file").0, 0);
    case.say(&sends, "mount -t tmpfs none /m/inside && echo back > /m/inside/file");
    assert_eq!(fs::read_to_string(path.join("inside/file")).unwrap(), "back\n");

    let mut wanted = case.container("sealed", |_| ());
    let sealed = v1::Mount { readonly: true, ..mount("/ro") };
    let deep = v1::Mount { readonly: true, recursive_read_only: true, ..mount("/rro") };
    wanted.mounts = vec![sealed, deep];
    let sealed = case.start(wanted);
    assert_ne!(case.ask(&sealed, "touch /ro/x").0, 0);
    assert_eq!(case.ask(&sealed, "touch /ro/later/x").0, 0);
    assert_ne!(case.ask(&sealed, "touch /rro/later/y").0, 0);
    case.kubelet.remove_pod(&case.pod);
    drop(shared);
    case.kubelet.check_clean();
}

#[test]
fn cdi_devices_are_injected_or_the_container_is_refused() {
    needs!(root, overlayfs, built "containerd");
    let dir = testkit::place::temp();
    let key =
        format!("[plugins.'io.containerd.cri.v1.runtime']\ncdi_spec_dirs = ['{}']", dir.path().display());
    let case = Case::new("cdi", &key, |_| ());
    fs::write(dir.path().join("tool"), "of the vendor").unwrap();
    let tool = dir.path().join("tool").display().to_string();
    let text = format!(
        "cdiVersion: 0.7.0\nkind: berth.test/null\ndevices:\n- name: \"0\"\n  containerEdits:\n    env: [NULL=zero]\n    \
         deviceNodes:\n    - path: /dev/berth-null\n      hostPath: /dev/null\n    mounts:\n    - hostPath: {tool}\n      \
         containerPath: /opt/tool\n      options: [ro, bind]\n    additionalGids: [44]\n"
    );
    fs::write(dir.path().join("null.yaml"), text).unwrap();
    let mut wanted = case.container("one", |_| ());
    wanted.cdi_devices = vec![v1::CdiDevice { name: "berth.test/null=0".into() }];
    let id = case.start(wanted);
    assert_eq!(case.say(&id, "echo $NULL; cat /opt/tool; id -G"), "zero\nof the vendor0 44");
    assert_eq!(case.ask(&id, "test -c /dev/berth-null && echo x > /dev/berth-null").0, 0);
    let mut wanted = case.container("annotated", |_| ());
    wanted.annotations = [("cdi.k8s.io/x".to_owned(), "berth.test/null=0".to_owned())].into();
    assert_eq!(case.say(&case.start(wanted), "echo $NULL"), "zero");
    let mut wanted = case.container("missing", |_| ());
    wanted.cdi_devices = vec![v1::CdiDevice { name: "berth.test/null=1".into() }];
    let error = case.kubelet.create(&case.pod, &case.config, wanted).unwrap_err();
    assert!(error.message().contains("unresolvable CDI devices berth.test/null=1"), "{error}");
    // A plugin asks for one too.
    let plugin = Plugin::connect(&case.kubelet, "10", "cdi", |method, _| {
        let devices = vec![pb::CdiDevice { name: "berth.test/null=0".into() }];
        let adjust = pb::ContainerAdjustment { cdi_devices: devices, ..pb::ContainerAdjustment::default() };
        let answer = pb::CreateContainerResponse { adjust: Some(adjust), ..Default::default() };
        Some(Ok(if method == "CreateContainer" { answer.encode_to_vec() } else { Vec::new() }))
    });
    let adjusted = case.start(case.container("adjusted", |_| ()));
    assert_eq!(case.say(&adjusted, "echo $NULL; cat /opt/tool"), "zero\nof the vendor");
    drop(plugin);
    case.end();
}

#[test]
fn image_volume_is_read_only_shared_in_its_pod_and_goes_with_it() {
    needs!(root, overlayfs, built "containerd");
    let case = Case::new("image", "", |_| ());
    let files = |name: &str, text: &[u8]| {
        let tar = Archive::new().dir("data", 0o755).dir("data/deep", 0o755).file(name, 0o644, text);
        Layer::plain(tar.symlink("data/in", "deep").symlink("data/out", "/data/deep").finish())
    };
    let image = Build::new().layer(files("data/a", b"first")).layer(files("data/deep/b", b"second")).build();
    let reference = "docker.io/library/data:v1";
    let archive = case.kubelet.daemon.dir().join("data.tar");
    fs::write(&archive, image.archive(reference)).unwrap();
    case.kubelet.daemon.ctr("-n k8s.io image import").args([&archive]).ok();
    let volume = |at: &str, inside: &str| v1::Mount {
        container_path: at.into(),
        image: Some(v1::ImageSpec { image: reference.into(), ..v1::ImageSpec::default() }),
        image_sub_path: inside.into(),
        readonly: true,
        ..v1::Mount::default()
    };
    let mut wanted = case.container("one", |_| ());
    wanted.mounts = vec![volume("/whole", ""), volume("/part", "data/deep"), volume("/link", "data/in")];
    let id = case.start(wanted.clone());
    assert_eq!(case.say(&id, "cat /whole/data/a /part/b /link/b"), "firstsecondsecond");
    assert_ne!(case.ask(&id, "touch /whole/x").0, 0);
    assert!(case.kubelet.status(&id).mounts[0].image.is_some());
    // Where containerd has it: one mount below the pod, whose snapshot has the same name.
    let volumes = case.kubelet.daemon.state().join("io.containerd.grpc.v1.cri/image-volumes").join(&case.pod);
    let only = || {
        let mut names = fs::read_dir(&volumes).unwrap().map(|entry| entry.unwrap().path());
        let only = names.next().unwrap();
        assert_eq!(names.next(), None);
        only
    };
    let at = only();
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let lines: Vec<_> = table.lines().filter(|line| line.contains(at.to_str().unwrap())).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("volatile"), "{lines:?}");
    assert!(case.kubelet.daemon.ctr("-n k8s.io snapshots ls").ok().contains(at.to_str().unwrap()));
    // The image may go; what is mounted of it stays.
    let image = v1::ImageSpec { image: reference.into(), ..v1::ImageSpec::default() };
    case.kubelet.daemon.ctr("-n k8s.io image rm --sync").args([&image.image]).ok();
    assert_eq!(case.say(&id, "cat /whole/data/a"), "first");
    let refused = |name: &str, inside: &str| {
        let mut one = case.container(name, |_| ());
        one.mounts = vec![volume("/whole", ""), volume("/part", inside)];
        let error = case.kubelet.create(&case.pod, &case.config, one).unwrap_err();
        assert!(error.message().contains("ImageVolumeMountFailed"), "{error}");
        error.message().to_owned()
    };
    refused("gone", "data");
    case.kubelet.daemon.ctr("-n k8s.io image import").args([&archive]).ok();
    for (inside, words) in [
        ("data/none", "no such file or directory"),
        ("data/a", "only directory subpath is supported"),
        ("data/out", "path escapes from parent"),
        ("/data", "path escapes from parent"),
        ("data/../..", "path escapes from parent"),
    ] {
        let text = refused("refused", inside);
        assert!(text.contains(words), "{inside}: {text}");
    }
    // A second container shares it, and keeps it when the first is gone.
    let mut second = wanted;
    second.metadata = Some(v1::ContainerMetadata { name: "two".into(), attempt: 0 });
    let second = case.start(second);
    call!(case.kubelet, remove_container, v1::RemoveContainerRequest { container_id: id }).unwrap();
    assert_eq!(case.say(&second, "cat /whole/data/a"), "first");
    assert_eq!(only(), at);
    let (pod, kubelet) = (case.pod.clone(), &case.kubelet);
    call!(kubelet, stop_pod_sandbox, v1::StopPodSandboxRequest { pod_sandbox_id: pod }).unwrap();
    assert!(!volumes.exists());
    let snapshots = case.kubelet.daemon.ctr("-n k8s.io snapshots ls").ok();
    assert!(!snapshots.contains("image-volumes"), "{snapshots}");
    case.end();
}

#[test]
fn image_volume_that_is_not_made_whole_goes_with_its_pod() {
    needs!(root, overlayfs, built "containerd", built "berth-cni");
    let mut node = Node::new("");
    let config = node.networked("torn");
    let image = v1::ImageSpec { image: crate::client::IMAGE.into(), ..v1::ImageSpec::default() };
    let mut wanted = node.container("one", "exec sleep 1000");
    wanted.linux = None;
    let volume =
        v1::Mount { container_path: "/v".into(), image: Some(image), readonly: true, ..v1::Mount::default() };
    wanted.mounts = vec![v1::Mount { container_path: "/w".into(), ..volume.clone() }, volume];
    // Once through, so that the image is unpacked.
    let pod = node.run_pod(&config).unwrap();
    node.create(&pod, &config, wanted.clone()).unwrap();
    node.remove_pod(&pod);
    let before = node.left();
    for step in ["container image volume", "container adjusted"] {
        for how in ["fail", "die"] {
            let pod = node.run_pod(&config).unwrap();
            node.fault(how, step);
            node.create(&pod, &config, wanted.clone()).unwrap_err();
            node.no_fault();
            if how == "die" {
                node.daemon.restart();
            }
            // The next try has what the first left.
            node.start(&pod, &config, wanted.clone());
            node.remove_pod(&pod);
            node.settles_at(&before, step);
        }
    }
    node.check_clean();
}
