//! Annotations by which shims, NRI plugins and tools know whose container a spec is.

use std::collections::BTreeMap;

use api::runtime::v1;

/// `sandbox` or `container`.
pub const CONTAINER_TYPE: &str = "io.kubernetes.cri.container-type";
/// The pod's id; shims put containers of one pod together by it.
pub const SANDBOX_ID: &str = "io.kubernetes.cri.sandbox-id";
/// The pod's name.
pub const SANDBOX_NAME: &str = "io.kubernetes.cri.sandbox-name";
/// The pod's Kubernetes namespace.
pub const SANDBOX_NAMESPACE: &str = "io.kubernetes.cri.sandbox-namespace";
/// The pod's Kubernetes uid.
pub const SANDBOX_UID: &str = "io.kubernetes.cri.sandbox-uid";
/// Where the pod's logs are.
pub const SANDBOX_LOG_DIRECTORY: &str = "io.kubernetes.cri.sandbox-log-directory";
/// The pause image.
pub const SANDBOX_IMAGE_NAME: &str = "io.kubernetes.cri.podsandbox.image-name";
/// The pod's CPU period, of all its containers together.
pub const SANDBOX_CPU_PERIOD: &str = "io.kubernetes.cri.sandbox-cpu-period";
/// The pod's CPU quota.
pub const SANDBOX_CPU_QUOTA: &str = "io.kubernetes.cri.sandbox-cpu-quota";
/// The pod's CPU shares.
pub const SANDBOX_CPU_SHARES: &str = "io.kubernetes.cri.sandbox-cpu-shares";
/// The pod's memory limit.
pub const SANDBOX_MEMORY: &str = "io.kubernetes.cri.sandbox-memory";
/// The container's name in its pod.
pub const CONTAINER_NAME: &str = "io.kubernetes.cri.container-name";
/// The container's image, as the kubelet named it.
pub const IMAGE_NAME: &str = "io.kubernetes.cri.image-name";
/// Set by the user on a pod whose workload is not trusted: it runs with the handler `untrusted`.
pub const UNTRUSTED_WORKLOAD: &str = "io.kubernetes.cri.untrusted-workload";

/// What a sandbox's spec says of itself.
pub fn of_sandbox(id: &str, image_name: &str, config: &v1::PodSandboxConfig) -> Vec<(&'static str, String)> {
    let mut all = of_pod(id, config);
    all.push((SANDBOX_LOG_DIRECTORY, config.log_directory.clone()));
    all.push((SANDBOX_IMAGE_NAME, image_name.to_owned()));
    all.push((CONTAINER_TYPE, "sandbox".to_owned()));
    if let Some(total) = config.linux.as_ref().and_then(|linux| linux.resources.as_ref()) {
        all.push((SANDBOX_CPU_PERIOD, total.cpu_period.to_string()));
        all.push((SANDBOX_CPU_QUOTA, total.cpu_quota.to_string()));
        all.push((SANDBOX_CPU_SHARES, total.cpu_shares.to_string()));
        all.push((SANDBOX_MEMORY, total.memory_limit_in_bytes.to_string()));
    }
    all
}

/// What a container's spec says of itself.
pub fn of_container(
    pod_id: &str,
    name: &str,
    image_name: &str,
    pod: &v1::PodSandboxConfig,
) -> Vec<(&'static str, String)> {
    let mut all = of_pod(pod_id, pod);
    all.push((CONTAINER_NAME, name.to_owned()));
    all.push((IMAGE_NAME, image_name.to_owned()));
    all.push((CONTAINER_TYPE, "container".to_owned()));
    all
}

fn of_pod(id: &str, config: &v1::PodSandboxConfig) -> Vec<(&'static str, String)> {
    let metadata = config.metadata.clone().unwrap_or_default();
    vec![
        (SANDBOX_ID, id.to_owned()),
        (SANDBOX_NAMESPACE, metadata.namespace),
        (SANDBOX_UID, metadata.uid),
        (SANDBOX_NAME, metadata.name),
    ]
}

