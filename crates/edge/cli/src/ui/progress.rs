//! The progress of a transfer: containerd's line form, and its newer tree form.

use std::time::{Duration, Instant};

use api::containerd::types::transfer::Progress;

use super::quantity;
use super::screen::Screen;
use super::table::Table;

/// Which form to draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// A line for each descriptor: `layer-sha256:...: done |+++|`
    Lines,
    /// A tree of descriptors
    Tree,
}

/// One descriptor on its way.
#[derive(Clone, Debug)]
struct Node {
    name: String,
    parents: Vec<String>,
    event: String,
    progress: u64,
    total: u64,
    /// When it last became complete; for the time that only unpacking took.
    complete_at: Option<Instant>,
}

/// All of a transfer.
#[derive(Debug)]
pub struct Display {
    form: Form,
    /// The reference, as typed; the first line.
    name: String,
    resolved: bool,
    status: String,
    nodes: Vec<Node>,
    started: Instant,
    screen: Screen,
}

impl Display {
    /// The display of a transfer of `name` that starts now.
    pub fn new(form: Form, name: &str) -> Self {
        Self {
            form,
            name: name.to_owned(),
            resolved: false,
            status: String::new(),
            nodes: Vec::new(),
            started: Instant::now(),
            screen: Screen::stdout(),
        }
    }

    /// Takes one step in.
    pub fn update(&mut self, progress: Progress) {
        if progress.name.is_empty() {
            self.status = progress.event;
            return;
        }
        if progress.name == self.name {
            return; // `saved`: the end says it
        }
        self.resolved = true;
        let count = |value: i64| u64::try_from(value).unwrap_or(0);
        let complete = progress.event == "complete" || progress.event == "already exists";
        let node = Node {
            name: progress.name,
            parents: progress.parents,
            event: progress.event,
            progress: count(progress.progress),
            total: count(progress.total),
            complete_at: complete.then(Instant::now),
        };
        match self.nodes.iter_mut().find(|known| known.name == node.name) {
            Some(known) => {
                let complete_at = node.complete_at.or(known.complete_at);
                let total = node.total.max(known.total);
                let progress = if node.progress == 0 { known.progress } else { node.progress };
                *known = Node { complete_at, total, progress, ..node };
            }
            None => {
                // Parents before children, whichever the daemon told first; among equals, as they came.
                let place = self.nodes.partition_point(|known| known.rank() <= node.rank());
                self.nodes.insert(place, node);
            }
        }
    }

    /// Shows how it stands.
    pub fn draw(&mut self) {
        if self.screen.is_live() {
            let text = self.text();
            self.screen.draw(&text);
            return;
        }
        for line in self.lines().render().lines().filter(|line| !line.contains(": waiting")) {
            // On a pipe each descriptor says each of its states once; counts would make every line a new one.
            let stays = ["resolved", "done", "exists"].iter().any(|word| line.contains(&format!(" {word} ")));
            if stays {
                self.screen.plain(line.trim_end());
            }
        }
    }

    /// Shows the end; gives how long unpacking took after the last byte was here.
    pub fn finish(mut self) -> Duration {
        for node in &mut self.nodes {
            if node.event != "already exists" {
                node.event = "complete".into();
            }
        }
        self.resolved = true;
        self.draw();
        if !self.screen.is_live() {
            let text = self.elapsed();
            self.screen.plain(&text.map(|cell| cell.trim().to_owned()).join(" "));
        }
        let last = self.nodes.iter().filter_map(|node| node.complete_at).max();
        last.unwrap_or(self.started).elapsed()
    }

    fn text(&self) -> String {
        match self.form {
            Form::Lines => self.lines().render(),
            Form::Tree => self.tree(),
        }
    }

    fn lines(&self) -> Table {
        let full = self.screen.bar(1.0);
        let (resolved, bar) =
            if self.resolved { ("resolved", full.clone()) } else { ("resolving", self.screen.bar(0.0)) };
        let mut table = Table::new([format!("{}:", self.name), resolved.into(), bar]);
        for node in &self.nodes {
            let (word, part) = node.state();
            let name = format!("{}:", node.name);
            if word == "downloading" || word == "uploading" || (word == "extracting" && node.total > 0) {
                let count = format!("{:>8}/{}", quantity::bytes(node.progress), quantity::bytes(node.total));
                table.row([name, word.into(), self.screen.bar(part), count]);
            } else {
                table.row([name, word.into(), self.screen.bar(part)]);
            }
        }
        table.row(self.elapsed());
        table
    }

    fn elapsed(&self) -> [String; 3] {
        let elapsed = self.started.elapsed();
        let moved: u64 =
            self.nodes.iter().filter(|node| node.event != "already exists").map(|node| node.progress).sum();
        [
            format!("elapsed: {:<4}s", format!("{:.1}", elapsed.as_secs_f64())),
            format!("total: {}", quantity::short_total(moved)),
            format!("({})", quantity::rate(moved, elapsed)),
        ]
    }

