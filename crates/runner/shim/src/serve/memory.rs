//! Containers that run out of memory.

use api::containerd::events::TaskOom;
use runtime::cgroup::OomEvent;
use rustix::event::epoll::EventFlags;

use super::{Shim, Token};
use crate::log;

impl Shim {
    /// Watches a container from its creation on: it may be short of memory before it is started.
    pub(crate) fn watch_oom(&mut self, container: &str) {
        let id = self.new_id();
        let Some(known) = self.containers.get_mut(container) else { return };
        let watch = match known.cgroup.as_ref().map(|cgroup| cgroup.watch_oom()) {
            Some(Ok(watch)) => watch,
            Some(Err(error)) => {
                return log::warn(format_args!("container {container}: no OOM watch: {error}"));
            }
            None => return,
        };
        if self.poll.add(watch.fd(), Token::Oom(id), EventFlags::IN | EventFlags::PRI).is_err() {
            return;
        }
        known.oom = Some(id);
        self.oom_watches.insert(id, (container.to_owned(), watch));
    }

    pub(super) fn read_oom(&mut self, id: u32) {
        let Some((container, watch)) = self.oom_watches.get_mut(&id) else { return };
        let container = container.clone();
        match watch.take() {
            Ok(OomEvent::Oom) => self.publish("/tasks/oom", &TaskOom { container_id: container }),
            Ok(OomEvent::Nothing) => {}
            Ok(OomEvent::Gone) | Err(_) => self.unwatch_oom(&container),
        }
    }

    /// Stops watching; what happened until now is still told.
    pub(super) fn unwatch_oom(&mut self, container: &str) {
        let Some(id) = self.containers.get_mut(container).and_then(|known| known.oom.take()) else { return };
        if let Some((container, mut watch)) = self.oom_watches.remove(&id) {
            self.poll.remove(watch.fd());
            if matches!(watch.take(), Ok(OomEvent::Oom)) {
                self.publish("/tasks/oom", &TaskOom { container_id: container });
            }
        }
    }
}
