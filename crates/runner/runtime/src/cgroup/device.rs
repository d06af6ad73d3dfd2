//! Device rules: as lines for the v1 controller, as an eBPF program for v2.

use std::path::Path;

use spec::runtime::LinuxDeviceCgroup;
use sys::bpf::Instruction;

use super::{CgroupError, file};

/// One rule, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    allow: bool,
    kind: DeviceKind,
    /// `None` is any.
    major: Option<u32>,
    minor: Option<u32>,
    access: Access,
}

/// What rules allow, in systemd's words.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Allowed {
    /// Every device.
    All,
    /// These alone: `/dev/char/1:3`, `block-8`, `char-*`, each with letters of `rwm`.
    List(Vec<(String, String)>),
    /// What systemd has no words for.
    Otherwise,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DeviceKind {
    Any,
    Char,
    Block,
}

/// Bits as the eBPF hook has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Access(u8);

impl Access {
    const MKNOD: Self = Self(1);
    const READ: Self = Self(2);
    const WRITE: Self = Self(4);
    const ALL: Self = Self(7);
}

/// What every container may use, after the document's own rules: making nodes (which does not open them), the standard
/// nodes, pseudo terminals and tun.
const STANDARD: [Rule; 11] = [
    standard(DeviceKind::Char, None, None, Access::MKNOD),
    standard(DeviceKind::Block, None, None, Access::MKNOD),
    standard(DeviceKind::Char, Some(1), Some(3), Access::ALL),
    standard(DeviceKind::Char, Some(1), Some(5), Access::ALL),
    standard(DeviceKind::Char, Some(1), Some(7), Access::ALL),
    standard(DeviceKind::Char, Some(1), Some(8), Access::ALL),
    standard(DeviceKind::Char, Some(1), Some(9), Access::ALL),
    standard(DeviceKind::Char, Some(5), Some(0), Access::ALL),
    standard(DeviceKind::Char, Some(5), Some(2), Access::ALL),
    standard(DeviceKind::Char, Some(10), Some(200), Access::ALL),
    standard(DeviceKind::Char, Some(136), None, Access::ALL),
];

const fn standard(kind: DeviceKind, major: Option<u32>, minor: Option<u32>, access: Access) -> Rule {
    Rule { allow: true, kind, major, minor, access }
}

/// Denies everything: where a container begins, and where one stays whose document has no rules.
const DENY_ALL: Rule =
    Rule { allow: false, kind: DeviceKind::Any, major: None, minor: None, access: Access::ALL };

/// The document's rules, checked, between denial of everything and the standard ones.
pub(super) fn rules(rules: &[LinuxDeviceCgroup]) -> Result<Vec<Rule>, CgroupError> {
    let mut checked = vec![DENY_ALL];
    for rule in rules {
        checked.extend(check(rule)?.into_iter().flat_map(expand));
    }
    // What stands before a rule about everything no longer counts.
    let reset = checked.iter().rposition(|rule| rule.kind == DeviceKind::Any).unwrap_or(0);
    checked.drain(..reset);
    // Where everything is allowed the standard devices are too.
    let is_open = checked[0].allow && checked.iter().all(|rule| rule.allow);
    checked.extend(STANDARD.iter().copied().filter(|_| !is_open));
    Ok(checked)
}

/// A rule about every device that limits numbers or access is two, one a kind of device: the v1 controller would take
/// it for one about everything.
fn expand(rule: Rule) -> Vec<Rule> {
    let is_whole = rule.major.is_none() && rule.minor.is_none() && rule.access == Access::ALL;
    if rule.kind != DeviceKind::Any || is_whole {
        return vec![rule];
    }
    [DeviceKind::Char, DeviceKind::Block].map(|kind| Rule { kind, ..rule }).into()
}

/// The rule, checked; `None` for one whose letters give no access.
fn check(rule: &LinuxDeviceCgroup) -> Result<Option<Rule>, CgroupError> {
    let invalid = |what: String| CgroupError::Value(format!("invalid device cgroup rule: {what}"));
    let kind = match rule.kind.as_str() {
        "" | "a" => DeviceKind::Any,
        "c" | "u" => DeviceKind::Char,
        "b" => DeviceKind::Block,
        other => return Err(invalid(format!("device type {other:?}"))),
    };
    let number = |value: Option<i64>| match value {
        None | Some(-1) => Ok(None),
        Some(value) => u32::try_from(value).map(Some).map_err(|_| invalid(format!("device number {value}"))),
    };
    let mut access = Access(0);
    for letter in rule.access.chars() {
        access.0 |= match letter {
            'r' => Access::READ.0,
            'w' => Access::WRITE.0,
            'm' => Access::MKNOD.0,
            // Old documents write it for all; runc takes it and gives nothing by it.
            'a' => 0,
            other => return Err(invalid(format!("access {other:?}"))),
        };
    }
    let (major, minor) = (number(rule.major)?, number(rule.minor)?);
    let is_about_all = kind == DeviceKind::Any && major.is_none() && minor.is_none();
    if access.0 == 0 && (rule.access.is_empty() || is_about_all) {
        access = Access::ALL;
    }
    Ok((access.0 != 0).then_some(Rule { allow: rule.allow, kind, major, minor, access }))
}

/// Writes the rules in order; the controller itself resolves overlaps as the specification does.
pub(super) fn write_v1(directory: &Path, rules: &[Rule]) -> Result<(), CgroupError> {
    for group in rules.chunk_by(|one, next| one.allow == next.allow) {
        let name = if group[0].allow { "devices.allow" } else { "devices.deny" };
        file::write_each(directory, name, &group.iter().map(line).collect::<Vec<_>>())?;
    }
    Ok(())
}

