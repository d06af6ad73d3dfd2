//! Programs that speak runc's command line, as `BinaryName`.

use api::containerd::task::v3::CreateTaskResponse;

use crate::bundle::Place;
use crate::events::Events;
use crate::shim::{Shim, refusal};

fn life_with(binary: &str) {
    let place = Place::new();
    let events = Events::listen(&place.events_socket());
    place.bundle("a", "sleep 1000");
    let mut shim = Shim::start(place, "a");
    shim.options.binary_name = binary.into();
    crate::life::whole_life(shim, &events);
}

#[test]
fn debians_runc_runs_containers() {
    testkit::needs!(root, program "busybox", program "runc");
    life_with("/usr/sbin/runc");
}

#[test]
fn crun_runs_containers() {
    testkit::needs!(root, program "busybox", program "crun");
    let hybrid = std::path::Path::new("/sys/fs/cgroup/unified").exists();
    let need = if hybrid { Err("crun takes no hybrid cgroups".into()) } else { Ok(()) };
    if testkit::need::lacks(need) {
        return;
    }
    life_with("/usr/bin/crun");
}

#[test]
fn a_failing_program_s_log_is_the_error() {
    testkit::needs!(root, program "busybox", program "runc");
    let place = Place::new();
    place.bundle_of("a", &["no-such-program"], |_| {});
    let mut shim = Shim::start(place, "a");
    shim.options.binary_name = "/usr/sbin/runc".into();
    let request = shim.create_request("a");
    let (_, text) = refusal(shim.call::<_, CreateTaskResponse>("Create", &request));
    assert!(text.starts_with("OCI runtime create failed: "), "{text}");
    assert!(text.contains(r#"exec: "no-such-program": executable file not found in $PATH"#), "{text}");
    shim.shutdown();
}

#[test]
fn a_missing_program_is_named() {
    testkit::needs!(root, program "busybox");
    let place = Place::new();
    place.bundle("a", "true");
    let mut shim = Shim::start(place, "a");
    shim.options.binary_name = "/no/such/runtime".into();
    let request = shim.create_request("a");
    let (_, text) = refusal(shim.call::<_, CreateTaskResponse>("Create", &request));
    assert!(text.contains("/no/such/runtime: No such file or directory"), "{text}");
    shim.shutdown();
}
