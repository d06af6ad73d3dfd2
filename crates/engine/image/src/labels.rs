//! The labels that a transfer puts on content.

use model::content::Content;
use model::mask::Mask;
use model::{Cx, Labels};
use spec::{Digest, Reference, Result, label};

/// The label that remembers where content came from, for later sharing between repositories.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    key: String,
    repository: String,
}

impl Source {
    pub fn of(reference: &Reference) -> Self {
        let key = format!("{}{}", label::DISTRIBUTION_SOURCE, reference.host());
        Self { key, repository: reference.path().to_owned() }
    }

    /// Adds the repository to what `known` has; `false` when it is there, or would not fit.
    pub fn add_to(&self, labels: &mut Labels, known: Option<&Labels>) -> bool {
        let old = known.and_then(|labels| labels.get(&self.key)).map(String::as_str).unwrap_or_default();
        let mut all: Vec<&str> = old.split(',').filter(|part| !part.is_empty()).collect();
        if all.contains(&self.repository.as_str()) {
            return false;
        }
        all.push(&self.repository);
        all.sort_unstable();
        let value = all.join(",");
        if label::check(&self.key, &value).is_err() {
            return false;
        }
        labels.insert(self.key.clone(), value);
        true
    }

    /// The repositories of `host` that labels remember.
    pub fn repositories(labels: &Labels, host: &str) -> Vec<String> {
        let list = labels.get(&format!("{}{host}", label::DISTRIBUTION_SOURCE));
        let parts = list.map(String::as_str).unwrap_or_default().split(',');
        parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }
}

/// Sets those of `wanted` that content lacks, and its source.
pub(crate) fn ensure(
    cx: &Cx<'_>,
    content: &dyn Content,
    digest: &Digest,
    wanted: &Labels,
    source: Option<&Source>,
) -> Result<()> {
    let known = content.info(cx, digest)?.labels;
    let mut labels: Labels = wanted
        .iter()
        .filter(|(key, value)| known.get(*key) != Some(value))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if let Some(source) = source {
        source.add_to(&mut labels, Some(&known));
    }
    if labels.is_empty() {
        return Ok(());
    }
    let mask = Mask::new(labels.keys().map(|key| format!("labels.{key}")));
    content.update(cx, digest, &labels, &mask).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_a_sorted_list_without_doubles() {
        let source = Source::of(&"r.example/b:1".parse().unwrap());
        let mut labels = Labels::new();
        assert!(source.add_to(&mut labels, None));
        let known = Labels::from([("containerd.io/distribution.source.r.example".into(), "c,a".into())]);
        assert!(source.add_to(&mut labels, Some(&known)));
        assert_eq!(Source::repositories(&labels, "r.example"), ["a", "b", "c"]);
        assert!(!source.add_to(&mut Labels::new(), Some(&labels.clone())));
    }
}
