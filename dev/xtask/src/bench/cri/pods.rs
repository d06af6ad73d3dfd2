//! Pods that start and go: one after the other, and fifty at the same moment.

use std::time::Instant;

use tokio::task::JoinSet;

use super::kubelet::Pod;
use super::node::Node;
use crate::bench::table::{Aim, Samples, Table};
use crate::bench::turns::{alternate, ms};

/// Pods that start together.
const CROWD: usize = 50;

/// One pod: RunPodSandbox, CreateContainer and StartContainer until its container runs; then StopPodSandbox and
/// RemovePodSandbox.
pub fn one(table: &mut Table, plugins: &str, (ours, theirs): (&Node, &Node), turns: usize, start_aim: f64) {
    let life = |node: &Node, turn: usize| {
        node.block(async {
            let began = Instant::now();
            let pod = node.kubelet.start(&format!("one-{turn}")).await;
            let started = began.elapsed();
            let began = Instant::now();
            node.kubelet.remove(&pod).await;
            (ms(started), ms(began.elapsed()))
        })
    };
    let (us, them): (Vec<_>, Vec<_>) = alternate(turns, ours, theirs, life);
    let ((started, removed), (their_started, their_removed)) = (split(us), split(them));
    table.aimed(&format!("pod start, {plugins}"), "ms", started, their_started, Aim::Times(start_aim));
    table.aimed(&format!("pod stop and removal, {plugins}"), "ms", removed, their_removed, Aim::Times(3.0));
}

/// Fifty pods asked for at the same moment, until the last container runs.
pub fn fifty(table: &mut Table, (ours, theirs): (&Node, &Node), turns: usize) {
    let crowd = |node: &Node, turn: usize| {
        let began = Instant::now();
        let pods = start_all(node, CROWD, CROWD, &format!("crowd{turn}"));
        let started = ms(began.elapsed());
        let began = Instant::now();
        remove_all(node, pods);
        (started, ms(began.elapsed()))
    };
    let (us, them): (Vec<_>, Vec<_>) = alternate(turns, ours, theirs, crowd);
    let ((started, removed), (their_started, their_removed)) = (split(us), split(them));
    table.aimed(&format!("{CROWD} pods at once"), "ms", started, their_started, Aim::Times(5.0));
    table.row(&format!("{CROWD} pods stopped and removed at once"), "ms", removed, their_removed);
}

/// Starts `count` pods, at most `at_once` of them at the same time.
pub fn start_all(node: &Node, count: usize, at_once: usize, name: &str) -> Vec<Pod> {
    node.block(async {
        let (mut running, mut pods) = (JoinSet::new(), Vec::new());
        for number in 0..count {
            if running.len() == at_once {
                pods.extend(running.join_next().await);
            }
            let (kubelet, name) = (node.kubelet.clone(), format!("{name}-{number}"));
            running.spawn(async move { kubelet.start(&name).await });
        }
        while let Some(pod) = running.join_next().await {
            pods.push(pod);
        }
        pods.into_iter().map(|pod| pod.expect("a pod starts")).collect()
    })
}

/// Stops and removes pods, all at the same time.
pub fn remove_all(node: &Node, pods: Vec<Pod>) {
    node.block(async {
        let mut running = JoinSet::new();
        for pod in pods {
            let kubelet = node.kubelet.clone();
            running.spawn(async move { kubelet.remove(&pod).await });
        }
        while let Some(removed) = running.join_next().await {
            removed.expect("a pod is removed");
        }
    });
}

fn split(pairs: Vec<(f64, f64)>) -> (Samples, Samples) {
    let (first, second): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
    (first.into_iter().collect(), second.into_iter().collect())
}
