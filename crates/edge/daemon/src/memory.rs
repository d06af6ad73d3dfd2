//! Memory that a large piece of work leaves behind, and an idle daemon shall not keep.

use std::time::Duration;

/// How long after the start what it began in the background has mostly come to its end.
const SETTLED: Duration = Duration::from_secs(10);

/// Gives back what the work that has just ended used: free pieces of the heap, and the code that it ran.
pub fn give_back() {
    sys::heap::trim();
    sys::code::forget();
}

/// Gives back what the start used: at once, and again when what goes on in the background has settled.
pub async fn give_back_after_start() {
    give_back();
    tokio::time::sleep(SETTLED).await;
    give_back();
}
