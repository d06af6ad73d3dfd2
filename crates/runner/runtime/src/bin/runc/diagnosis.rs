//! What `--debug` and warnings say about a process: the words that people and tools look for in runc's log.

use runtime::create::plan::Process;

use crate::log::Log;

/// Logs what is known of `process` before it is made.
pub fn before(log: &Log, process: &Process) {
    for warning in process.warnings() {
        log.warn(&warning);
    }
    if !log.is_debug() {
        return;
    }
    let seal = if sys::exe::is_sealed().unwrap_or(false) { "is sealed" } else { "is not sealed" };
    log.debug(&format!("runc exeseal: using /proc/self/exe clone, which {seal}"));
    let own = std::process::id();
    log.debug(&format!("nsexec[{own}]: => nsexec container setup"));
    log.debug(&format!("nsexec[{own}]: affinity: {}", mask(&process.cpus.initial)));
    if let Some(filter) = &process.seccomp {
        log.debug(&format!("seccomp filter flags: {}", filter.flags));
    }
}

/// Logs how far the container's first process, `pid`, has come when it waits to be started.
pub fn created(log: &Log, pid: i32) {
    log.debug(&format!("child process in init() is {pid}"));
    log.debug("init: closing the pipe to signal completion");
    log.debug("init: about to wait on exec fifo");
}

/// Logs that a joining process, `pid`, runs its program.
pub fn joined(log: &Log, pid: i32) {
    log.debug(&format!("child process in init() is {pid}"));
    log.debug("setns_init: about to exec");
}

/// The CPUs as the mask that the kernel takes, or that it is left as it is.
fn mask(cpus: &[usize]) -> String {
    let mut mask = 0u128;
    for &cpu in cpus {
        match 1u128.checked_shl(u32::try_from(cpu).unwrap_or(u32::MAX)) {
            Some(bit) => mask |= bit,
            None => return "more than 128 CPUs".into(),
        }
    }
    if cpus.is_empty() { "unchanged".into() } else { format!("{mask:#x}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_has_a_bit_for_each_cpu() {
        assert_eq!(mask(&[0]), "0x1");
        assert_eq!(mask(&[1, 3]), "0xa");
        assert_eq!(mask(&[]), "unchanged");
        assert_eq!(mask(&[500]), "more than 128 CPUs");
    }
}