    fn tree(&self) -> String {
        let mut text =
            format!("{:<40} {}\n", self.name, if self.resolved { "resolved" } else { "resolving" });
        let known = |name: &String| self.nodes.iter().any(|node| node.name == *name);
        let roots: Vec<&Node> = self.nodes.iter().filter(|node| !node.parents.iter().any(known)).collect();
        for (index, node) in roots.iter().enumerate() {
            self.branch(node, "", index + 1 == roots.len(), 0, &mut text);
        }
        let [elapsed, total, rate] = self.elapsed();
        text.push_str(&format!("{} {elapsed} {total} {rate}\n", self.status));
        text
    }

    fn branch(&self, node: &Node, prefix: &str, last: bool, depth: usize, text: &mut String) {
        let (word, part) = node.state();
        let name = format!("{prefix}{}{}", if last { "└──" } else { "├──" }, short_name(&node.name));
        text.push_str(&format!("{name:<40} {word:<11} {}\n", self.screen.bar(part)));
        if depth > 8 {
            return; // indexes of indexes; a cycle would come from a daemon that lies
        }
        let children: Vec<&Node> =
            self.nodes.iter().filter(|child| child.parents.contains(&node.name)).collect();
        let prefix = format!("{prefix}{}", if last { "   " } else { "│  " });
        for (index, child) in children.iter().enumerate() {
            self.branch(child, &prefix, index + 1 == children.len(), depth + 1, text);
        }
    }
}

impl Node {
    /// Indexes, manifests, configs, layers.
    fn rank(&self) -> u8 {
        match self.name.split_once('-') {
            Some(("index", _)) => 0,
            Some(("manifest", _)) => 1,
            Some(("config", _)) => 2,
            _ => 3,
        }
    }

    /// The word shown, and how much of the bar is full.
    fn state(&self) -> (&str, f64) {
        #[expect(clippy::cast_precision_loss, reason = "a bar has 38 steps")]
        let part = if self.total > 0 { self.progress as f64 / self.total as f64 } else { 0.0 };
        match self.event.as_str() {
            "already exists" => ("exists", 1.0),
            "complete" | "extracted" | "saved" => ("done", 1.0),
            "waiting" => ("waiting", 0.0),
            other => (other, part),
        }
    }
}

/// `layer (e3b0c44298fc)` for `layer-sha256:e3b0c44298fc...`.
fn short_name(name: &str) -> String {
    match name.split_once("-sha256:") {
        Some((kind, hex)) if hex.len() == 64 => format!("{kind} ({})", &hex[..12]),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(event: &str, name: &str, parents: &[&str], progress: i64, total: i64) -> Progress {
        Progress {
            event: event.into(),
            name: name.into(),
            parents: parents.iter().map(|&parent| parent.into()).collect(),
            progress,
            total,
            desc: None,
        }
    }

    #[test]
    fn lines_are_containerds() {
        let mut display = Display::new(Form::Lines, "docker.io/library/x:1");
        display.update(step("already exists", "manifest-sha256:aa", &[], 0, 0));
        display.update(step("downloading", "layer-sha256:bb", &["manifest-sha256:aa"], 1 << 20, 3 << 20));
        let text = display.lines().render();
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        let full = "+".repeat(38);
        assert_eq!(lines[0], format!("docker.io/library/x:1: resolved       |{full}|"));
        assert_eq!(lines[1], format!("manifest-sha256:aa:    exists         |{full}|"));
        assert_eq!(
            lines[2],
            format!(
                "layer-sha256:bb:       downloading    |{}{}|  1.0 MiB/3.0 MiB",
                "+".repeat(12),
                "-".repeat(26)
            )
        );
        assert!(lines[3].starts_with("elapsed: 0.0 s"), "{}", lines[3]);
    }

    #[test]
    fn parents_come_before_children() {
        let mut display = Display::new(Form::Lines, "r");
        for name in ["layer-b", "config-c", "manifest-m", "layer-a", "index-i"] {
            display.update(step("waiting", name, &[], 0, 0));
        }
        let names: Vec<&str> = display.nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["index-i", "manifest-m", "config-c", "layer-b", "layer-a"]);
    }

    #[test]
    fn the_tree_hangs_layers_below_their_manifest() {
        let hex = "e".repeat(64);
        let mut display = Display::new(Form::Tree, "r");
        display.update(step("complete", &format!("manifest-sha256:{hex}"), &[], 0, 0));
        display.update(step("waiting", "layer-x", &[&format!("manifest-sha256:{hex}")], 0, 0));
        let text = display.tree();
        assert!(text.contains("└──manifest (eeeeeeeeeeee)"), "{text}");
        assert!(text.contains("   └──layer-x"), "{text}");
    }
}
