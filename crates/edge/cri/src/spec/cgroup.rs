//! Where a container's cgroup is.

/// The path for the runtime: below `parent`, or as systemd's `slice:prefix:name` when that is a slice.
pub fn path(parent: &str, id: &str) -> String {
    let trimmed = parent.trim_end_matches('/');
    let base = trimmed.rsplit('/').next().unwrap_or_default();
    if base.ends_with(".slice") { format!("{base}:cri-containerd:{id}") } else { format!("{trimmed}/{id}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_named_in_systemds_form() {
        for (parent, path_of_id) in [
            ("/kubepods/burstable/pod1", "/kubepods/burstable/pod1/id"),
            ("/", "/id"),
            ("k8s.io/", "k8s.io/id"),
            ("/kubepods.slice/kubepods-pod1.slice", "kubepods-pod1.slice:cri-containerd:id"),
            ("a.slice/", "a.slice:cri-containerd:id"),
            ("/a.slice/b", "/a.slice/b/id"),
        ] {
            assert_eq!(path(parent, "id"), path_of_id, "{parent}");
        }
    }
}
