//! Platforms: `os/architecture[/variant]`, normalised as Go's platforms package does.

use std::cmp::Reverse;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{HasKind, Kind};

/// What a binary, and so an image, runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// CPU architecture in Go's words: `amd64`, `arm64`, ...
    #[serde(default)]
    pub architecture: String,
    /// Operating system in Go's words: `linux`, ...
    #[serde(default)]
    pub os: String,
    /// Version of the operating system (Windows only).
    #[serde(default, rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// Features of the operating system that the image needs (Windows only).
    #[serde(default, rename = "os.features", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// Variant of the CPU: `v7` of `arm`, `v8` of `arm64`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// How well a platform runs an image: the least is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// Whether the image needs features that the platform does not name.
    lacks_features: bool,
    /// Place of the image's architecture among those that the platform runs.
    position: usize,
    /// How many of the platform's features the image makes use of.
    used: Reverse<usize>,
}

/// Why a text is no platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?}: platform specifier must be \"<os>[/<arch>[/<variant>]]\" of letters, digits, dots, dashes and underscores: invalid argument"
)]
pub struct ParsePlatformError(String);

impl HasKind for ParsePlatformError {
    fn kind(&self) -> Kind {
        Kind::InvalidArgument
    }
}

impl Platform {
    /// The platform this program was built for.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Self { os: "linux".into(), architecture: architecture.into(), ..Self::default() }.normalized()
    }

    /// The same platform in canonical words: `x86_64` is `amd64`, `arm64/v8` is `arm64`.
    #[must_use]
    pub fn normalized(mut self) -> Self {
        self.os = match self.os.to_lowercase().as_str() {
            "macos" => "darwin".into(),
            other => other.into(),
        };
        let (architecture, variant) = (self.architecture.to_lowercase(), self.variant.to_lowercase());
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("i386", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
            ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
            ("aarch64" | "arm64", variant) => ("arm64", variant),
            ("armhf", _) => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("arm", "" | "7") => ("arm", "v7"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "6") => ("arm", "v6"),
            ("arm", "8") => ("arm", "v8"),
            (architecture, variant) => (architecture, variant),
        };
        (self.architecture, self.variant) = (architecture.to_owned(), variant.to_owned());
        self
    }

    /// Whether both have the same operating system, architecture and variant.
    pub fn is_same_machine(&self, other: &Self) -> bool {
        (&self.os, &self.architecture, &self.variant) == (&other.os, &other.architecture, &other.variant)
    }

    /// How well `self` (a host) runs `image`; `None` is not at all.
    ///
    /// An `amd64` host runs `386`; an `arm64` host runs `arm` from v8 down; an `arm` host runs its own variant and below. An
    /// image that needs a feature which the host does not name comes after all others.
    pub fn rank(&self, image: &Self) -> Option<Rank> {
        let (host, image) = (self.clone().normalized(), image.clone().normalized());
        if host.os != image.os {
            return None;
        }
        let position = host.runs().iter().position(|(architecture, variant)| {
            *architecture == image.architecture && *variant == image.variant
        })?;
        let used = image.os_features.iter().filter(|feature| host.os_features.contains(feature)).count();
        Some(Rank { lacks_features: used < image.os_features.len(), position, used: Reverse(used) })
    }

    /// The architectures and variants that this platform runs, best first.
    fn runs(&self) -> Vec<(String, String)> {
        let own = (self.architecture.clone(), self.variant.clone());
        let below = |from: u8| (5..=from).rev().map(|v| ("arm".to_owned(), format!("v{v}")));
        match (self.architecture.as_str(), self.variant.as_str()) {
            ("amd64", "") => vec![own, ("386".into(), String::new())],
            ("amd64", variant) => {
                let level: u8 = variant.trim_start_matches('v').parse().unwrap_or(1);
                let mut all: Vec<_> =
                    (2..=level).rev().map(|v| ("amd64".to_owned(), format!("v{v}"))).collect();
                all.extend([("amd64".into(), String::new()), ("386".into(), String::new())]);
                all
            }
            ("arm64", "") => std::iter::once(own).chain(below(8)).collect(),
            ("arm", variant) => below(variant.trim_start_matches('v').parse().unwrap_or(7)).collect(),
            _ => vec![own],
        }
    }
}

