//! Classes of block I/O and of caches (RDT) that annotations ask for. The daemon has no file that says what a class is,
//! as containerd without `blockio_config_file` and `rdt_config_file`: asking for one is an error, or is ignored where
//! the configuration says so.

use std::collections::BTreeMap;

use ::spec::Error;
use model::Result;

use crate::config::Runtime;

/// A kind of class, by the annotations that ask for one.
struct Kind {
    name: &'static str,
    /// Of a container's own request.
    container: &'static str,
    /// Of its pod, for every container.
    pod: &'static str,
    /// Of its pod, for the container whose name follows.
    pod_container: &'static str,
}

const BLOCKIO: Kind = Kind {
    name: "blockio",
    container: "io.kubernetes.cri.blockio-class",
    pod: "blockio.resources.beta.kubernetes.io/pod",
    pod_container: "blockio.resources.beta.kubernetes.io/container.",
};

const RDT: Kind = Kind {
    name: "RDT",
    container: "io.kubernetes.cri.rdt-class",
    pod: "rdt.resources.beta.kubernetes.io/pod",
    pod_container: "rdt.resources.beta.kubernetes.io/container.",
};

/// Refuses classes that the container `name` asks for by its `own` annotations and those `of_pod`.
///
/// # Errors
/// `FailedPrecondition`: a class is asked for, and the configuration does not ignore that.
pub fn check(
    name: &str,
    own: &BTreeMap<String, String>,
    of_pod: &BTreeMap<String, String>,
    runtime: &Runtime,
) -> Result<()> {
    let ignored = [runtime.ignore_blockio_not_enabled_errors, runtime.ignore_rdt_not_enabled_errors];
    for (kind, ignored) in [BLOCKIO, RDT].iter().zip(ignored) {
        let class = kind.class(name, own, of_pod);
        if !class.is_empty() && !ignored {
            let kind = kind.name;
            return Err(Error::failed_precondition(format_args!(
                "failed to set {kind} class: {kind} disabled, refusing to set {kind} class of container {name:?} to \
                 {class:?}"
            )));
        }
    }
    Ok(())
}

impl Kind {
    /// The class, the nearest annotation first; empty for none.
    fn class<'a>(
        &self,
        name: &str,
        own: &'a BTreeMap<String, String>,
        of_pod: &'a BTreeMap<String, String>,
    ) -> &'a str {
        let found = own
            .get(self.container)
            .or_else(|| of_pod.get(&format!("{}{name}", self.pod_container)))
            .or_else(|| of_pod.get(self.pod));
        found.map_or("", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_refused_or_ignored_and_never_half_set() {
        let none = BTreeMap::new();
        let of = |key: &str, class: &str| BTreeMap::from([(key.to_owned(), class.to_owned())]);
        let strict = Runtime::default();
        for (own, pod, fine) in [
            (none.clone(), none.clone(), true),
            (of("io.kubernetes.cri.blockio-class", "slow"), none.clone(), false),
            (of("io.kubernetes.cri.rdt-class", "gold"), none.clone(), false),
            (none.clone(), of("blockio.resources.beta.kubernetes.io/pod", "slow"), false),
            (none.clone(), of("rdt.resources.beta.kubernetes.io/container.one", "gold"), false),
            (none.clone(), of("rdt.resources.beta.kubernetes.io/container.two", "gold"), true),
            (of("io.kubernetes.cri.rdt-class", ""), of("rdt.resources.beta.kubernetes.io/pod", "gold"), true),
        ] {
            assert_eq!(check("one", &own, &pod, &strict).is_ok(), fine, "{own:?} {pod:?}");
        }
        let own = of("io.kubernetes.cri.blockio-class", "slow");
        let text = "refusing to set blockio class of container \"one\" to \"slow\"";
        assert!(check("one", &own, &none, &strict).unwrap_err().text().contains(text));
        let lenient = Runtime { ignore_blockio_not_enabled_errors: true, ..Runtime::default() };
        assert!(check("one", &own, &none, &lenient).is_ok());
        assert!(check("one", &of("io.kubernetes.cri.rdt-class", "x"), &none, &lenient).is_err());
    }
}
