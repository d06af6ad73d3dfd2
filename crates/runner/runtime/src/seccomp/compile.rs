//! From the specification's rules to a program.

use std::collections::BTreeMap;

use spec::error::{HasKind, Kind};
use spec::runtime::{Arch, LinuxSeccomp, SeccompAction, SeccompArg, SeccompSyscall};
use sys::seccomp::{FLAG_LOG, FLAG_SPEC_ALLOW, FLAG_WAIT_KILLABLE_RECV, Instruction, MAX_INSTRUCTIONS};

use super::assemble::{if_all, if_at_least, if_equal, load_architecture, load_number, ret, split};
use super::syscalls::{ARM_PRIVATE, Table, number};

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_KILL_THREAD: u32 = 0;
const RET_TRAP: u32 = 0x0003_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_TRACE: u32 = 0x7ff0_0000;
const RET_LOG: u32 = 0x7ffc_0000;
const RET_ALLOW: u32 = 0x7fff_0000;

/// Set in the numbers of x32 calls.
const X32_BIT: u32 = 0x4000_0000;

/// A filter ready to be installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The instructions, for [`sys::seccomp::install`].
    pub instructions: Vec<Instruction>,
    /// The flags, for [`sys::seccomp::install`].
    pub flags: u32,
}

/// Why a filter was not compiled.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// Nothing is known of the architecture's calls.
    #[error("seccomp architecture {0:?} is not supported")]
    Architecture(Arch),
    /// A flag that the specification does not have.
    #[error("seccomp flag {0:?} not known to runc")]
    Flag(String),
    /// Arguments are numbered 0 to 5.
    #[error("seccomp rule for {name}: no argument {index}")]
    Argument {
        /// A call of the rule.
        name: String,
        /// The number given.
        index: u32,
    },
    /// An errno that does not fit the kernel's field.
    #[error("seccomp errno {0} is out of range")]
    Errno(u32),
    /// A listener would have to be told.
    #[error("seccomp action SCMP_ACT_NOTIFY is not supported")]
    Notify,
    /// More rules than a program can hold.
    #[error("seccomp filter needs {0} instructions, the kernel takes 4096")]
    TooLong(usize),
}

impl HasKind for CompileError {
    fn kind(&self) -> Kind {
        match self {
            Self::Architecture(_) | Self::Notify => Kind::Unimplemented,
            Self::Flag(_) | Self::Argument { .. } | Self::Errno(_) | Self::TooLong(_) => {
                Kind::InvalidArgument
            }
        }
    }
}

/// Compiles the rules of `filter`.
pub fn compile(filter: &LinuxSeccomp) -> Result<Program, CompileError> {
    let default = value_of(filter.default_action, filter.default_errno_ret)?;
    let tables = tables(&filter.architectures)?;
    let mut instructions = vec![load_architecture()];
    for audit in audits(&tables) {
        let of_audit: Vec<Table> = tables.iter().copied().filter(|table| table.audit() == audit).collect();
        instructions.extend(if_equal(audit, audit_block(filter, default, &of_audit)?));
    }
    // Calls through an architecture that the document does not list would bypass its rules.
    instructions.push(ret(RET_KILL_PROCESS));
    if instructions.len() > MAX_INSTRUCTIONS {
        return Err(CompileError::TooLong(instructions.len()));
    }
    Ok(Program { instructions, flags: flags(filter.flags.as_deref())? })
}

fn tables(architectures: &[Arch]) -> Result<Vec<Table>, CompileError> {
    let mut tables = vec![Table::NATIVE];
    for &arch in architectures {
        let table = Table::of(arch).ok_or(CompileError::Architecture(arch))?;
        if !tables.contains(&table) {
            tables.push(table);
        }
    }
    Ok(tables)
}

/// The distinct audit architectures, the native one first because nearly every call comes through it.
fn audits(tables: &[Table]) -> Vec<u32> {
    let mut audits = Vec::new();
    for table in tables {
        if !audits.contains(&table.audit()) {
            audits.push(table.audit());
        }
    }
    audits
}

