//! Which plugin has set what of which container: no two may set the same.

use ::spec::{Error, Kind};
use api::nri::pkg::api::v1alpha1::{self as pb, Field};
use model::Result;

use super::mark;

/// Who set what, in the form that validators are told.
#[derive(Clone, Debug, Default)]
pub struct Owners(pub pb::OwningPlugins);

impl Owners {
    fn of(&mut self, id: &str) -> &mut pb::FieldOwners {
        self.0.owners.entry(id.to_owned()).or_default()
    }

    /// `plugin` sets `field` of the container `id`.
    ///
    /// # Errors
    /// Another plugin has.
    pub fn claim(&mut self, id: &str, field: Field, plugin: &str) -> Result<()> {
        let simple = &mut self.of(id).simple;
        check(simple.get(&(field as i32)), plugin, field, "")?;
        simple.insert(field as i32, plugin.to_owned());
        Ok(())
    }

    /// `plugin` sets the `key` of `field`.
    ///
    /// # Errors
    /// Another plugin has.
    pub fn claim_key(&mut self, id: &str, field: Field, key: &str, plugin: &str) -> Result<()> {
        let keys = &mut self.of(id).compound.entry(field as i32).or_default().owners;
        check(keys.get(key), plugin, field, key)?;
        keys.insert(key.to_owned(), plugin.to_owned());
        Ok(())
    }

    /// `plugin` adds to `field`, as others may.
    pub fn share(&mut self, id: &str, field: Field, plugin: &str) {
        let owner = self.of(id).simple.entry(field as i32).or_default();
        *owner = if owner.is_empty() { plugin.to_owned() } else { format!("{owner},{plugin}") };
    }

    /// `plugin` takes away what was set, and may set it anew.
    pub fn clear(&mut self, id: &str, field: Field, plugin: &str) {
        self.of(id).simple.insert(field as i32, mark::removal(plugin));
    }

    /// `plugin` takes away the `key` of `field`, and may set it anew.
    pub fn clear_key(&mut self, id: &str, field: Field, key: &str, plugin: &str) {
        let keys = &mut self.of(id).compound.entry(field as i32).or_default().owners;
        keys.insert(key.to_owned(), mark::removal(plugin));
    }

    /// Who set `field` of the container `id`.
    pub fn owner(&self, id: &str, field: Field) -> Option<&str> {
        let owner = self.0.owners.get(id)?.simple.get(&(field as i32))?;
        (!mark::is_removal(owner)).then_some(owner)
    }

    /// Who set the keys of `field` of the container `id`.
    pub fn owners(&self, id: &str, field: Field) -> Vec<(&str, &str)> {
        let of = self.0.owners.get(id).and_then(|fields| fields.compound.get(&(field as i32)));
        let set = of.into_iter().flat_map(|keys| &keys.owners).filter(|(_, owner)| !mark::is_removal(owner));
        set.map(|(key, owner)| (key.as_str(), owner.as_str())).collect()
    }
}

fn check(other: Option<&String>, plugin: &str, field: Field, key: &str) -> Result<()> {
    let Some(other) = other else { return Ok(()) };
    let other = match mark::split(other) {
        (clearer, true) if clearer == plugin => return Ok(()),
        (other, _) => other,
    };
    let field = field.as_str_name();
    let what = if key.is_empty() { field.to_owned() } else { format!("{field} {key}") };
    Err(Error::new(Kind::Unknown, format!("plugins {plugin:?} and {other:?} both tried to set {what}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_plugin_has_set_another_sets_only_after_taking_it_away() {
        let mut owners = Owners::default();
        owners.claim("c", Field::MemLimit, "10-a").unwrap();
        owners.claim("other", Field::MemLimit, "20-b").unwrap();
        let error = owners.claim("c", Field::MemLimit, "20-b").unwrap_err();
        assert_eq!(error.text(), "plugins \"20-b\" and \"10-a\" both tried to set MemLimit");
        owners.claim_key("c", Field::Env, "A", "10-a").unwrap();
        owners.claim_key("c", Field::Env, "B", "20-b").unwrap();
        let error = owners.claim_key("c", Field::Env, "A", "20-b").unwrap_err();
        assert_eq!(error.text(), "plugins \"20-b\" and \"10-a\" both tried to set Env A");
        owners.clear_key("c", Field::Env, "A", "20-b");
        owners.claim_key("c", Field::Env, "A", "30-c").unwrap_err();
        owners.claim_key("c", Field::Env, "A", "20-b").unwrap();
        assert_eq!(owners.owners("c", Field::Env), [("A", "20-b"), ("B", "20-b")]);
    }

    #[test]
    fn hooks_are_shared() {
        let mut owners = Owners::default();
        owners.share("c", Field::OciHooks, "10-a");
        owners.share("c", Field::OciHooks, "20-b");
        assert_eq!(owners.owner("c", Field::OciHooks), Some("10-a,20-b"));
        owners.clear("c", Field::Args, "10-a");
        assert_eq!(owners.owner("c", Field::Args), None);
    }
}
