//! The allocator of the C library: memory that a long-lived process no longer uses goes back to the kernel.

/// Lets all threads share `count` heaps, instead of up to eight a core. `mallopt(3)`; only glibc has such heaps.
pub fn limit_arenas(count: i32) {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: mallopt takes two integers by value and changes only the allocator's own settings; it may be called at
        // any time.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, count) };
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = count;
}

/// Gives unused memory of every heap back to the kernel. `malloc_trim(3)`; only glibc has it.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: malloc_trim takes an integer by value, locks each heap itself, and frees only what nobody uses.
        unsafe { libc::malloc_trim(0) };
    }
}
