//! What a kubelet asks of its runtime, as the bench needs it: pods of one container that sleeps.
//!
//! A call that fails ends the bench with what was called and what the daemon said.

use std::time::Duration;

use api::runtime::v1;
use grpc::runtime::v1::runtime_service_client::RuntimeServiceClient;
use testkit::daemon::Daemon;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::bench::IMAGE;

/// Longest answer that is taken, as the kubelet has it.
const MAX_ANSWER: usize = 16 << 20;

/// Longest wait for an answer.
const LIMIT: Duration = Duration::from_secs(120);

/// One lasting connection to a daemon's CRI.
#[derive(Clone)]
pub struct Kubelet {
    cri: RuntimeServiceClient<Channel>,
    images: grpc::runtime::v1::image_service_client::ImageServiceClient<Channel>,
    logs: String,
    cgroup: String,
}

/// A pod and its container.
#[derive(Clone)]
pub struct Pod {
    /// The pod's id.
    pub id: String,
    /// The container's.
    pub container: String,
    config: v1::PodSandboxConfig,
}

impl Kubelet {
    /// Connects to `daemon`.
    pub async fn connect(daemon: &Daemon) -> anyhow::Result<Self> {
        let channel = grpc::channel::connect(&daemon.socket()).await?;
        Ok(Self {
            cri: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MAX_ANSWER),
            images: grpc::runtime::v1::image_service_client::ImageServiceClient::new(channel),
            logs: daemon.dir().join("logs").display().to_string(),
            cgroup: format!("/{}", daemon.namespace()),
        })
    }

    /// Whether the daemon serves pods: it has a network and the image.
    pub async fn is_ready(&self) -> bool {
        let Ok(answer) = self.cri.clone().status(v1::StatusRequest::default()).await else { return false };
        let conditions = answer.into_inner().status.map(|status| status.conditions).unwrap_or_default();
        let request = v1::ImageStatusRequest { image: Some(image()), verbose: false };
        let known = self.images.clone().image_status(request).await;
        conditions.iter().all(|condition| condition.status)
            && known.is_ok_and(|answer| answer.into_inner().image.is_some())
    }

    /// Runs a pod and its container until that is told to run.
    pub async fn start(&self, name: &str) -> Pod {
        let mut pod = self.run_pod(name).await;
        pod.container = self.create(&pod, "main").await;
        let start = v1::StartContainerRequest { container_id: pod.container.clone() };
        done("StartContainer", self.cri.clone().start_container(start)).await;
        self.await_running(&pod).await;
        pod
    }

    /// Runs a pod without any container.
    pub async fn run_pod(&self, name: &str) -> Pod {
        let config = self.pod(name);
        let request =
            v1::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
        let id = done("RunPodSandbox", self.cri.clone().run_pod_sandbox(request)).await.pod_sandbox_id;
        Pod { id, container: String::new(), config }
    }

    /// Makes a container in `pod`.
    pub async fn create(&self, pod: &Pod, name: &str) -> String {
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: pod.id.clone(),
            config: Some(container(name)),
            sandbox_config: Some(pod.config.clone()),
        };
        done("CreateContainer", self.cri.clone().create_container(request)).await.container_id
    }

    async fn await_running(&self, pod: &Pod) {
        loop {
            let request = v1::ContainerStatusRequest { container_id: pod.container.clone(), verbose: false };
            let status = done("ContainerStatus", self.cri.clone().container_status(request)).await.status;
            match status.map(|status| status.state()) {
                Some(v1::ContainerState::ContainerRunning) => return,
                Some(v1::ContainerState::ContainerCreated) => {}
                other => panic!("a container that sleeps is {other:?}"),
            }
        }
    }

    /// Stops and removes a pod with what is in it.
    pub async fn remove(&self, pod: &Pod) {
        if let Err(error) = self.try_remove(pod).await {
            panic!("StopPodSandbox and RemovePodSandbox: {error}");
        }
    }

    /// As [`Self::remove`], of a pod that may be damaged.
    pub async fn try_remove(&self, pod: &Pod) -> Result<(), Status> {
        let stop = v1::StopPodSandboxRequest { pod_sandbox_id: pod.id.clone() };
        self.cri.clone().stop_pod_sandbox(stop).await?;
        let remove = v1::RemovePodSandboxRequest { pod_sandbox_id: pod.id.clone() };
        self.cri.clone().remove_pod_sandbox(remove).await.map(drop)
    }

    /// Runs `true` in the pod's container.
    pub async fn exec(&self, pod: &Pod) {
        let request = v1::ExecSyncRequest {
            container_id: pod.container.clone(),
            cmd: vec!["/bin/true".into()],
            timeout: 10,
        };
        let code = done("ExecSync", self.cri.clone().exec_sync(request)).await.exit_code;
        assert!(code == 0, "true ended with {code}");
    }

    /// How many containers there are.
    pub async fn count_containers(&self) -> usize {
        let request = v1::ListContainersRequest::default();
        done("ListContainers", self.cri.clone().list_containers(request)).await.containers.len()
    }

    /// How many pods there are; an error when the daemon does not tell yet.
    pub async fn count_pods(&self) -> Result<usize, Status> {
        let answer = self.cri.clone().list_pod_sandbox(v1::ListPodSandboxRequest::default()).await?;
        Ok(answer.into_inner().items.len())
    }

    fn pod(&self, name: &str) -> v1::PodSandboxConfig {
        let dns = v1::DnsConfig {
            servers: vec!["10.96.0.10".into()],
            searches: ["default.svc.cluster.local", "svc.cluster.local"].map(str::to_owned).to_vec(),
            options: vec!["ndots:5".into()],
        };
        v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: name.into(),
                uid: format!("uid-{name}"),
                namespace: "bench".into(),
                attempt: 0,
            }),
            hostname: name.into(),
            log_directory: format!("{}/{name}", self.logs),
            dns_config: Some(dns),
            labels: [("io.kubernetes.pod.name".to_owned(), name.to_owned())].into(),
            linux: Some(v1::LinuxPodSandboxConfig {
                cgroup_parent: self.cgroup.clone(),
                ..v1::LinuxPodSandboxConfig::default()
            }),
            ..v1::PodSandboxConfig::default()
        }
    }
}

fn image() -> v1::ImageSpec {
    v1::ImageSpec { image: IMAGE.into(), ..v1::ImageSpec::default() }
}

fn container(name: &str) -> v1::ContainerConfig {
    let resources =
        v1::LinuxContainerResources { cpu_shares: 102, oom_score_adj: 1000, ..Default::default() };
    let namespaces =
        v1::NamespaceOption { pid: v1::NamespaceMode::Container.into(), ..v1::NamespaceOption::default() };
    let security = v1::LinuxContainerSecurityContext {
        namespace_options: Some(namespaces),
        ..v1::LinuxContainerSecurityContext::default()
    };
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: name.into(), attempt: 0 }),
        image: Some(image()),
        command: ["/bin/sleep", "100000"].map(str::to_owned).to_vec(),
        labels: [("io.kubernetes.container.name".to_owned(), name.to_owned())].into(),
        log_path: format!("{name}.log"),
        linux: Some(v1::LinuxContainerConfig {
            resources: Some(resources),
            security_context: Some(security),
        }),
        ..v1::ContainerConfig::default()
    }
}

/// The answer of a call, which must come.
async fn done<T>(what: &str, call: impl Future<Output = Result<Response<T>, Status>>) -> T {
    match tokio::time::timeout(LIMIT, call).await {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(error)) => panic!("{what}: {error}"),
        Err(_) => panic!("{what}: no answer within {LIMIT:?}"),
    }
}
