//! Unix sockets: message pairs, and descriptors that travel over them.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use crate::error::{Result, call};
use crate::path::Root;

/// Most descriptors one message may carry here; more are closed by the kernel.
const MOST_FDS: usize = 4;

/// A connected pair that keeps message boundaries (`SOCK_SEQPACKET`).
pub fn message_pair() -> Result<(OwnedFd, OwnedFd)> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(call!("socketpair", "SOCK_SEQPACKET"))
}

/// Sends `bytes` and at most four descriptors. A peer that is gone is `EPIPE`, never a signal.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(fds));
    }
    loop {
        match rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => {}
            done => return done.map(|_| ()).map_err(call!("sendmsg", socket, bytes.len(), fds.len())),
        }
    }
}

/// Receives one message into `buffer`, with the descriptors it carries; length 0 means that the peer is gone.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let length = loop {
        let mut slices = [IoSliceMut::new(buffer)];
        match rustix::net::recvmsg(socket, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            done => break done.map_err(call!("recvmsg", socket))?.bytes,
        }
    };
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    Ok((length, fds))
}

/// Receives one message that has come already into `buffer`; `None` when there is none, length 0 when the peer is gone.
///
/// Descriptors that it carries are dropped by the kernel without being opened here: closing one of a stranger's can
/// wait for that stranger, as a FUSE server's does.
pub fn receive_now(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Option<usize>> {
    receive_with(socket, buffer, &mut RecvAncillaryBuffer::default())
}

/// The same, with the first descriptor that the message carries.
pub fn receive_fd_now(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Option<(usize, Option<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let Some(length) = receive_with(socket, buffer, &mut ancillary)? else { return Ok(None) };
    let fd = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut received) => received.next(),
        _ => None,
    });
    Ok(Some((length, fd)))
}

fn receive_with(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    ancillary: &mut RecvAncillaryBuffer<'_>,
) -> Result<Option<usize>> {
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    loop {
        let mut slices = [IoSliceMut::new(buffer)];
        match rustix::net::recvmsg(socket, &mut slices, ancillary, flags) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return Ok(None),
            done => return done.map(|message| Some(message.bytes)).map_err(call!("recvmsg", socket)),
        }
    }
}

/// Connects to the stream socket at `path`, however long the path is.
///
/// The directory is opened first and the socket named through `/proc/self/fd`, because an address holds 107 bytes.
pub fn connect(path: &Path) -> Result<OwnedFd> {
    let socket = stream()?;
    connect_to(&socket, path)?;
    Ok(socket)
}

/// The same for a peer that may be too busy to take the connection: waits at most `within`, then fails with `EAGAIN`.
pub fn connect_within(path: &Path, within: Duration) -> Result<OwnedFd> {
    let socket = stream()?;
    // The time to send is also the one to connect: unix(7), socket(7).
    let within = within.max(Duration::from_millis(1));
    rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Send, Some(within))
        .map_err(call!("setsockopt", socket, "SO_SNDTIMEO"))?;
    connect_to(&socket, path)?;
    Ok(socket)
}

fn stream() -> Result<OwnedFd> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(call!("socket", "AF_UNIX"))
}

fn connect_to(socket: &OwnedFd, path: &Path) -> Result<()> {
    let short = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if path.as_os_str().len() > 107 => Some((Root::open_dir(parent)?, name)),
        _ => None,
    };
    let name = match &short {
        Some((parent, name)) => crate::path::of_fd(std::os::fd::AsFd::as_fd(parent)).join(name),
        None => path.to_owned(),
    };
    let address = SocketAddrUnix::new(&name).map_err(call!("connect", path))?;
    rustix::net::connect(socket, &address).map_err(call!("connect", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_message_that_has_not_come_is_not_waited_for() {
        let (ours, theirs) = message_pair().unwrap();
        let mut buffer = [0; 16];
        assert_eq!(receive_now(theirs.as_fd(), &mut buffer).unwrap(), None);
        let (_reader, writer) = rustix::pipe::pipe().unwrap();
        for _ in 0..2 {
            send(ours.as_fd(), b"take", &[writer.as_fd(), writer.as_fd()]).unwrap();
        }
        assert_eq!(receive_now(theirs.as_fd(), &mut buffer).unwrap(), Some(4));
        let (length, fd) = receive_fd_now(theirs.as_fd(), &mut buffer).unwrap().unwrap();
        assert_eq!((length, fd.is_some()), (4, true));
        drop(ours);
        assert_eq!(receive_now(theirs.as_fd(), &mut buffer).unwrap(), Some(0));
    }

    #[test]
    fn descriptors_travel_with_a_message() {
        let (ours, theirs) = message_pair().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        send(ours.as_fd(), b"take", &[writer.as_fd()]).unwrap();
        drop(writer);
        let mut buffer = [0; 16];
        let (length, fds) = receive(theirs.as_fd(), &mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"take");
        rustix::io::write(&fds[0], b"x").unwrap();
        assert_eq!(rustix::io::read(&reader, &mut buffer).unwrap(), 1);
        drop(ours);
        assert_eq!(receive(theirs.as_fd(), &mut buffer).unwrap().0, 0);
        assert_eq!(send(theirs.as_fd(), b"x", &[]).unwrap_err().errno(), libc::EPIPE);
    }
}
