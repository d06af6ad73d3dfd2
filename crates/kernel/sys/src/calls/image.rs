//! A list of calls as a program of its own: an ELF file of a page of code and the list's data.
//!
//! ```text
//! file               memory
//! 0      headers     CODE         read, execute   the headers and the loop that makes the calls
//! 0x1000 calls       DATA         read, write     first the calls, twelve words each, then the list's data
//! ```
//!
//! A process that executes it has nothing of its caller in memory: neither arguments nor environment, heap or code.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::{Arg, Call, Calls, rebase};
use crate::error::{Error, Result, check};
use crate::process;

/// Address of the code: above what `vm.mmap_min_addr` may forbid, below where the kernel puts a stack.
const CODE: u64 = 0x1_0000_0000;
/// Address of the calls and their data.
const DATA: u64 = 0x1_0001_0000;
/// Where the data begins in the file.
const DATA_OFFSET: usize = 0x1000;
/// Bytes of one call: number, six arguments, store, jump, tolerated errno, failure and its length.
const CALL_BYTES: usize = 12 * 8;
/// Bytes of the ELF header and of three program headers.
const HEADER_BYTES: usize = 64 + 3 * 56;
/// The name that `/proc/PID/maps` shows.
const FILE_NAME: &std::ffi::CStr = c"init";

/// The file that a list's program is written to. Made ahead, because it is reached through the host's `/proc`.
#[derive(Debug)]
pub struct ImageFile {
    writer: OwnedFd,
    handle: OwnedFd,
}

/// A program that makes the calls of a list.
#[derive(Debug)]
pub struct Image {
    file: OwnedFd,
}

impl Calls {
    /// Writes the list into `file` as a program of its own; it ends with `execve(2)` or an exit, which the list holds.
    ///
    /// # Errors
    /// `ENOSYS` on a processor for which there is no such program, and what `write(2)` says.
    pub fn write_image(&self, file: ImageFile) -> Result<Image> {
        crate::fd::write_all(file.writer.as_fd(), &self.file(code()?))?;
        // A file that is open for writing is not executed (ETXTBSY): only the handle stays.
        drop(file.writer);
        Ok(Image { file: file.handle })
    }

    fn file(&self, code: &[u8]) -> Vec<u8> {
        let base = DATA + (self.calls.len() * CALL_BYTES) as u64;
        let mut data = self.data.clone();
        for &at in &self.pointers {
            rebase(&mut data, at, base);
        }
        let mut file = headers((self.calls.len() * CALL_BYTES + data.len()) as u64, code.len());
        file.extend_from_slice(code);
        file.resize(DATA_OFFSET, 0);
        for call in &self.calls {
            for word in words(call, base) {
                file.extend_from_slice(&word.to_ne_bytes());
            }
        }
        file.extend_from_slice(&data);
        // The loop needs to know the socket; the word is the code's first operand.
        let at = HEADER_BYTES + REPORT_OFFSET;
        file[at..at + 4].copy_from_slice(&self.report.to_ne_bytes());
        file
    }
}

impl Image {
    /// Executes it with the single argument `name` and no environment; returns only what kept it from running.
    pub fn execute(&self, name: &std::ffi::CStr) -> Error {
        process::exec_fd(self.file.as_fd(), &[name.to_owned()], &[])
    }
}

impl AsFd for Image {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl ImageFile {
    /// An empty executable file in memory.
    ///
    /// # Errors
    /// What `memfd_create(2)` says, or `open(2)` where `/proc` is not this process's.
    pub fn create() -> Result<Self> {
        use std::os::fd::FromRawFd as _;
        /// Linux 6.3; before it every such file could be executed, and the flag is refused.
        const MFD_EXEC: libc::c_uint = 0x10;
        let make = |flags: libc::c_uint| {
            // SAFETY: the name is a C string, and the call makes a new descriptor.
            let fd = unsafe { libc::memfd_create(FILE_NAME.as_ptr(), libc::MFD_CLOEXEC | flags) };
            check(fd.into(), || format!("memfd_create(\"init\", {flags:#x})"))
        };
        let fd = match make(MFD_EXEC) {
            Err(error) if error.is(libc::EINVAL) => make(0)?,
            done => done?,
        };
        // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
        let writer = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let path = crate::path::of_fd(writer.as_fd());
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
        let handle = rustix::fs::open(&path, flags, rustix::fs::Mode::empty())
            .map_err(crate::error::call!("open", path))?;
        Ok(Self { writer, handle })
    }

    /// Its descriptors, for a caller that closes all others.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.writer.as_fd(), self.handle.as_fd()]
    }
}

