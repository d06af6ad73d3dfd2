//! System calls that are written down first and made later, one after the other, with nothing in between.
//!
//! Where a process must not look anything up, allocate or open any more (a filter forbids it, or a container already
//! sees the process), [`Calls`] holds what is left to do. It runs either in this memory ([`Calls::run`]) or in a memory
//! image of its own that holds these calls and nothing else ([`Calls::write_image`]).
//!
//! Invariant: a call's pointers lead into the list's own data, which the list owns until the process ends.

mod image;

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::capability::Set;
use crate::error::{Error, Result};
use crate::mount::Attributes;
use crate::process::schedule::Policy;
use crate::seccomp::{Instruction, MAX_INSTRUCTIONS};
pub use image::{Image, ImageFile};

/// First byte of the message that reports a failed call; the errno (4 bytes) and the text follow.
pub const FAILED: u8 = b'f';

/// The number of no system call.
const LEAVE: libc::c_long = -1;

/// An argument of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arg {
    Number(u64),
    /// A pointer to this offset of the data.
    Data(usize),
}

impl From<i32> for Arg {
    fn from(number: i32) -> Self {
        Self::Number(i64::from(number).cast_unsigned())
    }
}

impl From<u32> for Arg {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<u64> for Arg {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<usize> for Arg {
    fn from(number: usize) -> Self {
        Self::Number(number as u64)
    }
}

/// One call.
#[derive(Clone, Debug)]
struct Call {
    number: libc::c_long,
    args: [Arg; 6],
    /// Offset of the data where the low four bytes of the result are stored.
    store: Option<usize>,
    /// Index of the call that follows a result above zero, if not the next one.
    jump: Option<usize>,
    /// An errno that is no failure; 0 for none.
    tolerated: i32,
    /// The failure's message (offset and length): [`FAILED`], room for the errno, the text.
    failure: (usize, usize),
}

/// A list of calls.
#[derive(Debug)]
pub struct Calls {
    calls: Vec<Call>,
    data: Vec<u8>,
    /// Offsets of the data that hold pointers to other offsets.
    pointers: Vec<usize>,
    report: i32,
}

/// A call of a list that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its errno.
    pub errno: i32,
    /// What it was for, and the call as it was made.
    pub text: String,
}

impl Calls {
    /// An empty list. A list that runs as an image reports its failure to the socket `report`.
    pub fn new(report: BorrowedFd<'_>) -> Self {
        Self { calls: Vec::new(), data: Vec::new(), pointers: Vec::new(), report: report.as_raw_fd() }
    }

    /// Adds a call; `text` says what failed when it fails.
    fn push<const N: usize>(&mut self, text: &str, number: libc::c_long, args: [Arg; N]) -> &mut Call {
        let mut six = [Arg::Number(0); 6];
        six[..N].copy_from_slice(&args);
        let message = [&[FAILED, 0, 0, 0, 0], text.as_bytes()].concat();
        let failure = (self.bytes(&message), message.len());
        let at = self.calls.len();
        self.calls.push(Call { number, args: six, store: None, jump: None, tolerated: 0, failure });
        &mut self.calls[at]
    }

    /// Stores `bytes` at a multiple of eight and returns the offset.
    fn bytes(&mut self, bytes: &[u8]) -> usize {
        self.data.resize(self.data.len().next_multiple_of(8), 0);
        let at = self.data.len();
        self.data.extend_from_slice(bytes);
        at
    }

    fn words(&mut self, words: &[u64]) -> usize {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.bytes(&bytes)
    }

    /// Makes the word at offset `at` of the data a pointer to the offset `target`.
    fn point(&mut self, at: usize, target: usize) {
        self.data[at..at + 8].copy_from_slice(&(target as u64).to_ne_bytes());
        self.pointers.push(at);
    }

    /// Stores a null-ended list of pointers to `strings`.
    fn strings(&mut self, strings: &[CString]) -> usize {
        let offsets: Vec<usize> = strings.iter().map(|text| self.bytes(text.as_bytes_with_nul())).collect();
        let list = self.words(&vec![0; strings.len() + 1]);
        for (index, offset) in offsets.into_iter().enumerate() {
            self.point(list + 8 * index, offset);
        }
        list
    }

