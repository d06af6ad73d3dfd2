//! Containers that run out of memory.

use api::containerd::events::TaskOom;
use rustix::event::epoll::EventFlags;

use super::{Shim, Token};
use crate::oom;

impl Shim {
    /// Watches a container from its creation on.
    pub(crate) fn watch_oom(&mut self, container: &str, pid: u32) {
        let Some(watch) = oom::Watch::of(pid) else { return };
        let id = self.new_id();
        if self.poll.add(&watch, Token::Oom(id), EventFlags::IN).is_err() {
            return;
        }
        self.oom_watches.insert(id, (container.to_owned(), watch));
        if let Some(known) = self.containers.get_mut(container) {
            known.oom = Some(id);
        }
    }

    pub(super) fn read_oom(&mut self, id: u32) {
        let Some((container, watch)) = self.oom_watches.get_mut(&id) else { return };
        let container = container.clone();
        match watch.happened() {
            Some(true) => self.publish("/tasks/oom", &TaskOom { container_id: container }),
            Some(false) => {}
            None => self.unwatch_oom(&container),
        }
    }

    pub(super) fn unwatch_oom(&mut self, container: &str) {
        let Some(id) = self.containers.get_mut(container).and_then(|known| known.oom.take()) else { return };
        if let Some((_, watch)) = self.oom_watches.remove(&id) {
            self.poll.remove(&watch);
        }
    }
}
