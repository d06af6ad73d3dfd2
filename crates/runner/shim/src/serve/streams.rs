//! The copies of standard files, driven by the loop.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::epoll::EventFlags;
use spec::error::{Error, Kind};

use super::{Poll, Shim, Token};
use crate::process::Process;
use crate::stdio::{Copy, Flow, Opened, Progress, Reading, Stream as Output, Waiting};

/// The most listeners to one output.
const MAX_LISTENERS: usize = 64;
/// How often an output is read at most before the exit of its process is told, in case somebody else writes it too.
const CATCH_UP: usize = 256;

/// A copy and whose it is.
#[derive(Debug)]
pub struct Stream {
    flow: Flow,
    container: String,
    exec: String,
    /// Who listens to it.
    listeners: Vec<u32>,
}

impl Stream {
    fn watched(&self) -> (BorrowedFd<'_>, EventFlags) {
        match &self.flow {
            Flow::Copy(copy) => {
                let flags = match copy.waiting() {
                    Waiting::Source => EventFlags::IN,
                    Waiting::Sink => EventFlags::OUT,
                };
                (copy.watched(), flags)
            }
            Flow::Logged(logged) => (logged.source(), EventFlags::IN),
        }
    }

    fn watch(&self, poll: &Poll, id: u32) -> bool {
        let (fd, flags) = self.watched();
        // What cannot be watched is a regular file; it is never waited for, so it has nothing more to give.
        poll.add(fd, Token::Stream(id), flags).is_ok()
    }
}

/// What a turn has left of a stream.
enum Turn {
    Waits,
    More,
    Rewatch(Waiting),
    Finished,
}

impl Shim {
    /// Gives the opened files to the process, and starts copying.
    pub(crate) fn attach(&mut self, container: &str, exec: &str, opened: Opened) {
        let outputs: Vec<u32> =
            opened.outputs.into_iter().map(|flow| self.add_stream(container, exec, flow)).collect();
        let input = opened.input.map(|copy| self.add_stream(container, exec, Flow::Copy(copy)));
        let Some(process) = self.process_mut(container, exec) else { return };
        process.outputs = outputs.clone();
        process.log = opened.log;
        process.input = input;
        process.input_hold = opened.input_hold.filter(|_| !process.input_closed);
        if opened.logger.is_some() {
            process.logger = opened.logger;
        }
        for id in outputs.into_iter().chain(input) {
            self.advance_stream(id);
        }
    }

    fn add_stream(&mut self, container: &str, exec: &str, flow: Flow) -> u32 {
        let id = self.new_id();
        let stream = Stream { flow, container: container.into(), exec: exec.into(), listeners: Vec::new() };
        // Advanced at once after this, which unwatches what has nothing to wait for.
        let _ = stream.watch(&self.poll, id);
        self.streams.insert(id, stream);
        id
    }

    pub(super) fn advance_stream(&mut self, id: u32) {
        self.take_turn(id);
    }

    /// Moves everything that is in an output.
    pub(super) fn catch_up(&mut self, id: u32) {
        for _ in 0..CATCH_UP {
            if !self.take_turn(id) {
                return;
            }
        }
    }

    /// Moves some of a stream; says whether there may be more right now.
    fn take_turn(&mut self, id: u32) -> bool {
        let turn = match self.streams.get_mut(&id).map(|stream| &mut stream.flow) {
            Some(Flow::Copy(copy)) => turn_of(copy, &mut self.buffer),
            Some(Flow::Logged(_)) => self.log_turn(id),
            None => return false,
        };
        match turn {
            Turn::Waits => {}
            Turn::More => return true,
            Turn::Rewatch(before) => self.rewatch(id, before),
            Turn::Finished => self.end_stream(id),
        }
        false
    }

    fn log_turn(&mut self, id: u32) -> Turn {
        let Self { streams, containers, attachments, poll, buffer, .. } = self;
        let Some(Stream { flow: Flow::Logged(logged), container, exec, listeners }) = streams.get_mut(&id)
        else {
            return Turn::Finished;
        };
        let process = containers.get_mut(container).and_then(|known| known.process_mut(exec));
        let Some(log) = process.and_then(|process| process.log.as_mut()) else { return Turn::Finished };
        let reading = logged.advance(buffer, log, |bytes| {
            listeners.retain(|listener| attachments.say(poll, *listener, bytes));
        });
        match reading {
            Reading::Caught => Turn::Waits,
            Reading::More => Turn::More,
            Reading::Finished => Turn::Finished,
        }
    }

    /// Watches the other end of a copy than before.
    fn rewatch(&mut self, id: u32, before: Waiting) {
        let Some(stream) = self.streams.get(&id) else { return };
        if let Flow::Copy(copy) = &stream.flow {
            self.poll.remove(copy.end(before));
        }
        if !stream.watch(&self.poll, id) {
            self.end_stream(id);
        }
    }

