//! What the current thread is doing: recording or not, under autocast or not, looking for NaN or not.

use crate::var::Var;
use ferrograd_tensor::{DType, ensure};
use std::cell::{Cell, RefCell};

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

/// Runs `f` as backward runs: recording if the result shall have history, without autocast, which the forward has
/// recorded as casts, and without looking for anomalies, which the engine does in the gradients: it knows the user's line.
pub(crate) fn in_backward<T>(create_graph: bool, f: impl FnOnce() -> T) -> T {
    let change = |m: &mut Mode| (m.grad, m.autocast, m.anomaly) = (create_graph, None, false);
    with(change, f)
}

/// The settings that a recomputation must find again.
#[derive(Clone, Copy)]
pub(crate) struct Settings(Option<DType>);

impl Settings {
    pub(crate) fn current() -> Settings {
        Settings(autocast_dtype())
    }
    pub(crate) fn run<T>(self, f: impl FnOnce() -> T) -> T {
        with(|m| m.autocast = self.0, f)
    }
}

thread_local! {
    /// The values with history that operations have used since `capture` began.
    static CAPTURED: RefCell<Option<Vec<Var>>> = const { RefCell::new(None) };
}

/// What a function computed, and the values with history that it used.
pub(crate) struct Captured<T> {
    pub value: T,
    pub captured: Vec<Var>,
}

/// Runs `f` without recording, and notes which values with history its operations use.
pub(crate) fn capture<T>(f: impl FnOnce() -> T) -> Captured<T> {
    struct Restore(Option<Vec<Var>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CAPTURED.with(|c| *c.borrow_mut() = self.0.take());
        }
    }
    let mut restore = Restore(CAPTURED.with(|c| c.borrow_mut().replace(Vec::new())));
    let value = no_grad(f);
    let captured = CAPTURED.with(|c| c.borrow_mut().take()).unwrap_or_default();
    // What an inner segment uses, the outer one uses too.
    if let Some(outer) = &mut restore.0 {
        captured.iter().for_each(|v| push_new(outer, v));
    }
    Captured { value, captured }
}

pub(crate) fn push_new(list: &mut Vec<Var>, v: &Var) {
    if v.source.key().is_some() && list.iter().all(|w| w.source.key() != v.source.key()) {
        list.push(v.clone());
    }
}

/// Notes that an operation uses `inputs`.
pub(crate) fn note_use(inputs: &[&Var]) {
    CAPTURED.with(|c| {
        if let Some(list) = &mut *c.borrow_mut() {
            inputs.iter().for_each(|v| push_new(list, v));
        }
    });
}
