//! Filters against a naive reading of their rules.

use proptest::prelude::*;
use spec::runtime::{SeccompOperator, seccomp_default};

use super::super::interpret::{Call, run};
use super::*;

fn rule(
    names: &[&str],
    action: SeccompAction,
    errno_ret: Option<u32>,
    args: Vec<SeccompArg>,
) -> SeccompSyscall {
    SeccompSyscall { names: names.iter().map(|&name| name.to_owned()).collect(), action, errno_ret, args }
}

fn filter(
    default_action: SeccompAction,
    architectures: Vec<Arch>,
    syscalls: Vec<SeccompSyscall>,
) -> LinuxSeccomp {
    LinuxSeccomp {
        default_action,
        default_errno_ret: None,
        architectures,
        flags: None,
        listener_path: String::new(),
        listener_metadata: String::new(),
        syscalls,
    }
}

fn call(table: Table, name: &str, args: [u64; 6]) -> Call {
    let base = if table == Table::X32 { X32_BIT } else { 0 };
    Call { number: base + number(table, name).unwrap(), audit: table.audit(), args }
}

fn outcome(filter: &LinuxSeccomp, call: &Call) -> u32 {
    run(&compile(filter).unwrap().instructions, call)
}

const NONE: [u64; 6] = [0; 6];

#[test]
fn the_default_profile_allows_reading_and_refuses_mounting() {
    let filter = seccomp_default(&["CAP_SYS_CHROOT"]);
    for table in [Table::X86_64, Table::X86, Table::X32].into_iter().filter(|_| cfg!(target_arch = "x86_64"))
    {
        assert_eq!(outcome(&filter, &call(table, "read", NONE)), RET_ALLOW);
        assert_eq!(outcome(&filter, &call(table, "chroot", NONE)), RET_ALLOW);
        assert_eq!(outcome(&filter, &call(table, "mount", NONE)), RET_ERRNO | EPERM);
        assert_eq!(outcome(&filter, &call(table, "clone3", NONE)), RET_ERRNO | ENOSYS);
        let new_user = [0x1000_0000, 0, 0, 0, 0, 0];
        assert_eq!(outcome(&filter, &call(table, "clone", new_user)), RET_ERRNO | EPERM);
        assert_eq!(outcome(&filter, &call(table, "clone", NONE)), RET_ALLOW);
    }
}

#[test]
fn the_default_profile_is_short() {
    let length = compile(&seccomp_default(&["CAP_SYS_ADMIN"])).unwrap().instructions.len();
    assert!(length < 1024, "{length} instructions");
}

#[test]
fn calls_newer_than_the_document_look_absent() {
    let filter = filter(
        SeccompAction::KillProcess,
        vec![],
        vec![rule(&["openat2"], SeccompAction::Allow, None, vec![])],
    );
    let newer = Call {
        number: number(Table::NATIVE, "openat2").unwrap() + 1,
        audit: Table::NATIVE.audit(),
        args: NONE,
    };
    assert_eq!(outcome(&filter, &newer), RET_ERRNO | ENOSYS);
    assert_eq!(outcome(&filter, &call(Table::NATIVE, "mkdirat", NONE)), RET_KILL_PROCESS);
}

