//! What Kubernetes' interface takes from the configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use cri::config::{
    Cni, Config, Images, IpPreference, Registry, RegistryHost, Runtime, RuntimePlatform, Stream, Tls,
};

use super::handler::{Named, handlers, named};
use super::nri::nri;
use super::read::ConfigError;
use super::settings::Table;
use super::value::{Value, Values};

const IMAGES: &str = "plugins/io.containerd.cri.v1.images";
const RUNTIME: &str = "plugins/io.containerd.cri.v1.runtime";
const STREAM: &str = "plugins/io.containerd.grpc.v1.cri";

/// Plugins without which there is no CRI.
const PLUGINS: &[&str] =
    &["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images"];

/// Takes Kubernetes' interface out of `values`; none when one of its plugins is disabled.
///
/// # Errors
/// A value is out of range, or contradicts another.
pub fn config(values: &Values) -> Result<Option<Config>, ConfigError> {
    let disabled = Table(values, "").texts("disabled_plugins");
    if disabled.iter().any(|uri| PLUGINS.contains(&uri.as_str())) {
        return Ok(None);
    }
    Ok(Some(Config {
        runtime: runtime(values)?,
        images: images(values)?,
        stream: stream(values)?,
        nri: nri(values),
        cleanup_timeout: Table(values, "timeouts").duration("io.containerd.timeout.cri.defercleanup"),
        ..Config::default()
    }))
}

fn wrong(key: impl Into<String>, reason: impl Into<String>) -> ConfigError {
    ConfigError::Value { key: key.into(), reason: reason.into() }
}

fn runtime(values: &Values) -> Result<Runtime, ConfigError> {
    let table = Table(values, RUNTIME);
    let containerd = Table(values, "plugins/io.containerd.cri.v1.runtime/containerd");
    let usual = Runtime::default();
    let runtimes = handlers(values);
    let default_runtime_name = containerd.text("default_runtime_name");
    if !runtimes.contains_key(&default_runtime_name) {
        return Err(wrong(
            "plugins.io.containerd.cri.v1.runtime.containerd.default_runtime_name",
            format!("there is no runtime {default_runtime_name:?}"),
        ));
    }
    Ok(Runtime {
        enable_selinux: table.truth("enable_selinux"),
        selinux_category_range: table.count("selinux_category_range")?,
        max_container_log_line_size: usize::try_from(table.integer("max_container_log_line_size"))
            .ok()
            .filter(|&size| size > 0),
        disable_apparmor: table.truth("disable_apparmor"),
        restrict_oom_score_adj: table.truth("restrict_oom_score_adj"),
        disable_proc_mount: table.truth("disable_proc_mount"),
        unset_seccomp_profile: table.text("unset_seccomp_profile"),
        tolerate_missing_hugetlb_controller: table.truth("tolerate_missing_hugetlb_controller"),
        disable_hugetlb_controller: table.truth("disable_hugetlb_controller"),
        device_ownership_from_security_context: table.truth("device_ownership_from_security_context"),
        ignore_image_defined_volumes: table.truth("ignore_image_defined_volumes"),
        netns_mounts_under_state_dir: table.truth("netns_mounts_under_state_dir"),
        enable_unprivileged_ports: table.truth("enable_unprivileged_ports"),
        enable_unprivileged_icmp: table.truth("enable_unprivileged_icmp"),
        enable_cdi: table.truth("enable_cdi"),
        cdi_spec_dirs: paths(table.texts("cdi_spec_dirs")),
        drain_exec_sync_io_timeout: table.duration("drain_exec_sync_io_timeout"),
        stats_collect_period: table.duration_or("stats_collect_period", usual.stats_collect_period),
        stats_retention_period: table.duration_or("stats_retention_period", usual.stats_retention_period),
        ignore_blockio_not_enabled_errors: containerd.truth("ignore_blockio_not_enabled_errors"),
        ignore_rdt_not_enabled_errors: containerd.truth("ignore_rdt_not_enabled_errors"),
        default_runtime_name,
        runtimes,
        cni: cni(values)?,
    })
}

fn paths(texts: Vec<String>) -> Vec<PathBuf> {
    texts.into_iter().map(PathBuf::from).collect()
}

fn cni(values: &Values) -> Result<Cni, ConfigError> {
    let table = Table(values, "plugins/io.containerd.cri.v1.runtime/cni");
    let ip_pref = match table.text("ip_pref").as_str() {
        "" | "ipv4" => IpPreference::V4,
        "ipv6" => IpPreference::V6,
        "cni" => IpPreference::Cni,
        other => {
            return Err(wrong(
                "plugins.io.containerd.cri.v1.runtime.cni.ip_pref",
                format!("{other:?} is none"),
            ));
        }
    };
    Ok(Cni {
        bin_dirs: paths(table.texts("bin_dirs")),
        conf_dir: table.text("conf_dir").into(),
        max_conf_num: table.count("max_conf_num")?,
        setup_serially: table.truth("setup_serially"),
        conf_template: table.path("conf_template"),
        ip_pref,
        use_internal_loopback: table.truth("use_internal_loopback"),
    })
}