/// The rules of one audit architecture: one table, or x86_64 and x32 side by side.
fn audit_block(
    filter: &LinuxSeccomp,
    default: u32,
    tables: &[Table],
) -> Result<Vec<Instruction>, CompileError> {
    let mut block = vec![load_number()];
    if tables[0].audit() == Table::X86_64.audit() {
        let x32 = if tables.contains(&Table::X32) {
            table_block(filter, default, Table::X32, X32_BIT)?
        } else {
            vec![ret(RET_KILL_PROCESS)]
        };
        // A tracer that cancels a call sets its number to -1; that is no x32 call.
        let mut high = if_equal(u32::MAX, vec![ret(default)]);
        high.extend(x32);
        block.extend(if_at_least(X32_BIT, high));
        if tables.contains(&Table::X86_64) {
            block.extend(table_block(filter, default, Table::X86_64, 0)?);
        } else {
            block.push(ret(RET_KILL_PROCESS));
        }
    } else {
        block.extend(table_block(filter, default, tables[0], 0)?);
    }
    Ok(block)
}

/// What becomes of one call number.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Always(u32),
    /// Conditions and what follows if all hold; the default if none matches.
    Tests(Vec<(Vec<SeccompArg>, u32)>),
}

/// The rules of one table, whose numbers are shifted up by `base`.
fn table_block(
    filter: &LinuxSeccomp,
    default: u32,
    table: Table,
    base: u32,
) -> Result<Vec<Instruction>, CompileError> {
    let mut outcomes: BTreeMap<u32, Outcome> = BTreeMap::new();
    let mut newest = None;
    for rule in &filter.syscalls {
        let value = value_of(rule.action, rule.errno_ret)?;
        let alternatives = alternatives(rule)?;
        for number in rule.names.iter().filter_map(|name| number(table, name)) {
            if number < ARM_PRIVATE {
                newest = newest.max(Some(number));
            }
            if value != default {
                add(&mut outcomes, base + number, &alternatives, value);
            }
        }
    }
    let mut ranges = ranges(outcomes, default, base);
    if let Some(newest) = newest.filter(|_| hides_new_calls(filter, default)) {
        cover_newer(&mut ranges, base + newest + 1, table, base);
    }
    Ok(tree(&ranges, default, table.is_wide()))
}

/// The conditions of `rule`: one list, or one list a condition where an argument is named twice.
fn alternatives(rule: &SeccompSyscall) -> Result<Vec<Vec<SeccompArg>>, CompileError> {
    if let Some(arg) = rule.args.iter().find(|arg| arg.index > 5) {
        let name = rule.names.first().cloned().unwrap_or_default();
        return Err(CompileError::Argument { name, index: arg.index });
    }
    let repeats = (0..6).any(|index| rule.args.iter().filter(|arg| arg.index == index).count() > 1);
    if repeats { Ok(rule.args.iter().map(|&arg| vec![arg]).collect()) } else { Ok(vec![rule.args.clone()]) }
}

fn add(outcomes: &mut BTreeMap<u32, Outcome>, number: u32, alternatives: &[Vec<SeccompArg>], value: u32) {
    let outcome = outcomes.entry(number).or_insert_with(|| Outcome::Tests(Vec::new()));
    let Outcome::Tests(tests) = outcome else { return };
    if alternatives.iter().any(Vec::is_empty) {
        *outcome = Outcome::Always(value);
    } else {
        tests.extend(alternatives.iter().map(|conditions| (conditions.clone(), value)));
    }
}

