//! What limits, devices and annotations become.

use spec::runtime::{LinuxDeviceCgroup, LinuxPids};

use super::*;

const V2: Dialect = Dialect { is_v2: true, version: 255 };
const V1: Dialect = Dialect { is_v2: false, version: 255 };

fn names(properties: &[Property]) -> Vec<&str> {
    properties.iter().map(|(name, _)| name.as_str()).collect()
}

fn limits() -> LinuxResources {
    LinuxResources {
        memory: Some(LinuxMemory {
            limit: Some(100),
            swap: Some(300),
            reservation: Some(50),
            ..LinuxMemory::default()
        }),
        cpu: Some(LinuxCpu {
            shares: Some(1024),
            quota: Some(150_000),
            period: Some(100_000),
            cpus: "0-2,9".into(),
            ..LinuxCpu::default()
        }),
        pids: Some(LinuxPids { limit: Some(-1) }),
        ..LinuxResources::default()
    }
}

#[test]
fn limits_have_the_names_of_their_hierarchy() {
    let number = |name: &str, value| named(name, Value::U64(value));
    let cpus = named("AllowedCPUs", Value::bytes(&[0b111, 0b10]));
    assert_eq!(
        of_resources(&limits(), V2).unwrap(),
        [
            number("MemoryMax", 100),
            number("MemoryLow", 50),
            number("MemorySwapMax", 200),
            number("CPUWeight", 100),
            number("CPUQuotaPeriodUSec", 100_000),
            number("CPUQuotaPerSecUSec", 1_500_000),
            cpus.clone(),
            number("TasksMax", INFINITY),
        ]
    );
    assert_eq!(
        of_resources(&limits(), V1).unwrap(),
        [
            number("MemoryLimit", 100),
            number("CPUShares", 1024),
            number("CPUQuotaPeriodUSec", 100_000),
            number("CPUQuotaPerSecUSec", 1_500_000),
            cpus,
            number("TasksMax", INFINITY),
        ]
    );
}

#[test]
fn an_old_systemd_is_not_told_what_it_does_not_know() {
    let old = of_resources(&limits(), Dialect { is_v2: false, version: 239 }).unwrap();
    assert_eq!(names(&old), ["MemoryLimit", "CPUShares", "CPUQuotaPerSecUSec", "TasksMax"]);
    assert!(need_version(&limits()) && !need_version(&LinuxResources::default()));
}

#[test]
fn a_quota_is_a_whole_percentage_for_both_who_write_it() {
    let cpu = |quota, period| LinuxCpu { quota: Some(quota), period, ..LinuxCpu::default() };
    assert_eq!(per_second(33_333, 100_000), 340_000);
    assert_eq!(rounded_quota(&cpu(33_333, Some(100_000))), Some(34_000));
    assert_eq!(rounded_quota(&cpu(50_000, None)), Some(50_000));
    assert_eq!((rounded_quota(&cpu(-1, None)), rounded_quota(&LinuxCpu::default())), (None, None));
    assert_eq!(per_second(u64::MAX, 1), INFINITY);
}

#[test]
fn files_of_cgroup_v2_have_properties_too() {
    let unified = |pairs: &[(&str, &str)]| LinuxResources {
        unified: pairs.iter().map(|(file, value)| ((*file).to_owned(), (*value).to_owned())).collect(),
        ..LinuxResources::default()
    };
    let one = |file: &str, value: &str| of_resources(&unified(&[(file, value)]), V2);
    assert_eq!(one("memory.high", "max").unwrap(), [named("MemoryHigh", Value::U64(INFINITY))]);
    assert_eq!(one("pids.max", "0").unwrap(), [named("TasksMax", Value::U64(1))]);
    assert_eq!(names(&one("cpu.max", "max 50000").unwrap()), ["CPUQuotaPeriodUSec", "CPUQuotaPerSecUSec"]);
    assert_eq!(one("io.max", "8:0 rbps=1").unwrap(), []);
    assert!(one("memory.max", "lots").is_err() && one("cpu.max", "").is_err());
    let both = of_resources(&unified(&[("cpu.idle", "1"), ("cpu.weight", "7")]), V2).unwrap();
    assert_eq!(both, [named("CPUWeight", Value::U64(0))]);
}

#[test]
fn devices_are_a_strict_list() {
    let device = |kind: &str, major, minor, access: &str, allow| LinuxDeviceCgroup {
        allow,
        kind: kind.into(),
        major,
        minor,
        access: access.into(),
    };
    let properties = |devices: Vec<LinuxDeviceCgroup>, dialect| {
        of_creation(&LinuxResources { devices, ..LinuxResources::default() }, dialect).unwrap()
    };
    let entries = |properties: &[Property]| match &properties[1].1 {
        Value::Array(_, entries) => entries.clone(),
        other => panic!("{other:?}"),
    };
    let listed = properties(
        vec![device("b", Some(8), Some(0), "r", true), device("c", Some(4), None, "rw", true)],
        V2,
    );
    assert_eq!(listed[0], named("DevicePolicy", Value::text("strict")));
    let entry = |path: &str, access: &str| Value::Struct(vec![Value::text(path), Value::text(access)]);
    assert_eq!(entries(&listed)[..2], [entry("/dev/block/8:0", "r"), entry("char-4", "rw")]);
    assert!(entries(&listed).contains(&entry("char-*", "m")));
    let open = properties(vec![device("a", None, None, "rwm", true)], V1);
    assert_eq!((&open[0].1, entries(&open).len()), (&Value::text("auto"), 0));
    let odd = vec![device("c", None, Some(3), "r", true)];
    assert_eq!(properties(odd.clone(), V2)[0].1, Value::text("auto"));
    assert_eq!(properties(odd, V1)[0].1, Value::text("strict"));
}

#[test]
fn lists_of_cpus_are_masks() {
    assert_eq!(mask("0").unwrap(), Value::bytes(&[1]));
    assert_eq!(mask(" 8-9 , 1,").unwrap(), Value::bytes(&[2, 3]));
    for list in ["", ",", "3-1", "a", "0-99999999", "-1"] {
        assert!(mask(list).is_err(), "{list}");
    }
}

#[test]
fn annotations_name_properties() {
    let of = |key: &str, value: &str| of_annotations(&[(key.to_owned(), value.to_owned())].into());
    assert_eq!(
        of("org.systemd.property.TimeoutStopSec", "int32 5").unwrap(),
        [named("TimeoutStopUSec", Value::U64(5_000_000))]
    );
    assert_eq!(
        of("org.systemd.property.CollectMode", "'inactive-or-failed'").unwrap(),
        [named("CollectMode", Value::text("inactive-or-failed"))]
    );
    assert_eq!(of("io.kubernetes.x", "y").unwrap(), []);
    for (name, value) in
        [("A", "1"), ("A-Bc", "1"), ("TimeoutStopSec", "'x'"), ("TimeoutStopSec", "-1"), ("Abc", "")]
    {
        assert!(of(&format!("org.systemd.property.{name}"), value).is_err(), "{name}={value}");
    }
}
