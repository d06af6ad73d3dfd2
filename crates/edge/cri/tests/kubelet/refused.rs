//! What a kubelet may ask wrongly, or twice at once: refused with the reason, and nothing stays.

use std::fs;
use std::os::unix::fs::symlink;

use api::runtime::v1;
use testkit::needs;
use tonic::Code;

use crate::client::{Kubelet, call};

#[test]
fn of_many_that_ask_for_one_pod_or_one_container_at_once_one_gets_it() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("raced");
    let answers = kubelet.run(async {
        let channel = grpc::channel::connect(&kubelet.daemon.socket()).await.unwrap();
        let all = (0..8).map(|_| {
            let mut client = crate::client::Runtime::new(channel.clone());
            let request =
                v1::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
            async move { client.run_pod_sandbox(request).await }
        });
        futures_util::future::join_all(all).await
    });
    let (made, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((made.len(), refused.len()), (1, 7));
    for error in refused.into_iter().filter_map(Result::err) {
        assert!(error.message().contains("is reserved for"), "{error}");
    }
    let pods = call!(kubelet, list_pod_sandbox, v1::ListPodSandboxRequest::default()).unwrap().items;
    let [pod] = pods.as_slice() else { panic!("{pods:?}") };
    let answers = kubelet.run(async {
        let channel = grpc::channel::connect(&kubelet.daemon.socket()).await.unwrap();
        let all = (0..8).map(|_| {
            let mut client = crate::client::Runtime::new(channel.clone());
            let request = v1::CreateContainerRequest {
                pod_sandbox_id: pod.id.clone(),
                config: Some(kubelet.container("one", "exec sleep 1000")),
                sandbox_config: Some(config.clone()),
            };
            async move { client.create_container(request).await }
        });
        futures_util::future::join_all(all).await
    });
    let made: Vec<_> = answers.into_iter().filter_map(Result::ok).collect();
    let [one] = made.as_slice() else { panic!("{made:?}") };
    let id = &one.get_ref().container_id;
    // Started by several at once it runs once; stopped and removed by several it is gone.
    kubelet.run(async {
        let channel = grpc::channel::connect(&kubelet.daemon.socket()).await.unwrap();
        let client = || crate::client::Runtime::new(channel.clone());
        let starts = (0..4).map(|_| {
            let mut client = client();
            async move { client.start_container(v1::StartContainerRequest { container_id: id.clone() }).await }
        });
        let started = futures_util::future::join_all(starts).await;
        assert_eq!(started.iter().filter(|answer| answer.is_ok()).count(), 1, "{started:?}");
        let removals = (0..4).map(|_| {
            let mut client = client();
            async move { client.remove_container(v1::RemoveContainerRequest { container_id: id.clone() }).await }
        });
        for answer in futures_util::future::join_all(removals).await {
            answer.unwrap();
        }
        let removals = (0..4).map(|_| {
            let mut client = client();
            async move {
                let request = v1::StopPodSandboxRequest { pod_sandbox_id: pod.id.clone() };
                client.stop_pod_sandbox(request).await?;
                let request = v1::RemovePodSandboxRequest { pod_sandbox_id: pod.id.clone() };
                client.remove_pod_sandbox(request).await
            }
        });
        for answer in futures_util::future::join_all(removals).await {
            answer.unwrap();
        }
    });
    kubelet.check_clean();
}

#[test]
fn a_log_that_would_be_elsewhere_is_refused_and_what_is_there_stays_as_it_is() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("logs");
    let pod = kubelet.run_pod(&config).unwrap();
    let logged = |name: &str, path: &str| {
        let mut wanted = kubelet.container(name, "echo hello");
        wanted.log_path = path.into();
        kubelet.create(&pod, &config, wanted)
    };
    for path in ["../one.log", "a/../../one.log", "/tmp/one.log", "a\0b", &"x".repeat(5000)] {
        assert_eq!(logged("refused", path).unwrap_err().code(), Code::InvalidArgument, "{path:?}");
    }
    // In the place of a log: a link to a file, one to nothing, a directory, a FIFO that nobody reads.
    let (logs, secret) = (kubelet.logs(), kubelet.daemon.dir().join("secret"));
    fs::create_dir_all(logs.join("directory.log")).unwrap();
    fs::write(&secret, "secret").unwrap();
    symlink(&secret, logs.join("link.log")).unwrap();
    symlink(kubelet.daemon.dir().join("absent"), logs.join("dangling.log")).unwrap();
    testkit::command::Run::new("mkfifo").args([logs.join("fifo.log")]).ok();
    for name in ["link", "dangling", "directory", "fifo"] {
        let id = logged(name, &format!("{name}.log")).unwrap();
        let start = v1::StartContainerRequest { container_id: id.clone() };
        let error = call!(kubelet, start_container, start).unwrap_err();
        assert!(error.message().contains(&format!("{name}.log")), "{name}: {error}");
        let status = kubelet.status(&id);
        assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"), "{name}");
        call!(kubelet, remove_container, v1::RemoveContainerRequest { container_id: id }).unwrap();
    }
    assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
    assert!(!kubelet.daemon.dir().join("absent").exists());
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn spec_errors_have_the_words_that_clients_match_on() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("words");
    let pod = kubelet.run_pod(&config).unwrap();
    let mut wanted = kubelet.container("one", "true");
    let security = wanted.linux.get_or_insert_default().security_context.get_or_insert_default();
    security.privileged = true;
    let error = kubelet.create(&pod, &config, wanted).unwrap_err();
    let words = "failed to generate spec opts: no privileged container allowed in sandbox";
    assert!(error.message().contains(words), "{error}");
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}
