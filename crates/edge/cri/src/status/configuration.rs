//! The configuration as JSON, by the names that containerd gives its own: kubeadm looks for the pause image in it, people
//! for how a handler is set up.
//!
//! Invariant: no credential is in it.

use std::path::Path;
use std::time::Duration;

use api::Message as _;
use api::containerd::runc::v1::Options;
use api::runtimeoptions::v1 as generic;
use serde_json::{Map, Value, json};

use crate::config::{Cni, Config, Handler, IpPreference, Registry, Runtime, Tls};

/// Directories that are no part of the configuration itself.
pub(super) struct Dirs<'a> {
    /// The daemon's root.
    pub daemon: &'a Path,
    /// What must survive a reboot.
    pub root: &'a Path,
    /// What need not.
    pub state: &'a Path,
}

/// All of it.
pub(super) fn json(config: &Config, dirs: &Dirs<'_>) -> Value {
    let mut all = runtime(&config.runtime);
    let (images, stream) = (&config.images, &config.stream);
    let platform = |platform: &crate::config::RuntimePlatform| {
        let named = platform.platform.as_ref().map(ToString::to_string).unwrap_or_default();
        json!({"platform": named, "snapshotter": platform.snapshotter})
    };
    let platforms: Map<String, Value> =
        images.runtime_platforms.iter().map(|(name, one)| (name.clone(), platform(one))).collect();
    let (cert, key) = match &stream.tls {
        Tls::Files { cert, key } => (cert.as_path(), key.as_path()),
        Tls::Off | Tls::SelfSigned => (Path::new(""), Path::new("")),
    };
    all.extend(object(json!({
        "containerdRootDir": dirs.daemon,
        "rootDir": dirs.root,
        "stateDir": dirs.state,
        "sandboxImage": images.sandbox_image,
        "snapshotter": images.snapshotter,
        "disableSnapshotAnnotations": images.disable_snapshot_annotations,
        "discardUnpackedLayers": images.discard_unpacked_layers,
        "pinned_images": images.pinned_images,
        "runtimePlatforms": platforms,
        "registry": registry(&images.registry),
        "maxConcurrentDownloads": images.max_concurrent_downloads,
        "imagePullProgressTimeout": duration(images.image_pull_progress_timeout),
        "imagePullWithSyncFs": images.image_pull_with_sync_fs,
        "streamServerAddress": stream.address,
        "streamServerPort": stream.port.to_string(),
        "streamIdleTimeout": duration(stream.idle_timeout),
        "enableTLSStreaming": stream.tls != Tls::Off,
        "x509KeyPairStreaming": {"tlsCertFile": cert, "tlsKeyFile": key},
    })));
    Value::Object(all)
}

fn runtime(runtime: &Runtime) -> Map<String, Value> {
    let runtimes: Map<String, Value> =
        runtime.runtimes.iter().map(|(name, one)| (name.clone(), handler(one))).collect();
    object(json!({
        "containerd": {
            "defaultRuntimeName": runtime.default_runtime_name,
            "runtimes": runtimes,
            "ignoreBlockIONotEnabledErrors": runtime.ignore_blockio_not_enabled_errors,
            "ignoreRdtNotEnabledErrors": runtime.ignore_rdt_not_enabled_errors,
        },
        "cni": cni(&runtime.cni),
        "enableSelinux": runtime.enable_selinux,
        "selinuxCategoryRange": runtime.selinux_category_range,
        "maxContainerLogLineSize": runtime.max_container_log_line_size.map_or(json!(-1), |size| json!(size)),
        "disableApparmor": runtime.disable_apparmor,
        "restrictOOMScoreAdj": runtime.restrict_oom_score_adj,
        "disableProcMount": runtime.disable_proc_mount,
        "unsetSeccompProfile": runtime.unset_seccomp_profile,
        "tolerateMissingHugetlbController": runtime.tolerate_missing_hugetlb_controller,
        "disableHugetlbController": runtime.disable_hugetlb_controller,
        "device_ownership_from_security_context": runtime.device_ownership_from_security_context,
        "ignoreImageDefinedVolumes": runtime.ignore_image_defined_volumes,
        "netnsMountsUnderStateDir": runtime.netns_mounts_under_state_dir,
        "enableUnprivilegedPorts": runtime.enable_unprivileged_ports,
        "enableUnprivilegedICMP": runtime.enable_unprivileged_icmp,
        "enableCDI": runtime.enable_cdi,
        "cdiSpecDirs": runtime.cdi_spec_dirs,
        "drainExecSyncIOTimeout": duration(runtime.drain_exec_sync_io_timeout),
        "statsCollectPeriod": duration(runtime.stats_collect_period),
        "statsRetentionPeriod": duration(runtime.stats_retention_period),
    }))
}

fn handler(handler: &Handler) -> Value {
    json!({
        "runtimeType": handler.runtime_type,
        "runtimePath": handler.runtime_path,
        "PodAnnotations": handler.pod_annotations,
        "ContainerAnnotations": handler.container_annotations,
        "options": options(handler),
        "privileged_without_host_devices": handler.privileged_without_host_devices,
        "privileged_without_host_devices_all_devices_allowed":
            handler.privileged_without_host_devices_all_devices_allowed,
        "cgroupWritable": handler.cgroup_writable,
        "baseRuntimeSpec": handler.base_runtime_spec.as_deref().unwrap_or(Path::new("")),
        "cniConfDir": handler.cni_conf_dir.as_deref().unwrap_or(Path::new("")),
        "cniMaxConfNum": handler.cni_max_conf_num,
        "snapshotter": handler.snapshotter,
        "sandboxer": handler.sandboxer,
        "io_type": handler.io_type,
    })
}

