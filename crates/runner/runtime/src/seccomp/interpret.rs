//! Runs a filter the way the kernel does, for tests.

use sys::seccomp::Instruction;

/// `struct seccomp_data` without the instruction pointer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub number: u32,
    pub audit: u32,
    pub args: [u64; 6],
}

pub(super) fn run(program: &[Instruction], call: &Call) -> u32 {
    let mut accumulator = 0;
    let mut at = 0;
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let branch = |holds: bool| usize::from(if holds { jt } else { jf });
        match code {
            0x20 => accumulator = load(call, k),
            0x54 => accumulator &= k,
            0x05 => at += k as usize,
            0x15 => at += branch(accumulator == k),
            0x25 => at += branch(accumulator > k),
            0x35 => at += branch(accumulator >= k),
            0x06 => return k,
            _ => panic!("instruction {code:#x}"),
        }
    }
}

fn load(call: &Call, offset: u32) -> u32 {
    match offset {
        0 => call.number,
        4 => call.audit,
        16..64 => {
            let arg = call.args[(offset as usize - 16) / 8];
            let upper = (offset % 8 == 4) == cfg!(target_endian = "little");
            if upper { (arg >> 32) as u32 } else { arg as u32 }
        }
        _ => panic!("offset {offset}"),
    }
}