fn line(rule: &Rule) -> String {
    let number = |value: Option<u32>| value.map_or_else(|| "*".to_owned(), |value| value.to_string());
    let kind = match rule.kind {
        DeviceKind::Any => return "a".to_owned(),
        DeviceKind::Char => 'c',
        DeviceKind::Block => 'b',
    };
    format!("{kind} {}:{} {}", number(rule.major), number(rule.minor), letters(rule.access))
}

fn letters(access: Access) -> String {
    let letters = [(Access::READ, 'r'), (Access::WRITE, 'w'), (Access::MKNOD, 'm')];
    letters.iter().filter(|(bit, _)| access.0 & bit.0 != 0).map(|(_, letter)| letter).collect()
}

/// The checked rules as a list of what is allowed, which is all that systemd knows.
pub(super) fn allowed(rules: &[Rule]) -> Allowed {
    let Some((first, rest)) = rules.split_first() else { return Allowed::Otherwise };
    if first.allow {
        return if rest.iter().all(|rule| rule.allow) { Allowed::All } else { Allowed::Otherwise };
    }
    let entry = |rule: &Rule| {
        let kind = match rule.kind {
            DeviceKind::Char => "char",
            DeviceKind::Block => "block",
            DeviceKind::Any => return None,
        };
        let path = match (rule.major, rule.minor) {
            (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
            (Some(major), None) => format!("{kind}-{major}"),
            (None, None) => format!("{kind}-*"),
            (None, Some(_)) => return None,
        };
        rule.allow.then(|| (path, letters(rule.access)))
    };
    rest.iter().map(entry).collect::<Option<_>>().map_or(Allowed::Otherwise, Allowed::List)
}

/// Makes the rules those of the v2 directory.
pub(super) fn attach(directory: &Path, rules: &[Rule]) -> Result<(), CgroupError> {
    use std::os::fd::AsFd;
    let program = sys::bpf::load_device_program(&program(rules))?;
    let cgroup = std::fs::File::open(directory).map_err(|error| file::failed(&error, "open", directory))?;
    Ok(sys::bpf::attach_device_program(cgroup.as_fd(), &program)?)
}

/// Opcodes of eBPF that the program uses.
mod op {
    pub(super) const LOAD_WORD: u8 = 0x61;
    pub(super) const MOV: u8 = 0xb7;
    pub(super) const MOV_REG: u8 = 0xbf;
    pub(super) const AND: u8 = 0x57;
    pub(super) const RSH: u8 = 0x77;
    pub(super) const JNE: u8 = 0x55;
    pub(super) const JEQ: u8 = 0x15;
    pub(super) const JNE_WIDE: u8 = 0x56;
    pub(super) const EXIT: u8 = 0x95;
}

/// Registers: the verdict, the context, then what the context holds. [`REST`] is the access not yet allowed.
const VERDICT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const REST: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

/// A program of type BPF_PROG_TYPE_CGROUP_DEVICE that decides as the rules do: the last rule that speaks about a kind
/// of access wins, each kind on its own; access that no rule speaks about is denied.
pub(super) fn program(rules: &[Rule]) -> Vec<Instruction> {
    let mut program = vec![
        insn(op::LOAD_WORD, KIND, CONTEXT, 0, 0),
        insn(op::MOV_REG, REST, KIND, 0, 0),
        insn(op::AND, KIND, 0, 0, 0xffff),
        insn(op::RSH, REST, 0, 0, 16),
        insn(op::LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        insn(op::LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for rule in rules.iter().rev() {
        program.extend(rule_block(rule));
    }
    program.extend(verdict(rules.is_empty()));
    program
}

fn rule_block(rule: &Rule) -> Vec<Instruction> {
    let decision = if rule.allow {
        // Takes the access off what is asked for; once nothing is left, all of it was allowed.
        let mut block = vec![insn(op::AND, REST, 0, 0, i32::from(!rule.access.0 & Access::ALL.0))];
        block.push(insn(op::JNE, REST, 0, 2, 0));
        block.extend(verdict(true));
        block
    } else {
        let mut block = vec![insn(op::MOV_REG, SCRATCH, REST, 0, 0)];
        block.push(insn(op::AND, SCRATCH, 0, 0, i32::from(rule.access.0)));
        block.push(insn(op::JEQ, SCRATCH, 0, 2, 0));
        block.extend(verdict(false));
        block
    };
    let kind = match rule.kind {
        DeviceKind::Any => return decision,
        DeviceKind::Block => 1,
        DeviceKind::Char => 2,
    };
    let mut tests = vec![(KIND, kind)];
    tests.extend(rule.major.map(|major| (MAJOR, major)));
    tests.extend(rule.minor.map(|minor| (MINOR, minor)));
    let count = tests.len();
    let mut block = Vec::with_capacity(count + decision.len());
    for (index, (register, value)) in tests.into_iter().enumerate() {
        let past = (count - index - 1 + decision.len()) as i16;
        // The 32-bit comparison, because an immediate is sign-extended to 64.
        block.push(insn(op::JNE_WIDE, register, 0, past, value as i32));
    }
    block.extend(decision);
    block
}

fn verdict(allow: bool) -> [Instruction; 2] {
    [insn(op::MOV, VERDICT, 0, 0, i32::from(allow)), insn(op::EXIT, 0, 0, 0, 0)]
}

fn insn(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: source << 4 | destination, offset, immediate }
}

#[cfg(test)]
#[path = "device_tests.rs"]
mod tests;
