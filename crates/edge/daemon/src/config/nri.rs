//! What NRI takes from the configuration.

use cri::config::{Nri, Validator};

use super::settings::Table;
use super::value::Values;

/// Takes NRI's part out of `values`.
pub(super) fn nri(values: &Values) -> Nri {
    const NAME: &str = "plugins/io.containerd.nri.v1.nri";
    let table = Table(values, NAME);
    let validator = Table(values, "plugins/io.containerd.nri.v1.nri/default_validator");
    let usual = Nri::default();
    let disabled = Table(values, "").texts("disabled_plugins");
    Nri {
        disable: table.truth("disable") || disabled.iter().any(|uri| uri == "io.containerd.nri.v1.nri"),
        socket_path: table.path("socket_path").unwrap_or(usual.socket_path),
        plugin_path: table.path("plugin_path").unwrap_or(usual.plugin_path),
        plugin_config_path: table.path("plugin_config_path").unwrap_or(usual.plugin_config_path),
        registration_timeout: table.duration_or("plugin_registration_timeout", usual.registration_timeout),
        request_timeout: table.duration_or("plugin_request_timeout", usual.request_timeout),
        disable_connections: table.truth("disable_connections"),
        validator: Validator {
            enable: validator.truth("enable"),
            reject_oci_hooks: validator.truth("reject_oci_hook_adjustment"),
            reject_runtime_default_seccomp: validator.truth("reject_runtime_default_seccomp_adjustment"),
            reject_unconfined_seccomp: validator.truth("reject_unconfined_seccomp_adjustment"),
            reject_custom_seccomp: validator.truth("reject_custom_seccomp_adjustment"),
            reject_namespaces: validator.truth("reject_namespace_adjustment"),
            reject_sysctls: validator.truth("reject_sysctl_adjustment"),
            required_plugins: validator.texts("required_plugins"),
            tolerate_missing_annotation: validator.text("tolerate_missing_plugins_annotation"),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::load::{defaults, load};
    use super::*;

    #[test]
    fn the_table_takes_effect() {
        assert_eq!(nri(&defaults()), Nri::default());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        let text = concat!(
            "version = 2\nimports = []\n[plugins.'io.containerd.nri.v1.nri']\n",
            "disable_connections = true\nplugin_request_timeout = '500ms'\nsocket_path = '/x.sock'\n",
            "[plugins.'io.containerd.nri.v1.nri'.default_validator]\nenable = true\n",
            "reject_oci_hook_adjustment = true\nrequired_plugins = ['a']\n",
        );
        std::fs::write(&path, text).unwrap();
        let loaded = load(&path, true).unwrap();
        assert_eq!(loaded.warnings, Vec::<String>::new());
        let nri = nri(&loaded.values);
        assert_eq!((nri.request_timeout, nri.disable_connections), (Duration::from_millis(500), true));
        assert_eq!(nri.socket_path.to_str(), Some("/x.sock"));
        let validator = nri.validator;
        assert!(validator.enable && validator.reject_oci_hooks && !validator.reject_sysctls);
        assert_eq!(validator.required_plugins, ["a"]);
    }
}
