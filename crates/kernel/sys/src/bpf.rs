//! eBPF programs attached to cgroups: `bpf(2)`, as far as the device controller of cgroup v2 needs it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::{Error, Result};

/// One eBPF instruction, as `struct bpf_insn` of `linux/bpf.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u8,
    /// Destination register (low four bits) and source register (high four bits).
    pub registers: u8,
    /// Jump or memory offset.
    pub offset: i16,
    /// Operand.
    pub immediate: i32,
}

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_QUERY: libc::c_int = 16;

const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 1 << 1;

/// The number of attached programs that a query looks at; the kernel allows 64 to a cgroup.
const MAX_ATTACHED: usize = 64;

#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
    replace: u32,
}

#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    reserved: u32,
}

#[repr(C)]
#[derive(Default)]
struct IdAttr {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// A program loaded into the kernel.
#[derive(Debug)]
pub struct DeviceProgram(OwnedFd);

/// Loads a program of type BPF_PROG_TYPE_CGROUP_DEVICE.
///
/// `bpf(2)`, Linux 4.15; needs CAP_BPF or CAP_SYS_ADMIN in the first user namespace.
pub fn load_device_program(instructions: &[Instruction]) -> Result<DeviceProgram> {
    let attr = LoadAttr {
        program_type: TYPE_CGROUP_DEVICE,
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"Apache".as_ptr() as u64,
        ..LoadAttr::default()
    };
    // SAFETY: LoadAttr is the head of `union bpf_attr` for this command; its pointers reach a borrowed slice of the
    // length given and a static C string.
    let fd = unsafe { bpf(PROG_LOAD, &attr) };
    let fd = crate::error::check(fd, || format!("bpf(BPF_PROG_LOAD, {} instructions)", instructions.len()))?;
    // SAFETY: a successful load returns a new descriptor, close-on-exec, that nobody else owns.
    Ok(DeviceProgram(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
}

/// Makes `program` the only device program of the cgroup v2 directory `cgroup`.
///
/// The new one is attached before older ones are detached, so at no time is a device open that neither allows.
pub fn attach_device_program(cgroup: BorrowedFd<'_>, program: &DeviceProgram) -> Result<()> {
    let older = attached(cgroup)?;
    let attr = AttachAttr {
        target: cgroup.as_raw_fd() as u32,
        program: program.0.as_raw_fd() as u32,
        attach_type: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
        replace: 0,
    };
    // SAFETY: AttachAttr is the head of `union bpf_attr` for this command and holds no pointer.
    let value = unsafe { bpf(PROG_ATTACH, &attr) };
    crate::error::check(value, || format!("bpf(BPF_PROG_ATTACH, {cgroup:?}, BPF_CGROUP_DEVICE)"))?;
    older.iter().try_for_each(|program| detach(cgroup, program.as_fd()))
}

fn attached(cgroup: BorrowedFd<'_>) -> Result<Vec<OwnedFd>> {
    let mut ids = [0u32; MAX_ATTACHED];
    let mut attr = QueryAttr {
        target: cgroup.as_raw_fd() as u32,
        attach_type: ATTACH_CGROUP_DEVICE,
        ids: ids.as_mut_ptr() as u64,
        count: MAX_ATTACHED as u32,
        ..QueryAttr::default()
    };
    // SAFETY: QueryAttr is the head of `union bpf_attr` for this command; the kernel writes at most `count` ids into
    // the array, and the count back into the attribute itself.
    let value = unsafe { libc::syscall(libc::SYS_bpf, PROG_QUERY, &raw mut attr, size_of::<QueryAttr>()) };
    crate::error::check(value, || format!("bpf(BPF_PROG_QUERY, {cgroup:?}, BPF_CGROUP_DEVICE)"))?;
    ids[..MAX_ATTACHED.min(attr.count as usize)].iter().map(|&id| by_id(id)).collect()
}

fn by_id(id: u32) -> Result<OwnedFd> {
    let attr = IdAttr { id, ..IdAttr::default() };
    // SAFETY: IdAttr is the head of `union bpf_attr` for this command and holds no pointer.
    let fd = unsafe { bpf(PROG_GET_FD_BY_ID, &attr) };
    let fd = crate::error::check(fd, || format!("bpf(BPF_PROG_GET_FD_BY_ID, {id})"))?;
    // SAFETY: a successful call returns a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn detach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let attr = AttachAttr {
        target: cgroup.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        attach_type: ATTACH_CGROUP_DEVICE,
        ..AttachAttr::default()
    };
    // SAFETY: AttachAttr is the head of `union bpf_attr` for this command and holds no pointer.
    let value = unsafe { bpf(PROG_DETACH, &attr) };
    match crate::error::check(value, || format!("bpf(BPF_PROG_DETACH, {cgroup:?}, {program:?})")) {
        Err(error) if !error.is(libc::ENOENT) => Err(error),
        _ => Ok(()),
    }
}

/// Makes the call with an attribute that the kernel only reads.
///
/// # Safety
///
/// `A` must be the head of `union bpf_attr` for `command`, its pointers valid for what the command does with them.
unsafe fn bpf<A>(command: libc::c_int, attr: &A) -> libc::c_long {
    // SAFETY: the caller vouches for the contents; the size given is that of the attribute.
    unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<A>()) }
}

/// Whether the kernel can filter devices by program.
pub fn has_device_programs() -> bool {
    let allow_all = [
        Instruction { code: 0xb7, immediate: 1, ..Instruction::default() },
        Instruction { code: 0x95, ..Instruction::default() },
    ];
    load_device_program(&allow_all).map_err(|error: Error| error.errno()).is_ok()
}
