//! The validator that is built in: refuses what the configuration does not let plugins do.
//!
//! Pure.

use std::collections::BTreeMap;

use api::nri::pkg::api::v1alpha1::{self as pb, Field};

use super::owners::Owners;
use crate::config::Validator;

/// The name that refusals carry.
pub const NAME: &str = "00-default-validator";
/// The annotation by which a pod names plugins that it must have.
const REQUIRED: &str = "required-plugins.noderesource.dev";
/// The longest list of plugins that a pod may name, in bytes.
const MAX_LIST: usize = 4096;

/// Judges what plugins together want of a container; the reason when it may not be.
pub fn check(
    config: &Validator,
    request: &pb::ValidateContainerAdjustmentRequest,
    owners: &Owners,
) -> Result<(), String> {
    if !config.enable {
        return Ok(());
    }
    let container = request.container.clone().unwrap_or_default();
    let id = container.id.as_str();
    if config.reject_oci_hooks
        && let Some(owner) = owners.owner(id, Field::OciHooks)
    {
        let noun = if owner.contains(',') { "plugins" } else { "plugin" };
        return Err(format!("{noun} {owner:?} attempted restricted OCI hook injection"));
    }
    seccomp(config, &container, owners)?;
    let namespaces = owners.owners(id, Field::Namespace);
    if config.reject_namespaces && !namespaces.is_empty() {
        let all: Vec<_> =
            namespaces.iter().map(|(kind, owner)| format!("{owner:?} (namespace {kind:?})")).collect();
        return Err(format!("attempted restricted namespace adjustment by plugin(s) {}", all.join(", ")));
    }
    required(config, request, &container.name)?;
    let sysctls = owners.owners(id, Field::Sysctl);
    if config.reject_sysctls && !sysctls.is_empty() {
        let all: Vec<_> = sysctls.iter().map(|(_, owner)| *owner).collect();
        return Err(format!("attempted restricted sysctl adjustment by plugin(s) {}", all.join(", ")));
    }
    Ok(())
}

fn seccomp(config: &Validator, container: &pb::Container, owners: &Owners) -> Result<(), String> {
    let Some(owner) = owners.owner(&container.id, Field::SeccompPolicy) else { return Ok(()) };
    let profile = container.linux.as_ref().and_then(|linux| linux.seccomp_profile.as_ref());
    use pb::security_profile::ProfileType;
    let (rejected, what) = match profile.map(pb::SecurityProfile::profile_type) {
        None | Some(ProfileType::Unconfined) => (config.reject_unconfined_seccomp, "unconfined"),
        Some(ProfileType::RuntimeDefault) => (config.reject_runtime_default_seccomp, "runtime default"),
        Some(ProfileType::Localhost) => (config.reject_custom_seccomp, "custom"),
    };
    match rejected {
        true => Err(format!("plugin {owner} attempted restricted {what} seccomp policy adjustment")),
        false => Ok(()),
    }
}

fn required(
    config: &Validator,
    request: &pb::ValidateContainerAdjustmentRequest,
    container: &str,
) -> Result<(), String> {
    let nothing = BTreeMap::new();
    let annotations = request.pod.as_ref().map_or(&nothing, |pod| &pod.annotations);
    let key = &config.tolerate_missing_annotation;
    if !key.is_empty()
        && let Some(value) = effective(annotations, key, container)
    {
        match value {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => return Ok(()),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => {}
            other => return Err(format!("invalid {key} annotation {other:?}")),
        }
    }
    let mut wanted = config.required_plugins.clone();
    if let Some(value) = effective(annotations, REQUIRED, container) {
        wanted.extend(list(value).ok_or_else(|| format!("invalid {REQUIRED} annotation {value:?}"))?);
    }
    let there = |name: &String| {
        let full = |plugin: &pb::PluginInstance| format!("{}-{}", plugin.index, plugin.name);
        request.plugins.iter().any(|plugin| plugin.name == *name || full(plugin) == *name)
    };
    let missing: Vec<String> = wanted.into_iter().filter(|name| !there(name)).collect();
    match missing.as_slice() {
        [] => Ok(()),
        [one] => Err(format!("required plugin {one:?} not present")),
        several => Err(format!("required plugins {:?} not present", several.join(","))),
    }
}

