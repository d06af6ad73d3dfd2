//! Lists run as images and from this memory.

use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;

use super::*;
use crate::{process, socket};

/// Runs `make`'s list as an image: its standard output, its code, and what arrived at the report socket. Each message
/// that names a process is answered with the byte that the process waits for.
fn as_image(make: impl FnOnce(&mut Calls)) -> (String, Vec<Vec<u8>>) {
    let (ours, theirs) = socket::message_pair().unwrap();
    let mut calls = Calls::new(theirs.as_fd());
    make(&mut calls);
    let image = calls.write_image(ImageFile::create().unwrap()).unwrap();
    let mut command = Command::new(crate::path::of_fd(image.as_fd()));
    let number = theirs.as_raw_fd();
    process::pass(&mut command, theirs, number);
    command.env("SECRET", "of the caller").arg("secret").stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    // The closure that owns our copy of the socket goes with the command.
    drop(command);
    let mut messages = Vec::new();
    while process::readable(ours.as_fd(), Duration::from_secs(20)).unwrap() {
        let mut buffer = [0; 512];
        let (length, _) = socket::receive(ours.as_fd(), &mut buffer).unwrap();
        if length == 0 {
            break;
        }
        if buffer[0] == b'p' {
            socket::send(ours.as_fd(), b"g", &[]).unwrap();
        }
        messages.push(buffer[..length].to_vec());
    }
    child.wait().unwrap();
    let mut output = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().unwrap(), &mut output).unwrap();
    (output, messages)
}

#[test]
fn image_executes_its_program_with_its_arguments_alone() {
    let (output, messages) = as_image(|calls| {
        calls.report(b"r");
        let args = [c"sh", c"-c", c"echo $0 $A $SECRET", c"zero"].map(CString::from);
        calls.execute(c"/bin/sh", &args, &[c"A=1".into()]);
    });
    assert_eq!(output, "zero 1\n");
    assert_eq!(messages, [b"r".to_vec()]);
}

#[test]
fn image_reports_the_call_that_failed_and_makes_no_further_one() {
    let (output, messages) = as_image(|calls| {
        calls.undumpable();
        calls.execute(c"/no/such/program", &[], &[]);
        calls.report(b"r");
    });
    assert_eq!(output, "");
    let errno = libc::ENOENT.to_ne_bytes();
    assert_eq!(messages, [[b"f", errno.as_slice(), b"exec /no/such/program"].concat()]);
}

#[test]
fn image_tolerates_only_the_errno_that_it_was_told() {
    let (_, messages) = as_image(|calls| {
        // No capability has a number above the last one: EINVAL, tolerated.
        calls.bound(Set((1 << 63) - 1));
        calls.report(b"r");
        calls.exit(0);
    });
    assert_eq!(messages, [b"r".to_vec()]);
}

#[test]
fn a_split_process_names_its_child_and_the_child_goes_on() {
    let (output, messages) = as_image(|calls| {
        let split = calls.split(b'p');
        calls.session();
        calls.report(b"r");
        calls.execute(c"/bin/echo", &[c"echo", c"child"].map(CString::from), &[]);
        calls.end_of_parent(&split);
    });
    assert_eq!(output, "child\n");
    let (named, rest) = messages.split_first().unwrap();
    assert_eq!((named[0], named.len()), (b'p', 5));
    assert!(i32::from_ne_bytes(named[1..5].try_into().unwrap()) > 0);
    assert_eq!(rest, [b"r".to_vec()]);
}

#[test]
fn a_list_in_this_memory_stops_at_a_failure() {
    let (ours, theirs) = socket::message_pair().unwrap();
    let mut calls = Calls::new(theirs.as_fd());
    calls.report(b"r");
    // Standard input of a test is no terminal.
    calls.terminal();
    calls.exit(1);
    let failure = calls.run().unwrap_err();
    assert!(failure.text.starts_with("take control of the terminal"), "{failure:?}");
    assert_ne!(failure.errno, 0);
    let mut buffer = [0; 8];
    assert_eq!(socket::receive(ours.as_fd(), &mut buffer).unwrap().0, 1);
}

#[test]
fn a_filter_longer_than_the_kernels_bound_is_refused() {
    let (_, theirs) = socket::message_pair().unwrap();
    let mut calls = Calls::new(theirs.as_fd());
    let filter = vec![Instruction::default(); MAX_INSTRUCTIONS + 1];
    assert_eq!(calls.filter(&filter, 0).unwrap_err().errno(), libc::EINVAL);
}
