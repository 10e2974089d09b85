//! Time by the card's own clock.
//!
//! The host launches and goes on, so its clock says nothing about a kernel. Events do: the card notes the time when it comes to
//! them in its stream.

use crate::cuda::Cuda;
use crate::driver::error;
use cudarc::driver::{result, sys};
use ferrograd_tensor::Device;
use ferrograd_tensor::error::throw;

/// A moment in a card's work: when all that was launched before it is done.
///
/// ```no_run
/// use ferrograd_cuda::{CudaDevice, CudaEvent};
/// use ferrograd_tensor::{Device, Tensor};
/// let cuda = Device::cuda(0)?;
/// let x = Tensor::ones([4096, 4096]).to_device(&cuda);
/// let start = CudaEvent::record(&cuda);
/// let y = x.matmul(&x);
/// println!("{} ms", CudaEvent::record(&cuda).since(&start));
/// # Ok::<(), ferrograd_tensor::Error>(())
/// ```
pub struct CudaEvent {
    event: sys::CUevent,
    cuda: &'static Cuda,
}

impl CudaEvent {
    /// The moment after what has been launched on `device` so far. Does not wait for it.
    ///
    /// # Panics
    /// If the device is no card.
    #[track_caller]
    pub fn record(device: &Device) -> CudaEvent {
        let ("cuda", index) = device.backend().id() else {
            throw(error(format!("only a card has events, not {device}")))
        };
        let cuda = Cuda::get(index).unwrap_or_else(|e| throw(e));
        cuda.bind();
        let flags = sys::CUevent_flags_enum::CU_EVENT_DEFAULT;
        let event = result::event::create(flags).unwrap_or_else(|e| cuda.broken("event", e));
        // SAFETY: the event is new, the stream lives as long as the card.
        unsafe { result::event::record(event, cuda.stream) }.unwrap_or_else(|e| cuda.broken("event", e));
        CudaEvent { event, cuda }
    }

    /// Milliseconds from `earlier` to this moment, for which it waits.
    ///
    /// # Panics
    /// If the two are of different cards.
    #[track_caller]
    pub fn since(&self, earlier: &CudaEvent) -> f64 {
        self.cuda.bind();
        // SAFETY: both events live, and were recorded when they were made.
        let elapsed = unsafe {
            result::event::synchronize(self.event).and_then(|()| result::event::elapsed(earlier.event, self.event))
        };
        elapsed.unwrap_or_else(|e| self.cuda.broken("event", e)).into()
    }
}

impl Drop for CudaEvent {
    fn drop(&mut self) {
        self.cuda.bind();
        // SAFETY: nobody has it any more. An error has nowhere to go: the event is lost.
        let _ = unsafe { result::event::destroy(self.event) };
    }
}

/// Milliseconds that the card takes for what `f` launches, in each of `rounds` rounds. Before each comes `prepare`, which is not
/// timed: writing a large tensor empties the card's cache, and gives the host time to be ahead when `f` begins. Only at the
/// end is the card waited for.
///
/// # Panics
/// If the device is no card.
#[track_caller]
pub fn time(device: &Device, rounds: usize, mut prepare: impl FnMut(), mut f: impl FnMut()) -> Vec<f64> {
    let mut round = || {
        prepare();
        let start = CudaEvent::record(device);
        f();
        (start, CudaEvent::record(device))
    };
    let moments: Vec<(CudaEvent, CudaEvent)> = (0..rounds).map(|_| round()).collect();
    moments.iter().map(|(start, end)| end.since(start)).collect()
}
