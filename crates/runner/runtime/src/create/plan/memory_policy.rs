//! On which NUMA nodes the memory of a container comes to lie.

use super::PlanError;
use super::process::numbers;

/// Modes of `set_mempolicy(2)`, by their numbers.
pub const MODES: [&str; 7] = [
    "MPOL_DEFAULT",
    "MPOL_PREFERRED",
    "MPOL_BIND",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];

/// Flags of a mode.
pub const FLAGS: [(&str, u32); 3] = [
    ("MPOL_F_NUMA_BALANCING", 1 << 13),
    ("MPOL_F_RELATIVE_NODES", 1 << 14),
    ("MPOL_F_STATIC_NODES", 1 << 15),
];

/// A policy, as `set_mempolicy(2)` takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPolicy {
    /// Mode and flags.
    pub mode: u32,
    /// Nodes, by number.
    pub nodes: Vec<usize>,
}

/// Checks and converts a policy of the specification.
pub(super) fn plan(wanted: &spec::runtime::MemoryPolicy) -> Result<MemoryPolicy, PlanError> {
    let refuse = |why: String| PlanError::field("linux.memoryPolicy", why);
    let mode = MODES.iter().position(|mode| *mode == wanted.mode);
    let mode = mode.ok_or_else(|| refuse(format!("invalid memory policy mode {:?}", wanted.mode)))?;
    let nodes = numbers(&wanted.nodes, sys::process::schedule::MAX_NODES)
        .ok_or_else(|| refuse(format!("invalid memory policy nodes {:?}", wanted.nodes)))?;
    match (wanted.mode.as_str(), nodes.len()) {
        ("MPOL_DEFAULT" | "MPOL_LOCAL", count @ 1..) => {
            return Err(refuse(format!("memory policy mode requires 0 nodes but got {count}")));
        }
        ("MPOL_DEFAULT" | "MPOL_LOCAL" | "MPOL_PREFERRED", _) | (_, 1..) => {}
        (_, 0) => return Err(refuse("memory policy mode requires at least one node but got 0".into())),
    }
    let mut flags = 0;
    for name in &wanted.flags {
        let known = FLAGS.iter().find(|(flag, _)| flag == name);
        flags |= known.ok_or_else(|| refuse(format!("invalid memory policy flag {name:?}")))?.1;
    }
    Ok(MemoryPolicy { mode: u32::try_from(mode).unwrap_or_default() | flags, nodes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(mode: &str, nodes: &str, flags: &[&str]) -> Result<MemoryPolicy, String> {
        let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        let wanted = spec::runtime::MemoryPolicy { mode: mode.into(), nodes: nodes.into(), flags };
        plan(&wanted).map_err(|error| error.to_string())
    }

    #[test]
    fn modes_flags_and_nodes_become_the_kernels() {
        let bind = planned("MPOL_BIND", "0,2-3", &["MPOL_F_STATIC_NODES"]).unwrap();
        assert_eq!(bind, MemoryPolicy { mode: 2 | 1 << 15, nodes: vec![0, 2, 3] });
        assert_eq!(planned("MPOL_DEFAULT", "", &[]).unwrap(), MemoryPolicy { mode: 0, nodes: Vec::new() });
        assert!(planned("MPOL_PREFERRED", "", &[]).is_ok());
    }

    #[test]
    fn what_the_kernel_would_not_take_is_refused() {
        for (policy, why) in [
            (planned("", "0", &[]), "invalid memory policy mode"),
            (planned("INTERLEAVE", "0", &[]), "invalid memory policy mode"),
            (planned("MPOL_DEFAULT", "0-7", &[]), "mode requires 0 nodes but got 8"),
            (planned("MPOL_INTERLEAVE", "", &[]), "requires at least one node"),
            (planned("MPOL_BIND", "0-9876543210", &[]), "invalid memory policy nodes"),
            (planned("MPOL_BIND", "0", &["badflag"]), "invalid memory policy flag"),
        ] {
            assert!(policy.as_ref().unwrap_err().contains(why), "{why}: {policy:?}");
        }
    }
}
