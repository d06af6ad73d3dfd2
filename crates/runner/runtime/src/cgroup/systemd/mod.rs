//! The systemd driver: a container's cgroup is a transient scope, which systemd makes, limits and removes on our word.
//!
//! ```text
//! start    a placeholder is cloned -> StartTransientUnit(scope, its pid, limits) -> JobRemoved: the cgroup is there
//!          -> what systemd left out is made and limited as the cgroupfs driver does it -> init is cloned into it
//!          -> the placeholder goes
//! update   SetUnitProperties, then the files
//! stop     StopUnit -> JobRemoved, ResetFailedUnit, then what is left of the directories
//! ```
//!
//! Never decides what a limit is: [`properties`] says the same to systemd that the cgroupfs driver writes.
//!
//! Invariant: all that is said to systemd for one verb has one deadline.

mod bus;
mod message;
mod placeholder;
mod properties;
mod text;
mod unit;
mod value;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use spec::error::{HasKind, Kind};
use spec::runtime::LinuxResources;

use super::{Cgroup, CgroupError, Mode, UNIFIED, layout, place, v1, v2};
use bus::{Bus, BusError};
pub use placeholder::Placeholder;
use properties::{Dialect, Property};
pub use unit::Unit;
use value::Value;

/// How long systemd may take over one verb. A busy one with thousands of units takes seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a unit's job says when it went well.
const DONE: &str = "done";

const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// Why systemd and we did not get along about a scope.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// Another init system runs here.
    #[error("the systemd cgroup driver needs a host that systemd has booted")]
    NotBooted,
    /// It refused, or did not answer.
    #[error("unable to {verb} unit {unit}")]
    Unit {
        /// What it should have done.
        verb: &'static str,
        /// With which.
        unit: String,
        /// Why not.
        source: BusError,
    },
    /// The job ended otherwise than it should.
    #[error("unable to {verb} unit {unit}: the job ended with {result:?}")]
    Job {
        /// What it should have done.
        verb: &'static str,
        /// With which.
        unit: String,
        /// Systemd's word.
        result: String,
    },
}

impl HasKind for SystemdError {
    fn kind(&self) -> Kind {
        match self {
            Self::NotBooted => Kind::FailedPrecondition,
            Self::Unit { source, .. } => source.kind(),
            Self::Job { .. } => Kind::Unknown,
        }
    }
}

/// What a scope begins with.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Its name and place.
    pub unit: Unit,
    /// Properties that annotations name.
    properties: Vec<Property>,
}

impl Scope {
    /// The scope of `linux.cgroupsPath` in systemd's form, with the properties that annotations name.
    pub fn plan(path: &str, id: &str, annotations: &BTreeMap<String, String>) -> Result<Self, CgroupError> {
        Ok(Self { unit: Unit::parse(path, id)?, properties: properties::of_annotations(annotations)? })
    }

    /// The cgroup that it will have.
    ///
    /// # Errors
    /// A directory that is there holds processes: they are another scope's.
    pub fn cgroup(&self) -> Result<Cgroup, CgroupError> {
        let paths = place::directories(layout()?, &place::Place::Absolute(self.unit.path()))?;
        let cgroup = Cgroup::open_unit(paths, self.unit.clone());
        cgroup.check_empty()?;
        Ok(cgroup)
    }

    /// Has systemd make it with these limits. The placeholder holds it until the container's first process is in it.
    pub fn start(self, resources: &LinuxResources) -> Result<(Cgroup, Placeholder), CgroupError> {
        if !Path::new("/run/systemd/system").is_dir() {
            return Err(SystemdError::NotBooted.into());
        }
        let layout = layout()?;
        let paths = place::directories(layout, &place::Place::Absolute(self.unit.path()))?;
        let cgroup = Cgroup { paths, unit: Some(self.unit.clone()) };
        let placeholder = Placeholder::new()?;
        let made = self.start_unit(resources, &placeholder).and_then(|()| {
            // Systemd makes directories for the controllers that it knows; the others are ours to make.
            let made = match layout.mode {
                Mode::V2 => v2::make_path(&cgroup, layout).map(drop),
                Mode::V1 | Mode::Hybrid => v1::make_around(&cgroup, placeholder.pid()),
            };
            made.inspect_err(|_| {
                let _ = stop(&self.unit);
            })
        });
        match made {
            Ok(()) => Ok((cgroup, placeholder)),
            Err(error) => {
                placeholder.release();
                Err(error)
            }
        }
    }

