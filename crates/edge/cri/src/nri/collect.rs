//! What all plugins together want of one request: each sees what those before it wanted, none undoes another's by
//! accident.
//!
//! Pure: nothing is done to anything here.

use std::collections::BTreeMap;

use ::spec::Error;
use api::nri::pkg::api::v1alpha1::{self as pb, Field};
use model::Result;

use super::owners::Owners;
use super::{mark, resources};

/// What plugins want of a container that is being made.
#[derive(Debug, Default)]
pub struct Collected {
    /// Changes of the container that is being made.
    pub adjust: pb::ContainerAdjustment,
    /// Changes of containers that live, by id.
    pub updates: BTreeMap<String, pb::ContainerUpdate>,
    /// Who wanted what.
    pub owners: Owners,
}

/// Whose turn it is, and with which container.
struct Turn<'a> {
    owners: &'a mut Owners,
    id: String,
    plugin: &'a str,
}

impl Collected {
    /// Adds what `plugin` answered; `container` becomes what the next one sees.
    ///
    /// # Errors
    /// It sets what another has set.
    pub fn adjust(
        &mut self,
        plugin: &str,
        container: &mut pb::Container,
        wanted: pb::ContainerAdjustment,
    ) -> Result<()> {
        let mut turn = Turn { owners: &mut self.owners, id: container.id.clone(), plugin };
        let reply = &mut self.adjust;
        turn.map(
            Field::Annotations,
            wanted.annotations,
            &mut container.annotations,
            &mut reply.annotations,
            String::new(),
        )?;
        turn.list(Field::Mounts, wanted.mounts, &mut container.mounts, &mut reply.mounts, |mount| {
            &mut mount.destination
        })?;
        turn.env(wanted.env, &mut container.env, &mut reply.env)?;
        turn.args(wanted.args, &mut container.args, &mut reply.args)?;
        if let Some(hooks) = wanted.hooks {
            turn.hooks(hooks, container, reply);
        }
        for limit in wanted.rlimits {
            turn.owners.claim_key(&turn.id, Field::Rlimits, &limit.r#type, plugin)?;
            container.rlimits.push(limit.clone());
            reply.rlimits.push(limit);
        }
        for device in wanted.cdi_devices {
            turn.owners.claim_key(&turn.id, Field::CdiDevices, &device.name, plugin)?;
            reply.cdi_devices.push(device);
        }
        match wanted.linux {
            Some(linux) => turn.linux(
                linux,
                container.linux.get_or_insert_default(),
                reply.linux.get_or_insert_default(),
            ),
            None => Ok(()),
        }
    }

    /// Adds changes of other containers than `own`, and returns those of `own`.
    ///
    /// # Errors
    /// They set what another plugin has set, and must not fail.
    pub fn update(
        &mut self,
        plugin: &str,
        own: &str,
        wanted: Vec<pb::ContainerUpdate>,
    ) -> Result<Vec<pb::LinuxResources>> {
        let mut of_own = Vec::new();
        for update in wanted {
            let limits = update.linux.and_then(|linux| linux.resources).unwrap_or_default();
            let claimed = resources::claim(&mut self.owners, &update.container_id, plugin, &limits);
            match claimed {
                Err(_) if update.ignore_failure => continue,
                claimed => claimed?,
            }
            if update.container_id == own {
                of_own.push(limits);
                continue;
            }
            let known = self.updates.entry(update.container_id.clone()).or_insert_with(|| {
                let id = update.container_id.clone();
                pb::ContainerUpdate { container_id: id, linux: None, ignore_failure: true }
            });
            known.ignore_failure &= update.ignore_failure;
            let into = known.linux.get_or_insert_default().resources.get_or_insert_default();
            resources::overlay(into, &limits);
        }
        Ok(of_own)
    }

    /// The same during the making of `own`, which is not there to be updated.
    ///
    /// # Errors
    /// As [`Collected::update`]; a plugin updates the container that is being made.
    pub fn update_others(&mut self, plugin: &str, own: &str, wanted: Vec<pb::ContainerUpdate>) -> Result<()> {
        if wanted.iter().any(|update| update.container_id == own) {
            return Err(Error::invalid(format!("plugin {plugin:?} asked update of {own:?} during creation")));
        }
        self.update(plugin, own, wanted).map(drop)
    }
}

impl Turn<'_> {
    fn linux(
        &mut self,
        wanted: pb::LinuxContainerAdjustment,
        seen: &mut pb::LinuxContainer,
        reply: &mut pb::LinuxContainerAdjustment,
    ) -> Result<()> {
        let (id, plugin) = (self.id.clone(), self.plugin);
        self.list(Field::Devices, wanted.devices, &mut seen.devices, &mut reply.devices, |device| {
            &mut device.path
        })?;
        if let Some(limits) = wanted.resources {
            resources::claim(self.owners, &id, plugin, &limits)?;
            resources::overlay(seen.resources.get_or_insert_default(), &limits);
            resources::overlay(reply.resources.get_or_insert_default(), &limits);
        }
        if !wanted.cgroups_path.is_empty() {
            self.owners.claim(&id, Field::CgroupsPath, plugin)?;
            seen.cgroups_path.clone_from(&wanted.cgroups_path);
            reply.cgroups_path = wanted.cgroups_path;
        }
        macro_rules! one {
            ($($field:ident $name:ident $(-> $seen:ident)?;)*) => {
                $(if wanted.$field.is_some() {
                    self.owners.claim(&id, Field::$name, plugin)?;
                    $(seen.$seen.clone_from(&wanted.$field);)?
                    reply.$field = wanted.$field;
                })*
            };
        }
        one! {
            oom_score_adj OomScoreAdj -> oom_score_adj;
            io_priority IoPriority -> io_priority;
            seccomp_policy SeccompPolicy -> seccomp_policy;
            scheduler LinuxSched -> scheduler;
            memory_policy MemoryPolicy;
        }
        for namespace in wanted.namespaces {
            let (kind, removed) = mark::split(&namespace.r#type);
            self.owners.claim_key(&id, Field::Namespace, kind, plugin)?;
            seen.namespaces.retain(|known| known.r#type != kind);
            if !removed {
                seen.namespaces.push(namespace.clone());
            }
            reply.namespaces.push(namespace);
        }
        self.map(Field::Sysctl, wanted.sysctl, &mut seen.sysctl, &mut reply.sysctl, String::new())?;
        self.map(
            Field::LinuxNetDevices,
            wanted.net_devices,
            &mut seen.net_devices,
            &mut reply.net_devices,
            pb::LinuxNetDevice::default(),
        )?;
        wanted.rdt.map_or(Ok(()), |rdt| self.rdt(rdt, reply))
    }

    /// Settings by key: marked keys are taken away first, whoever set them.
    fn map<V: Clone>(
        &mut self,
        field: Field,
        wanted: BTreeMap<String, V>,
        seen: &mut BTreeMap<String, V>,
        reply: &mut BTreeMap<String, V>,
        nothing: V,
    ) -> Result<()> {
        let (removed, set): (BTreeMap<_, _>, BTreeMap<_, _>) =
            wanted.into_iter().partition(|(key, _)| mark::is_removal(key));
        for marked in removed.into_keys() {
            let (key, _) = mark::split(&marked);
            self.owners.clear_key(&self.id, field, key, self.plugin);
            seen.remove(key);
            reply.remove(key);
            reply.insert(marked, nothing.clone());
        }
        for (key, value) in set {
            self.owners.claim_key(&self.id, field, &key, self.plugin)?;
            seen.insert(key.clone(), value.clone());
            reply.insert(key, value);
        }
        Ok(())
    }

    /// Items with a name of their own: the same, but that marks are kept in their place.
    fn list<T: Clone>(
        &mut self,
        field: Field,
        wanted: Vec<T>,
        seen: &mut Vec<T>,
        reply: &mut Vec<T>,
        name: impl Fn(&mut T) -> &mut String,
    ) -> Result<()> {
        let (mut removed, mut set) = (Vec::new(), Vec::new());
        for mut item in wanted {
            let key = name(&mut item).clone();
            if mark::is_removal(&key) { removed.push((key, item)) } else { set.push((key, item)) }
        }
        let without = |items: &mut Vec<T>, key: &str| {
            items.retain_mut(|item| name(item).as_str() != key);
        };
        for (marked, item) in removed {
            let (key, _) = mark::split(&marked);
            self.owners.clear_key(&self.id, field, key, self.plugin);
            without(seen, key);
            without(reply, key);
            reply.push(item);
        }
        for (key, item) in set {
            self.owners.claim_key(&self.id, field, &key, self.plugin)?;
            without(seen, &key);
            seen.push(item.clone());
            reply.push(item);
        }
        Ok(())
    }

    fn env(
        &mut self,
        wanted: Vec<pb::KeyValue>,
        seen: &mut Vec<String>,
        reply: &mut Vec<pb::KeyValue>,
    ) -> Result<()> {
        let split = |pair: &String| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            pb::KeyValue { key: key.into(), value: value.into() }
        };
        let mut pairs: Vec<pb::KeyValue> = seen.iter().map(split).collect();
        self.list(Field::Env, wanted, &mut pairs, reply, |pair| &mut pair.key)?;
        *seen = pairs.into_iter().map(|pair| format!("{}={}", pair.key, pair.value)).collect();
        Ok(())
    }

    /// An empty first word takes away what another plugin set.
    fn args(
        &mut self,
        mut wanted: Vec<String>,
        seen: &mut Vec<String>,
        reply: &mut Vec<String>,
    ) -> Result<()> {
        if wanted.is_empty() {
            return Ok(());
        }
        if wanted[0].is_empty() {
            self.owners.clear(&self.id, Field::Args, self.plugin);
            wanted.remove(0);
        }
        self.owners.claim(&self.id, Field::Args, self.plugin)?;
        seen.clone_from(&wanted);
        *reply = wanted;
        Ok(())
    }

    fn hooks(
        &mut self,
        wanted: pb::Hooks,
        container: &mut pb::Container,
        reply: &mut pb::ContainerAdjustment,
    ) {
        if wanted == pb::Hooks::default() {
            return;
        }
        self.owners.share(&self.id, Field::OciHooks, self.plugin);
        for into in [container.hooks.get_or_insert_default(), reply.hooks.get_or_insert_default()] {
            into.prestart.extend(wanted.prestart.iter().cloned());
            into.create_runtime.extend(wanted.create_runtime.iter().cloned());
            into.create_container.extend(wanted.create_container.iter().cloned());
            into.start_container.extend(wanted.start_container.iter().cloned());
            into.poststart.extend(wanted.poststart.iter().cloned());
            into.poststop.extend(wanted.poststop.iter().cloned());
        }
    }

    fn rdt(&mut self, wanted: pb::LinuxRdt, reply: &mut pb::LinuxContainerAdjustment) -> Result<()> {
        const FIELDS: [Field; 3] = [Field::RdtClosId, Field::RdtSchemata, Field::RdtEnableMonitoring];
        let into = reply.rdt.get_or_insert_default();
        if wanted.remove {
            for field in FIELDS {
                self.owners.clear(&self.id, field, self.plugin);
            }
            *into = pb::LinuxRdt { remove: true, ..pb::LinuxRdt::default() };
        }
        macro_rules! one {
            ($($field:ident $name:ident;)*) => {
                $(if wanted.$field.is_some() {
                    self.owners.claim(&self.id, Field::$name, self.plugin)?;
                    into.$field = wanted.$field;
                    into.remove = false;
                })*
            };
        }
        one! { clos_id RdtClosId; schemata RdtSchemata; enable_monitoring RdtEnableMonitoring; }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
