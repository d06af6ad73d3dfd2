//! Stop signals: by number, or by name with or without `SIG`; the kubelet has an enum of its own for them.

use ::spec::Error;
use api::runtime::v1;
use model::Result;

/// Names of the signals 1 to 31, in order.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// The first real-time signal that the C library leaves to programs.
const RTMIN: u32 = 34;
/// The last signal.
const RTMAX: u32 = 64;

pub(super) const SIGTERM: u32 = 15;
pub(super) const SIGKILL: u32 = 9;

/// The number of a signal.
///
/// # Errors
/// `InvalidArgument`: there is no such signal.
pub(super) fn parse(text: &str) -> Result<u32> {
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = match name {
        "CLD" => Some(17),
        "POLL" => Some(29),
        "IOT" => Some(6),
        "RTMIN" => Some(RTMIN),
        "RTMAX" => Some(RTMAX),
        _ => match (name.strip_prefix("RTMIN+"), name.strip_prefix("RTMAX-")) {
            (Some(more), _) => more.parse::<u32>().ok().and_then(|more| RTMIN.checked_add(more)),
            (_, Some(less)) => less.parse::<u32>().ok().and_then(|less| RTMAX.checked_sub(less)),
            _ => text.parse().ok().or_else(|| {
                let at = NAMES.iter().position(|known| *known == name)?;
                u32::try_from(at + 1).ok()
            }),
        },
    };
    let number = number.filter(|number| (1..=RTMAX).contains(number));
    number.ok_or_else(|| Error::invalid(format_args!("invalid signal {text:?}")))
}

/// The kubelet's signal as a name; `None` when it leaves the choice to the image.
///
/// # Errors
/// `InvalidArgument`: a number that is none of the enum's.
pub(super) fn asked(signal: i32) -> Result<Option<String>> {
    match v1::Signal::try_from(signal) {
        Ok(v1::Signal::RuntimeDefault) => Ok(None),
        Ok(known) => Ok(Some(oci_name(known))),
        Err(_) => Err(Error::invalid(format_args!("invalid signal {signal}"))),
    }
}

/// The enum's name for a real-time signal has words where the others have signs.
fn oci_name(signal: v1::Signal) -> String {
    let name = signal.as_str_name();
    name.replace("RTMINPLUS", "RTMIN+").replace("RTMAXMINUS", "RTMAX-")
}

/// A signal in the kubelet's enum; SIGTERM for one that it has no name for.
pub(super) fn to_cri(text: &str) -> v1::Signal {
    let Ok(number) = parse(text) else { return v1::Signal::Sigterm };
    let name = match number {
        RTMIN => "SIGRTMIN".to_owned(),
        RTMAX => "SIGRTMAX".to_owned(),
        // The enum counts up to 15 from the first and down to 14 from the last.
        35..=49 => format!("SIGRTMINPLUS{}", number - RTMIN),
        50..=63 => format!("SIGRTMAXMINUS{}", RTMAX - number),
        _ => match usize::try_from(number).ok().and_then(|number| NAMES.get(number.checked_sub(1)?)) {
            Some(name) => format!("SIG{name}"),
            None => return v1::Signal::Sigterm,
        },
    };
    v1::Signal::from_str_name(&name).unwrap_or(v1::Signal::Sigterm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [
            ("TERM", 15),
            ("SIGQUIT", 3),
            ("sigkill", 9),
            ("9", 9),
            ("RTMIN+3", 37),
            ("SIGRTMAX-1", 63),
            ("64", 64),
            ("SIGIOT", 6),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for text in ["", "0", "65", "NOPE", "RTMIN+99", "RTMAX-99", "-1", "RTMIN+4294967295", "SIG9x", "９"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_signal_of_the_kubelet_is_one_and_comes_back() {
        assert_eq!(asked(0).unwrap(), None);
        assert!(asked(-1).is_err() && asked(1000).is_err());
        let mut seen = 0;
        for signal in 1..200 {
            let Ok(known) = v1::Signal::try_from(signal) else { continue };
            seen += 1;
            let name = asked(signal).unwrap().unwrap();
            let number = parse(&name).unwrap();
            assert_eq!(parse(&oci_name(to_cri(&name))).unwrap(), number, "{known:?}");
        }
        assert_eq!(seen, 65);
    }
}
