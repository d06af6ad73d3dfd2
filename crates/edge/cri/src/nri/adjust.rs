//! Puts what plugins want of a container into its runtime spec.
//!
//! Pure. A plugin is trusted with the container but not to be right: what no container can have is refused with the
//! name of the thing, before anything exists.
//!
//! Invariant: what is taken away goes before anything is added, so that the order of a message decides nothing.

mod linux;

use std::collections::BTreeMap;

use ::spec::Error;
use ::spec::runtime::{Hook, Mount, Rlimit, Spec};
use api::nri::pkg::api::v1alpha1 as pb;
use model::Result;

use super::mark;
use crate::config::Runtime;
use crate::spec::Host;

/// Puts `wanted` into `spec`.
///
/// # Errors
/// `InvalidArgument`: no container can be so; `Unimplemented`: ours cannot. CDI devices are the caller's to apply.
pub fn apply(
    spec: &mut Spec,
    wanted: &pb::ContainerAdjustment,
    host: &Host,
    runtime: &Runtime,
) -> Result<()> {
    settings("annotation", &mut spec.annotations, &wanted.annotations)?;
    env(&mut spec.process_mut().env, &wanted.env)?;
    if !wanted.args.is_empty() {
        wanted.args.iter().try_for_each(|word| text("argument", word))?;
        spec.process_mut().args.clone_from(&wanted.args);
    }
    if let Some(wanted) = &wanted.hooks {
        hooks(spec, wanted)?;
    }
    if let Some(wanted) = &wanted.linux {
        linux::apply(spec, wanted, host, runtime)?;
    }
    mounts(spec, &wanted.mounts)?;
    rlimits(&mut spec.process_mut().rlimits, &wanted.rlimits)
}

/// Text that the kernel can be given.
fn text(what: &str, text: &str) -> Result<()> {
    if text.contains('\0') {
        return Err(Error::invalid(format!("NRI: {what} {text:?} has a zero byte")));
    }
    Ok(())
}

/// A name: not empty, and of printable characters.
fn name(what: &str, name: &str) -> Result<()> {
    if name.is_empty() || name.contains(char::is_control) {
        return Err(Error::invalid(format!("NRI: {name:?} cannot be the name of {what}")));
    }
    Ok(())
}

/// A path from the root.
fn absolute(what: &str, path: &str) -> Result<()> {
    name(what, path)?;
    if !path.starts_with('/') {
        return Err(Error::invalid(format!("NRI: {what} {path:?} must be an absolute path")));
    }
    Ok(())
}

/// Puts `wanted` over what is set; marked keys are taken away.
fn settings(what: &str, set: &mut BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> Result<()> {
    set.retain(|key, _| !wanted.contains_key(&mark::removal(key)));
    for (key, value) in wanted.iter().filter(|(key, _)| !mark::is_removal(key)) {
        name(what, key)?;
        text(what, value)?;
        set.insert(key.clone(), value.clone());
    }
    Ok(())
}

/// The variables keep their places; new ones come last.
fn env(set: &mut Vec<String>, wanted: &[pb::KeyValue]) -> Result<()> {
    let of = |pair: &str| pair.split_once('=').map_or(pair, |(key, _)| key).to_owned();
    set.retain(|pair| {
        let marked = mark::removal(&of(pair));
        !wanted.iter().any(|wanted| wanted.key == marked)
    });
    for pb::KeyValue { key, value } in wanted.iter().filter(|pair| !mark::is_removal(&pair.key)) {
        name("a variable", key)?;
        if key.contains('=') {
            return Err(Error::invalid(format!("NRI: {key:?} cannot be the name of a variable")));
        }
        text("the value of a variable", value)?;
        let pair = format!("{key}={value}");
        match set.iter_mut().find(|known| of(known) == *key) {
            Some(known) => *known = pair,
            None => set.push(pair),
        }
    }
    Ok(())
}

/// Mounts in the order in which they can be made: a directory before what is in it.
fn mounts(spec: &mut Spec, wanted: &[pb::Mount]) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    spec.mounts
        .retain(|mount| !wanted.iter().any(|wanted| mark::split(&wanted.destination).0 == mount.destination));
    for mount in wanted.iter().filter(|mount| !mark::is_removal(&mount.destination)) {
        absolute("a mount", &mount.destination)?;
        text("the source of a mount", &mount.source)?;
        text("the type of a mount", &mount.r#type)?;
        mount.options.iter().try_for_each(|option| text("the option of a mount", option))?;
        propagate(&mut spec.linux_mut().rootfs_propagation, &mount.options);
        spec.mounts.push(Mount {
            destination: mount.destination.clone(),
            kind: mount.r#type.clone(),
            source: mount.source.clone(),
            options: mount.options.clone(),
            ..Mount::default()
        });
    }
    let depth = |mount: &Mount| mount.destination.split('/').filter(|part| !part.is_empty()).count();
    spec.mounts.sort_by_key(depth);
    Ok(())
}

/// A mount hears of others, and tells of its own, only if the root does.
fn propagate(root: &mut String, options: &[String]) {
    let wanted = options.iter().rev().map(String::as_str);
    match wanted.into_iter().find(|option| matches!(*option, "rprivate" | "rshared" | "rslave")) {
        Some("rshared") => *root = "rshared".into(),
        Some("rslave") if root != "rshared" => *root = "rslave".into(),
        _ => {}
    }
}

fn hooks(spec: &mut Spec, wanted: &pb::Hooks) -> Result<()> {
    let into = spec.hooks.get_or_insert_default();
    let lists = [
        (&mut into.prestart, &wanted.prestart),
        (&mut into.create_runtime, &wanted.create_runtime),
        (&mut into.create_container, &wanted.create_container),
        (&mut into.start_container, &wanted.start_container),
        (&mut into.poststart, &wanted.poststart),
        (&mut into.poststop, &wanted.poststop),
    ];
    for (into, wanted) in lists {
        for hook in wanted {
            absolute("a hook", &hook.path)?;
            hook.args.iter().chain(&hook.env).try_for_each(|word| text("a hook's word", word))?;
            into.push(Hook {
                path: hook.path.clone(),
                args: hook.args.clone(),
                env: hook.env.clone(),
                timeout: hook.timeout.map(|timeout| timeout.value),
            });
        }
    }
    Ok(())
}

fn rlimits(set: &mut Vec<Rlimit>, wanted: &[pb::PosixRlimit]) -> Result<()> {
    for limit in wanted {
        if !limit.r#type.starts_with("RLIMIT_") || limit.soft > limit.hard {
            return Err(Error::invalid(format!("NRI: rlimit {limit:?} cannot be set")));
        }
        set.retain(|known| known.kind != limit.r#type);
        set.push(Rlimit { kind: limit.r#type.clone(), hard: limit.hard, soft: limit.soft });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
