//! Pieces of classic BPF over `struct seccomp_data`: position-independent blocks that are laid end to end.

use spec::runtime::{SeccompArg, SeccompOperator};
use sys::seccomp::Instruction;

const LD_ABS: u16 = 0x20;
const AND: u16 = 0x54;
const JA: u16 = 0x05;
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const JGE: u16 = 0x35;
const RET: u16 = 0x06;

/// Offset of the call number in `struct seccomp_data`.
const NUMBER: u32 = 0;
/// Offset of the architecture.
const ARCHITECTURE: u32 = 4;
/// Offset of the first argument.
const ARGUMENTS: u32 = 16;

pub(super) fn load_number() -> Instruction {
    load(NUMBER)
}

pub(super) fn load_architecture() -> Instruction {
    load(ARCHITECTURE)
}

pub(super) fn ret(value: u32) -> Instruction {
    Instruction { code: RET, k: value, ..Instruction::default() }
}

/// Runs `then` if the accumulator equals `value`, and what follows the block otherwise.
pub(super) fn if_equal(value: u32, then: Vec<Instruction>) -> Vec<Instruction> {
    skip_unless(JEQ, value, then)
}

/// Runs `then` if the accumulator is at least `value`, and what follows the block otherwise.
pub(super) fn if_at_least(value: u32, then: Vec<Instruction>) -> Vec<Instruction> {
    skip_unless(JGE, value, then)
}

/// Runs `above` if the accumulator is at least `pivot`, `below` otherwise. Both must return on every path.
pub(super) fn split(pivot: u32, below: Vec<Instruction>, above: Vec<Instruction>) -> Vec<Instruction> {
    let mut block = Vec::with_capacity(below.len() + above.len() + 2);
    match u8::try_from(below.len()) {
        Ok(length) => block.push(Instruction { code: JGE, jt: length, jf: 0, k: pivot }),
        Err(_) => {
            block.push(Instruction { code: JGE, jt: 0, jf: 1, k: pivot });
            block.push(jump(below.len()));
        }
    }
    block.extend(below);
    block.extend(above);
    block
}

/// Runs `then` if every condition holds, and what follows the block otherwise; the accumulator is lost.
pub(super) fn if_all(conditions: &[SeccompArg], wide: bool, then: Vec<Instruction>) -> Vec<Instruction> {
    // Built from its end, where the distance to what follows the block is known.
    let mut reversed: Vec<Instruction> = then.into_iter().rev().collect();
    for condition in conditions.iter().rev() {
        compare(condition, wide, &mut reversed);
    }
    reversed.reverse();
    reversed
}

/// Adds one condition in front of `reversed` (a block from its end): falls through if it holds, jumps past the block
/// if not. Six conditions of at most six instructions stay within a jump's 255.
fn compare(condition: &SeccompArg, wide: bool, reversed: &mut Vec<Instruction>) {
    let offset = ARGUMENTS + 8 * condition.index;
    let (low_at, high_at) =
        if cfg!(target_endian = "little") { (offset, offset + 4) } else { (offset + 4, offset) };
    let (value, mask) = match condition.op {
        SeccompOperator::MaskedEqual => (condition.value_two & condition.value, Some(condition.value)),
        _ => (condition.value, None),
    };
    let halves = Halves { low: value as u32, high: (value >> 32) as u32 };
    let fail = |reversed: &Vec<Instruction>| reversed.len() as u8;
    let away = fail(reversed);
    let low = |code, jt, jf| Instruction { code, jt, jf, k: halves.low };
    match condition.op {
        SeccompOperator::EqualTo | SeccompOperator::MaskedEqual => reversed.push(low(JEQ, 0, away)),
        SeccompOperator::NotEqual => reversed.push(low(JEQ, away, 0)),
        SeccompOperator::GreaterThan => reversed.push(low(JGT, 0, away)),
        SeccompOperator::GreaterEqual => reversed.push(low(JGE, 0, away)),
        SeccompOperator::LessThan => reversed.push(low(JGE, away, 0)),
        SeccompOperator::LessEqual => reversed.push(low(JGT, away, 0)),
    }
    reversed.extend(mask.map(|mask| and(mask as u32)));
    reversed.push(load(low_at));
    if wide {
        compare_high(condition.op, halves.high, fail(reversed), mask.is_some(), reversed);
        reversed.extend(mask.map(|mask| and((mask >> 32) as u32)));
        reversed.push(load(high_at));
    }
}

struct Halves {
    low: u32,
    high: u32,
}

/// Decides by the upper halves where they differ; equal ones fall through to the lower halves, whose comparison is
/// the next two instructions (three with a mask).
fn compare_high(op: SeccompOperator, high: u32, away: u8, masked: bool, reversed: &mut Vec<Instruction>) {
    let past_low = if masked { 3 } else { 2 };
    let step = |code, jt, jf| Instruction { code, jt, jf, k: high };
    match op {
        SeccompOperator::EqualTo | SeccompOperator::MaskedEqual => reversed.push(step(JEQ, 0, away)),
        SeccompOperator::NotEqual => reversed.push(step(JEQ, 0, past_low)),
        SeccompOperator::GreaterThan | SeccompOperator::GreaterEqual => {
            reversed.push(step(JEQ, 0, away));
            reversed.push(step(JGT, past_low + 1, 0));
        }
        SeccompOperator::LessThan | SeccompOperator::LessEqual => {
            reversed.push(step(JEQ, 0, past_low));
            reversed.push(step(JGT, away + 1, 0));
        }
    }
}

fn skip_unless(code: u16, value: u32, then: Vec<Instruction>) -> Vec<Instruction> {
    let mut block = Vec::with_capacity(then.len() + 2);
    match u8::try_from(then.len()) {
        Ok(length) => block.push(Instruction { code, jt: 0, jf: length, k: value }),
        Err(_) => {
            block.push(Instruction { code, jt: 1, jf: 0, k: value });
            block.push(jump(then.len()));
        }
    }
    block.extend(then);
    block
}

fn load(offset: u32) -> Instruction {
    Instruction { code: LD_ABS, k: offset, ..Instruction::default() }
}

fn and(mask: u32) -> Instruction {
    Instruction { code: AND, k: mask, ..Instruction::default() }
}

fn jump(distance: usize) -> Instruction {
    Instruction { code: JA, k: distance as u32, ..Instruction::default() }
}
