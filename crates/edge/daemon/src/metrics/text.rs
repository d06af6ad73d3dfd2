//! Prometheus' text format: families in order, each with its help, its type and its samples.

use std::collections::BTreeMap;
use std::fmt::Write;

/// Metrics that become a text.
#[derive(Debug, Default)]
pub(super) struct Text {
    families: BTreeMap<String, Family>,
}

#[derive(Debug)]
struct Family {
    kind: &'static str,
    help: &'static str,
    samples: String,
}

impl Text {
    /// A number that only grows.
    pub fn counter(&mut self, name: &str, help: &'static str, labels: &[(&str, &str)], value: f64) {
        self.sample("counter", name, help, labels, value);
    }

    /// A number that comes and goes.
    pub fn gauge(&mut self, name: &str, help: &'static str, labels: &[(&str, &str)], value: f64) {
        self.sample("gauge", name, help, labels, value);
    }

    fn sample(
        &mut self,
        kind: &'static str,
        name: &str,
        help: &'static str,
        labels: &[(&str, &str)],
        value: f64,
    ) {
        let family = self.families.entry(name.to_owned()).or_insert_with(|| Family {
            kind,
            help,
            samples: String::new(),
        });
        let out = &mut family.samples;
        out.push_str(name);
        for (at, (key, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', "\\n");
            // Writing to a String cannot fail.
            let _ = write!(out, "{}{key}=\"{text}\"", if at == 0 { '{' } else { ',' });
        }
        let _ = writeln!(out, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// The text.
    pub fn finish(self) -> String {
        let mut out = String::new();
        for (name, family) in self.families {
            let _ = write!(
                out,
                "# HELP {name} {}\n# TYPE {name} {}\n{}",
                family.help, family.kind, family.samples
            );
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_stands_together_and_labels_are_quoted() {
        let mut text = Text::default();
        text.gauge("b", "B.", &[("id", "x\"\\\n")], 1.5);
        text.counter("a_total", "A.", &[], 18_446_744_073_709_551_615.0);
        text.gauge("b", "B.", &[("id", "y"), ("k", "v")], 2.0);
        let expected = "# HELP a_total A.\n# TYPE a_total counter\na_total 18446744073709552000\n\
                        # HELP b B.\n# TYPE b gauge\nb{id=\"x\\\"\\\\\\n\"} 1.5\nb{id=\"y\",k=\"v\"} 2\n";
        assert_eq!(text.finish(), expected);
    }
}
