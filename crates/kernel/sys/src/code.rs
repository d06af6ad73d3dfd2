//! The pages of this program's own code.

use std::ffi::c_void;

/// Lets go of the pages of code that this process has run so far. What runs next is mapped again from the page cache,
/// sixteen pages at a time, and without a copy; what ran only once, as a start does, no longer counts as this process's
/// memory. `madvise(2)`, MADV_DONTNEED.
pub fn forget() {
    // SAFETY: the callback matches the type that dl_iterate_phdr(3) calls, and uses no data.
    unsafe { libc::dl_iterate_phdr(Some(forget_object), std::ptr::null_mut()) };
}

/// Does it for the first object, which is the program itself, and ends the iteration.
unsafe extern "C" fn forget_object(
    object: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    _data: *mut c_void,
) -> libc::c_int {
    // SAFETY: the C library passes a valid object, for the time of this call.
    let object = unsafe { &*object };
    // SAFETY: the two fields are the object's table of program headers, which stays mapped as long as the object does.
    let headers = unsafe { std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()) };
    let page = rustix::param::page_size();
    for header in headers.iter().filter(|header| header.p_type == libc::PT_LOAD) {
        // Code is never written: its pages are the file's. Data is left alone, since relocations have changed it.
        if header.p_flags & (libc::PF_X | libc::PF_W) != libc::PF_X {
            continue;
        }
        let begin = object.dlpi_addr as usize + header.p_vaddr as usize;
        // The first and the last page may be shared with another segment.
        let from = begin.next_multiple_of(page);
        let to = (begin + header.p_memsz as usize) / page * page;
        if from < to {
            // SAFETY: a private mapping of a file, nowhere written: a page that is dropped reads the same when it is
            // next touched. Failing (an old kernel, locked memory) changes nothing.
            unsafe { libc::madvise(from as *mut c_void, to - from, libc::MADV_DONTNEED) };
        }
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of this program's code in memory.
    fn resident() -> u64 {
        let own = std::env::current_exe().unwrap();
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut code = false;
        let mut total = 0;
        for line in smaps.lines() {
            if let Some((_, rest)) = line.split_once(' ').filter(|(range, _)| range.contains('-')) {
                code = rest.starts_with("r-xp") && line.ends_with(own.to_str().unwrap());
            } else if let Some(size) = line.strip_prefix("Rss:").filter(|_| code) {
                total += size.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024;
            }
        }
        total
    }

    #[test]
    fn code_is_forgotten_and_runs_on() {
        // Something that is in memory now, with what lies around it.
        let before = resident();
        forget();
        let after = resident();
        assert!(after < before, "{after} of {before} bytes");
        assert_eq!("still here".len(), 10);
    }
}