/// The number line cut into ranges of one outcome each: (first number, outcome), sorted, without equal neighbours.
fn ranges(outcomes: BTreeMap<u32, Outcome>, default: u32, base: u32) -> Vec<(u32, Outcome)> {
    let mut ranges: Vec<(u32, Outcome)> = Vec::with_capacity(outcomes.len() + 2);
    let mut next = base;
    for (number, outcome) in outcomes {
        if number > next {
            push(&mut ranges, next, Outcome::Always(default));
        }
        push(&mut ranges, number, outcome);
        next = number + 1;
    }
    push(&mut ranges, next, Outcome::Always(default));
    ranges
}

fn push(ranges: &mut Vec<(u32, Outcome)>, start: u32, outcome: Outcome) {
    if ranges.last().is_none_or(|(_, last)| *last != outcome) {
        ranges.push((start, outcome));
    }
}

/// Whether calls that the document is too old to know are to look absent. A permissive default knows better, and a
/// default of ENOSYS says so already.
fn hides_new_calls(filter: &LinuxSeccomp, default: u32) -> bool {
    match filter.default_action {
        SeccompAction::Allow | SeccompAction::Log | SeccompAction::Trace => false,
        _ => default != RET_ERRNO | ENOSYS,
    }
}

fn cover_newer(ranges: &mut Vec<(u32, Outcome)>, start: u32, table: Table, base: u32) {
    let private: Vec<_> = ranges.iter().filter(|(first, _)| *first >= base + ARM_PRIVATE).cloned().collect();
    ranges.retain(|(first, _)| *first < start);
    ranges.push((start, Outcome::Always(RET_ERRNO | ENOSYS)));
    if table == Table::Arm {
        ranges.extend(private);
    }
}

fn tree(ranges: &[(u32, Outcome)], default: u32, wide: bool) -> Vec<Instruction> {
    match ranges {
        [] => vec![ret(default)],
        [(_, outcome)] => leaf(outcome, default, wide),
        _ => {
            let (below, above) = ranges.split_at(ranges.len() / 2);
            split(above[0].0, tree(below, default, wide), tree(above, default, wide))
        }
    }
}

fn leaf(outcome: &Outcome, default: u32, wide: bool) -> Vec<Instruction> {
    match outcome {
        Outcome::Always(value) => vec![ret(*value)],
        Outcome::Tests(tests) => {
            let mut block = Vec::new();
            for (conditions, value) in tests {
                block.extend(if_all(conditions, wide, vec![ret(*value)]));
            }
            block.push(ret(default));
            block
        }
    }
}

fn value_of(action: SeccompAction, errno: Option<u32>) -> Result<u32, CompileError> {
    let data = errno.unwrap_or(EPERM);
    if data > 0xffff {
        return Err(CompileError::Errno(data));
    }
    match action {
        SeccompAction::Kill | SeccompAction::KillThread => Ok(RET_KILL_THREAD),
        SeccompAction::KillProcess => Ok(RET_KILL_PROCESS),
        SeccompAction::Trap => Ok(RET_TRAP),
        SeccompAction::Errno => Ok(RET_ERRNO | data),
        SeccompAction::Trace => Ok(RET_TRACE | data),
        SeccompAction::Log => Ok(RET_LOG),
        SeccompAction::Allow => Ok(RET_ALLOW),
        SeccompAction::Notify => Err(CompileError::Notify),
    }
}

/// No flag at all means the one that keeps speculative store bypass as it is, as runc has it.
fn flags(names: Option<&[String]>) -> Result<u32, CompileError> {
    let Some(names) = names else { return Ok(FLAG_SPEC_ALLOW) };
    names.iter().try_fold(0, |flags, name| match name.as_str() {
        // The process has one thread.
        "SECCOMP_FILTER_FLAG_TSYNC" => Ok(flags),
        "SECCOMP_FILTER_FLAG_LOG" => Ok(flags | FLAG_LOG),
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => Ok(flags | FLAG_SPEC_ALLOW),
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => Ok(flags | FLAG_WAIT_KILLABLE_RECV),
        _ => Err(CompileError::Flag(name.clone())),
    })
}

#[cfg(test)]
#[path = "compile_tests.rs"]
mod tests;