#[test]
fn a_foreign_architecture_is_killed() {
    let filter = filter(SeccompAction::Allow, vec![], vec![]);
    assert_eq!(outcome(&filter, &Call { number: 0, audit: 0x1234, args: NONE }), RET_KILL_PROCESS);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn x32_calls_do_not_slip_past_the_rules_of_x86_64() {
    let filter = filter(SeccompAction::Allow, vec![Arch::X86_64], vec![]);
    assert_eq!(outcome(&filter, &call(Table::X32, "mount", NONE)), RET_KILL_PROCESS);
    let cancelled = Call { number: u32::MAX, audit: Table::X86_64.audit(), args: NONE };
    assert_eq!(outcome(&filter, &cancelled), RET_ALLOW);
}

#[test]
fn an_unconditional_rule_beats_conditional_ones() {
    let arg = SeccompArg { index: 0, value: 1, value_two: 0, op: SeccompOperator::EqualTo };
    let rules = vec![
        rule(&["read"], SeccompAction::Errno, Some(5), vec![arg]),
        rule(&["read"], SeccompAction::Errno, Some(6), vec![]),
        rule(&["read"], SeccompAction::Errno, Some(7), vec![]),
    ];
    let filter = filter(SeccompAction::Allow, vec![], rules);
    assert_eq!(outcome(&filter, &call(Table::NATIVE, "read", [1, 0, 0, 0, 0, 0])), RET_ERRNO | 6);
}

#[test]
fn conditions_that_repeat_an_argument_are_alternatives() {
    let is = |value| SeccompArg { index: 0, value, value_two: 0, op: SeccompOperator::EqualTo };
    let filter = filter(
        SeccompAction::Allow,
        vec![],
        vec![rule(&["read"], SeccompAction::Errno, None, vec![is(1), is(2)])],
    );
    assert_eq!(outcome(&filter, &call(Table::NATIVE, "read", [2, 0, 0, 0, 0, 0])), RET_ERRNO | EPERM);
    assert_eq!(outcome(&filter, &call(Table::NATIVE, "read", [3, 0, 0, 0, 0, 0])), RET_ALLOW);
}

#[test]
fn wrong_documents_are_named() {
    let arg = SeccompArg { index: 6, value: 1, value_two: 0, op: SeccompOperator::EqualTo };
    let error = compile(&filter(
        SeccompAction::Allow,
        vec![],
        vec![rule(&["read"], SeccompAction::Errno, None, vec![arg])],
    ));
    assert_eq!(error.unwrap_err().to_string(), "seccomp rule for read: no argument 6");
    assert_eq!(compile(&filter(SeccompAction::Notify, vec![], vec![])).unwrap_err(), CompileError::Notify);
    let mut flagged = filter(SeccompAction::Allow, vec![], vec![]);
    flagged.flags = Some(vec!["SECCOMP_FILTER_FLAG_X".into()]);
    assert_eq!(compile(&flagged).unwrap_err(), CompileError::Flag("SECCOMP_FILTER_FLAG_X".into()));
    let many: Vec<_> = (0..2000)
        .map(|value| SeccompArg { index: 0, value, value_two: 0, op: SeccompOperator::EqualTo })
        .map(|arg| rule(&["read"], SeccompAction::Errno, None, vec![arg]))
        .collect();
    assert!(matches!(compile(&filter(SeccompAction::Allow, vec![], many)), Err(CompileError::TooLong(_))));
}

/// What the rules say, found by reading them.
fn oracle(filter: &LinuxSeccomp, table: Table, number_called: u32, args: &[u64; 6]) -> u32 {
    let default = value_of(filter.default_action, filter.default_errno_ret).unwrap();
    let of_call = || {
        let names =
            |rule: &&SeccompSyscall| rule.names.iter().any(|name| number(table, name) == Some(number_called));
        filter.syscalls.iter().filter(names)
    };
    let newest =
        filter.syscalls.iter().flat_map(|rule| &rule.names).filter_map(|name| number(table, name)).max();
    if hides_new_calls(filter, default) && newest.is_some_and(|newest| number_called > newest) {
        return RET_ERRNO | ENOSYS;
    }
    let value = |rule: &SeccompSyscall| value_of(rule.action, rule.errno_ret).unwrap();
    if let Some(rule) = of_call().find(|rule| value(rule) != default && rule.args.is_empty()) {
        return value(rule);
    }
    let matches = |rule: &&SeccompSyscall| rule.args.iter().all(|arg| holds(arg, args, table));
    of_call().filter(|rule| value(rule) != default).find(matches).map_or(default, value)
}

fn holds(arg: &SeccompArg, args: &[u64; 6], table: Table) -> bool {
    let narrow = |value: u64| if table.is_wide() { value } else { u64::from(value as u32) };
    let (got, value, two) = (narrow(args[arg.index as usize]), narrow(arg.value), narrow(arg.value_two));
    match arg.op {
        SeccompOperator::NotEqual => got != value,
        SeccompOperator::LessThan => got < value,
        SeccompOperator::LessEqual => got <= value,
        SeccompOperator::EqualTo => got == value,
        SeccompOperator::GreaterEqual => got >= value,
        SeccompOperator::GreaterThan => got > value,
        SeccompOperator::MaskedEqual => got & value == two & value,
    }
}

const NAMES: [&str; 12] = [
    "read",
    "write",
    "clone",
    "socket",
    "personality",
    "mount",
    "openat2",
    "clone3",
    "ioctl",
    "futex",
    "kill",
    "bpf",
];

/// Numbers near each other in either half, so that comparisons are decided everywhere.
fn value() -> impl Strategy<Value = u64> {
    let half = prop_oneof![0u64..3, Just(0xffff_fffe), Just(0xffff_ffff)];
    (half.clone(), half).prop_map(|(high, low)| high << 32 | low)
}

fn operator() -> impl Strategy<Value = SeccompOperator> {
    prop::sample::select(vec![
        SeccompOperator::NotEqual,
        SeccompOperator::LessThan,
        SeccompOperator::LessEqual,
        SeccompOperator::EqualTo,
        SeccompOperator::GreaterEqual,
        SeccompOperator::GreaterThan,
        SeccompOperator::MaskedEqual,
    ])
}

fn any_rule() -> impl Strategy<Value = SeccompSyscall> {
    let action = prop::sample::select(vec![
        SeccompAction::Allow,
        SeccompAction::Errno,
        SeccompAction::KillProcess,
        SeccompAction::Trap,
        SeccompAction::Log,
    ]);
    let condition = (operator(), value(), value());
    let conditions = prop::collection::btree_map(0u32..6, condition, 0..4);
    (prop::sample::subsequence(NAMES.to_vec(), 1..4), action, prop::option::of(1u32..40), conditions)
        .prop_map(|(names, action, errno, conditions)| {
            let args = conditions
                .into_iter()
                .map(|(index, (op, value, value_two))| SeccompArg { index, value, value_two, op })
                .collect();
            rule(&names, action, errno, args)
        })
}

proptest! {
    #[test]
    fn programs_do_what_the_rules_say(
        rules in prop::collection::vec(any_rule(), 0..12),
        default in prop::sample::select(vec![SeccompAction::Allow, SeccompAction::Errno, SeccompAction::KillProcess]),
        calls in prop::collection::vec((0usize..NAMES.len(), 0u32..2, prop::array::uniform6(value())), 30),
    ) {
        let filter = filter(default, vec![Arch::X86_64, Arch::X86, Arch::X32, Arch::Aarch64, Arch::Arm], rules);
        let program = compile(&filter).unwrap().instructions;
        for table in [Table::X86_64, Table::X86, Table::X32, Table::Aarch64, Table::Arm] {
            for (name, beside, args) in &calls {
                let called = number(table, NAMES[*name]).unwrap() + beside;
                let base = if table == Table::X32 { X32_BIT } else { 0 };
                let args = if table.is_wide() { *args } else { args.map(|arg| u64::from(arg as u32)) };
                let got = run(&program, &Call { number: base + called, audit: table.audit(), args });
                prop_assert_eq!(got, oracle(&filter, table, called, &args), "{:?} {}", table, called);
            }
        }
    }
}

#[test]
fn absent_flags_are_the_default_and_an_empty_list_is_none() {
    use sys::seccomp::{FLAG_LOG, FLAG_SPEC_ALLOW};
    let flags = |names: Option<&[&str]>| {
        let names = names.map(|names| names.iter().map(|&name| name.to_owned()).collect());
        let filter = LinuxSeccomp { flags: names, ..filter(SeccompAction::Allow, Vec::new(), Vec::new()) };
        compile(&filter).unwrap().flags
    };
    assert_eq!(flags(None), FLAG_SPEC_ALLOW);
    assert_eq!(flags(Some(&[])), 0);
    assert_eq!(flags(Some(&["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG"])), FLAG_LOG);
}