fn words(call: &Call, data: u64) -> [u64; 12] {
    let pointer = |offset: usize| data + offset as u64;
    let mut words = [0; 12];
    words[0] = call.number.cast_unsigned();
    for (word, arg) in words[1..7].iter_mut().zip(call.args) {
        *word = match arg {
            Arg::Number(number) => number,
            Arg::Data(offset) => pointer(offset),
        };
    }
    words[7] = call.store.map_or(0, pointer);
    words[8] = call.jump.map_or(0, |index| DATA + (index * CALL_BYTES) as u64);
    words[9] = i64::from(call.tolerated).cast_unsigned();
    words[10] = pointer(call.failure.0);
    words[11] = call.failure.1 as u64;
    words
}

/// ELF header and program headers: code, data, and a stack that is not executable. elf(5).
fn headers(data_bytes: u64, code_bytes: usize) -> Vec<u8> {
    const EXECUTABLE: u16 = 2;
    const X86_64: u16 = 62;
    const LOAD: u32 = 1;
    const GNU_STACK: u32 = 0x6474_e551;
    let (execute, write, read) = (1, 2, 4);
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let half = |file: &mut Vec<u8>, values: &[u16]| {
        values.iter().for_each(|value| file.extend_from_slice(&value.to_ne_bytes()));
    };
    let word = |file: &mut Vec<u8>, values: &[u32]| {
        values.iter().for_each(|value| file.extend_from_slice(&value.to_ne_bytes()));
    };
    let long = |file: &mut Vec<u8>, values: &[u64]| {
        values.iter().for_each(|value| file.extend_from_slice(&value.to_ne_bytes()));
    };
    half(&mut file, &[EXECUTABLE, X86_64]);
    word(&mut file, &[1]);
    // The entry lies behind the code's operand.
    long(&mut file, &[CODE + (HEADER_BYTES + ENTRY_OFFSET) as u64, 64, 0]);
    word(&mut file, &[0]);
    half(&mut file, &[64, 56, 3, 0, 0, 0]);
    let code_bytes = (HEADER_BYTES + code_bytes) as u64;
    let segments = [
        (LOAD, read | execute, 0, CODE, code_bytes, 0x1000),
        (LOAD, read | write, DATA_OFFSET as u64, DATA, data_bytes, 0x1000),
        (GNU_STACK, read | write, 0, 0, 0, 16),
    ];
    for (kind, flags, offset, address, bytes, align) in segments {
        word(&mut file, &[kind, flags]);
        long(&mut file, &[offset, address, address, bytes, bytes, align]);
    }
    file
}

/// Offset of the report socket's number in the code.
const REPORT_OFFSET: usize = 0;
/// Offset of the first instruction in the code.
const ENTRY_OFFSET: usize = 8;

// The loop: r12 is the call at hand. Registers other than rax, rcx and r11 survive a system call, and a child of
// clone3(2) begins with its parent's.
#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection .rodata.berth_calls,\"a\",@progbits",
    ".balign 8",
    ".globl berth_calls_code",
    ".hidden berth_calls_code",
    "berth_calls_code:",
    ".quad 0", // the report socket, written by the maker of the file
    "movabs r12, {data}",
    "2:",
    "mov rax, [r12]",
    "mov rdi, [r12 + 8]",
    "mov rsi, [r12 + 16]",
    "mov rdx, [r12 + 24]",
    "mov r10, [r12 + 32]",
    "mov r8, [r12 + 40]",
    "mov r9, [r12 + 48]",
    "syscall",
    "cmp rax, -4095",
    "jae 5f",
    "mov rcx, [r12 + 56]", // store
    "test rcx, rcx",
    "jz 3f",
    "mov [rcx], eax",
    "3:",
    "test rax, rax",
    "jz 4f",
    "mov rcx, [r12 + 64]", // jump
    "test rcx, rcx",
    "jz 4f",
    "mov r12, rcx",
    "jmp 2b",
    "4:",
    "add r12, {call_bytes}",
    "jmp 2b",
    "5:",
    "neg eax",
    "cmp eax, [r12 + 72]", // tolerated
    "je 4b",
    "mov rsi, [r12 + 80]", // failure
    "mov [rsi + 1], eax",
    "mov rdx, [r12 + 88]",
    "mov edi, [rip + berth_calls_code]",
    "mov eax, 1", // write
    "syscall",
    "mov edi, 255",
    "mov eax, 231", // exit_group
    "syscall",
    "ud2",
    ".globl berth_calls_end",
    ".hidden berth_calls_end",
    "berth_calls_end:",
    ".popsection",
    data = const DATA,
    call_bytes = const CALL_BYTES,
);

#[cfg(target_arch = "x86_64")]
fn code() -> Result<&'static [u8]> {
    unsafe extern "C" {
        static berth_calls_code: u8;
        static berth_calls_end: u8;
    }
    let (begin, end) = (&raw const berth_calls_code, &raw const berth_calls_end);
    // SAFETY: both labels stand in one piece of read-only data, the second behind the first.
    Ok(unsafe { std::slice::from_raw_parts(begin, end as usize - begin as usize) })
}

#[cfg(not(target_arch = "x86_64"))]
fn code() -> Result<&'static [u8]> {
    Err(Error::new(libc::ENOSYS, "the calls as a program of their own, on this processor"))
}
