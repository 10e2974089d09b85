//! CUDA graphs: a step that is captured once and replayed with one launch.

use crate::arena::Arena;
use crate::cuda::Cuda;
use crate::driver::{error, explain};
use crate::memory::{Block, CudaBuffer};
use crate::ops::optimizer::numbers;
use cudarc::driver::{result, sys};
use ferrograd_tensor::ops::optimizer::StepCell;
use ferrograd_tensor::random::{RngState, rng_state};
use ferrograd_tensor::replay::{Recording, record};
use ferrograd_tensor::storage::Buffer;
use ferrograd_tensor::{Device, Result, Tensor, ensure, fail};
use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

/// Bytes of a graph's live numbers: those of a random generator, then of each optimiser step.
const LIVE: usize = 64 << 10;
/// Where the first optimiser step's numbers are.
const STEPS: usize = 64;
/// To the next one's.
const STEP: usize = 64;

/// A step (forward, backward, clipping, optimiser) whose kernels were captured once, and are launched together from then on:
/// what the host does for each of them is done once only.
///
/// ```no_run
/// # use ferrograd_cuda::{CudaDevice, CudaGraph};
/// # use ferrograd_tensor::{Device, Tensor};
/// # fn main() -> ferrograd_tensor::Result<()> {
/// # let (x, y) = (Tensor::ones(1), Tensor::ones(1));
/// # fn train_step(_: &Tensor, _: &Tensor) -> Tensor { Tensor::ones(1) }
/// let cuda = Device::cuda(0)?;
/// train_step(&x, &y); // one step as usual: compiles the kernels, and makes the optimiser's state
/// let (mut graph, loss) = CudaGraph::capture(&cuda, &[&x, &y], |inputs| train_step(&inputs[0], &inputs[1]))?;
/// for _ in 0..100 {
///     let loss = graph.replay(&[&x, &y]); // a whole step, as `train_step` would have made it
/// }
/// # Ok(())
/// # }
/// ```
///
/// **What changes between replays.** A replay runs kernels, and no Rust. It sees
/// - its inputs: tensors of the same shapes and dtypes, on any device. Whatever else the step makes of the host's numbers (a
///   tensor that it brings to the card, an `if`) is what it was when it was captured;
/// - parameters and optimiser states as they are then, and leaves them changed, in place. If one that the step's optimiser
///   changes was replaced since, frozen, or is held elsewhere, the replay is an error. What it only reads (frozen parameters,
///   buffers, all parameters of a graph without an optimiser) is read where it was: capture again after `load_state_dict`;
/// - random numbers that nobody has drawn: those that the step would have drawn without a graph;
/// - the optimiser's count of steps, its learning rate (`set_lr` between replays) and other hyperparameters, but for those
///   that choose another kernel, which are an error.
///
/// **What a step must not do.** Bring numbers to the host (`item`, `to_vec`, printing): nothing has run yet. Replace what the
/// next step reads: an error, too, since the next replay would read what was replaced. A step that makes an optimiser's state
/// does that; so make one step before the capture.
///
/// Tensors made in the step live in memory that the graph keeps, at the same addresses in every replay; other threads may use
/// the card during the capture.
pub struct CudaGraph<T> {
    cuda: &'static Cuda,
    executable: Executable,
    inputs: Vec<Tensor>,
    outputs: T,
    recording: Recording,
    live: Live,
    /// What was there before and is read or written by the graph, what was brought to the card for it, and the memory of what it makes.
    _kept: Vec<Arc<Block>>,
    _constants: Vec<Arc<dyn Buffer>>,
    _arena: Arc<Arena>,
}

