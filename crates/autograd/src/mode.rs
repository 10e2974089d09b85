//! What the current thread is doing: recording or not, under autocast or not, looking for NaN or not.

use ferrograd_tensor::{DType, ensure};
use std::cell::Cell;

#[derive(Clone, Copy)]
struct Mode {
    grad: bool,
    autocast: Option<DType>,
    anomaly: bool,
}

thread_local! {
    static MODE: Cell<Mode> = const { Cell::new(Mode { grad: true, autocast: None, anomaly: false }) };
}

/// Runs `f` under another mode and restores the old one, also when `f` panics.
fn with<T>(change: impl FnOnce(&mut Mode), f: impl FnOnce() -> T) -> T {
    struct Restore(Mode);
    impl Drop for Restore {
        fn drop(&mut self) {
            MODE.with(|m| m.set(self.0));
        }
    }
    let old = MODE.with(Cell::get);
    let _restore = Restore(old);
    let mut new = old;
    change(&mut new);
    MODE.with(|m| m.set(new));
    f()
}

/// Runs `f` without recording any history.
pub fn no_grad<T>(f: impl FnOnce() -> T) -> T {
    with(|m| m.grad = false, f)
}

/// Runs `f` with recording on, inside a [`no_grad`].
pub fn enable_grad<T>(f: impl FnOnce() -> T) -> T {
    with(|m| m.grad = true, f)
}

/// Is history being recorded on this thread?
pub fn is_grad_enabled() -> bool {
    MODE.with(Cell::get).grad
}

/// Runs `f` in mixed precision: matrix products, convolutions and attention compute in `dtype` (bf16 or f16), while
/// softmax, norms, losses and sums compute in f32. Parameters stay what they are (f32 master weights): the casts are
/// recorded, so gradients arrive in the parameters' own dtype.
///
/// # Panics
/// If `dtype` is neither bf16, f16 nor f32 (f32 turns an outer autocast off).
#[track_caller]
pub fn autocast<T>(dtype: DType, f: impl FnOnce() -> T) -> T {
    ensure!(
        matches!(dtype, DType::BF16 | DType::F16 | DType::F32),
        DType,
        "autocast",
        "dtype {dtype} is none of bf16, f16, f32"
    );
    with(|m| m.autocast = (dtype != DType::F32).then_some(dtype), f)
}

/// The dtype of the [`autocast`] in force on this thread.
pub fn autocast_dtype() -> Option<DType> {
    MODE.with(Cell::get).autocast
}

/// Runs `f` and stops with an [`Anomaly`](ferrograd_tensor::Error::Anomaly) at the first operation, forward or
/// backward, whose result holds a NaN or an infinity; the message names the operation and the source line that called
/// it.
pub fn detect_anomaly<T>(f: impl FnOnce() -> T) -> T {
    with(|m| m.anomaly = true, f)
}

pub(crate) fn anomaly() -> bool {
    MODE.with(Cell::get).anomaly
}
