//! What the scheduler is told of a process: policy, I/O priority, CPUs, memory personality.

use crate::error::{Result, check};

/// A scheduling policy and its numbers, as `sched_setattr(2)` takes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// For `SCHED_OTHER` and `SCHED_BATCH`.
    pub nice: i32,
    /// For `SCHED_FIFO` and `SCHED_RR`.
    pub priority: u32,
    /// For `SCHED_DEADLINE`, nanoseconds.
    pub runtime: u64,
    /// For `SCHED_DEADLINE`, nanoseconds.
    pub deadline: u64,
    /// For `SCHED_DEADLINE`, nanoseconds.
    pub period: u64,
}

impl Policy {
    /// `struct sched_attr` of the kernel, its first version.
    pub(crate) fn to_bytes(self) -> [u8; 48] {
        let mut bytes = [0; 48];
        let fields: [&[u8]; 8] = [
            &48u32.to_ne_bytes(),
            &self.policy.to_ne_bytes(),
            &self.flags.to_ne_bytes(),
            &self.nice.to_ne_bytes(),
            &self.priority.to_ne_bytes(),
            &self.runtime.to_ne_bytes(),
            &self.deadline.to_ne_bytes(),
            &self.period.to_ne_bytes(),
        ];
        let mut at = 0;
        for field in fields {
            bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        }
        bytes
    }
}

/// Sets class (1 real time, 2 best effort, 3 idle) and priority of this process's I/O. `ioprio_set(2)`.
pub fn set_io_priority(class: u32, priority: u32) -> Result<()> {
    let value = (class << 13) | priority;
    // SAFETY: takes three numbers; 1 is IOPRIO_WHO_PROCESS, 0 the caller.
    let done = unsafe { libc::syscall(libc::SYS_ioprio_set, 1, 0, value) };
    check(done, || format!("ioprio_set({class}, {priority})")).map(|_| ())
}

/// Sets the execution domain of this process. `personality(2)`.
pub fn set_personality(persona: u64) -> Result<()> {
    // SAFETY: takes a number.
    let done = unsafe { libc::personality(persona as libc::c_ulong) };
    check(done.into(), || format!("personality({persona:#x})")).map(|_| ())
}

/// Lets this process run on every CPU that its cpuset has, now and after a change of it. `sched_setaffinity(2)`.
///
/// The kernel cuts the mask to the CPUs it knows and to those of the cpuset.
pub fn reset_cpus() -> Result<()> {
    const MAX_CPUS: usize = 64 * 1024;
    let mask = [0xffu8; MAX_CPUS / 8];
    // SAFETY: the kernel reads at most as many bytes as it is told the mask has.
    let done = unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, mask.len(), mask.as_ptr()) };
    check(done, || "sched_setaffinity(all)".to_owned()).map(|_| ())
}

/// How many NUMA nodes a policy can name; no kernel has more.
pub const MAX_NODES: usize = 1024;

/// Sets where memory of this process and its children comes to lie: `mode` with its flags, and the numbers of the nodes
/// it is about. `set_mempolicy(2)`.
pub fn set_memory_policy(mode: u32, nodes: &[usize]) -> Result<()> {
    let mut mask = [0u8; MAX_NODES / 8];
    for &node in nodes.iter().filter(|&&node| node < MAX_NODES) {
        mask[node / 8] |= 1 << (node % 8);
    }
    // The kernel takes one bit less than it is told.
    let (mask, bits) = if nodes.is_empty() { (std::ptr::null(), 0) } else { (mask.as_ptr(), MAX_NODES + 1) };
    // SAFETY: the kernel reads MAX_NODES bits, which is what the mask has, or nothing of a null mask; bytes are little
    // endian words on the architectures supported here.
    let done = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) };
    check(done, || format!("set_mempolicy({mode:#x}, {nodes:?})")).map(|_| ())
}

/// Binds this process to the CPUs numbered in `cpus`. `sched_setaffinity(2)`.
pub fn set_cpus(cpus: &[usize]) -> Result<()> {
    const MOST: usize = 8192;
    let mut mask = [0u8; MOST / 8];
    for &cpu in cpus.iter().filter(|&&cpu| cpu < MOST) {
        mask[cpu / 8] |= 1 << (cpu % 8);
    }
    // SAFETY: the kernel reads as many bytes as it is told the mask has; bytes are little endian words on the
    // architectures supported here.
    let done = unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, mask.len(), mask.as_ptr()) };
    check(done, || format!("sched_setaffinity({cpus:?})")).map(|_| ())
}