/// What a captured step returns: one tensor or several.
pub trait Outputs: Sized {
    /// The same of other tensors.
    fn map(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self;
}
impl Outputs for Tensor {
    fn map(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        f(self)
    }
}
impl Outputs for () {
    fn map(&self, _: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {}
}
impl<T: Outputs> Outputs for Vec<T> {
    fn map(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        self.iter().map(|x| x.map(f)).collect()
    }
}
impl<A: Outputs, B: Outputs> Outputs for (A, B) {
    fn map(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        (self.0.map(f), self.1.map(f))
    }
}

/// Numbers that kernels of a graph read on the card, where they are written before each launch.
#[derive(Clone)]
struct Live {
    block: Arc<Block>,
    /// Each with the kernel that reads it.
    steps: Vec<(StepCell, &'static str)>,
}

/// A step that is being captured.
struct Capture {
    cuda: &'static Cuda,
    stream: sys::CUstream,
    arena: Arc<Arena>,
    live: Live,
    kept: HashMap<sys::CUdeviceptr, Arc<Block>>,
    constants: Vec<Arc<dyn Buffer>>,
}

thread_local! {
    /// What this thread captures. Others go on as ever: a capture has a stream of its own.
    static CAPTURE: RefCell<Option<Capture>> = const { RefCell::new(None) };
}

/// What the calling thread captures on this card, if it does.
fn captured<R>(cuda: &Cuda, f: impl FnOnce(&mut Capture) -> R) -> Option<R> {
    CAPTURE.with_borrow_mut(|capture| capture.as_mut().filter(|c| std::ptr::eq(c.cuda, cuda)).map(f))
}

/// The buffer is an argument of a launch: a graph needs it as long as it lives.
pub fn keep(buffer: &CudaBuffer) {
    let Some(block) = &buffer.block else { return };
    captured(block.cuda, |capture| {
        // What the step made itself comes and goes with it.
        if !block.is_in(&capture.arena) {
            capture.kept.entry(block.address).or_insert_with(|| block.clone());
        }
    });
}

/// The buffer was brought to the card: if that happened in a step that is captured, it is a constant of the graph, which holds it, so
/// that whoever changes a tensor of it in the step changes a copy.
pub fn hold(cuda: &Cuda, buffer: &Arc<dyn Buffer>) {
    captured(cuda, |capture| capture.constants.push(buffer.clone()));
}

/// Which random numbers; the same as `RandomStream` in `philox.cuh`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct RandomStream {
    seed: u64,
    offset: u64,
    live: u64,
}

impl Cuda {
    /// The stream for the calling thread's work.
    pub(crate) fn stream(&self) -> sys::CUstream {
        captured(self, |capture| capture.stream).unwrap_or(self.stream)
    }
    /// Does the calling thread capture?
    pub(crate) fn captures(&self) -> bool {
        captured(self, |_| ()).is_some()
    }
    /// The memory of the graph that is being captured.
    pub(crate) fn arena(&self) -> Option<Arc<Arena>> {
        captured(self, |capture| capture.arena.clone())
    }
    /// An error if the calling thread captures: `what` cannot be.
    #[track_caller]
    pub(crate) fn refuse_in_capture(&self, op: &'static str, what: &str) {
        ensure!(
            !self.captures(),
            Device,
            op,
            "{what} while a step is captured for a CUDA graph: its kernels are being written down, none of them has run; \
             return the tensor from the step, and look at it afterwards"
        );
    }
    /// Stream `offset` under `seed`, or in a capture, of the numbers that a replay draws.
    pub(crate) fn random_stream(&self, seed: u64, offset: u64) -> RandomStream {
        let own = ferrograd_tensor::replay::seed() == Some(seed);
        let live = captured(self, |capture| capture.live.block.address).filter(|_| own);
        RandomStream { seed, offset, live: live.unwrap_or(0) }
    }
    /// Where a kernel of the graph that is being captured finds the numbers of this step; 0 if none is.
    #[track_caller]
    pub(crate) fn live_step(&self, step: &StepCell, define: &'static str) -> u64 {
        let live = captured(self, |Capture { live, .. }| {
            let place = STEPS + live.steps.len() * STEP;
            ensure!(
                place + STEP <= LIVE,
                Value,
                "optimizer_step",
                "more optimiser steps in a graph than it has room for"
            );
            live.steps.push((step.clone(), define));
            live.block.address + place as u64
        });
        live.unwrap_or(0)
    }
}

impl Live {
    /// Fails if a step needs another kernel than was captured.
    #[track_caller]
    fn check(&self) {
        for (step, define) in &self.steps {
            let (now, _) = numbers(&step.get());
            ensure!(
                now == *define,
                Value,
                "replay",
                "an option has changed that chooses another kernel ({now} for {define}): capture the step again"
            );
        }
    }
    /// Writes the numbers of the next launch.
    #[track_caller]
    fn write(&self, cuda: &'static Cuda, random: RngState) {
        let mut bytes = vec![0u8; STEPS + self.steps.len() * STEP];
        bytes[..16].copy_from_slice(bytemuck::cast_slice(&[random.seed, random.offset]));
        for ((step, _), place) in self.steps.iter().zip(bytes[STEPS..].chunks_exact_mut(STEP)) {
            place.copy_from_slice(bytemuck::cast_slice(&numbers(&step.get()).1));
        }
        cuda.bind();
        // SAFETY: the block has room for all steps; the last launch has read it, in the order of the stream.
        unsafe { cuda.stage(self.block.address, &bytes, cuda.stream) };
    }
}

/// A graph that can be launched.
struct Executable(sys::CUgraphExec, &'static Cuda);
// SAFETY: a handle that any thread may use, one at a time.
unsafe impl Send for Executable {}

impl Executable {
    #[track_caller]
    fn launch(&self) {
        self.1.bind();
        // SAFETY: the graph is whole, and what its kernels read and write lives as long.
        unsafe { result::graph::launch(self.0, self.1.stream) }.unwrap_or_else(|e| self.1.broken("replay", e));
        if self.1.waits {
            self.1.wait();
        }
    }
}
impl Drop for Executable {
    fn drop(&mut self) {
        self.1.bind();
        // SAFETY: nobody launches it any more, and its last launch is done. An error has nowhere to go.
        let _ =
            unsafe { result::stream::synchronize(self.1.stream).and_then(|()| result::graph::exec_destroy(self.0)) };
    }
}

/// A capture in progress. What was captured is made to run even if there is a panic: then the card is where the host is.
struct Capturing(&'static Cuda);

impl Capturing {
    fn start(cuda: &'static Cuda) -> Result<Capturing> {
        let failed = |e| explain("capturing a step", e);
        let live = Live { block: cuda.pool_block(LIVE), steps: Vec::new() };
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking).map_err(failed)?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream is new. Nothing else is captured: what other threads and other streams do goes on as ever.
        unsafe { result::stream::begin_capture(stream, mode) }.map_err(failed)?;
        let arena = Arc::new(Arena::new(cuda));
        CAPTURE.set(Some(Capture { cuda, stream, arena, live, kept: HashMap::new(), constants: Vec::new() }));
        Ok(Capturing(cuda))
    }
    /// What was captured.
    fn end(cuda: &'static Cuda) -> Result<(Executable, Capture)> {
        let failed = |e| explain("capturing a step", e);
        let capture = CAPTURE.take().expect("it was started");
        capture.arena.close();
        cuda.bind();
        // SAFETY: the stream captures, on this thread; the graph is not used after it was instantiated, nor the stream after that.
        let executable = unsafe {
            let graph = result::stream::end_capture(capture.stream);
            let _ = result::stream::destroy(capture.stream);
            let graph = graph.map_err(failed)?;
            let executable = result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0));
            let _ = result::graph::destroy(graph);
            executable.map_err(failed)?
        };
        Ok((Executable(executable, cuda), capture))
    }
    fn finish(self) -> Result<(Executable, Capture)> {
        let cuda = self.0;
        std::mem::forget(self);
        Capturing::end(cuda)
    }
    /// Goes on with the step's panic. The random numbers that it has drawn are drawn for good, as they were without a capture.
    fn give_up(self, recording: &Recording, panic: Box<dyn Any + Send>) -> ! {
        let cuda = self.0;
        std::mem::forget(self);
        Capturing::run(cuda, recording.reserve());
        resume_unwind(panic)
    }
    /// Ends the capture, and runs what there is of the step.
    fn run(cuda: &'static Cuda, random: RngState) {
        if let Ok((executable, capture)) = Capturing::end(cuda) {
            capture.live.write(cuda, random);
            executable.launch();
        }
    }
}
impl Drop for Capturing {
    fn drop(&mut self) {
        // The step has set the random generator's state, and nobody knows what it has drawn.
        Capturing::run(self.0, rng_state());
    }
}

impl<T: Outputs> CudaGraph<T> {
    /// Captures a step of these inputs and makes it: the graph, and what the step returned.
    ///
    /// # Errors
    /// If the device is no card, the driver cannot make a graph of it, or the step leaves tensors behind that it made and did
    /// not return: then it was made once, but cannot be replayed.
    ///
    /// # Panics
    /// If the step does, as it does where it waits for the card.
    #[track_caller]
    pub fn capture(
        device: &Device,
        inputs: &[&Tensor],
        step: impl FnOnce(&[Tensor]) -> T,
    ) -> Result<(CudaGraph<T>, T)> {
        let cuda = match device.backend().id() {
            ("cuda", index) => Cuda::get(index)?,
            _ => return Err(error(format!("a CUDA graph needs a CUDA device, got {device}"))),
        };
        ensure!(!cuda.captures(), Value, "capture", "a step that is being captured cannot capture another one");
        let inputs: Vec<Tensor> = inputs.iter().map(|x| x.to_device(device).copy()).collect();
        cuda.bind();
        let capturing = Capturing::start(cuda)?;
        let (outputs, recording) = record(|| catch_unwind(AssertUnwindSafe(|| step(&inputs))));
        let outputs = match outputs {
            Ok(outputs) => outputs,
            Err(panic) => capturing.give_up(&recording, panic),
        };
        let (executable, capture) = capturing.finish()?;
        let Capture { arena, live, kept, constants: _constants, .. } = capture;
        let (_kept, _arena) = (kept.into_values().collect(), arena.clone());
        let graph = CudaGraph { cuda, executable, inputs, outputs, recording, live, _kept, _constants, _arena };
        let first = graph.launch();
        let mut returned = Vec::new();
        graph.outputs.map(&mut |x| {
            returned.push(x.buffer().address() as u64);
            x.clone()
        });
        let left = arena.held_besides(&returned);
        if left.is_empty() {
            return Ok((graph, first));
        }
        Err(error(format!(
            "the captured step made {} tensors that it leaves behind and does not return, the largest of {} bytes. A replay \
             would read what they replaced. Make one step before the capture, so that the optimiser has its state; hold no \
             parameter's value while it is captured, since an update would copy it; and return what is to be kept",
            left.len(),
            left.iter().max().unwrap_or(&0)
        )))
    }

