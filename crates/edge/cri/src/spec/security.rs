//! What a process may do: capabilities, system calls, and everything at once for the privileged.

use std::path::Path;

use ::spec::Error;
use ::spec::json;
use ::spec::runtime::{Capabilities, LinuxDeviceCgroup, LinuxSeccomp, Spec, seccomp_default};
use api::runtime::v1;
use api::runtime::v1::security_profile::ProfileType;
use model::Result;

use super::{Host, failed};
use crate::config::Handler;

/// The largest seccomp profile that is read, in bytes.
const MAX_PROFILE: usize = 1 << 20;

/// What the name of a profile in a file begins with.
const LOCALHOST: &str = "localhost/";

/// Gives and takes capabilities: all of them first, where `ALL` is said, then one by one. Ambient ones are not given.
///
/// # Errors
/// A name that no kernel knows; an ambient capability.
pub fn capabilities(spec: &mut Spec, wanted: &v1::Capability, host: &Host) -> Result<()> {
    if !wanted.add_ambient_capabilities.is_empty() {
        return Err(Error::unimplemented("ambient capabilities"));
    }
    let sets = spec.process_mut().capabilities.get_or_insert_default();
    let mut held = sets.bounding.clone();
    if wanted.add_capabilities.iter().any(|name| is_all(name)) {
        held.clone_from(&host.capabilities);
    }
    if wanted.drop_capabilities.iter().any(|name| is_all(name)) {
        held.clear();
    }
    for name in wanted.add_capabilities.iter().filter(|name| !is_all(name)) {
        let name = named(name)?;
        if !held.contains(&name) {
            held.push(name);
        }
    }
    for name in wanted.drop_capabilities.iter().filter(|name| !is_all(name)) {
        let name = named(name)?;
        held.retain(|one| *one != name);
    }
    *sets = in_every_set(held);
    Ok(())
}

fn in_every_set(held: Vec<String>) -> Capabilities {
    Capabilities {
        bounding: held.clone(),
        effective: held.clone(),
        permitted: held,
        ..Capabilities::default()
    }
}

fn is_all(name: &str) -> bool {
    name.eq_ignore_ascii_case("ALL")
}

/// The name as the specification writes it.
fn named(name: &str) -> Result<String> {
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    match sys::capability::number(&full) {
        Some(_) => Ok(full),
        None => Err(Error::invalid(format_args!("unknown capability {name:?}"))),
    }
}

/// Makes a container privileged: what the daemon is capable of, nothing hidden or read-only in /proc and /sys, cgroups
/// writable, no filter and no label. Devices are the handler's to say.
///
/// # Errors
/// The pod is not privileged.
pub fn privilege(spec: &mut Spec, pod: &v1::PodSandboxConfig, handler: &Handler, host: &Host) -> Result<()> {
    let of_pod = pod.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    if !of_pod.is_some_and(|security| security.privileged) {
        return Err(Error::invalid("no privileged container allowed in sandbox"));
    }
    let process = spec.process_mut();
    process.capabilities = Some(in_every_set(host.capabilities.clone()));
    process.apparmor_profile.clear();
    process.selinux_label.clear();
    let linux = spec.linux_mut();
    linux.masked_paths.clear();
    linux.readonly_paths.clear();
    linux.seccomp = None;
    if !handler.privileged_without_host_devices || handler.privileged_without_host_devices_all_devices_allowed
    {
        let all = LinuxDeviceCgroup { allow: true, access: "rwm".into(), ..LinuxDeviceCgroup::default() };
        linux.resources.get_or_insert_default().devices = vec![all];
    }
    for mount in spec.mounts.iter_mut().filter(|mount| matches!(mount.kind.as_str(), "sysfs" | "cgroup")) {
        mount.options.iter_mut().filter(|option| *option == "ro").for_each(|option| *option = "rw".into());
    }
    Ok(())
}

/// The system call filter that is asked for, without what it depends on.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Filter {
    /// None.
    #[default]
    Unconfined,
    /// The usual one, which depends on the capabilities.
    Usual,
    /// That of a file.
    Profile(Box<LinuxSeccomp>),
}