impl FromStr for Platform {
    type Err = ParsePlatformError;

    /// `linux`, `linux/arm64`, `linux/arm/v7`; a bare architecture means this host's operating system.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = || ParsePlatformError(text.chars().take(128).collect());
        let parts: Vec<&str> = text.split('/').collect();
        let valid = |part: &&str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        };
        if !parts.iter().all(valid) {
            return Err(fail());
        }
        let host = Self::host();
        let platform = match parts[..] {
            [one] if is_known_os(&one.to_lowercase()) => Self { os: one.into(), ..host },
            [one] => Self { os: host.os, architecture: one.into(), ..Self::default() },
            [os, architecture] => {
                Self { os: os.into(), architecture: architecture.into(), ..Self::default() }
            }
            [os, architecture, variant] => Self {
                os: os.into(),
                architecture: architecture.into(),
                variant: variant.into(),
                ..Self::default()
            },
            _ => return Err(fail()),
        };
        Ok(platform.normalized())
    }
}

fn is_known_os(os: &str) -> bool {
    matches!(
        os,
        "aix"
            | "android"
            | "darwin"
            | "macos"
            | "dragonfly"
            | "freebsd"
            | "illumos"
            | "ios"
            | "js"
            | "linux"
            | "netbsd"
            | "openbsd"
            | "plan9"
            | "solaris"
            | "wasip1"
            | "windows"
    )
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.os.is_empty() {
            return f.pad("unknown");
        }
        let mut text = self.os.clone();
        for part in [&self.architecture, &self.variant] {
            if !part.is_empty() {
                text.push('/');
                text.push_str(part);
            }
        }
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, canonical: &str) {
        assert_eq!(text.parse::<Platform>().unwrap().to_string(), canonical, "{text}");
    }

    #[test]
    fn platforms_are_normalised() {
        check("linux/x86_64", "linux/amd64");
        check("linux/arm64/v8", "linux/arm64");
        check("linux/arm", "linux/arm/v7");
        check("aarch64", "linux/arm64");
        check("Linux/AMD64", "linux/amd64");
        assert!("linux//x".parse::<Platform>().is_err());
        assert!("a/b/c/d".parse::<Platform>().is_err());
        assert!("".parse::<Platform>().is_err());
    }

    #[test]
    fn a_host_prefers_its_own() {
        let host: Platform = "linux/arm64".parse().unwrap();
        let rank = |text: &str| host.rank(&text.parse().unwrap());
        assert!(rank("linux/arm64") < rank("linux/arm/v8"));
        assert!(rank("linux/arm/v7") < rank("linux/arm/v6"));
        assert_eq!(rank("linux/amd64"), None);
        assert_eq!(rank("windows/arm64"), None);
    }

    #[test]
    fn image_with_features_that_the_host_lacks_ranks_last() {
        let platform = |text: &str, features: &[&str]| {
            let os_features = features.iter().map(|feature| (*feature).to_owned()).collect();
            Platform { os_features, ..text.parse().unwrap() }
        };
        let (plain, erofs) = (platform("linux/amd64", &[]), platform("linux/amd64", &["erofs"]));
        assert!(plain.rank(&plain) < plain.rank(&erofs));
        assert!(plain.rank(&platform("linux/386", &[])) < plain.rank(&erofs));
        assert!(plain.rank(&erofs).is_some(), "better than none");
        assert!(erofs.rank(&erofs) < erofs.rank(&plain));
        assert!(erofs.rank(&plain) < erofs.rank(&platform("linux/amd64", &["erofs", "other"])));
    }
}
