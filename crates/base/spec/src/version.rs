//! Which containerd the programs are, to clients that compare versions.

/// The version that every program but `runc` reports: the release of containerd whose interfaces are served, with
/// berth's own version behind it as build metadata, which comparisons of versions leave out.
pub const VERSION: &str = concat!("v2.3.4+berth.", env!("CARGO_PKG_VERSION"));

/// How registries are told of a client.
pub const USER_AGENT: &str = concat!("containerd/v2.3.4+berth.", env!("CARGO_PKG_VERSION"));

/// The revision of a build that names none.
pub const REVISION: &str = concat!("berth-", env!("CARGO_PKG_VERSION"));

/// The revision that `built` names, if it does: never empty, since clients print it as it is.
pub const fn revision(built: Option<&'static str>) -> &'static str {
    match built {
        Some(revision) if !revision.is_empty() => revision,
        _ => REVISION,
    }
}

/// The package that `--version` names, where Go's programs have their module's path.
pub const PACKAGE: &str = "berth";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_compares_as_containerds() {
        let (release, own) = VERSION.strip_prefix('v').unwrap().split_once('+').unwrap();
        let numbers: Vec<u32> = release.split('.').map(|number| number.parse().unwrap()).collect();
        assert_eq!(numbers[..2], [2, 3]);
        assert_eq!(numbers.len(), 3);
        assert_eq!(own, format!("berth.{}", env!("CARGO_PKG_VERSION")));
        assert!(own.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-'), "{own}");
        assert_eq!(USER_AGENT, format!("containerd/{VERSION}"));
        assert_eq!([revision(None), revision(Some("")), revision(Some("abc"))], [REVISION, REVISION, "abc"]);
    }
}