    fn start_unit(&self, resources: &LinuxResources, placeholder: &Placeholder) -> Result<(), CgroupError> {
        let unit = self.unit.scope();
        let failed = failure("start", &unit);
        let mut bus = Bus::connect(PATIENCE).map_err(failed)?;
        let dialect = dialect(&mut bus, resources).map_err(failed)?;
        let (_, _, name) = self.unit.parts();
        let mut all = properties::of_scope(name, self.unit.slice(), placeholder.pid(), dialect.is_v2);
        all.extend(properties::of_creation(resources, dialect)?);
        all.extend(properties::of_resources(resources, dialect)?);
        all.extend(self.properties.iter().cloned());
        let auxiliary = Value::Array("(sa(sv))".into(), Vec::new());
        let request = [Value::text(&unit), Value::text("replace"), list(all), auxiliary];
        let result = match bus.job("StartTransientUnit", &request) {
            Err(error) if error.is(UNIT_EXISTS) => {
                // A unit that has failed stays until it is told to go.
                let _ = bus.manager("ResetFailedUnit", &[Value::text(&unit)]);
                bus.job("StartTransientUnit", &request)
            }
            done => done,
        };
        match result.map_err(failed)? {
            result if result == DONE => Ok(()),
            result => {
                let _ = bus.manager("ResetFailedUnit", &[Value::text(&unit)]);
                Err(SystemdError::Job { verb: "start", unit, result }.into())
            }
        }
    }
}

/// Limits that hold beside a placeholder: it takes one of the processes that a container may have.
pub fn beside_placeholder(resources: &LinuxResources) -> Option<LinuxResources> {
    let limit = resources.pids.as_ref()?.limit?;
    (limit == 0 || limit == 1).then(|| {
        let mut wider = resources.clone();
        wider.pids = Some(spec::runtime::LinuxPids { limit: Some(2) });
        wider
    })
}

/// `resources` as they are written into the cgroup of a unit: as systemd itself would write them.
pub(super) fn rounded(resources: &LinuxResources) -> LinuxResources {
    let mut resources = resources.clone();
    if let Some(cpu) = &mut resources.cpu
        && let Some(quota) = properties::rounded_quota(cpu)
    {
        cpu.quota = Some(quota);
    }
    resources
}

/// Tells systemd of new limits.
pub(super) fn update(unit: &Unit, resources: &LinuxResources) -> Result<(), CgroupError> {
    let name = unit.scope();
    let failed = failure("update", &name);
    let mut bus = Bus::connect(PATIENCE).map_err(failed)?;
    let dialect = dialect(&mut bus, resources).map_err(failed)?;
    let properties = properties::of_resources(resources, dialect)?;
    if !properties.is_empty() {
        // Until the next boot, as the unit itself.
        let request = [Value::text(&name), Value::Bool(true), list(properties)];
        bus.manager("SetUnitProperties", &request).map_err(failed)?;
    }
    Ok(())
}

/// Has systemd stop the scope and forget it. One that is gone is no failure.
pub(super) fn stop(unit: &Unit) -> Result<(), CgroupError> {
    let name = unit.scope();
    let failed = failure("stop", &name);
    let mut bus = Bus::connect(PATIENCE).map_err(failed)?;
    let stopped = bus.job("StopUnit", &[Value::text(&name), Value::text("replace")]);
    // A scope whose process was killed for lack of memory has failed, and would be listed for ever.
    let _ = bus.manager("ResetFailedUnit", &[Value::text(&name)]);
    match stopped {
        Err(error) if error.is(NO_SUCH_UNIT) => Ok(()),
        Err(error) => Err(failed(error)),
        Ok(result) if result == DONE => Ok(()),
        Ok(result) => Err(SystemdError::Job { verb: "stop", unit: name, result }.into()),
    }
}

fn failure<'a>(verb: &'static str, unit: &'a str) -> impl Fn(BusError) -> CgroupError + Copy + 'a {
    move |source| SystemdError::Unit { verb, unit: unit.to_owned(), source }.into()
}

fn dialect(bus: &mut Bus, resources: &LinuxResources) -> Result<Dialect, BusError> {
    let is_v2 = layout().is_ok_and(|layout| layout.mounts.iter().all(|(name, _)| name == UNIFIED));
    let version = if properties::need_version(resources) { bus.version()? } else { 0 };
    Ok(Dialect { is_v2, version })
}

/// `a(sv)`
fn list(properties: Vec<Property>) -> Value {
    let property = |(name, value)| Value::Struct(vec![Value::Str(name), Value::Variant(Box::new(value))]);
    Value::Array("(sv)".into(), properties.into_iter().map(property).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use spec::runtime::LinuxPids;

    #[test]
    fn a_placeholder_is_one_process_more() {
        let limit = |limit| LinuxResources {
            pids: Some(LinuxPids { limit: Some(limit) }),
            ..LinuxResources::default()
        };
        for few in [0, 1] {
            assert_eq!(beside_placeholder(&limit(few)), Some(limit(2)));
        }
        for enough in [-1, 2, 100] {
            assert_eq!(beside_placeholder(&limit(enough)), None);
        }
        assert_eq!(beside_placeholder(&LinuxResources::default()), None);
    }
}