fn images(values: &Values) -> Result<Images, ConfigError> {
    let table = Table(values, IMAGES);
    let pinned = Table(values, "plugins/io.containerd.cri.v1.images/pinned_images");
    let mut pinned_images = BTreeMap::new();
    let prefix = format!("{IMAGES}/pinned_images");
    if let Some(keys) = values.tables().remove(prefix.as_str()) {
        let text = |value: &Value| match value {
            Value::Text(text) if !text.is_empty() => Some(text.clone()),
            _ => None,
        };
        pinned_images
            .extend(keys.into_iter().filter_map(|(key, value)| Some((key.to_owned(), text(value)?))));
    }
    let platforms = named(values, &format!("{IMAGES}/runtime_platforms")).into_iter();
    Ok(Images {
        snapshotter: table.text("snapshotter"),
        disable_snapshot_annotations: table.truth("disable_snapshot_annotations"),
        discard_unpacked_layers: table.truth("discard_unpacked_layers"),
        max_concurrent_downloads: table.count("max_concurrent_downloads")?,
        image_pull_progress_timeout: table.duration("image_pull_progress_timeout"),
        image_pull_with_sync_fs: table.truth("image_pull_with_sync_fs"),
        stats_collect_period: Duration::from_secs(table.count::<u64>("stats_collect_period")?.max(1)),
        sandbox_image: pinned.text("sandbox"),
        pinned_images,
        registry: registry(values)?,
        runtime_platforms: platforms
            .map(|(name, table)| Ok((name.to_owned(), runtime_platform(name, &table)?)))
            .collect::<Result<_, ConfigError>>()?,
    })
}

fn runtime_platform(handler: &str, table: &Named<'_>) -> Result<RuntimePlatform, ConfigError> {
    let named = Some(table.text("platform")).filter(|text| !text.is_empty());
    let platform = named.map(|text| text.parse::<spec::Platform>()).transpose().map_err(|error| {
        let key = format!("plugins.io.containerd.cri.v1.images.runtime_platforms.{handler}.platform");
        wrong(key, error.to_string())
    })?;
    Ok(RuntimePlatform { platform, snapshotter: table.text("snapshotter") })
}

fn registry(values: &Values) -> Result<Registry, ConfigError> {
    let prefix = format!("{IMAGES}/registry");
    let mut registry = Registry {
        config_path: Table(values, "plugins/io.containerd.cri.v1.images/registry").text("config_path"),
        ..Registry::default()
    };
    for (name, table) in named(values, &format!("{prefix}/mirrors")) {
        registry.mirrors.insert(name.to_owned(), table.texts("endpoint"));
    }
    if let Some(keys) = values.tables().remove(format!("{prefix}/headers").as_str()) {
        registry.headers = keys.into_iter().map(|(name, value)| (name.to_owned(), value.texts())).collect();
    }
    // An older spelling of credentials, by the endpoint's address.
    for (name, table) in named(values, &format!("{prefix}/auths")) {
        let host = name.rsplit_once("//").map_or(name, |(_, host)| host);
        login(registry.configs.entry(host.to_owned()).or_default(), &table);
    }
    for (name, table) in named(values, &format!("{prefix}/configs")) {
        let (host, part) = name.rsplit_once('/').unwrap_or((name, ""));
        let known: &mut RegistryHost = registry.configs.entry(host.to_owned()).or_default();
        match part {
            "auth" => login(known, &table),
            "tls" => {
                known.insecure_skip_verify = table.truth("insecure_skip_verify");
                known.ca_file = table.text("ca_file");
                known.cert_file = table.text("cert_file");
                known.key_file = table.text("key_file");
            }
            _ => {}
        }
    }
    if !registry.config_path.is_empty() && !registry.mirrors.is_empty() {
        return Err(wrong(
            "plugins.io.containerd.cri.v1.images.registry.mirrors",
            "`mirrors` cannot be set when `config_path` is provided",
        ));
    }
    Ok(registry)
}

fn login(known: &mut RegistryHost, table: &Named<'_>) {
    known.username = table.text("username");
    known.password = table.text("password");
    known.auth = table.text("auth");
    known.identity_token = table.text("identitytoken");
}

