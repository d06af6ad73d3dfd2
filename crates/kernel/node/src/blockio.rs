//! Classes of block I/O: a file says what a class means, a container is put into one by its name.
//!
//! ```yaml
//! Classes:
//!   slow:
//!   - Weight: 80
//!   - Devices: [/dev/vd*]
//!     ThrottleReadBps: 60M
//! ```
//!
//! Invariant: a class means all that its file says, or nothing.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use spec::runtime::{LinuxBlockIo, LinuxThrottleDevice, LinuxWeightDevice};
use spec::{Error, Result};

/// The longest file, in bytes.
const MAX_BYTES: usize = 1 << 20;
/// The least and the greatest weight.
const WEIGHTS: (u64, u64) = (10, 1000);

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
struct File {
    classes: BTreeMap<String, Option<Vec<Rule>>>,
}

/// What holds for some devices, or for all when it names none.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
struct Rule {
    devices: Option<Vec<String>>,
    throttle_read_bps: Option<Amount>,
    throttle_write_bps: Option<Amount>,
    #[serde(rename = "ThrottleReadIOPS")]
    throttle_read_iops: Option<Amount>,
    #[serde(rename = "ThrottleWriteIOPS")]
    throttle_write_iops: Option<Amount>,
    weight: Option<Amount>,
}

/// A number, or a text such as `60M`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Amount {
    Number(u64),
    Text(String),
}

impl Amount {
    fn value(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => quantity(text),
        }
    }
}

/// Kubernetes' quantities, as far as they are whole: `60M`, `4Ki`, `100`.
fn quantity(text: &str) -> Option<u64> {
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let unit: u64 = match &text[end..] {
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    text[..end].parse::<u64>().ok()?.checked_mul(unit)
}

/// What the class `name` of the file `path` means; of no class when there is no file.
///
/// # Errors
/// The file cannot be read or is malformed; it has no such class.
pub fn class(path: Option<&Path>, name: &str) -> Result<LinuxBlockIo> {
    let mut file = File::default();
    if let Some(path) = path {
        let failed = |what: String| Error::invalid(format!("blockio classes of {}: {what}", path.display()));
        let bytes = crate::read_file(path, MAX_BYTES).map_err(|error| failed(error.to_string()))?;
        let text = String::from_utf8(bytes).map_err(|error| failed(error.to_string()))?;
        let value = crate::cdi::parse_yaml(&text).map_err(failed)?;
        file = spec::json::from_value(&value).map_err(|error| failed(error.to_string()))?;
    }
    let rules =
        file.classes.get(name).ok_or_else(|| Error::not_found(format_args!("blockio class {name:?}")))?;
    let mut meaning = LinuxBlockIo::default();
    for rule in rules.iter().flatten() {
        rule.add_to(&mut meaning, block_devices)
            .map_err(|error| error.context(format_args!("blockio class {name:?}")))?;
    }
    Ok(meaning)
}

impl Rule {
    /// Adds what the rule says to `meaning`; `find` gives the devices of a pattern.
    fn add_to(&self, meaning: &mut LinuxBlockIo, find: impl Fn(&str) -> Vec<(i64, i64)>) -> Result<()> {
        let weight = amount("Weight", self.weight.as_ref())?;
        if weight.is_some_and(|weight| !(WEIGHTS.0..=WEIGHTS.1).contains(&weight)) {
            return Err(Error::invalid(format!("Weight is not between {} and {}", WEIGHTS.0, WEIGHTS.1)));
        }
        let weight = weight.and_then(|weight| u16::try_from(weight).ok());
        let throttles = [
            (
                amount("ThrottleReadBps", self.throttle_read_bps.as_ref())?,
                &mut meaning.throttle_read_bps_device,
            ),
            (
                amount("ThrottleWriteBps", self.throttle_write_bps.as_ref())?,
                &mut meaning.throttle_write_bps_device,
            ),
            (
                amount("ThrottleReadIOPS", self.throttle_read_iops.as_ref())?,
                &mut meaning.throttle_read_iops_device,
            ),
            (
                amount("ThrottleWriteIOPS", self.throttle_write_iops.as_ref())?,
                &mut meaning.throttle_write_iops_device,
            ),
        ];
        let Some(patterns) = &self.devices else {
            if throttles.iter().any(|(rate, _)| rate.is_some()) {
                return Err(Error::invalid("a throttle needs Devices"));
            }
            meaning.weight = weight.or(meaning.weight);
            return Ok(());
        };
        let mut found: Vec<_> = patterns.iter().flat_map(|pattern| find(pattern)).collect();
        found.sort_unstable();
        found.dedup();
        if found.is_empty() {
            tracing::warn!(?patterns, "no block device of a blockio class is here");
        }
        for (rate, devices) in throttles {
            let Some(rate) = rate else { continue };
            for &(major, minor) in &found {
                devices.retain(|known: &LinuxThrottleDevice| (known.major, known.minor) != (major, minor));
                devices.push(LinuxThrottleDevice { major, minor, rate });
            }
        }
        for &(major, minor) in found.iter().filter(|_| weight.is_some()) {
            meaning.weight_device.retain(|known| (known.major, known.minor) != (major, minor));
            meaning.weight_device.push(LinuxWeightDevice { major, minor, weight, leaf_weight: None });
        }
        Ok(())
    }
}

fn amount(name: &str, amount: Option<&Amount>) -> Result<Option<u64>> {
    let value =
        |amount: &Amount| amount.value().ok_or_else(|| Error::invalid(format!("{name} is no number")));
    amount.map(value).transpose()
}

/// The whole disks that `pattern` names, links followed.
fn block_devices(pattern: &str) -> Vec<(i64, i64)> {
    let number = |path: PathBuf| {
        let metadata = std::fs::metadata(path).ok().filter(|found| found.file_type().is_block_device())?;
        let (major, minor) = sys::path::at::device_parts(metadata.rdev());
        let partition = format!("/sys/dev/block/{major}:{minor}/partition");
        (!Path::new(&partition).exists()).then(|| (major.into(), minor.into()))
    };
    matching(pattern).into_iter().filter_map(number).collect()
}

/// The paths that a shell's pattern names.
fn matching(pattern: &str) -> Vec<PathBuf> {
    let mut paths = vec![PathBuf::from("/")];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        if !part.contains(['*', '?', '[']) {
            paths.iter_mut().for_each(|path| path.push(part));
            continue;
        }
        let below = |path: &PathBuf| {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
            names
                .filter(|name| fits(part.as_bytes(), name.as_bytes()))
                .map(|name| path.join(name))
                .collect::<Vec<_>>()
        };
        paths = paths.iter().flat_map(below).collect();
    }
    paths.retain(|path| path.exists());
    paths
}