    /// Makes the step again, with these inputs: what it returned, in tensors of their own.
    ///
    /// # Panics
    /// If the inputs have other shapes or dtypes than those of the capture, or the step cannot be replayed any more: a
    /// parameter was replaced or is held elsewhere, an option chooses another kernel.
    #[track_caller]
    pub fn replay(&mut self, inputs: &[&Tensor]) -> T {
        const OP: &str = "replay";
        self.cuda.refuse_in_capture(OP, "a graph is to be replayed");
        let (own, given) = (self.inputs.len(), inputs.len());
        ensure!(own == given, Value, OP, "the step was captured with {own} inputs, got {given}");
        for (i, (own, x)) in self.inputs.iter_mut().zip(inputs).enumerate() {
            if own.shape() != x.shape() || own.dtype() != x.dtype() {
                let (a, b) = (own.shape(), x.shape());
                fail!(Shape, OP, "input {i} was {a} {} when the step was captured, got {b} {}", own.dtype(), x.dtype())
            }
            ensure!(own.is_unique(), Value, OP, "the step keeps or returns its input {i}: let it copy that");
        }
        let here: Vec<Tensor> = self.inputs.iter().zip(inputs).map(|(own, x)| x.to_device(&own.device())).collect();
        self.recording.prepare();
        self.live.check();
        // Nobody has refused, and nothing has changed.
        self.recording.count();
        for (own, x) in self.inputs.iter_mut().zip(&here) {
            own.assign(x);
        }
        self.launch()
    }

    /// Launches the kernels, and copies what they return.
    #[track_caller]
    fn launch(&self) -> T {
        self.live.write(self.cuda, self.recording.reserve());
        self.executable.launch();
        self.outputs.map(&mut |x| x.copy())
    }
}