fn stream(values: &Values) -> Result<Stream, ConfigError> {
    let table = Table(values, STREAM);
    let pair = Table(values, "plugins/io.containerd.grpc.v1.cri/x509_key_pair_streaming");
    let (cert, key) = (pair.text("tls_cert_file"), pair.text("tls_key_file"));
    let tls = match (table.truth("enable_tls_streaming"), cert.is_empty(), key.is_empty()) {
        (false, true, true) => Tls::Off,
        (true, true, true) => Tls::SelfSigned,
        (true, false, false) => Tls::Files { cert: cert.into(), key: key.into() },
        (false, ..) => {
            return Err(wrong(
                "plugins.io.containerd.grpc.v1.cri.x509_key_pair_streaming",
                "X509KeyPairStreaming.TLSCertFile and/or X509KeyPairStreaming.TLSKeyFile are set but EnableTLSStreaming is not set",
            ));
        }
        _ => {
            return Err(wrong(
                "plugins.io.containerd.grpc.v1.cri.x509_key_pair_streaming",
                "must set both X509KeyPairStreaming.TLSCertFile and X509KeyPairStreaming.TLSKeyFile",
            ));
        }
    };
    let port = table.text("stream_server_port");
    Ok(Stream {
        address: table.text("stream_server_address"),
        port: port.parse().map_err(|_| {
            wrong("plugins.io.containerd.grpc.v1.cri.stream_server_port", format!("{port:?} is no port"))
        })?,
        idle_timeout: table.duration_or("stream_idle_timeout", Duration::from_secs(4 * 3600)),
        tls,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::load::load;
    use super::*;

    fn of(text: &str) -> Config {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        config(&load(Path::new(&path), true).unwrap().values).unwrap().unwrap()
    }

    #[test]
    fn a_handlers_platform_is_one_or_an_error() {
        let text = |platform: &str| {
            let table = "[plugins.'io.containerd.cri.v1.images'.runtime_platforms.far]";
            format!("version = 4\n{table}\nplatform = '{platform}'\nsnapshotter = 'native'\n")
        };
        let platform = |text: &str| of(text).images.runtime_platforms["far"].platform.clone();
        let arm: Option<spec::Platform> = Some("linux/arm64".parse().unwrap());
        assert_eq!((platform(&text("linux/arm64/v8")), platform(&text(""))), (arm, None));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, text("linux//x")).unwrap();
        let error = config(&load(Path::new(&path), true).unwrap().values).unwrap_err();
        assert!(error.to_string().contains("runtime_platforms.far.platform"), "{error}");
    }

    #[test]
    fn the_first_version_takes_effect() {
        let config = of(concat!(
            "[plugins.cri]\nstream_server_address = '127.0.0.2'\nstream_server_port = '10010'\n",
            "enable_tls_streaming = true\n",
            "[plugins.cri.cni]\nbin_dir = '/opt/bin'\nconf_dir = '/etc/net'\n"
        ));
        assert_eq!((config.stream.address.as_str(), config.stream.port), ("127.0.0.2", 10010));
        assert_eq!(config.stream.tls, Tls::SelfSigned);
        assert_eq!(config.runtime.cni.bin_dirs, [PathBuf::from("/opt/bin")]);
        assert_eq!(config.runtime.cni.conf_dir, PathBuf::from("/etc/net"));
    }

    #[test]
    fn the_second_version_is_split() {
        let config = of(concat!(
            "version = 2\n[plugins.'io.containerd.grpc.v1.cri']\nsandbox_image = 'k8s.gcr.io/pause:3.5'\n",
            "max_container_log_line_size = -1\n",
            "[plugins.'io.containerd.grpc.v1.cri'.registry.mirrors.'docker.io']\nendpoint = ['https://m.example']\n",
            "[plugins.'io.containerd.grpc.v1.cri'.containerd]\nsnapshotter = 'native'\n",
            "[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.kata]\nruntime_type = 'io.containerd.kata.v2'\n",
            "[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc.options]\nSystemdCgroup = true\n",
        ));
        assert_eq!(config.images.sandbox_image, "k8s.gcr.io/pause:3.5");
        assert_eq!(config.images.snapshotter, "native");
        assert_eq!(config.images.registry.mirrors["docker.io"], ["https://m.example"]);
        assert_eq!(config.runtime.max_container_log_line_size, None);
        assert_eq!(config.runtime.runtimes["kata"].runtime_type, "io.containerd.kata.v2");
        assert!(config.runtime.runtimes["runc"].systemd_cgroup);
    }

    #[test]
    fn defaults_are_cris_own() {
        let config = of("version = 4\n");
        let usual = Config::default();
        assert_eq!(config, Config { cleanup_timeout: Duration::from_secs(60), ..usual });
    }
}