    fn prctl(&mut self, what: &str, option: libc::c_int, name: &str, value: u64) -> &mut Call {
        let text = format!("{what}: prctl({name}, {value})");
        let zero = Arg::Number(0);
        self.push(&text, libc::SYS_prctl, [option.into(), value.into(), zero, zero, zero])
    }

    /// `prctl(PR_SET_NO_NEW_PRIVS)`.
    pub fn no_new_privs(&mut self) {
        self.prctl("set no_new_privs", libc::PR_SET_NO_NEW_PRIVS, "PR_SET_NO_NEW_PRIVS", 1);
    }

    /// `prctl(PR_SET_DUMPABLE, 0)`: nobody without privileges reads this process's memory.
    pub fn undumpable(&mut self) {
        self.prctl("stay undumpable", libc::PR_SET_DUMPABLE, "PR_SET_DUMPABLE", 0);
    }

    /// `prctl(PR_SET_CHILD_SUBREAPER)`: orphaned descendants become children of this process.
    pub fn subreaper(&mut self) {
        self.prctl("take in orphans", libc::PR_SET_CHILD_SUBREAPER, "PR_SET_CHILD_SUBREAPER", 1);
    }

    /// `prctl(PR_SET_KEEPCAPS)`.
    pub fn keep_capabilities(&mut self, keep: bool) {
        self.prctl("keep capabilities", libc::PR_SET_KEEPCAPS, "PR_SET_KEEPCAPS", keep.into());
    }

    /// Drops what is not in `keep` from the bounding set. `prctl(PR_CAPBSET_DROP)`.
    pub fn bound(&mut self, keep: Set) {
        for number in (0..64u64).filter(|number| keep.0 >> number & 1 == 0) {
            let call = self.prctl("set the bounding set", libc::PR_CAPBSET_DROP, "PR_CAPBSET_DROP", number);
            // Past the last capability of this kernel.
            call.tolerated = libc::EINVAL;
        }
    }

    /// `setgroups(2)`. No groups are tolerated to fail where a user namespace's maker denied the call.
    pub fn groups(&mut self, groups: &[u32]) {
        let bytes: Vec<u8> = groups.iter().flat_map(|group| group.to_ne_bytes()).collect();
        let list = self.bytes(&bytes);
        let text = format!("setgroups: setgroups({groups:?})");
        let call = self.push(&text, libc::SYS_setgroups, [groups.len().into(), Arg::Data(list)]);
        if groups.is_empty() {
            call.tolerated = libc::EPERM;
        }
    }

    /// `setresgid(2)`.
    pub fn gid(&mut self, gid: u32) {
        let text = format!("setgid: setresgid({gid})");
        self.push(&text, libc::SYS_setresgid, [gid.into(), gid.into(), gid.into()]);
    }

    /// `setresuid(2)`.
    pub fn uid(&mut self, uid: u32) {
        let text = format!("setuid: setresuid({uid})");
        self.push(&text, libc::SYS_setresuid, [uid.into(), uid.into(), uid.into()]);
    }

    /// `capset(2)`.
    pub fn capabilities(&mut self, effective: Set, permitted: Set, inheritable: Set) {
        const VERSION_3: u64 = 0x2008_0522;
        let header = self.words(&[VERSION_3]);
        let halves = |shift: u32| [effective, permitted, inheritable].map(|set| (set.0 >> shift) as u32);
        let words: Vec<u8> =
            [halves(0), halves(32)].concat().into_iter().flat_map(u32::to_ne_bytes).collect();
        let sets = self.bytes(&words);
        let text = format!("set capabilities: capset({effective:?}, {permitted:?}, {inheritable:?})");
        self.push(&text, libc::SYS_capset, [Arg::Data(header), Arg::Data(sets)]);
    }

    /// Makes `wanted` the ambient set; an empty one is what it is already. `prctl(PR_CAP_AMBIENT)`.
    pub fn ambient(&mut self, wanted: Set) {
        if wanted == Set::default() {
            return;
        }
        let raised = (0..64u64).filter(|number| wanted.0 >> number & 1 == 1);
        let clear = (libc::PR_CAP_AMBIENT_CLEAR_ALL, 0);
        for (operation, number) in
            std::iter::once(clear).chain(raised.map(|number| (libc::PR_CAP_AMBIENT_RAISE, number)))
        {
            let text = format!("set ambient capabilities: prctl(PR_CAP_AMBIENT, {operation}, {number})");
            let zero = Arg::Number(0);
            let option = libc::PR_CAP_AMBIENT.into();
            self.push(&text, libc::SYS_prctl, [option, operation.into(), number.into(), zero, zero]);
        }
    }

