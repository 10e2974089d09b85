//! Checking indices without waiting for the answer.

use crate::cuda::Cuda;
use crate::launch::{Arguments, BLOCK};
use crate::layout::Layout;
use crate::programs::KernelId;
use ferrograd_tensor::{Tensor, fail};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// What the card found; the same as `Mistake` in `index_check.cu`. It lies in the host's memory, where the card writes it.
#[repr(C)]
pub struct Mistake {
    value: i64,
    n: i64,
    /// Which of the card's operations.
    op: u32,
    /// 0, or 1 if there is something to report.
    made: AtomicU32,
}

/// The operations that have asked, by their numbers.
static OPS: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());

fn number(op: &'static str) -> u32 {
    let mut ops = OPS.lock().unwrap_or_else(PoisonError::into_inner);
    let known = ops.iter().position(|known| *known == op);
    known.unwrap_or_else(|| {
        ops.push(op);
        ops.len() - 1
    }) as u32
}

impl Cuda {
    /// See [`Backend::checks_later`](ferrograd_tensor::backend::Backend::checks_later).
    #[track_caller]
    pub(crate) fn check_later(&'static self, op: &'static str, index: &Tensor, n: usize, ignored: Option<i64>) -> bool {
        // Who waits for every launch wants to know at once.
        if self.waits && !self.captures() {
            return false;
        }
        let arguments = Arguments::default()
            .tensor(index)
            .value(Layout::of([index]))
            .value(n as i64)
            .value(ignored.unwrap_or_default())
            .value(ignored.is_some() as i32)
            .value(number(op))
            .value(self.mistake.0 as u64);
        let id = KernelId { file: "index_check.cu", define: "", name: "index_check", dtype: None };
        // SAFETY: the layout is the index's; the mistake is the card's for good.
        unsafe { self.launch(id, self.grid_for(index.numel()), BLOCK, 0, arguments) };
        true
    }

    /// An error if the card has found an index out of range. All that was launched is done.
    #[track_caller]
    pub(crate) fn report_mistake(&self) {
        // SAFETY: memory that lives as long as the card, which does not write now.
        let mistake = unsafe { &*self.mistake.0 };
        if mistake.made.load(Ordering::Acquire) == 0 {
            return;
        }
        let (value, n) = (mistake.value, mistake.n);
        let op = OPS.lock().unwrap_or_else(PoisonError::into_inner)[mistake.op as usize];
        mistake.made.store(0, Ordering::Release);
        fail!(
            Index,
            op,
            "index {value} lies outside 0..{n}; the card found it after the call \
             (FERROGRAD_CUDA_WAIT=1 has every call wait, and names its line)"
        )
    }
}