/// A handler's options by their keys in the file.
pub(crate) fn options(handler: &Handler) -> Value {
    let Some(any) = &handler.options else { return Value::Null };
    if any.type_url.ends_with("runc.v1.Options") {
        let options = Options::decode(any.value.as_slice()).unwrap_or_default();
        return json!({
            "BinaryName": options.binary_name,
            "CriuImagePath": options.criu_image_path,
            "CriuWorkPath": options.criu_work_path,
            "IoGid": options.io_gid,
            "IoUid": options.io_uid,
            "NoNewKeyring": options.no_new_keyring,
            "Root": options.root,
            "ShimCgroup": options.shim_cgroup,
            "SystemdCgroup": options.systemd_cgroup,
        });
    }
    let options = generic::Options::decode(any.value.as_slice()).unwrap_or_default();
    json!({
        "TypeUrl": options.type_url,
        "ConfigPath": options.config_path,
        "ConfigBody": String::from_utf8_lossy(&options.config_body),
    })
}

fn cni(cni: &Cni) -> Value {
    json!({
        "binDir": cni.bin_dirs.first().map(|dir| dir.as_path()).unwrap_or(Path::new("")),
        "binDirs": cni.bin_dirs,
        "confDir": cni.conf_dir,
        "maxConfNum": cni.max_conf_num,
        "setupSerially": cni.setup_serially,
        "confTemplate": cni.conf_template.as_deref().unwrap_or(Path::new("")),
        "ipPref": match cni.ip_pref {
            IpPreference::V4 => "ipv4",
            IpPreference::V6 => "ipv6",
            IpPreference::Cni => "cni",
        },
        "useInternalLoopback": cni.use_internal_loopback,
    })
}

fn registry(registry: &Registry) -> Value {
    let mirrors =
        registry.mirrors.iter().map(|(host, endpoints)| (host.clone(), json!({"endpoint": endpoints})));
    let config = |config: &crate::config::RegistryHost| {
        json!({"tls": {
            "insecure_skip_verify": config.insecure_skip_verify,
            "caFile": config.ca_file,
            "certFile": config.cert_file,
            "keyFile": config.key_file,
        }})
    };
    let configs = registry.configs.iter().map(|(host, one)| (host.clone(), config(one)));
    // Headers may be credentials: only their names are told.
    let headers: Vec<&String> = registry.headers.keys().collect();
    json!({
        "configPath": registry.config_path,
        "mirrors": mirrors.collect::<Map<_, _>>(),
        "configs": configs.collect::<Map<_, _>>(),
        "headers": headers,
    })
}

/// What `json!` made of braces.
fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// A duration as Go writes it.
fn duration(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    if seconds == 0 && millis > 0 {
        return format!("{millis}ms");
    }
    let fraction =
        if millis == 0 { String::new() } else { format!(".{millis:03}").trim_end_matches('0').to_owned() };
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}{fraction}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}{fraction}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}{fraction}s"),
    }
}

#[cfg(test)]
mod tests {
    use model::Any;

    use super::*;
    use crate::config::RegistryHost;

    #[test]
    fn durations_are_gos() {
        for (millis, text) in [
            (0, "0s"),
            (100, "100ms"),
            (1500, "1.5s"),
            (300_000, "5m0s"),
            (14_400_000, "4h0m0s"),
            (3_661_000, "1h1m1s"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn what_clients_look_for_is_there_and_what_is_secret_is_not() {
        let mut config = Config::default();
        config.images.sandbox_image = "registry.k8s.io/pause:3.10".into();
        let host =
            RegistryHost { username: "user".into(), password: "hidden".into(), ..RegistryHost::default() };
        config.images.registry.configs.insert("r.example".into(), host);
        config.images.registry.headers.insert("Authorization".into(), vec!["hidden".into()]);
        let options = Options { systemd_cgroup: true, ..Options::default() };
        let handler = config.runtime.runtimes.get_mut("runc").unwrap();
        handler.options =
            Some(Any { type_url: "containerd.runc.v1.Options".into(), value: options.encode_to_vec() });
        let here = Path::new("/root");
        let json = json(&config, &Dirs { daemon: here, root: here, state: here });
        for (pointer, expected) in [
            ("/sandboxImage", json!("registry.k8s.io/pause:3.10")),
            ("/containerd/defaultRuntimeName", json!("runc")),
            ("/containerd/runtimes/runc/runtimeType", json!("io.containerd.runc.v2")),
            ("/containerd/runtimes/runc/options/SystemdCgroup", json!(true)),
            ("/cni/confDir", json!("/etc/cni/net.d")),
            ("/cni/maxConfNum", json!(1)),
            ("/enableSelinux", json!(false)),
            ("/containerdRootDir", json!("/root")),
            ("/imagePullProgressTimeout", json!("5m0s")),
        ] {
            assert_eq!(json.pointer(pointer), Some(&expected), "{pointer}");
        }
        assert!(!json.to_string().contains("hidden"));
    }
}