    /// `seccomp(2)`: from this call on `filter` judges each further one.
    ///
    /// # Errors
    /// `EINVAL` for a filter that is longer than the kernel takes.
    pub fn filter(&mut self, filter: &[Instruction], flags: u32) -> Result<()> {
        let text = format!(
            "install seccomp filter: seccomp(SECCOMP_SET_MODE_FILTER, {flags:#x}, {} instructions)",
            filter.len()
        );
        if filter.len() > MAX_INSTRUCTIONS {
            return Err(Error::new(libc::EINVAL, text));
        }
        let mut bytes = Vec::with_capacity(8 * filter.len());
        for instruction in filter {
            bytes.extend_from_slice(&instruction.code.to_ne_bytes());
            bytes.extend_from_slice(&[instruction.jt, instruction.jf]);
            bytes.extend_from_slice(&instruction.k.to_ne_bytes());
        }
        let instructions = self.bytes(&bytes);
        // struct sock_fprog: the count in two bytes, then at the next multiple of eight the pointer.
        let mut length = [0; 8];
        length[..2].copy_from_slice(&(filter.len() as u16).to_ne_bytes());
        let program = self.words(&[u64::from_ne_bytes(length), 0]);
        self.point(program + 8, instructions);
        let mode: Arg = libc::SECCOMP_SET_MODE_FILTER.into();
        self.push(&text, libc::SYS_seccomp, [mode, flags.into(), Arg::Data(program)]);
        Ok(())
    }

    /// `setsid(2)`.
    pub fn session(&mut self) {
        self.push("begin a session: setsid()", libc::SYS_setsid, []);
    }

    /// Makes standard input the controlling terminal of the session. `TIOCSCTTY`.
    pub fn terminal(&mut self) {
        let request = u64::from(libc::TIOCSCTTY as u32);
        let text = "take control of the terminal: ioctl(0, TIOCSCTTY)";
        self.push(text, libc::SYS_ioctl, [0.into(), request.into(), 0.into()]);
    }

    /// `sched_setattr(2)`. `hint` begins the text of its failure.
    pub fn scheduler(&mut self, policy: &Policy, hint: &str) {
        let attributes = self.bytes(&policy.to_bytes());
        let text = format!("{hint}set scheduler: sched_setattr({policy:?})");
        self.push(&text, libc::SYS_sched_setattr, [0.into(), Arg::Data(attributes), 0.into()]);
    }

    /// Gives the process the name that `ps` shows. `prctl(PR_SET_NAME)`.
    pub fn name(&mut self, name: &CStr) {
        let name = self.bytes(name.to_bytes_with_nul());
        self.push(
            "set the name: prctl(PR_SET_NAME)",
            libc::SYS_prctl,
            [libc::PR_SET_NAME.into(), Arg::Data(name)],
        );
    }

    /// Has the next execution close `fd`. `fcntl(F_SETFD)`.
    pub fn close_on_exec(&mut self, fd: BorrowedFd<'_>) {
        let text = "close on exec: fcntl(F_SETFD)";
        let args = [fd.as_raw_fd().into(), libc::F_SETFD.into(), libc::FD_CLOEXEC.into()];
        self.push(text, libc::SYS_fcntl, args);
    }

    /// Sends `message` to the socket that failures are reported to, with `write(2)`, which every filter knows.
    pub fn report(&mut self, message: &[u8]) {
        let text = Arg::Data(self.bytes(message));
        let args = [self.report.into(), text, message.len().into()];
        self.push("report to the parent: write()", libc::SYS_write, args);
    }

    /// Waits for one byte from `fd`; the end of the file instead of it ends the process with the code 255.
    pub fn wait_for_byte(&mut self, fd: BorrowedFd<'_>, what: &str) {
        self.wait(fd.as_raw_fd(), what);
    }

