//! Device programs against the rules they are made from, in an interpreter and in the kernel.

use proptest::prelude::*;

use super::*;

fn document(
    allow: bool,
    kind: &str,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> LinuxDeviceCgroup {
    LinuxDeviceCgroup { allow, kind: kind.into(), major, minor, access: access.into() }
}

#[test]
fn v1_lines_are_the_controllers() {
    let all = rules(&[document(false, "", None, None, "rwm"), document(true, "b", Some(8), Some(-1), "r")])
        .unwrap();
    let lines: Vec<_> = all.iter().take(4).map(line).collect();
    assert_eq!(lines, ["a", "b 8:* r", "c *:* m", "b *:* m"]);
}

#[test]
fn a_container_that_may_use_all_devices_gets_no_exceptions() {
    assert_eq!(rules(&[document(true, "a", None, None, "rwm")]).unwrap().len(), 1);
}

#[test]
fn a_document_without_rules_denies_all_but_the_standard_devices() {
    let lines: Vec<_> = rules(&[]).unwrap().iter().map(line).collect();
    assert_eq!(lines.len(), 1 + STANDARD.len());
    assert_eq!(lines[0], "a");
    assert!(!rules(&[]).unwrap()[0].allow);
    let one = rules(&[document(true, "c", Some(9), Some(9), "r")]).unwrap();
    assert_eq!((one[0], line(&one[1])), (DENY_ALL, "c 9:9 r".to_owned()));
}

#[test]
fn a_partial_rule_about_all_devices_does_not_open_everything() {
    let lines: Vec<_> =
        rules(&[document(true, "a", None, None, "m")]).unwrap().iter().take(3).map(line).collect();
    assert_eq!(lines, ["a", "c *:* m", "b *:* m"]);
    let lines: Vec<_> =
        rules(&[document(true, "", Some(1), None, "rwm")]).unwrap().iter().take(3).map(line).collect();
    assert_eq!(lines, ["a", "c 1:* rwm", "b 1:* rwm"]);
}

#[test]
fn the_letter_a_in_access_gives_nothing() {
    let lines = |access| -> Vec<_> {
        let rule = document(false, "c", Some(1), Some(11), access);
        rules(&[document(true, "a", None, None, "rwm"), rule]).unwrap().iter().take(2).map(line).collect()
    };
    assert_eq!(lines("rwa"), ["a", "c 1:11 rw"]);
    assert_eq!(rules(&[document(true, "c", Some(1), Some(11), "a")]).unwrap(), rules(&[]).unwrap());
    assert_eq!(rules(&[document(true, "a", None, None, "a")]).unwrap().len(), 1);
}

#[test]
fn wrong_rules_are_named() {
    for (rule, text) in [
        (document(true, "x", None, None, ""), "invalid device cgroup rule: device type \"x\""),
        (document(true, "c", Some(-2), None, ""), "invalid device cgroup rule: device number -2"),
        (document(true, "c", None, None, "rx"), "invalid device cgroup rule: access 'x'"),
    ] {
        assert_eq!(check(&rule).unwrap_err().to_string(), text);
    }
}

/// Runs a device program as the kernel does, as far as [`program`] goes.
fn run(program: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> bool {
    let context = [access << 16 | kind, major, minor];
    let mut registers = [0u64; 11];
    let mut at = 0;
    loop {
        let Instruction { code, registers: pair, offset, immediate } = program[at];
        let (destination, source) = (usize::from(pair & 15), usize::from(pair >> 4));
        let immediate64 = i64::from(immediate) as u64;
        at += 1;
        match code {
            op::LOAD_WORD => registers[destination] = u64::from(context[offset as usize / 4]),
            op::MOV => registers[destination] = immediate64,
            op::MOV_REG => registers[destination] = registers[source],
            op::AND => registers[destination] &= immediate64,
            op::RSH => registers[destination] >>= immediate64,
            op::JNE if registers[destination] != immediate64 => at += offset as usize,
            op::JEQ if registers[destination] == immediate64 => at += offset as usize,
            op::JNE_WIDE if registers[destination] as u32 != immediate as u32 => at += offset as usize,
            op::JNE | op::JEQ | op::JNE_WIDE => {}
            op::EXIT => return registers[0] == 1,
            _ => panic!("opcode {code:#x}"),
        }
    }
}

/// The specification's sentence: later rules override earlier ones.
fn oracle(rules: &[Rule], kind: DeviceKind, access: u8, major: u32, minor: u32) -> bool {
    let speaks = |rule: &&Rule| {
        (rule.kind == DeviceKind::Any)
            || (rule.kind == kind
                && rule.major.is_none_or(|wanted| wanted == major)
                && rule.minor.is_none_or(|wanted| wanted == minor))
    };
    (0..3).map(|bit| 1 << bit).filter(|bit| access & bit != 0).all(|bit| {
        let last = rules.iter().rev().filter(speaks).find(|rule| rule.access.0 & bit != 0);
        last.map_or(rules.is_empty(), |rule| rule.allow)
    })
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let kind = prop::sample::select(vec![DeviceKind::Any, DeviceKind::Char, DeviceKind::Block]);
    let number = || prop::option::of(prop::sample::select(vec![0, 1, 2, u32::MAX]));
    (any::<bool>(), kind, number(), number(), 1u8..8).prop_map(|(allow, kind, major, minor, access)| Rule {
        allow,
        kind,
        major,
        minor,
        access: Access(access),
    })
}

proptest! {
    #[test]
    fn the_program_decides_as_the_rules_do(rules in prop::collection::vec(any_rule(), 0..8)) {
        let program = program(&rules);
        for (kind, number) in [(DeviceKind::Block, 1), (DeviceKind::Char, 2)] {
            for access in 1u8..8 {
                for (major, minor) in [(0, 0), (0, 1), (1, 2), (2, 1), (u32::MAX, 0), (7, 7)] {
                    let got = run(&program, number, u32::from(access), major, minor);
                    prop_assert_eq!(got, oracle(&rules, kind, access, major, minor));
                }
            }
        }
    }
}

/// The program in the kernel: on a hybrid host the v2 tree takes device programs although v1 has the controller.
#[test]
fn the_kernel_runs_the_program() {
    let Some(mount) = v2_mount() else {
        eprintln!("SKIP the_kernel_runs_the_program: no v2 hierarchy, or not root");
        return;
    };
    let directory = mount.join(format!("berth-device-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let open = |device: &str| {
        let script = format!("echo 0 > {}/cgroup.procs && exec head -c 1 {device}", directory.display());
        std::process::Command::new("sh").args(["-c", &script]).output().unwrap().status.success()
    };
    let full_only = [standard(DeviceKind::Char, Some(1), Some(7), Access::ALL)];
    let before = open("/dev/zero");
    attach(&directory, &full_only).unwrap();
    let denied = open("/dev/zero");
    let listed = open("/dev/full");
    attach(&directory, &rules(&[document(true, "a", None, None, "rwm")]).unwrap()).unwrap();
    let replaced = open("/dev/zero");
    std::fs::remove_dir(&directory).unwrap();
    assert_eq!((before, denied, listed, replaced), (true, false, true, true));
}

fn v2_mount() -> Option<std::path::PathBuf> {
    let layout = super::super::layout().ok()?;
    let (_, mount) = layout.mounts.iter().find(|(name, _)| name.is_empty())?;
    let probe = mount.join(format!("berth-probe-{}", std::process::id()));
    std::fs::create_dir(&probe).ok()?;
    std::fs::remove_dir(&probe).ok()?;
    sys::bpf::has_device_programs().then(|| mount.clone())
}