/// Those of `annotations` that the handler's configuration lets through to the runtime: keys that a glob matches.
pub fn passed_through<'a>(
    annotations: &'a BTreeMap<String, String>,
    globs: &'a [String],
) -> impl Iterator<Item = (String, String)> + 'a {
    annotations
        .iter()
        .filter(move |(key, _)| globs.iter().any(|glob| matches(glob.as_bytes(), key.as_bytes())))
        .map(|(key, value)| (key.clone(), value.clone()))
}

/// Whether `glob` matches all of `text`, as Go's `path.Match` does: `*` and `?` stop at a slash, `[a-c]` and `[^a-c]`
/// are classes, `\` takes the next character as it is. A malformed pattern matches nothing.
fn matches(glob: &[u8], text: &[u8]) -> bool {
    // Where to resume when the part after a star did not fit: the pattern behind the star, and one byte further on.
    let (mut glob_at, mut text_at) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        if glob.get(glob_at) == Some(&b'*') {
            star = Some((glob_at + 1, text_at));
            glob_at += 1;
            continue;
        }
        match (one(&glob[glob_at..], text.get(text_at).copied()), text_at < text.len()) {
            (Some(used), true) => {
                glob_at += used;
                text_at += 1;
            }
            _ if glob_at == glob.len() && text_at == text.len() => return true,
            _ => match star {
                Some((behind, from)) if text.get(from).is_some_and(|&byte| byte != b'/') => {
                    star = Some((behind, from + 1));
                    (glob_at, text_at) = (behind, from + 1);
                }
                _ => return false,
            },
        }
    }
}

/// Whether the first element of `glob` fits `byte`: how long that element is.
fn one(glob: &[u8], byte: Option<u8>) -> Option<usize> {
    let byte = byte?;
    match *glob.first()? {
        b'?' => (byte != b'/').then_some(1),
        b'[' => class(glob, byte),
        b'\\' => (*glob.get(1)? == byte).then_some(2),
        plain => (plain == byte).then_some(1),
    }
}

fn class(glob: &[u8], byte: u8) -> Option<usize> {
    let mut at = 1;
    let negated = glob.get(at) == Some(&b'^');
    at += usize::from(negated);
    let (mut found, mut ranges) = (false, 0);
    while ranges == 0 || *glob.get(at)? != b']' {
        let low = bound(glob, &mut at)?;
        let mut high = low;
        if glob.get(at) == Some(&b'-') {
            at += 1;
            high = bound(glob, &mut at)?;
        }
        found |= (low..=high).contains(&byte);
        ranges += 1;
    }
    (found != negated).then_some(at + 1)
}

fn bound(glob: &[u8], at: &mut usize) -> Option<u8> {
    if glob.get(*at) == Some(&b'\\') {
        *at += 1;
    } else if matches!(glob.get(*at)?, b'-' | b']') {
        return None;
    }
    let byte = *glob.get(*at)?;
    *at += 1;
    Some(byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_are_those_of_gos_path_match() {
        for (glob, text, fits) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a/b", false),
            ("a*/b", "abc/b", true),
            ("io.kubernetes.*", "io.kubernetes.cri", true),
            ("io.kata.*/x", "io.kata.y/x", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a/b", false),
            ("[\\]a]", "]", true),
            ("[]a]", "]", false),
            ("[-]", "-", false),
            ("[a-b-c]", "a", false),
            ("[", "a", false),
            ("a[", "a", false),
            ("*x", "xxx", true),
            ("", "", true),
            ("", "a", false),
            ("a", "", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(glob.as_bytes(), text.as_bytes()), fits, "{glob} {text}");
        }
    }

    #[test]
    fn only_what_the_handler_names_passes() {
        let annotations = BTreeMap::from([("a.b/c".into(), "1".into()), ("x".into(), "2".into())]);
        let globs = ["a.*/*".to_owned()];
        let passed: Vec<_> = passed_through(&annotations, &globs).collect();
        assert_eq!(passed, [("a.b/c".to_owned(), "1".to_owned())]);
        assert_eq!(passed_through(&annotations, &[]).count(), 0);
    }
}
