//! Compiles a container's system call filter to classic BPF.
//!
//! The program first tells architectures apart, then finds the call number in a balanced tree of ranges with one
//! outcome each, then compares arguments where a rule has conditions. Calls newer than any the document names fail
//! with ENOSYS, not with the document's refusal, because C libraries probe for new calls and fall back only on ENOSYS.
//!
//! Meaning, as libseccomp gives it to the same document: a rule that says what the default says is nothing; an
//! unconditional rule beats conditional ones of the same call; conditional rules are tried in order; conditions of one
//! rule that repeat an argument are alternatives. On 32-bit architectures only the low half of an argument exists.
//!
//! Invariant: no program leaves this module that does not end, on every path, in a return.

mod assemble;
mod compile;
mod syscalls;

#[cfg(test)]
mod interpret;

pub use compile::{CompileError, Program, compile};
pub use syscalls::{Table, number};