impl Filter {
    /// Puts it into a spec whose capabilities are decided.
    pub fn apply(&self, spec: &mut Spec) {
        let held = spec.process.as_ref().and_then(|process| process.capabilities.as_ref());
        let held = held.map(|sets| sets.bounding.clone()).unwrap_or_default();
        spec.linux_mut().seccomp = match self {
            Self::Unconfined => None,
            Self::Usual => Some(seccomp_default(&held)),
            Self::Profile(profile) => Some((**profile).clone()),
        };
    }
}

/// Finds the filter: the profile of the request, else its older field, else what the configuration says of requests
/// that say nothing. The privileged have none.
///
/// # Errors
/// The profile is not valid or cannot be read; the kernel cannot filter and a filter is asked for.
pub fn filter(
    profile: Option<&v1::SecurityProfile>,
    older: &str,
    unset: &str,
    privileged: bool,
    host: &Host,
) -> Result<Filter> {
    if privileged {
        return Ok(Filter::Unconfined);
    }
    let (kind, file) = match profile {
        Some(profile) => (kind(profile)?, profile.localhost_ref.as_str()),
        None => match [older, unset].into_iter().find(|text| !text.is_empty()) {
            None => return Ok(Filter::Unconfined),
            Some("runtime/default" | "docker/default") => (ProfileType::RuntimeDefault, ""),
            Some("unconfined") => (ProfileType::Unconfined, ""),
            Some(text) if text.starts_with(LOCALHOST) => (ProfileType::Localhost, text),
            Some(text) => return Err(Error::invalid(format_args!("invalid profile {text:?}"))),
        },
    };
    if kind != ProfileType::Localhost && !file.is_empty() {
        return Err(Error::invalid(
            "seccomp config invalid LocalhostRef must only be set if ProfileType is Localhost",
        ));
    }
    match kind {
        ProfileType::Unconfined => Ok(Filter::Unconfined),
        _ if !host.seccomp => Err(Error::failed_precondition("seccomp is not supported")),
        ProfileType::RuntimeDefault => Ok(Filter::Usual),
        ProfileType::Localhost => read(file.strip_prefix(LOCALHOST).unwrap_or(file)),
    }
}

fn kind(profile: &v1::SecurityProfile) -> Result<ProfileType> {
    ProfileType::try_from(profile.profile_type).map_err(|_| Error::invalid("seccomp unknown ProfileType"))
}

fn read(path: &str) -> Result<Filter> {
    if !path.starts_with('/') {
        return Err(Error::invalid(format_args!("seccomp profile {path:?} is no absolute path")));
    }
    let what = format!("cannot load seccomp profile {path:?}");
    let bytes = super::read_file(Path::new(path), MAX_PROFILE).map_err(|error| failed(&what, &error))?;
    let profile = json::from_slice::<LinuxSeccomp>(&bytes)
        .map_err(|error| Error::invalid(format_args!("decoding seccomp profile failed {path:?}: {error}")))?;
    Ok(Filter::Profile(Box::new(profile)))
}

#[cfg(test)]
mod tests {
    use ::spec::runtime::default_unix_spec;

    use super::*;

    fn host() -> Host {
        Host { capabilities: vec!["CAP_CHOWN".into(), "CAP_SYS_ADMIN".into()], ..Host::default() }
    }

    fn held(add: &[&str], drop: &[&str]) -> Result<Vec<String>> {
        let strings = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        let wanted = v1::Capability {
            add_capabilities: strings(add),
            drop_capabilities: strings(drop),
            ..v1::Capability::default()
        };
        let mut spec = default_unix_spec("k8s.io", "a");
        capabilities(&mut spec, &wanted, &host())?;
        let sets = spec.process.unwrap().capabilities.unwrap();
        assert_eq!((&sets.bounding, &sets.bounding), (&sets.effective, &sets.permitted));
        assert!(sets.ambient.is_empty() && sets.inheritable.is_empty());
        Ok(sets.bounding)
    }

