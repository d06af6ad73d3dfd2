//! Namespaces: keep the objects of one client apart from those of others.

use spec::{Labels, Result};

use crate::{Cx, mask::Mask};

/// The namespaces and their labels.
pub trait Namespaces: Send + Sync {
    /// The labels of a namespace; empty when there is no such namespace, as containerd answers.
    fn labels(&self, cx: &Cx<'_>, name: &str) -> Result<Labels>;

    /// Every namespace by name, with its labels.
    fn list(&self, cx: &Cx<'_>) -> Result<Vec<(String, Labels)>>;

    /// Makes one. `AlreadyExists`; `InvalidArgument` for a name that is no identifier.
    fn create(&self, cx: &Cx<'_>, name: &str, labels: &Labels) -> Result<()>;

    /// Changes the labels that `mask` names (`labels.X`); all when it is empty.
    fn update(&self, cx: &Cx<'_>, name: &str, labels: &Labels, mask: &Mask) -> Result<Labels>;

    /// Deletes an empty namespace. `FailedPrecondition` names what remains in it.
    fn delete(&self, cx: &Cx<'_>, name: &str) -> Result<()>;
}
