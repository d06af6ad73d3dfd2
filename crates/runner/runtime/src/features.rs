//! What this runtime supports, for `runc features` and for shims that are asked.

use std::collections::BTreeMap;

use spec::runtime::features::{Cgroup, Enabled, Features, Linux, MemoryPolicy, MountExtensions, Seccomp};
use spec::runtime::{Arch, NamespaceKind, SeccompAction, SeccompOperator, VERSION};
use sys::seccomp::{FLAG_LOG, FLAG_SPEC_ALLOW, FLAG_TSYNC, FLAG_WAIT_KILLABLE_RECV};

use crate::create::plan::memory_policy::{FLAGS as POLICY_FLAGS, MODES};
use crate::hooks::Point;
use crate::seccomp::Table;

/// Version of this runtime.
pub const RUNTIME_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Release of runc whose commands, documents and texts this runtime has, for programs that compare versions.
pub const COMPATIBLE_VERSION: &str = "1.5.1";

/// Revision of the sources, as the build gives it.
pub const COMMIT: &str = match option_env!("BERTH_REVISION") {
    Some(revision) => revision,
    None => concat!("berth-", env!("CARGO_PKG_VERSION")),
};

/// Mount options with a meaning to the runtime, sorted; others go to the file system as they are.
const MOUNT_OPTIONS: [&str; 62] = [
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "idmap",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "ridmap",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "tmpcopyup",
    "unbindable",
];

/// Actions that a filter may name, by the specification's words.
const ACTIONS: [SeccompAction; 8] = [
    SeccompAction::Allow,
    SeccompAction::Errno,
    SeccompAction::Kill,
    SeccompAction::KillProcess,
    SeccompAction::KillThread,
    SeccompAction::Log,
    SeccompAction::Trace,
    SeccompAction::Trap,
];

const OPERATORS: [SeccompOperator; 7] = [
    SeccompOperator::EqualTo,
    SeccompOperator::GreaterEqual,
    SeccompOperator::GreaterThan,
    SeccompOperator::LessEqual,
    SeccompOperator::LessThan,
    SeccompOperator::MaskedEqual,
    SeccompOperator::NotEqual,
];

const ARCHITECTURES: [Arch; 6] =
    [Arch::Aarch64, Arch::Arm, Arch::Riscv64, Arch::X32, Arch::X86, Arch::X86_64];

const FLAGS: [(&str, u32); 4] = [
    ("SECCOMP_FILTER_FLAG_LOG", FLAG_LOG),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", FLAG_SPEC_ALLOW),
    ("SECCOMP_FILTER_FLAG_TSYNC", FLAG_TSYNC),
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", FLAG_WAIT_KILLABLE_RECV),
];

/// What this runtime supports on this kernel.
pub fn features() -> Features {
    let mut namespaces: Vec<String> = NamespaceKind::ALL.iter().map(|kind| kind.name().to_owned()).collect();
    namespaces.sort();
    Features {
        oci_version_min: "1.0.0".into(),
        oci_version_max: VERSION.into(),
        hooks: Point::ALL.iter().map(|point| point.name().to_owned()).collect(),
        mount_options: MOUNT_OPTIONS.iter().map(|&option| option.to_owned()).collect(),
        linux: Some(Linux {
            namespaces,
            capabilities: sys::capability::names().collect(),
            cgroup: Some(Cgroup {
                v1: Some(true),
                v2: Some(true),
                systemd: Some(true),
                systemd_user: Some(false),
                rdma: Some(true),
            }),
            seccomp: Some(seccomp()),
            apparmor: Enabled::new(true),
            selinux: Enabled::new(true),
            intel_rdt: None,
            memory_policy: Some(memory_policy()),
            mount_extensions: Some(MountExtensions { idmap: Enabled::new(true) }),
            net_devices: Enabled::new(false),
        }),
        annotations: BTreeMap::from([
            ("org.opencontainers.runc.checkpoint.enabled".to_owned(), "false".to_owned()),
            ("org.opencontainers.runc.commit".to_owned(), COMMIT.to_owned()),
            ("org.opencontainers.runc.version".to_owned(), COMPATIBLE_VERSION.to_owned()),
        ]),
        potentially_unsafe_config_annotations: vec!["bundle".into()],
    }
}

fn memory_policy() -> MemoryPolicy {
    let mut modes: Vec<String> = MODES.iter().map(|&mode| mode.to_owned()).collect();
    modes.sort();
    MemoryPolicy { modes, flags: POLICY_FLAGS.iter().map(|(flag, _)| (*flag).to_owned()).collect() }
}

fn seccomp() -> Seccomp {
    let archs = ARCHITECTURES.into_iter().filter(|&arch| Table::of(arch).is_some());
    Seccomp {
        enabled: Some(true),
        actions: ACTIONS.into_iter().map(word).collect(),
        operators: OPERATORS.into_iter().map(word).collect(),
        archs: archs.map(word).collect(),
        known_flags: FLAGS.iter().map(|(name, _)| (*name).to_owned()).collect(),
        supported_flags: FLAGS
            .iter()
            .filter(|(_, flag)| sys::seccomp::has_flag(*flag))
            .map(|(name, _)| (*name).to_owned())
            .collect(),
    }
}

/// The word by which a document names `value`.
fn word<T: serde::Serialize>(value: T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_and_in_the_documents_words() {
        let features = features();
        assert!(features.mount_options.windows(2).all(|pair| pair[0] < pair[1]));
        let seccomp = features.linux.unwrap().seccomp.unwrap();
        assert!(seccomp.actions.contains(&"SCMP_ACT_KILL_PROCESS".to_owned()));
        assert!(seccomp.archs.contains(&"SCMP_ARCH_X86_64".to_owned()));
        assert!(seccomp.supported_flags.contains(&"SECCOMP_FILTER_FLAG_LOG".to_owned()));
        assert!(seccomp.actions.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