/// Whether `name` fits a pattern of `*`, `?` and `[...]`.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], _) => name.is_empty(),
        ([b'*', rest @ ..], _) => (0..=name.len()).any(|skipped| fits(rest, &name[skipped..])),
        ([b'?', rest @ ..], [_, name @ ..]) => fits(rest, name),
        ([b'[', rest @ ..], [letter, name @ ..]) => {
            let Some(end) = rest.iter().position(|&byte| byte == b']') else { return false };
            let (set, rest) = (&rest[..end], &rest[end + 1..]);
            let (set, wanted) = set.strip_prefix(b"^").map_or((set, true), |set| (set, false));
            within(set, *letter) == wanted && fits(rest, name)
        }
        ([byte, rest @ ..], [letter, name @ ..]) => byte == letter && fits(rest, name),
        (_, []) => false,
    }
}

/// Whether a set such as `a-z_` has `letter`.
fn within(set: &[u8], letter: u8) -> bool {
    match set {
        [first, b'-', last, rest @ ..] => (*first..=*last).contains(&letter) || within(rest, letter),
        [one, rest @ ..] => *one == letter || within(rest, letter),
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_means_what_its_file_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("classes.yaml");
        let of = |text: &str, name: &str| {
            std::fs::write(&path, text).unwrap();
            class(Some(&path), name)
        };
        let text = "Classes:\n  slow:\n  - Weight: 80\n  - Devices: [/dev/null]\n    ThrottleReadBps: 60M\n";
        let slow = of(text, "slow").unwrap();
        assert_eq!(slow, LinuxBlockIo { weight: Some(80), ..LinuxBlockIo::default() }, "null is no disk");
        assert_eq!(of(text, "fast").unwrap_err().text(), "blockio class \"fast\": not found");
        for (wrong, word) in [
            ("Classes:\n  a:\n  - Weight: 5\n", "between 10 and 1000"),
            ("Classes:\n  a:\n  - Weight: much\n", "Weight is no number"),
            ("Classes:\n  a:\n  - ThrottleReadBps: 1M\n", "needs Devices"),
            ("Classes:\n  a:\n  - Speed: 1\n", "Speed"),
        ] {
            let error = of(wrong, "a").unwrap_err();
            assert!(error.text().contains(word), "{wrong}: {error}");
        }
        assert!(class(None, "slow").unwrap_err().text().contains("not found"));
    }

    #[test]
    fn rules_reach_each_device_once_and_later_ones_win() {
        let find = |_: &str| vec![(8, 0), (8, 16), (8, 0)];
        let mut meaning = LinuxBlockIo::default();
        let devices = || Some(vec!["/dev/sd?".to_owned()]);
        let rule = |rate: &str, weight: u64| Rule {
            devices: devices(),
            throttle_write_iops: Some(Amount::Text(rate.into())),
            weight: Some(Amount::Number(weight)),
            ..Rule::default()
        };
        rule("1k", 100).add_to(&mut meaning, find).unwrap();
        rule("2Ki", 200).add_to(&mut meaning, find).unwrap();
        let throttle = |minor| LinuxThrottleDevice { major: 8, minor, rate: 2048 };
        assert_eq!(meaning.throttle_write_iops_device, [throttle(0), throttle(16)]);
        let weights: Vec<_> = meaning.weight_device.iter().map(|one| (one.minor, one.weight)).collect();
        assert_eq!(weights, [(0, Some(200)), (16, Some(200))]);
        assert_eq!(meaning.weight, None);
    }

    #[test]
    fn patterns_are_a_shells() {
        for (pattern, name, fit) in [
            ("sd[a-c]", "sdb", true),
            ("sd[^a-c]", "sdb", false),
            ("sd?", "sdaa", false),
            ("*SSD*", "ata-SSD-1", true),
            ("sd*", "vda", false),
            ("sda", "sda", true),
            ("sd[a", "sda", false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), fit, "{pattern} {name}");
        }
        let dir = tempfile::tempdir().unwrap();
        for name in ["one1", "one2", "two"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let mut found = matching(&format!("{}/one*", dir.path().display()));
        found.sort();
        assert_eq!(found, [dir.path().join("one1"), dir.path().join("one2")]);
    }
}