    #[test]
    fn capabilities_are_given_and_taken() {
        assert_eq!(held(&["all"], &["CHOWN"]).unwrap(), ["CAP_SYS_ADMIN"]);
        assert_eq!(held(&["net_admin", "CAP_CHOWN"], &["ALL"]).unwrap(), ["CAP_NET_ADMIN", "CAP_CHOWN"]);
        assert_eq!(held(&[], &["ALL"]).unwrap(), [""; 0]);
        let usual = held(&["SYS_TIME"], &["cap_kill"]).unwrap();
        assert!(usual.contains(&"CAP_SYS_TIME".into()) && !usual.contains(&"CAP_KILL".into()));
        for name in ["NOTHING", "", "CAP_CAP_CHOWN", "CAP_"] {
            assert!(held(&[name], &[]).is_err(), "{name}");
            assert!(held(&[], &[name]).is_err(), "{name}");
        }
    }

    #[test]
    fn filters_are_found() {
        let of = |kind: ProfileType, file: &str| v1::SecurityProfile {
            profile_type: kind as i32,
            localhost_ref: file.into(),
        };
        let find = |profile: Option<&v1::SecurityProfile>, older: &str, unset: &str| {
            filter(profile, older, unset, false, &Host::default())
        };
        assert_eq!(find(None, "", "").unwrap(), Filter::Unconfined);
        assert_eq!(find(None, "", "runtime/default").unwrap(), Filter::Usual);
        assert_eq!(find(None, "unconfined", "runtime/default").unwrap(), Filter::Unconfined);
        assert_eq!(find(Some(&of(ProfileType::RuntimeDefault, "")), "", "").unwrap(), Filter::Usual);
        assert_eq!(
            find(Some(&of(ProfileType::Unconfined, "")), "", "runtime/default").unwrap(),
            Filter::Unconfined
        );
        for (profile, older) in [
            (Some(of(ProfileType::RuntimeDefault, "/x")), ""),
            (Some(of(ProfileType::Localhost, "relative")), ""),
            (Some(of(ProfileType::Localhost, "/nowhere/at/all")), ""),
            (Some(of(ProfileType::Localhost, "/dev/zero")), ""),
            (Some(v1::SecurityProfile { profile_type: 9, ..Default::default() }), ""),
            (None, "else"),
        ] {
            assert!(find(profile.as_ref(), older, "").is_err(), "{profile:?} {older}");
        }
        let usual = of(ProfileType::RuntimeDefault, "");
        assert_eq!(filter(Some(&usual), "", "", true, &Host::default()).unwrap(), Filter::Unconfined);
        let without = Host { seccomp: false, ..Host::default() };
        assert!(filter(Some(&usual), "", "", false, &without).is_err());
    }

    #[test]
    fn a_profile_of_a_file_is_read_and_checked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("profile.json");
        let profile = v1::SecurityProfile {
            profile_type: ProfileType::Localhost as i32,
            localhost_ref: format!("localhost/{}", path.display()),
        };
        std::fs::write(&path, r#"{"defaultAction":"SCMP_ACT_LOG"}"#).unwrap();
        let found = filter(Some(&profile), "", "", false, &Host::default()).unwrap();
        assert!(matches!(found, Filter::Profile(_)));
        std::fs::write(&path, r#"{"defaultAction":"what"}"#).unwrap();
        assert!(filter(Some(&profile), "", "", false, &Host::default()).is_err());
    }

    #[test]
    fn the_privileged_need_a_privileged_pod() {
        let mut spec = default_unix_spec("k8s.io", "a");
        let mut pod = v1::PodSandboxConfig::default();
        assert!(privilege(&mut spec, &pod, &Handler::default(), &host()).is_err());
        let security = v1::LinuxSandboxSecurityContext { privileged: true, ..Default::default() };
        pod.linux =
            Some(v1::LinuxPodSandboxConfig { security_context: Some(security), ..Default::default() });
        privilege(&mut spec, &pod, &Handler::default(), &host()).unwrap();
        let sys = spec.mounts.iter().find(|mount| mount.kind == "sysfs").unwrap();
        assert!(sys.options.contains(&"rw".into()) && !sys.options.contains(&"ro".into()));
        let linux = spec.linux.unwrap();
        assert!(linux.masked_paths.is_empty() && linux.readonly_paths.is_empty());
        assert!(linux.resources.unwrap().devices[0].allow);
        assert_eq!(spec.process.unwrap().capabilities.unwrap().bounding, host().capabilities);
    }
}
