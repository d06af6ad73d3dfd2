//! Profiles that deny what they do not name: no call that runc does not make stands between the filter and the program.

use spec::runtime::LinuxSeccomp;

use crate::bundle::bundle;

/// Calls that runc makes behind a filter, and those of a C library's start and of busybox's `echo`; none of Linux 4.11
/// or later, such as `openat2`, `close_range`, `statx`, `faccessat2` and `clone3`.
const CALLS: &str = "access arch_prctl brk capget capset chdir close dup2 dup3 epoll_create1 epoll_ctl epoll_pwait \
    execve exit exit_group fchdir fcntl fstat fstatfs futex getcwd getdents64 getegid geteuid getgid getgroups getpgrp \
    getpid getppid getrandom gettid getuid ioctl kill lseek lstat madvise mmap mprotect munmap nanosleep newfstatat \
    open openat pipe2 poll prctl prlimit64 read readlink readlinkat rt_sigaction rt_sigprocmask rt_sigreturn \
    sched_getaffinity sched_yield sendto set_robust_list set_tid_address setgid setgroups setpgid setresgid setresuid \
    setsid setuid sigaltstack stat tgkill uname wait4 write writev clone vfork rseq sendmsg clock_nanosleep";

fn profile() -> LinuxSeccomp {
    let names: Vec<&str> = CALLS.split_whitespace().collect();
    serde_json::from_value(serde_json::json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{ "names": names, "action": "SCMP_ACT_ALLOW" }],
    }))
    .unwrap()
}

#[test]
fn a_profile_that_knows_no_later_call_starts_containers_and_execs() {
    for no_new_privileges in [false, true] {
        for (uid, cwd) in [(0, "/"), (1000, "/web")] {
            let Some(mut bundle) = bundle("profile", "echo started; exec sleep 100") else { return };
            std::fs::create_dir(bundle.rootfs().join("web")).unwrap();
            bundle.spec.linux_mut().seccomp = Some(profile());
            let process = bundle.process();
            process.no_new_privileges = no_new_privileges;
            process.user.uid = uid;
            process.cwd = cwd.into();
            bundle.start();
            let done = bundle.exec(&["echo", "joined"]);
            let context = format!("no_new_privileges {no_new_privileges}, uid {uid}: {done:?}");
            assert_eq!((done.code, done.out.as_str()), (0, "joined"), "{context}");
        }
    }
}

#[test]
fn a_profile_may_answer_enosys_to_every_later_call() {
    let Some(mut bundle) = bundle("enosys", "echo started") else { return };
    bundle.process().no_new_privileges = false;
    let names = [
        "close_range",
        "faccessat2",
        "fsconfig",
        "fsopen",
        "fspick",
        "mount_setattr",
        "move_mount",
        "open_tree",
        "openat2",
        "statx",
    ];
    bundle.spec.linux_mut().seccomp = Some(
        serde_json::from_value(serde_json::json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": 38 }],
        }))
        .unwrap(),
    );
    assert_eq!(bundle.says(), "started");
}
