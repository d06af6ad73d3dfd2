//! What a pod's configuration may say: checked before anything is made of it.
//!
//! Pure.

use std::net::IpAddr;

use ::spec::Error;
use api::runtime::v1;
use model::Result;

/// The longest host name that the kernel takes, in bytes.
const MAX_HOSTNAME: usize = 64;

/// Checks what would otherwise become a line of a file, a rule of the host's firewall or a namespace by mistake.
///
/// # Errors
/// `InvalidArgument`, with the field's name and value.
pub fn check(config: &v1::PodSandboxConfig) -> Result<()> {
    let hostname = &config.hostname;
    if hostname.len() > MAX_HOSTNAME || hostname.contains(|c: char| c.is_control()) {
        return Err(Error::invalid(format_args!("invalid hostname {hostname:?}")));
    }
    config.port_mappings.iter().try_for_each(check_port)?;
    check_namespaces(&crate::state::namespaces(config))
}

/// Checks the modes of namespaces: a number that names none is not the default.
///
/// # Errors
/// `InvalidArgument`.
pub fn check_namespaces(options: &v1::NamespaceOption) -> Result<()> {
    for (what, mode) in [("network", options.network), ("pid", options.pid), ("ipc", options.ipc)] {
        if v1::NamespaceMode::try_from(mode).is_err() {
            return Err(Error::invalid(format_args!("invalid {what} namespace mode {mode}")));
        }
    }
    Ok(())
}

fn check_port(mapping: &v1::PortMapping) -> Result<()> {
    let v1::PortMapping { protocol, container_port, host_port, host_ip } = mapping;
    if v1::Protocol::try_from(*protocol).is_err() {
        return Err(Error::invalid(format_args!("port mapping: invalid protocol {protocol}")));
    }
    // A host port of 0 maps nothing, as containerd has it.
    let mapped = if *host_port == 0 { 0 } else { 1 };
    for (what, port, least) in [("host", *host_port, 0), ("container", *container_port, mapped)] {
        if port < least || u16::try_from(port).is_err() {
            return Err(Error::invalid(format_args!("port mapping: invalid {what} port {port}")));
        }
    }
    if !host_ip.is_empty() && host_ip.parse::<IpAddr>().is_err() {
        return Err(Error::invalid(format_args!("port mapping: invalid host IP {host_ip:?}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(host: i32, container: i32, protocol: i32, ip: &str) -> v1::PodSandboxConfig {
        let mapping =
            v1::PortMapping { protocol, container_port: container, host_port: host, host_ip: ip.into() };
        v1::PodSandboxConfig { port_mappings: vec![mapping], ..v1::PodSandboxConfig::default() }
    }

    fn named(hostname: &str) -> v1::PodSandboxConfig {
        v1::PodSandboxConfig { hostname: hostname.into(), ..v1::PodSandboxConfig::default() }
    }

    fn isolated(options: v1::NamespaceOption) -> v1::PodSandboxConfig {
        let security = v1::LinuxSandboxSecurityContext {
            namespace_options: Some(options),
            ..v1::LinuxSandboxSecurityContext::default()
        };
        let linux = v1::LinuxPodSandboxConfig {
            security_context: Some(security),
            ..v1::LinuxPodSandboxConfig::default()
        };
        v1::PodSandboxConfig { linux: Some(linux), ..v1::PodSandboxConfig::default() }
    }

    #[test]
    fn values_out_of_range_are_refused_with_their_field() {
        let mode = |network, pid, ipc| {
            isolated(v1::NamespaceOption { network, pid, ipc, ..v1::NamespaceOption::default() })
        };
        for (config, field) in [
            (named("web\n10.0.0.1 db"), "hostname"),
            (named("web\0"), "hostname"),
            (named(&"x".repeat(65)), "hostname"),
            (port(-1, 80, 0, ""), "host port -1"),
            (port(70_000, 80, 0, ""), "host port 70000"),
            (port(80, -1, 0, ""), "container port -1"),
            (port(80, 70_000, 0, ""), "container port 70000"),
            (port(80, 0, 0, ""), "container port 0"),
            (port(0, 70_000, 0, ""), "container port 70000"),
            (port(80, 80, 77, ""), "protocol 77"),
            (port(80, 80, -1, ""), "protocol -1"),
            (port(80, 80, 0, "10.0.0.0/8"), "host IP"),
            (mode(9, 0, 0), "network namespace mode 9"),
            (mode(0, -1, 0), "pid namespace mode -1"),
            (mode(0, 0, 9), "ipc namespace mode 9"),
        ] {
            let error = check(&config).unwrap_err();
            assert_eq!(error.kind(), ::spec::Kind::InvalidArgument, "{error}");
            assert!(error.text().contains(field), "{error}");
        }
    }

    #[test]
    fn values_of_the_kubelet_pass() {
        for config in [
            v1::PodSandboxConfig::default(),
            named("web-0"),
            port(0, 80, 0, ""),
            port(0, 0, 0, ""),
            port(65_535, 1, 2, "127.0.0.1"),
            port(80, 8080, 1, "fd00::1"),
            isolated(v1::NamespaceOption { network: 2, pid: 1, ..v1::NamespaceOption::default() }),
        ] {
            check(&config).unwrap();
        }
    }
}
