//! The threads that kernels run on: rayon's global pool.
//!
//! `FERROGRAD_THREADS=n` sets their number; without it `RAYON_NUM_THREADS` does, and without that there is one for each
//! core. A program that makes rayon's global pool itself, before its first tensor, keeps its own.

use std::sync::Once;

/// Makes the pool, at the first call.
pub fn start() {
    static START: Once = Once::new();
    START.call_once(|| {
        if let Some(threads) = wanted() {
            // An error says that the pool exists already.
            let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
        }
    });
}

/// What `FERROGRAD_THREADS` says.
fn wanted() -> Option<usize> {
    let text = std::env::var("FERROGRAD_THREADS").ok()?;
    match text.trim().parse() {
        Ok(threads) if threads > 0 => Some(threads),
        _ => {
            eprintln!("FERROGRAD_THREADS={text}: not a number of threads; ignored");
            None
        }
    }
}
