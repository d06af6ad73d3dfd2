//! Netlink sockets: requests to the kernel's network stack, answered by the kernel alone.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use crate::error::{Error, Result, call, check};

/// Which part of the kernel a socket speaks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `NETLINK_ROUTE`: links, addresses, routes, queueing disciplines.
    Route,
    /// `NETLINK_NETFILTER`: nf_tables and connection tracking.
    Netfilter,
}

/// A netlink socket of the network namespace that its thread was in when it was opened.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
}

impl Socket {
    /// Opens a socket whose [`Socket::receive`] waits at most `wait`. `netlink(7)`.
    ///
    /// Errors come with the kernel's words (`NETLINK_EXT_ACK`, Linux 4.12) and without a copy of the request
    /// (`NETLINK_CAP_ACK`, Linux 4.3); dumps honour their filters (`NETLINK_GET_STRICT_CHK`, Linux 4.20).
    pub fn open(protocol: Protocol, wait: Duration) -> Result<Self> {
        // NETLINK_ROUTE is 0, which rustix writes as no protocol at all.
        let number = match protocol {
            Protocol::Route => None,
            Protocol::Netfilter => Some(NETFILTER),
        };
        let fd =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, number)
                .map_err(call!("socket", "AF_NETLINK", protocol))?;
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK, libc::NETLINK_GET_STRICT_CHK] {
            let one: libc::c_int = 1;
            // SAFETY: the option takes an int, and both pointer and length are those of `one`, which outlives the call.
            let done = unsafe {
                libc::setsockopt(
                    fd.as_raw_fd(),
                    libc::SOL_NETLINK,
                    option,
                    (&raw const one).cast(),
                    size_of::<libc::c_int>() as libc::socklen_t,
                )
            };
            check(done.into(), || format!("setsockopt(SOL_NETLINK, {option})"))?;
        }
        for side in [sockopt::Timeout::Recv, sockopt::Timeout::Send] {
            sockopt::set_socket_timeout(&fd, side, Some(wait)).map_err(call!(
                "setsockopt",
                "SO_RCVTIMEO",
                wait
            ))?;
        }
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, 0)).map_err(call!("bind", "AF_NETLINK"))?;
        Ok(Self { fd })
    }

    /// Sends `bytes`, one or more whole messages, to the kernel.
    pub fn send(&self, bytes: &[u8]) -> Result<()> {
        loop {
            match rustix::net::sendto(&self.fd, bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0)) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(sent) if sent == bytes.len() => return Ok(()),
                Ok(sent) => {
                    return Err(Error::new(
                        libc::EMSGSIZE,
                        format!("sendto(netlink, {sent} of {})", bytes.len()),
                    ));
                }
                Err(errno) => return Err(call!("sendto", "netlink", bytes.len())(errno)),
            }
        }
    }

    /// Receives what the kernel says next into `buffer` and returns its length.
    ///
    /// `EMSGSIZE` when the buffer is too small, `EAGAIN` when the wait is over. What another process sent to this
    /// socket is dropped: only port 0 is the kernel.
    pub fn receive(&self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            match rustix::net::recvfrom(&self.fd, &mut *buffer, RecvFlags::TRUNC) {
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(call!("recvfrom", "netlink", buffer.len())(errno)),
                Ok((read, whole, from)) => {
                    let from = from.and_then(|from| SocketAddrNetlink::try_from(from).ok());
                    if from.is_none_or(|from| from.pid() != 0) {
                        continue;
                    }
                    if whole > read {
                        return Err(Error::new(
                            libc::EMSGSIZE,
                            format!("recvfrom(netlink, {read} of {whole})"),
                        ));
                    }
                    return Ok(read);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_answers_a_request_and_silence_ends() {
        let socket = Socket::open(Protocol::Route, Duration::from_millis(50)).unwrap();
        // NLMSG_NOOP with NLM_F_REQUEST | NLM_F_ACK: a header alone.
        let mut request = Vec::new();
        request.extend(16u32.to_ne_bytes());
        request.extend(1u16.to_ne_bytes());
        request.extend(5u16.to_ne_bytes());
        request.extend(7u32.to_ne_bytes());
        request.extend(0u32.to_ne_bytes());
        socket.send(&request).unwrap();
        let mut buffer = [0; 4096];
        let length = socket.receive(&mut buffer).unwrap();
        assert!(length >= 20, "{length}");
        assert_eq!(u32::from_ne_bytes(buffer[8..12].try_into().unwrap()), 7);
        assert_eq!(socket.receive(&mut buffer).unwrap_err().errno(), libc::EAGAIN);
    }
}
