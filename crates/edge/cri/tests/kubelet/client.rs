//! A kubelet in small: the daemon, a client made of our own interface definitions, and what most cases begin with.

use std::path::PathBuf;
use std::time::Duration;

use api::runtime::v1;
use grpc::runtime::v1::image_service_client::ImageServiceClient;
use grpc::runtime::v1::runtime_service_client::RuntimeServiceClient;
use testkit::daemon::{Daemon, Setup};
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// The image of every case.
pub const IMAGE: &str = "docker.io/library/busybox:latest";

/// A daemon and a client of its CRI.
pub struct Kubelet {
    /// The daemon.
    pub daemon: Daemon,
    runtime: tokio::runtime::Runtime,
}

/// Calls an RPC by its name and answers its result.
macro_rules! call {
    ($kubelet:expr, $method:ident, $request:expr) => {
        $kubelet.block(async |mut client: crate::client::Runtime| client.$method($request).await)
    };
}
pub(crate) use call;

/// Calls an RPC of the image service by its name and answers its result.
macro_rules! call_images {
    ($kubelet:expr, $method:ident, $request:expr) => {
        $kubelet.block_images(async |mut client: crate::client::Images| client.$method($request).await)
    };
}
pub(crate) use call_images;

/// The image service's client.
pub type Images = ImageServiceClient<Channel>;

/// The runtime service's client.
pub type Runtime = RuntimeServiceClient<Channel>;

impl Kubelet {
    /// A daemon with busybox in the kubelet's namespace, and without any network configuration.
    pub fn new() -> Self {
        Self::with("")
    }

    /// The same with further configuration.
    pub fn with(config: &str) -> Self {
        Self::with_setup(config, |setup| setup)
    }

    /// The same, with the daemon's setup changed by `change`.
    pub fn with_setup(config: &str, change: impl FnOnce(Setup) -> Setup) -> Self {
        let setup = change(Daemon::ours());
        let dir = setup.dir().display().to_string();
        let daemon = setup
            .config(&format!(
                "[plugins.'io.containerd.cri.v1.runtime'.cni]\nconf_dir = '{dir}/net.d'\nbin_dirs = ['{dir}/bin']\n{config}"
            ))
            .start();
        let archive = daemon.dir().join("busybox.tar");
        std::fs::write(&archive, testkit::image::busybox().archive(IMAGE)).unwrap();
        daemon.ctr("-n k8s.io image import").args([&archive]).ok();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { daemon, runtime }
    }

    /// Runs `work` with a client of the runtime service.
    pub fn block<T>(
        &self,
        work: impl AsyncFnOnce(Runtime) -> Result<tonic::Response<T>, Status>,
    ) -> Result<T, Status> {
        let socket = self.daemon.socket();
        self.runtime.block_on(async {
            let channel = grpc::channel::connect(&socket).await.expect("connect to the daemon");
            let client = RuntimeServiceClient::new(channel).max_decoding_message_size(64 << 20);
            work(client).await.map(tonic::Response::into_inner)
        })
    }

    /// Runs `work` with a client of the image service.
    pub fn block_images<T>(
        &self,
        work: impl AsyncFnOnce(Images) -> Result<tonic::Response<T>, Status>,
    ) -> Result<T, Status> {
        let socket = self.daemon.socket();
        self.runtime.block_on(async {
            let channel = grpc::channel::connect(&socket).await.expect("connect to the daemon");
            work(ImageServiceClient::new(channel)).await.map(tonic::Response::into_inner)
        })
    }

    /// Every message of a stream of answers.
    pub fn all<T>(&self, mut stream: Streaming<T>) -> Vec<T> {
        self.run(async {
            let mut messages = Vec::new();
            while let Some(message) = stream.message().await.unwrap() {
                messages.push(message);
            }
            messages
        })
    }

    /// Runs any future.
    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Where the pods' logs go.
    pub fn logs(&self) -> PathBuf {
        self.daemon.dir().join("logs")
    }

