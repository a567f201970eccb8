//! The process's heap.

/// Makes all threads share one heap. glibc gives each of them one of its own, and what is freed in one is not used by another:
/// frames pass through many threads, so a shipper held some 40 MiB that nobody used. To be called before a thread is started.
///
/// Source: <https://man7.org/linux/man-pages/man3/mallopt.3.html>, `M_ARENA_MAX`.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)] // a setting of the C library's, for which there is no safe call
pub fn share_one() {
    // SAFETY: takes two numbers and no pointer, and no other thread runs yet. What it answers changes nothing: it is a saving.
    let _ = unsafe { nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1) };
}

/// Other C libraries have one heap, or manage theirs otherwise.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn share_one() {}