    fn wait(&mut self, fd: i32, what: &str) {
        let buffer = self.words(&[0]);
        let args = [fd.into(), Arg::Data(buffer), Arg::Number(1)];
        let next = self.calls.len() + 2;
        self.push(&format!("{what}: read()"), libc::SYS_read, args).jump = Some(next);
        self.exit(255);
    }

    /// `exit_group(2)`.
    pub fn exit(&mut self, code: i32) {
        self.push("exit", libc::SYS_exit_group, [code.into()]);
    }

    /// Splits the process: what follows in the list runs in a new child of this process's parent, which waits for a
    /// byte from the report socket first. This process sends `tag` and the child's pid (4 bytes, as it sees it) to that
    /// socket, and ends. `clone3(2)`.
    ///
    /// Call it once and let [`Self::end_of_parent`] be the list's last entry.
    pub fn split(&mut self, tag: u8) -> Split {
        let message = self.bytes(&[tag, 0, 0, 0, 0]);
        let clone = self.clone_process(libc::CLONE_PARENT, 0);
        self.calls[clone].store = Some(message + 1);
        self.wait(self.report, "wait for the parent");
        Split { clone, message }
    }

    /// Splits the process: what follows in the list runs in a child, and this process ends when that has ended.
    ///
    /// Call it once and let [`Self::end_after_child`] be the list's last entry.
    pub fn split_off_child(&mut self) -> Split {
        Split { clone: self.clone_process(0, libc::SIGCHLD), message: 0 }
    }

    /// What the process does that split off a child: it waits for its end.
    pub fn end_after_child(&mut self, split: &Split) {
        self.calls[split.clone].jump = Some(self.calls.len());
        let zero = Arg::Number(0);
        self.push("wait for the child: wait4()", libc::SYS_wait4, [(-1).into(), zero, zero, zero]);
        self.exit(0);
    }

    fn clone_process(&mut self, flags: i32, exit_signal: i32) -> usize {
        // struct clone_args, its first version: flags, four pointers, the exit signal, a stack and a TLS.
        let args = self.words(&[flags as u64, 0, 0, 0, exit_signal as u64, 0, 0, 0]);
        let text = format!("clone the process: clone3({flags:#x})");
        self.push(&text, libc::SYS_clone3, [Arg::Data(args), Arg::Number(64)]);
        self.calls.len() - 1
    }

    /// What the process that was split does: it names the child and ends.
    pub fn end_of_parent(&mut self, split: &Split) {
        self.calls[split.clone].jump = Some(self.calls.len());
        let args = [self.report.into(), Arg::Data(split.message), Arg::Number(5)];
        self.push("name the process: write()", libc::SYS_write, args);
        self.exit(0);
    }

    /// Makes a file system of the type `kind` with `options` (a key and, unless it is a flag, a value), and sends its
    /// detached mount with the message `tag` to the report socket. fsopen(2), fsconfig(2), fsmount(2).
    ///
    /// The process has no descriptors but the standard three and the report socket: the numbers of new ones are known.
    pub fn send_file_system(
        &mut self,
        tag: u8,
        kind: &CStr,
        options: &[(CString, Option<CString>)],
        attributes: Attributes,
    ) {
        let (set_flag, set_string, create) = (0, 1, 6);
        let context = if self.report == 3 { 4 } else { 3 };
        let shown = kind.to_string_lossy();
        let name = Arg::Data(self.bytes(kind.to_bytes_with_nul()));
        // FSOPEN_CLOEXEC, and below FSMOUNT_CLOEXEC, are 1.
        self.push(&format!("fsopen({shown})"), libc::SYS_fsopen, [name, 1.into()]);
        for (key, value) in options {
            let text = format!("fsconfig({shown}, {key:?}, {value:?})");
            let key = Arg::Data(self.bytes(key.as_bytes_with_nul()));
            let (command, value) = match value {
                Some(value) => (set_string, Arg::Data(self.bytes(value.as_bytes_with_nul()))),
                None => (set_flag, Arg::Number(0)),
            };
            let args = [context.into(), command.into(), key, value, 0.into()];
            self.push(&text, libc::SYS_fsconfig, args);
        }
        let zero = Arg::Number(0);
        let args = [context.into(), create.into(), zero, zero, zero];
        self.push(&format!("fsconfig({shown}, create)"), libc::SYS_fsconfig, args);
        // struct cmsghdr (length, then level and type in four bytes each) and one descriptor.
        let kind = [libc::SOL_SOCKET.to_ne_bytes(), libc::SCM_RIGHTS.to_ne_bytes()].concat();
        let control = self.words(&[20]);
        self.data.extend_from_slice(&kind);
        self.data.extend_from_slice(&[0; 8]);
        let args = [context.into(), 1.into(), attributes.0.into()];
        self.push(&format!("fsmount({shown}, {attributes:?})"), libc::SYS_fsmount, args).store =
            Some(control + 16);
        let message = self.bytes(&[tag]);
        let text = self.words(&[0, 1]);
        self.point(text, message);
        // struct msghdr: name and its length, the text's vector and its length, control and its length, flags.
        let header = self.words(&[0, 0, 0, 1, 0, 24, 0]);
        self.point(header + 16, text);
        self.point(header + 32, control);
        let args = [self.report.into(), Arg::Data(header), libc::MSG_NOSIGNAL.into()];
        self.push("hand over the mount: sendmsg()", libc::SYS_sendmsg, args);
    }

