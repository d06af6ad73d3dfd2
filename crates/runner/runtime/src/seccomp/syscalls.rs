//! System call numbers by name and architecture.
//!
//! `syscalls.txt` holds a line a call, sorted by name, with one column an architecture. It stays text in the binary:
//! an array of strings would cost a relocation, and so a private page, for every few names.

use spec::runtime::Arch;

static TABLE: &str = include_str!("syscalls.txt");

const LINES: usize = count_lines(TABLE.as_bytes());

static OFFSETS: [u16; LINES] = line_offsets(TABLE.as_bytes());

/// Numbers from here on are private to ARM and newer than nothing.
pub(super) const ARM_PRIVATE: u32 = 0xf_0000;

/// An architecture whose calls can be told by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    /// 64-bit x86.
    X86_64,
    /// 32-bit x86.
    X86,
    /// 64-bit x86 with 32-bit pointers; its numbers carry bit 30 on top of those listed.
    X32,
    /// 64-bit ARM.
    Aarch64,
    /// 32-bit ARM.
    Arm,
    /// 64-bit RISC-V.
    Riscv64,
}

impl Table {
    /// The architecture that this program was built for.
    pub const NATIVE: Self = if cfg!(target_arch = "x86_64") {
        Self::X86_64
    } else if cfg!(target_arch = "aarch64") {
        Self::Aarch64
    } else {
        Self::Riscv64
    };

    /// The table of `arch`, if there is one.
    pub fn of(arch: Arch) -> Option<Self> {
        match arch {
            Arch::Native => Some(Self::NATIVE),
            Arch::X86_64 => Some(Self::X86_64),
            Arch::X86 => Some(Self::X86),
            Arch::X32 => Some(Self::X32),
            Arch::Aarch64 => Some(Self::Aarch64),
            Arch::Arm => Some(Self::Arm),
            Arch::Riscv64 => Some(Self::Riscv64),
            _ => None,
        }
    }

    /// `AUDIT_ARCH_*` of `linux/audit.h`.
    pub fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
            Self::Riscv64 => 0xc000_00f3,
        }
    }

    /// Whether arguments have 64 bits.
    pub fn is_wide(self) -> bool {
        match self {
            Self::X86_64 | Self::X32 | Self::Aarch64 | Self::Riscv64 => true,
            Self::X86 | Self::Arm => false,
        }
    }

    fn column(self) -> usize {
        match self {
            Self::X86_64 => 1,
            Self::X86 => 2,
            Self::X32 => 3,
            Self::Aarch64 => 4,
            Self::Arm => 5,
            Self::Riscv64 => 6,
        }
    }
}

/// The number of the call `name`; `None` if the architecture has no such call.
pub fn number(table: Table, name: &str) -> Option<u32> {
    let index = OFFSETS.binary_search_by(|&offset| field(offset, 0).cmp(name)).ok()?;
    field(OFFSETS[index], table.column()).parse().ok()
}

fn field(offset: u16, column: usize) -> &'static str {
    let line = TABLE[usize::from(offset)..].lines().next().unwrap_or_default();
    line.split(' ').nth(column).unwrap_or_default()
}

const fn count_lines(text: &[u8]) -> usize {
    let mut lines = 0;
    let mut at = 0;
    while at < text.len() {
        if text[at] == b'\n' {
            lines += 1;
        }
        at += 1;
    }
    lines
}

const fn line_offsets<const N: usize>(text: &[u8]) -> [u16; N] {
    let mut offsets = [0; N];
    let mut line = 1;
    let mut at = 0;
    while at < text.len() && line < N {
        if text[at] == b'\n' {
            offsets[line] = (at + 1) as u16;
            line += 1;
        }
        at += 1;
    }
    offsets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_lines_complete() {
        let names: Vec<_> = TABLE.lines().map(|line| line.split(' ').next().unwrap()).collect();
        assert!(names.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(TABLE.lines().all(|line| line.split(' ').count() == 7));
        assert_eq!(OFFSETS.len(), names.len());
    }

    #[test]
    fn the_native_numbers_are_the_c_librarys() {
        for (name, wanted) in [
            ("read", libc::SYS_read),
            ("openat2", libc::SYS_openat2),
            ("clone3", libc::SYS_clone3),
            ("bpf", libc::SYS_bpf),
        ] {
            assert_eq!(number(Table::NATIVE, name), Some(wanted as u32), "{name}");
        }
    }

    #[test]
    fn numbers_differ_by_architecture() {
        assert_eq!(number(Table::X86, "execve"), Some(11));
        assert_eq!(number(Table::X32, "execve"), Some(520));
        assert_eq!(number(Table::Aarch64, "open"), None);
        assert_eq!(number(Table::Arm, "set_tls"), Some(983_045));
        assert_eq!(number(Table::X86_64, "no_such_call"), None);
    }
}