/// The annotation `key` as it holds for `container`: its own, else the pod's.
fn effective<'a>(annotations: &'a BTreeMap<String, String>, key: &str, container: &str) -> Option<&'a str> {
    [format!("{key}/container.{container}"), format!("{key}/pod"), key.to_owned()]
        .iter()
        .find_map(|key| annotations.get(key))
        .map(String::as_str)
}

/// A list of names as YAML has it, in brackets or by lines with dashes.
fn list(text: &str) -> Option<Vec<String>> {
    let text = text.trim();
    if text.len() > MAX_LIST {
        return None;
    }
    let items: Vec<&str> = match text.strip_prefix('[') {
        Some(rest) => {
            let rest = rest.strip_suffix(']')?.trim();
            if rest.is_empty() { Vec::new() } else { rest.split(',').collect() }
        }
        None => text.lines().map(|line| line.trim().strip_prefix('-')).collect::<Option<_>>()?,
    };
    let name = |item: &str| {
        let item = item.trim();
        let bare = ['"', '\''].iter().find_map(|&quote| item.strip_prefix(quote)?.strip_suffix(quote));
        let name = bare.unwrap_or(item);
        let fine = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
        (!name.is_empty() && name.chars().all(fine)).then(|| name.to_owned())
    };
    items.into_iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(annotations: &[(&str, &str)]) -> pb::ValidateContainerAdjustmentRequest {
        let annotations =
            annotations.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        pb::ValidateContainerAdjustmentRequest {
            pod: Some(pb::PodSandbox { annotations, ..pb::PodSandbox::default() }),
            container: Some(pb::Container { id: "c".into(), name: "web".into(), ..pb::Container::default() }),
            plugins: vec![pb::PluginInstance { name: "a".into(), index: "10".into() }],
            ..pb::ValidateContainerAdjustmentRequest::default()
        }
    }

    fn enabled() -> Validator {
        Validator { enable: true, ..Validator::default() }
    }

    #[test]
    fn each_rule_refuses_by_itself() {
        let mut owners = Owners::default();
        owners.share("c", Field::OciHooks, "10-a");
        owners.claim("c", Field::SeccompPolicy, "10-a").unwrap();
        owners.claim_key("c", Field::Namespace, "network", "10-a").unwrap();
        owners.claim_key("c", Field::Sysctl, "net.x", "10-a").unwrap();
        let request = request(&[]);
        check(&enabled(), &request, &owners).unwrap();
        for (config, reason) in [
            (Validator { reject_oci_hooks: true, ..enabled() }, "OCI hook"),
            (Validator { reject_unconfined_seccomp: true, ..enabled() }, "unconfined seccomp"),
            (Validator { reject_namespaces: true, ..enabled() }, "namespace \"network\""),
            (Validator { reject_sysctls: true, ..enabled() }, "sysctl"),
        ] {
            let refused = check(&config, &request, &owners).unwrap_err();
            assert!(refused.contains(reason) && refused.contains("10-a"), "{refused}");
            check(&config, &request, &Owners::default()).unwrap();
            check(&Validator { enable: false, ..config }, &request, &owners).unwrap();
        }
        let unlike =
            Validator { reject_runtime_default_seccomp: true, reject_custom_seccomp: true, ..enabled() };
        check(&unlike, &request, &owners).unwrap();
    }

    #[test]
    fn required_plugins_must_be_there_or_be_tolerated() {
        let config = Validator {
            required_plugins: vec!["10-a".into(), "b".into()],
            tolerate_missing_annotation: "tolerate".into(),
            ..enabled()
        };
        let judge = |annotations: &[(&str, &str)]| check(&config, &request(annotations), &Owners::default());
        assert_eq!(judge(&[]).unwrap_err(), "required plugin \"b\" not present");
        judge(&[("tolerate/pod", "true")]).unwrap();
        judge(&[("tolerate/pod", "true"), ("tolerate/container.web", "false")]).unwrap_err();
        judge(&[("tolerate", "perhaps")]).unwrap_err();
        let none = check(&enabled(), &request(&[(REQUIRED, "[ \"a\", 'z' ]")]), &Owners::default());
        assert_eq!(none.unwrap_err(), "required plugin \"z\" not present");
        check(&enabled(), &request(&[(REQUIRED, "- a\n- 10-a\n")]), &Owners::default()).unwrap();
        check(&enabled(), &request(&[(REQUIRED, "{}")]), &Owners::default()).unwrap_err();
    }
}