    /// The configuration of a pod on the host's network, with its cgroup below this case's own.
    pub fn pod(&self, name: &str) -> v1::PodSandboxConfig {
        let options =
            v1::NamespaceOption { network: v1::NamespaceMode::Node.into(), ..v1::NamespaceOption::default() };
        v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: name.into(),
                uid: format!("uid-{name}"),
                namespace: "cases".into(),
                attempt: 0,
            }),
            log_directory: self.logs().display().to_string(),
            labels: [("case".to_owned(), name.to_owned())].into(),
            linux: Some(v1::LinuxPodSandboxConfig {
                cgroup_parent: format!("/{}", self.daemon.namespace()),
                security_context: Some(v1::LinuxSandboxSecurityContext {
                    namespace_options: Some(options),
                    ..v1::LinuxSandboxSecurityContext::default()
                }),
                ..v1::LinuxPodSandboxConfig::default()
            }),
            ..v1::PodSandboxConfig::default()
        }
    }

    /// Runs a pod.
    pub fn run_pod(&self, config: &v1::PodSandboxConfig) -> Result<String, Status> {
        let request =
            v1::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
        Ok(call!(self, run_pod_sandbox, request)?.pod_sandbox_id)
    }

    /// The configuration of a container that runs `script`.
    pub fn container(&self, name: &str, script: &str) -> v1::ContainerConfig {
        v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata { name: name.into(), attempt: 0 }),
            image: Some(v1::ImageSpec { image: IMAGE.into(), ..v1::ImageSpec::default() }),
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            log_path: format!("{name}.log"),
            linux: Some(v1::LinuxContainerConfig {
                security_context: Some(v1::LinuxContainerSecurityContext {
                    namespace_options: Some(v1::NamespaceOption {
                        network: v1::NamespaceMode::Node.into(),
                        pid: v1::NamespaceMode::Container.into(),
                        ..v1::NamespaceOption::default()
                    }),
                    ..v1::LinuxContainerSecurityContext::default()
                }),
                ..v1::LinuxContainerConfig::default()
            }),
            ..v1::ContainerConfig::default()
        }
    }

    /// Makes a container.
    pub fn create(
        &self,
        pod: &str,
        pod_config: &v1::PodSandboxConfig,
        config: v1::ContainerConfig,
    ) -> Result<String, Status> {
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: pod.into(),
            config: Some(config),
            sandbox_config: Some(pod_config.clone()),
        };
        Ok(call!(self, create_container, request)?.container_id)
    }

    /// Makes and starts a container.
    pub fn start(&self, pod: &str, pod_config: &v1::PodSandboxConfig, config: v1::ContainerConfig) -> String {
        let id = self.create(pod, pod_config, config).unwrap();
        call!(self, start_container, v1::StartContainerRequest { container_id: id.clone() }).unwrap();
        id
    }

    /// How a container stands.
    pub fn status(&self, id: &str) -> v1::ContainerStatus {
        let request = v1::ContainerStatusRequest { container_id: id.into(), verbose: false };
        call!(self, container_status, request).unwrap().status.unwrap()
    }

    /// Waits until a container has ended.
    pub fn ended(&self, id: &str) -> v1::ContainerStatus {
        testkit::wait::eventually(Duration::from_secs(20), "the container's end", || {
            let status = self.status(id);
            (status.state() == v1::ContainerState::ContainerExited).then_some(status)
        })
    }

    /// Runs a command in a container.
    pub fn exec(&self, id: &str, script: &str, timeout: i64) -> Result<v1::ExecSyncResponse, Status> {
        let cmd = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        call!(self, exec_sync, v1::ExecSyncRequest { container_id: id.into(), cmd, timeout })
    }

    /// Stops and removes a pod.
    pub fn remove_pod(&self, id: &str) {
        call!(self, stop_pod_sandbox, v1::StopPodSandboxRequest { pod_sandbox_id: id.into() }).unwrap();
        call!(self, remove_pod_sandbox, v1::RemovePodSandboxRequest { pod_sandbox_id: id.into() }).unwrap();
    }

    /// Whatever a case must not leave behind: processes, mounts, cgroups.
    pub fn check_clean(&self) {
        // A shim answers before it ends.
        let _ended = testkit::wait::within(Duration::from_secs(10), || {
            self.daemon.traces().processes.is_empty().then_some(())
        });
        let traces = self.daemon.traces();
        assert!(traces.processes.is_empty(), "{:?}", traces.processes);
        assert!(traces.mounts.is_empty(), "{:?}", traces.mounts);
        for part in ["root/io.containerd.grpc.v1.cri", "state/io.containerd.grpc.v1.cri"] {
            for kind in ["sandboxes", "containers"] {
                let dir = self.daemon.dir().join(part).join(kind);
                let left = std::fs::read_dir(&dir).map(|entries| entries.count()).unwrap_or(0);
                assert_eq!(left, 0, "{}", dir.display());
            }
        }
        assert_eq!(self.daemon.ctr("-n k8s.io container ls -q").ok(), "");
    }
}
