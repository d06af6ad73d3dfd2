//! Where a container's cgroup is.

/// The path for the runtime: below `parent`, or as systemd's `slice:prefix:name` when that is a slice.
pub fn path(parent: &str, id: &str) -> String {
    let trimmed = parent.trim_end_matches('/');
    let base = trimmed.rsplit('/').next().unwrap_or_default();
    if base.ends_with(".slice") { format!("{base}:cri-containerd:{id}") } else { format!("{trimmed}/{id}") }
}

/// Where the cgroup `parent` itself is below a hierarchy: a slice's name says which slices it is in.
pub fn directory(parent: &str) -> String {
    let trimmed = parent.trim_end_matches('/');
    let base = trimmed.rsplit('/').next().unwrap_or_default();
    let Some(name) = base.strip_suffix(".slice") else { return trimmed.to_owned() };
    let above = name.match_indices('-').map(|(at, _)| format!("/{}.slice", &name[..at]));
    above.chain([format!("/{base}")]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_where_its_name_says() {
        for (parent, found) in [
            ("/kubepods/burstable/pod1", "/kubepods/burstable/pod1"),
            ("k8s.io/", "k8s.io"),
            ("/kubepods.slice/kubepods-pod1.slice", "/kubepods.slice/kubepods-pod1.slice"),
            ("a-b-c.slice", "/a.slice/a-b.slice/a-b-c.slice"),
        ] {
            assert_eq!(directory(parent), found, "{parent}");
        }
    }

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
