//! The threads that kernels run on: rayon's global pool.
//!
//! `FERROGRAD_THREADS=n` sets their number; without it `RAYON_NUM_THREADS` does, and without that there is one for each
//! core. A program that makes rayon's global pool itself, before its first tensor, keeps its own.

use std::sync::{Mutex, Once};

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

/// Runs `f` on one of the threads that kernels run on, and waits for it.
///
/// Kernels that `f` calls begin at once. Those that any other thread calls are handed over to the pool, and their caller
/// sleeps until it is woken: tens of microseconds, for every kernel that is large enough to be shared. A program of
/// small models does well to call its training loop this way.
///
/// One such call runs at a time, others wait for it (so `f` must not wait for a thread that makes one). What a thread has switched on for itself (`no_grad`, `autocast`, a
/// seed) does not go along to the pool's thread: switch it on inside `f`.
///
/// ```
/// let sum = ferrograd_tensor::on_pool(|| ferrograd_tensor::Tensor::ones([2, 3]).sum().item::<f32>());
/// assert_eq!(sum, 6.0);
/// ```
pub fn on_pool<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    /// A thread of the pool that waits for a kernel takes up other work meanwhile: with two bodies in flight, one could
    /// begin in the middle of the other, on its stack and under its modes.
    static ONE: Mutex<()> = Mutex::new(());
    start();
    if rayon::current_thread_index().is_some() {
        return f();
    }
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    rayon::scope(|_| f())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Tensor, catch};

    #[test]
    fn kernels_run_on_the_pool_itself() {
        assert!(rayon::current_thread_index().is_none());
        let large = Tensor::ones([300, 300]);
        let (index, sum) = on_pool(|| (rayon::current_thread_index(), large.matmul(&large).sum().item::<f32>()));
        assert!(index.is_some() && sum == 300.0 * 300.0 * 300.0);
        // Already there.
        assert!(on_pool(|| on_pool(rayon::current_thread_index)).is_some());
        // Two at once do not run inside each other.
        let busy = std::sync::atomic::AtomicBool::new(false);
        let body = || {
            assert!(!busy.swap(true, std::sync::atomic::Ordering::SeqCst));
            (0..50).for_each(|_| drop(large.matmul(&large)));
            busy.store(false, std::sync::atomic::Ordering::SeqCst);
        };
        std::thread::scope(|s| (0..2).for_each(|_| drop(s.spawn(|| on_pool(body)))));
        let error = on_pool(|| catch(|| large.matmul(&Tensor::ones([2, 2])))).unwrap_err();
        assert!(error.to_string().starts_with("matmul"), "{error}");
    }
}
