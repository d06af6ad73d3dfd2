//! Names of scopes and slices, and where systemd puts their cgroups.

use std::path::PathBuf;

use super::super::CgroupError;

/// Where scopes go that name no slice.
const DEFAULT_SLICE: &str = "system.slice";

/// Longest name of a unit. `UNIT_NAME_MAX` of systemd, less its zero.
const LONGEST: usize = 255;

/// The scope of a container, `PREFIX-NAME.scope` in a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    slice: String,
    prefix: String,
    name: String,
    /// The slice's cgroup, without a leading slash.
    slice_path: PathBuf,
}

impl Unit {
    /// Reads `linux.cgroupsPath` in its form `slice:prefix:name`; an empty one is `runc-ID.scope` of the system's slice.
    pub fn parse(path: &str, id: &str) -> Result<Self, CgroupError> {
        if path.is_empty() {
            return Self::of("", "runc", id);
        }
        let parts: Vec<&str> = path.split(':').collect();
        match parts[..] {
            [slice, prefix, name] => Self::of(slice, prefix, name),
            _ => Err(CgroupError::NotSystemdPath(path.to_owned())),
        }
    }

    /// The scope of these three parts, as a state file has them.
    pub fn of(slice: &str, prefix: &str, name: &str) -> Result<Self, CgroupError> {
        let invalid = || CgroupError::Path(format!("{slice}:{prefix}:{name}"));
        let in_slice = if slice.is_empty() { DEFAULT_SLICE } else { slice };
        let slice_path = expand_slice(in_slice).ok_or_else(invalid)?;
        let unit = Self { slice: slice.into(), prefix: prefix.into(), name: name.into(), slice_path };
        let scope = unit.scope();
        // A slice has no processes of its own.
        let is_good = !name.is_empty() && !name.ends_with(".slice") && scope.len() <= LONGEST;
        if is_good && scope.bytes().all(may_be_in_a_name) { Ok(unit) } else { Err(invalid()) }
    }

    /// The name of the scope.
    pub fn scope(&self) -> String {
        format!("{}-{}.scope", self.prefix, self.name)
    }

    /// The name of its slice.
    pub fn slice(&self) -> &str {
        if self.slice.is_empty() { DEFAULT_SLICE } else { &self.slice }
    }

    /// The three parts: slice (empty for the default), prefix, name.
    pub fn parts(&self) -> (&str, &str, &str) {
        (&self.slice, &self.prefix, &self.name)
    }

    /// Its cgroup in each hierarchy, without a leading slash.
    pub fn path(&self) -> PathBuf {
        self.slice_path.join(self.scope())
    }
}

/// What systemd allows in a name.
fn may_be_in_a_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte)
}

/// The path of a slice, whose name holds its parents: `a-b.slice` is `a.slice/a-b.slice`, and `-.slice` the root.
fn expand_slice(slice: &str) -> Option<PathBuf> {
    let stem = slice.strip_suffix(".slice")?;
    if stem == "-" {
        return Some(PathBuf::new());
    }
    if slice.len() > LONGEST || !stem.bytes().all(may_be_in_a_name) {
        return None;
    }
    let mut path = PathBuf::new();
    let mut end = 0;
    for part in stem.split('-') {
        if part.is_empty() {
            return None;
        }
        end += part.len();
        path.push(format!("{}.slice", &stem[..end]));
        end += 1;
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slices_name_holds_its_parents() {
        let expanded = |slice| expand_slice(slice).map(|path| path.display().to_string());
        assert_eq!(expanded("test-a-b.slice").as_deref(), Some("test.slice/test-a.slice/test-a-b.slice"));
        assert_eq!(expanded("-.slice").as_deref(), Some(""));
        for slice in
            ["", ".slice", "a", "a--b.slice", "-a.slice", "a-.slice", "a/b.slice", "ä.slice", "a b.slice"]
        {
            assert_eq!(expanded(slice), None, "{slice}");
        }
    }

    #[test]
    fn a_path_names_slice_and_scope() {
        let unit = Unit::parse("kubepods-burstable.slice:cri-containerd:1234", "x").unwrap();
        assert_eq!(unit.scope(), "cri-containerd-1234.scope");
        assert_eq!(
            unit.path().to_str(),
            Some("kubepods.slice/kubepods-burstable.slice/cri-containerd-1234.scope")
        );
        let unit = Unit::parse("", "one").unwrap();
        assert_eq!((unit.slice(), unit.scope().as_str()), ("system.slice", "runc-one.scope"));
        assert_eq!(Unit::of(unit.parts().0, unit.parts().1, unit.parts().2).unwrap(), unit);
    }

    #[test]
    fn other_paths_are_refused() {
        for path in ["/a/b", "a:b", "a:b:c:d", "a.slice:b:c:", "x"] {
            assert!(matches!(Unit::parse(path, "i"), Err(CgroupError::NotSystemdPath(_))), "{path}");
        }
        for path in
            ["a:b:c", "a.slice:b:", "a.slice:b:c/d", "a.slice:b:..\0", "a.slice:b:c.slice", "a.slice:b:c+"]
        {
            assert!(matches!(Unit::parse(path, "i"), Err(CgroupError::Path(_))), "{path:?}");
        }
        assert!(Unit::parse(&format!("a.slice:b:{}", "c".repeat(250)), "i").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_scope_leaves_its_hierarchy(slice in "[a./-]{0,8}", name in "[a./:-]{0,6}") {
            if let Ok(unit) = Unit::of(&format!("{slice}.slice"), "p", &name) {
                let is_normal = |part| matches!(part, std::path::Component::Normal(_));
                proptest::prop_assert!(unit.path().components().all(is_normal), "{:?}", unit.path());
            }
        }
    }
}
