//! Errors: what may come from outside is a [`Result`]; a mistake in an expression panics with an [`Error`] as payload.
//!
//! [`catch`] turns such a panic back into a `Result`, for a server that must not go down.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

/// The result of an operation that depends on the outside world.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong: every variant names the operation, the values and the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operands' shapes break the op's rule.
    #[error("{op}: {message}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// The shapes and the rule.
        message: String,
    },
    /// The operands' dtypes break the op's rule.
    #[error("{op}: {message}")]
    DType {
        /// The operation.
        op: &'static str,
        /// The dtypes and the rule.
        message: String,
    },
    /// The operands live on different devices, or the device cannot be had.
    #[error("{op}: {message}")]
    Device {
        /// The operation.
        op: &'static str,
        /// The devices and the rule.
        message: String,
    },
    /// An index, token or class lies outside its range.
    #[error("{op}: {message}")]
    Index {
        /// The operation.
        op: &'static str,
        /// The index and the range.
        message: String,
    },
    /// An argument lies outside its domain.
    #[error("{op}: {message}")]
    Value {
        /// The operation.
        op: &'static str,
        /// The argument and its domain.
        message: String,
    },
    /// A derivative was asked for that does not exist or was not recorded.
    #[error("{op}: {message}")]
    Derivative {
        /// The operation.
        op: &'static str,
        /// What is missing and what to do about it.
        message: String,
    },
    /// A NaN or an infinity appeared under anomaly detection.
    #[error("{op}: {message}")]
    Anomaly {
        /// The operation.
        op: &'static str,
        /// Where it appeared.
        message: String,
    },
    /// Reading or writing failed.
    #[error("{path}: {message}")]
    Io {
        /// The file.
        path: String,
        /// What the operating system said.
        message: String,
    },
    /// A file or a configuration does not hold what it should.
    #[error("{what}: {message}")]
    Format {
        /// The file or the configuration.
        what: String,
        /// What is wrong with it.
        message: String,
    },
}

impl Error {
    /// An I/O error at `path`.
    pub fn io(path: impl AsRef<std::path::Path>, error: impl std::fmt::Display) -> Self {
        Error::Io { path: path.as_ref().display().to_string(), message: error.to_string() }
    }
    /// A format error in `what`.
    pub fn format(what: impl std::fmt::Display, message: impl std::fmt::Display) -> Self {
        Error::Format { what: what.to_string(), message: message.to_string() }
    }
}

thread_local! {
    /// How many `catch` calls are on this thread's stack.
    static CATCHING: Cell<usize> = const { Cell::new(0) };
}

/// Panics with `error` as payload, at the caller's line.
///
/// The first call installs a panic hook that prints such payloads readably and hands every other panic to the hook
/// that was there before.
#[cold]
#[track_caller]
pub fn throw(error: Error) -> ! {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| match info.payload().downcast_ref::<Error>() {
            Some(_) if CATCHING.with(Cell::get) > 0 => {}
            Some(error) => {
                let place = info.location().map(|l| format!(" at {}:{}:{}", l.file(), l.line(), l.column()));
                let thread = std::thread::current();
                let name = thread.name().unwrap_or("<unnamed>");
                eprintln!("thread '{name}' panicked{}:\n{error}", place.unwrap_or_default());
            }
            None => previous(info),
        }));
    });
    panic::panic_any(error)
}

/// Runs `f`; a shape, dtype, index or value mistake inside comes back as an `Err` instead of a panic.
/// Any other panic goes on.
///
/// ```
/// use ferrograd_tensor::{Tensor, catch};
/// let error = catch(|| Tensor::zeros([2, 3]).matmul(&Tensor::zeros([4, 5]))).unwrap_err();
/// assert_eq!(error.to_string(), "matmul: inner dimensions differ: [2, 3] × [4, 5] (3 ≠ 4)");
/// ```
pub fn catch<T>(f: impl FnOnce() -> T) -> Result<T> {
    struct Depth;
    impl Drop for Depth {
        fn drop(&mut self) {
            CATCHING.with(|c| c.set(c.get() - 1));
        }
    }
    CATCHING.with(|c| c.set(c.get() + 1));
    let depth = Depth;
    let outcome = panic::catch_unwind(AssertUnwindSafe(f));
    drop(depth);
    outcome.map_err(|payload| match payload.downcast::<Error>() {
        Ok(error) => *error,
        Err(other) => panic::resume_unwind(other),
    })
}

/// `fail!(Shape, "matmul", "inner dimensions differ: {a} × {b}")`: panics with that [`Error`] as payload.
#[macro_export]
macro_rules! fail {
    ($kind:ident, $op:expr, $($message:tt)+) => {
        $crate::error::throw($crate::Error::$kind { op: $op, message: format!($($message)+) })
    };
}

/// `ensure!(condition, Shape, "matmul", "…")`: [`fail!`](crate::fail) unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $kind:ident, $op:expr, $($message:tt)+) => {
        match $condition {
            true => {}
            // Also where a comparison with NaN makes the condition false.
            false => $crate::fail!($kind, $op, $($message)+),
        }
    };
}