    /// Has the kernel kill this process when its parent ends. `prctl(PR_SET_PDEATHSIG)`.
    pub fn end_with_parent(&mut self) {
        self.prctl("end with the parent", libc::PR_SET_PDEATHSIG, "PR_SET_PDEATHSIG", libc::SIGKILL as u64);
    }

    /// Ends a list that runs from this process's memory: [`Self::run`] returns. An image reports it as a failure.
    pub fn leave(&mut self) {
        self.push("leave the list", LEAVE, []);
    }

    /// `execve(2)`.
    pub fn execute(&mut self, path: &CStr, args: &[CString], env: &[CString]) {
        let text = format!("exec {}", path.to_string_lossy());
        let path = self.bytes(path.to_bytes_with_nul());
        let (args, env) = (self.strings(args), self.strings(env));
        self.push(&text, libc::SYS_execve, [Arg::Data(path), Arg::Data(args), Arg::Data(env)]);
    }

    /// Makes the calls from this process's memory. Returns when the list has ended without `execve(2)` or an exit.
    ///
    /// A list that splits the process returns twice, so the process must have one thread.
    ///
    /// # Errors
    /// The first call that failed; what came before it is done.
    pub fn run(mut self) -> Result<(), Failure> {
        let base = self.data.as_mut_ptr() as u64;
        for &at in &self.pointers {
            rebase(&mut self.data, at, base);
        }
        let mut next = 0;
        while let Some(call) = self.calls.get(next).filter(|call| call.number != LEAVE) {
            next += 1;
            let [a, b, c, d, e, f] = call.args.map(|arg| match arg {
                Arg::Number(number) => number,
                Arg::Data(offset) => base + offset as u64,
            });
            // SAFETY: the typed methods of this list wrote the call; its pointers lead into `data`, which is not moved
            // or resized while this loop runs, and the kernel writes only what they reserved for it.
            let result = unsafe { libc::syscall(call.number, a, b, c, d, e, f) };
            if result < 0 {
                let errno = crate::error::last_errno();
                if errno != call.tolerated {
                    let (at, length) = call.failure;
                    let text = String::from_utf8_lossy(&self.data[at + 5..at + length]).into_owned();
                    return Err(Failure { errno, text });
                }
            }
            if let Some(at) = call.store {
                self.data[at..at + 4].copy_from_slice(&(result as u32).to_ne_bytes());
            }
            if let (true, Some(target)) = (result > 0, call.jump) {
                next = target;
            }
        }
        Ok(())
    }
}

/// Adds `base` to the word at offset `at`.
fn rebase(data: &mut [u8], at: usize, base: u64) {
    let mut word = [0; 8];
    word.copy_from_slice(&data[at..at + 8]);
    data[at..at + 8].copy_from_slice(&(u64::from_ne_bytes(word) + base).to_ne_bytes());
}

/// Where a list splits its process.
#[derive(Debug)]
pub struct Split {
    clone: usize,
    message: usize,
}

#[cfg(test)]
mod tests;
