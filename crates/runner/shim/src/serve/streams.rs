//! The copies of standard files, driven by the loop.

use rustix::event::epoll::EventFlags;

use super::{Poll, Shim, Token};
use crate::process::Process;
use crate::stdio::{Copy, Opened, Progress, Waiting};

/// A copy and whose it is.
#[derive(Debug)]
pub struct Stream {
    copy: Copy,
    container: String,
    exec: String,
}

fn watch(poll: &Poll, id: u32, copy: &Copy) -> bool {
    let flags = match copy.waiting() {
        Waiting::Source => EventFlags::IN,
        Waiting::Sink => EventFlags::OUT,
    };
    // What cannot be watched is a regular file; it is never waited for, so it has nothing more to give.
    poll.add(copy.watched(), Token::Stream(id), flags).is_ok()
}

impl Shim {
    /// Gives the opened files to the process, and starts copying.
    pub(crate) fn attach(&mut self, container: &str, exec: &str, opened: Opened) {
        let outputs: Vec<u32> =
            opened.outputs.into_iter().map(|copy| self.add_stream(container, exec, copy)).collect();
        let input = opened.input.map(|copy| self.add_stream(container, exec, copy));
        let Some(process) = self.process_mut(container, exec) else { return };
        process.outputs = outputs.clone();
        process.input = input;
        process.input_hold = opened.input_hold;
        if opened.logger.is_some() {
            process.logger = opened.logger;
        }
        for id in outputs.into_iter().chain(input) {
            self.advance_stream(id);
        }
    }

    fn add_stream(&mut self, container: &str, exec: &str, copy: Copy) -> u32 {
        let id = self.new_id();
        // Advanced at once after this, which unwatches what has nothing to wait for.
        let _ = watch(&self.poll, id, &copy);
        self.streams.insert(id, Stream { copy, container: container.into(), exec: exec.into() });
        id
    }

    pub(super) fn advance_stream(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let before = stream.copy.waiting();
        match stream.copy.advance(&mut self.buffer) {
            Progress::Wait(waiting) if waiting == before => {}
            Progress::Wait(_) => self.rewatch(id, before),
            Progress::Finished => self.end_stream(id),
        }
    }

    /// Watches the other end of a copy than before.
    fn rewatch(&mut self, id: u32, before: Waiting) {
        let Some(stream) = self.streams.get(&id) else { return };
        self.poll.remove(stream.copy.end(before));
        if !watch(&self.poll, id, &stream.copy) {
            self.end_stream(id);
        }
    }

    /// Closes a copy; the last output of a process may be what its delete waits for.
    pub(super) fn end_stream(&mut self, id: u32) {
        let Some(stream) = self.streams.remove(&id) else { return };
        self.poll.remove(stream.copy.watched());
        let (container, exec) = (stream.container, stream.exec);
        drop(stream.copy);
        let Some(process) = self.process_mut(&container, &exec) else { return };
        if process.input == Some(id) {
            process.input = None;
            process.input_hold = None;
            if process.console.is_some() {
                self.hang_up(&container, &exec);
            }
        } else {
            process.outputs.retain(|output| *output != id);
        }
        self.finish_drained(&container, &exec);
    }

    /// The client has closed the input of a terminal: hang up, after what was said is out.
    fn hang_up(&mut self, container: &str, exec: &str) {
        let Some(process) = self.process_mut(container, exec) else { return };
        process.console = None;
        self.drain_outputs(container, exec);
    }

    /// Lets every output end as soon as nothing more is there to be read.
    pub(super) fn drain_outputs(&mut self, container: &str, exec: &str) {
        let Some(process) = self.process_mut(container, exec) else { return };
        for id in process.outputs.clone() {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.copy.drain();
            }
            self.advance_stream(id);
        }
    }

    /// Closes all files of a process, whatever is still in them.
    pub(crate) fn close_streams(&mut self, process: &mut Process) {
        let ids: Vec<u32> = process.outputs.drain(..).chain(process.input.take()).collect();
        for id in ids {
            if let Some(stream) = self.streams.remove(&id) {
                self.poll.remove(stream.copy.watched());
            }
        }
        process.input_hold = None;
        process.console = None;
    }

    fn process_mut(&mut self, container: &str, exec: &str) -> Option<&mut Process> {
        self.containers.get_mut(container)?.process_mut(exec)
    }
}