    /// Closes a copy; the last output of a process may be what its delete waits for.
    pub(super) fn end_stream(&mut self, id: u32) {
        let Some((container, exec)) = self.drop_stream(id) else { return };
        let Some(process) = self.process_mut(&container, &exec) else { return };
        if process.input == Some(id) {
            process.input = None;
            process.input_hold = None;
            if process.console.is_some() {
                self.hang_up(&container, &exec);
            }
        } else {
            process.outputs.retain(|output| *output != id);
            process.feeds.retain(|feed| *feed != id);
        }
        self.finish_drained(&container, &exec);
    }

    /// Forgets a copy and lets its listeners go; returns whose it was.
    fn drop_stream(&mut self, id: u32) -> Option<(String, String)> {
        let stream = self.streams.remove(&id)?;
        self.poll.remove(stream.watched().0);
        for listener in stream.listeners {
            self.attachments.end(&self.poll, listener);
        }
        Some((stream.container, stream.exec))
    }

    /// Copies what a process writes to `output` from now on to `fifo` too. An output that has ended is an end at once.
    pub(crate) fn listen(
        &mut self,
        container: &str,
        exec: &str,
        output: Output,
        fifo: OwnedFd,
    ) -> Result<(), Error> {
        let listener = self.new_id();
        let Some(process) = self.containers.get(container).and_then(|known| known.process(exec)) else {
            return Ok(());
        };
        for id in &process.outputs {
            let Some(stream) = self.streams.get_mut(id) else { continue };
            if !matches!(&stream.flow, Flow::Logged(logged) if logged.stream() == output) {
                continue;
            }
            if stream.listeners.len() >= MAX_LISTENERS {
                return Err(Error::worded(Kind::ResourceExhausted, "listeners to one output"));
            }
            self.attachments.add(&self.poll, listener, fifo)?;
            stream.listeners.push(listener);
            return Ok(());
        }
        Ok(())
    }

    /// Lets what comes by `fifo` into the input of a process too.
    pub(crate) fn feed(&mut self, container: &str, exec: &str, fifo: OwnedFd) -> Result<(), Error> {
        let no_input = || Error::failed_precondition("the process has no input that is open");
        let process = self.process_mut(container, exec).ok_or_else(no_input)?;
        if process.feeds.len() >= MAX_LISTENERS {
            return Err(Error::worded(Kind::ResourceExhausted, "listeners that speak"));
        }
        let input = process.input.ok_or_else(no_input)?;
        let Some(Flow::Copy(copy)) = self.streams.get(&input).map(|stream| &stream.flow) else {
            return Err(no_input());
        };
        let sink = copy.end(Waiting::Sink).try_clone_to_owned();
        let sink = sink.map_err(|error| Error::internal(format!("fcntl(F_DUPFD): {error}")))?;
        let id = self.add_stream(container, exec, Flow::Copy(Copy::new(fifo, sink)));
        if let Some(process) = self.process_mut(container, exec) {
            process.feeds.push(id);
        }
        self.advance_stream(id);
        Ok(())
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
            match self.streams.get_mut(&id).map(|stream| &mut stream.flow) {
                Some(Flow::Copy(copy)) => copy.drain(),
                Some(Flow::Logged(logged)) => logged.drain(),
                None => {}
            }
            self.catch_up(id);
        }
    }

    /// Closes all files of a process, whatever is still in them.
    pub(crate) fn close_streams(&mut self, process: &mut Process) {
        for id in process.outputs.drain(..) {
            if let Some(Flow::Logged(logged)) = self.streams.get_mut(&id).map(|stream| &mut stream.flow)
                && let Some(log) = process.log.as_mut()
            {
                // Somebody else may have the output open still: what there is of its last line is the end of it.
                logged.drain();
                logged.advance(&mut self.buffer, log, |_| {});
            }
            self.drop_stream(id);
        }
        for id in process.feeds.drain(..).chain(process.input.take()) {
            self.drop_stream(id);
        }
        process.input_hold = None;
        process.console = None;
    }

    fn process_mut(&mut self, container: &str, exec: &str) -> Option<&mut Process> {
        self.containers.get_mut(container)?.process_mut(exec)
    }
}

fn turn_of(copy: &mut Copy, buffer: &mut [u8]) -> Turn {
    let before = copy.waiting();
    match copy.advance(buffer) {
        Progress::Wait(waiting) if waiting == before => Turn::Waits,
        Progress::Wait(_) => Turn::Rewatch(before),
        Progress::Finished => Turn::Finished,
    }
}
