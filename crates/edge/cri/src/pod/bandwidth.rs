//! The bandwidth that a pod's annotations ask for, in Kubernetes' quantities.

use std::collections::BTreeMap;

use net::cni::Bandwidth;

/// The least that is taken for meant, in bits a second.
const LEAST: u128 = 1_000;
/// The most.
const MOST: u128 = 1_000_000_000_000_000;
/// How much may go at once, in bits: all that the plugin can be told.
const BURST: u64 = u32::MAX as u64;
/// The most digits of a quantity that are worked with.
const MAX_DIGITS: usize = 18;

/// Why an annotation asks for no bandwidth.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WrongBandwidth {
    #[error(
        "{0}: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    NoQuantity(String),
    #[error("resource is unreasonably small (< 1kbit)")]
    Small,
    #[error("resource is unreasonably large (> 1Pbit)")]
    Large,
}

/// What `kubernetes.io/ingress-bandwidth` and `egress-bandwidth` ask for; none when neither is there.
pub(super) fn of(annotations: &BTreeMap<String, String>) -> Result<Option<Bandwidth>, WrongBandwidth> {
    let rate = |way: &str| {
        let text = annotations.get(&format!("kubernetes.io/{way}-bandwidth"));
        text.map(|text| rate(text)).transpose()
    };
    let (ingress, egress) = (rate("ingress")?, rate("egress")?);
    if ingress.is_none() && egress.is_none() {
        return Ok(None);
    }
    let burst = |rate: Option<u64>| rate.map_or(0, |_| BURST);
    Ok(Some(Bandwidth {
        ingress_rate: ingress.unwrap_or(0),
        ingress_burst: burst(ingress),
        egress_rate: egress.unwrap_or(0),
        egress_burst: burst(egress),
    }))
}

fn rate(text: &str) -> Result<u64, WrongBandwidth> {
    match quantity(text).ok_or_else(|| WrongBandwidth::NoQuantity(text.to_owned()))? {
        bits if bits < LEAST => Err(WrongBandwidth::Small),
        bits if bits > MOST => Err(WrongBandwidth::Large),
        bits => u64::try_from(bits).map_err(|_| WrongBandwidth::Large),
    }
}

/// A quantity of Kubernetes, rounded up to a whole number; negative ones are 0, and what is beyond all reason is the
/// largest number there is. None when it is no quantity.
fn quantity(text: &str) -> Option<u128> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let (binary, decimal) = scale(suffix)?;
    if text.starts_with('-') {
        return Some(0);
    }
    let whole = whole.trim_start_matches('0');
    let fraction = &fraction[..fraction.len().min(MAX_DIGITS)];
    if whole.len() > MAX_DIGITS {
        return Some(u128::MAX);
    }
    let digits: u128 = if whole.is_empty() && fraction.is_empty() {
        0
    } else {
        format!("{whole}{fraction}").parse().ok()?
    };
    let places = decimal - i32::try_from(fraction.len()).ok()?;
    let power = 10u128.checked_pow(places.unsigned_abs());
    let Some(scaled) = digits.checked_mul(binary) else { return Some(u128::MAX) };
    Some(match (places >= 0, power) {
        (true, Some(power)) => scaled.saturating_mul(power),
        (true, None) => u128::MAX * u128::from(digits > 0),
        (false, Some(power)) => scaled.div_ceil(power),
        (false, None) => u128::from(digits > 0),
    })
}

/// What a suffix multiplies by: a power of two, and the exponent of one of ten.
fn scale(suffix: &str) -> Option<(u128, i32)> {
    Some(match suffix {
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "" => (1, 0),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            (1, exponent.clamp(-1000, 1000))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_those_of_kubernetes() {
        for (text, number) in [
            ("10M", Some(10_000_000)),
            ("1Ki", Some(1024)),
            ("7", Some(7)),
            ("1.5M", Some(1_500_000)),
            (".5Gi", Some(1 << 29)),
            ("5.", Some(5)),
            ("1e6", Some(1_000_000)),
            ("1E3", Some(1000)),
            ("1E", Some(1_000_000_000_000_000_000)),
            ("12345e-2", Some(124)),
            ("1500m", Some(2)),
            ("1n", Some(1)),
            ("0e999", Some(0)),
            ("+3k", Some(3000)),
            ("-3k", Some(0)),
            ("99999999999999999999", Some(u128::MAX)),
            ("1e99", Some(u128::MAX)),
            ("x", None),
            ("", None),
            (".", None),
            ("1.2.3", None),
            ("10 M", None),
            ("10MB", None),
            ("1K", None),
            ("--1", None),
            ("1e", None),
        ] {
            assert_eq!(quantity(text), number, "{text}");
        }
    }

    #[test]
    fn only_a_reasonable_bandwidth_is_one() {
        let asked = |text: &str| of(&[("kubernetes.io/egress-bandwidth".to_owned(), text.to_owned())].into());
        let limits = asked("1M").unwrap().unwrap();
        assert_eq!((limits.ingress_rate, limits.ingress_burst), (0, 0));
        assert_eq!((limits.egress_rate, limits.egress_burst), (1_000_000, 4_294_967_295));
        assert_eq!(asked("999").unwrap_err(), WrongBandwidth::Small);
        assert_eq!(asked("2P").unwrap_err(), WrongBandwidth::Large);
        assert_eq!(asked("1P").unwrap().unwrap().egress_rate, 1_000_000_000_000_000);
        assert_eq!(asked("much").unwrap_err(), WrongBandwidth::NoQuantity("much".into()));
        assert_eq!(of(&BTreeMap::new()), Ok(None));
    }
}
