//! Launching a kernel.

use crate::cuda::Cuda;
use crate::memory::address;
use crate::programs::{Kernel, KernelId};
use cudarc::driver::{result, sys};
use ferrograd_tensor::{Tensor, error::throw};
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

/// Threads of a block where nothing speaks for another number.
pub const BLOCK: u32 = 256;

/// Dynamic shared memory, in bytes, above which a kernel must ask for what it gets.
const ASKED: u32 = 48 << 10;

/// The arguments of a launch, in the order of the kernel's parameters.
#[derive(Default)]
pub struct Arguments {
    lines: SmallVec<[Line; 8]>,
    /// In bytes: where each argument begins, and where the last one ends.
    starts: SmallVec<[usize; 12]>,
    end: usize,
}

/// Memory for arguments, aligned as the one that wants most: a tensor map.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

impl Arguments {
    /// A number or a `repr(C)` struct, as the kernel declares it.
    pub fn value<T: Copy>(mut self, value: T) -> Self {
        const { assert!(align_of::<T>() <= align_of::<Line>()) };
        let start = self.end.next_multiple_of(align_of::<T>());
        self.starts.push(start);
        self.end = start + size_of::<T>();
        self.lines.resize(self.end.div_ceil(size_of::<Line>()), Line([0; 64]));
        // SAFETY: there is room for the value, aligned as it wants; the lines are read by the driver only, as bytes.
        unsafe { self.lines.as_mut_ptr().byte_add(start).cast::<T>().write(value) };
        self
    }
    /// A pointer to the tensor's element 0.
    pub fn tensor(self, x: &Tensor) -> Self {
        self.value(address(x))
    }
}

impl Cuda {
    /// Launches the kernel on `grid` blocks of `block` threads with `shared` bytes of dynamic shared memory.
    ///
    /// # Safety
    /// The arguments are those that the kernel declares, and what they point to is as large as the kernel takes it to be.
    #[track_caller]
    pub(crate) unsafe fn launch(&self, id: KernelId, grid: [u32; 3], block: u32, shared: u32, arguments: Arguments) {
        self.bind();
        let kernel = self.programs.kernel(id).unwrap_or_else(|e| throw(e));
        // SAFETY: the caller's promise.
        unsafe { self.launch_kernel(id.name, kernel, grid, block, shared, arguments) };
    }

    /// The same with all blocks at work at the same time, so that they may wait for each other. There is room for them: no more
    /// than one for each multiprocessor, if that can hold one.
    ///
    /// # Safety
    /// As [`launch`](Cuda::launch).
    #[track_caller]
    pub(crate) unsafe fn launch_together(
        &self,
        id: KernelId,
        blocks: u32,
        block: u32,
        shared: u32,
        arguments: Arguments,
    ) {
        self.bind();
        let kernel = self.programs.kernel(id).unwrap_or_else(|e| throw(e));
        // SAFETY: the caller's promise.
        unsafe { self.submit(id.name, kernel, [blocks, 1, 1], block, shared, arguments, true) };
    }

    /// The same of a kernel that is at hand. The card is the calling thread's.
    ///
    /// # Safety
    /// As [`launch`](Cuda::launch).
    #[track_caller]
    pub(crate) unsafe fn launch_kernel(
        &self,
        name: &'static str,
        kernel: Kernel,
        grid: [u32; 3],
        block: u32,
        shared: u32,
        arguments: Arguments,
    ) {
        // SAFETY: the caller's promise.
        unsafe { self.submit(name, kernel, grid, block, shared, arguments, false) };
    }

    /// Lets a kernel have so much dynamic shared memory. What it may have only grows: another thread's launch, or a graph's, may be
    /// about to take what it was allowed before.
    #[track_caller]
    fn allow(&self, name: &'static str, kernel: Kernel, shared: u32) {
        use sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as MOST;
        static ALLOWED: Mutex<BTreeMap<usize, u32>> = Mutex::new(BTreeMap::new());
        let mut allowed = ALLOWED.lock().unwrap_or_else(PoisonError::into_inner);
        let most = allowed.entry(kernel.0 as usize).or_default();
        if *most < shared {
            // SAFETY: a kernel of a module that is loaded for good.
            unsafe { result::function::set_function_attribute(kernel.0, MOST, shared as i32) }
                .unwrap_or_else(|e| self.broken(name, e));
            *most = shared;
        }
    }

    /// Any launch; `together` if all blocks are to work at the same time.
    ///
    /// # Safety
    /// As [`launch`](Cuda::launch).
    #[allow(clippy::too_many_arguments)] // the driver's
    #[track_caller]
    unsafe fn submit(
        &self,
        name: &'static str,
        kernel: Kernel,
        grid: [u32; 3],
        block: u32,
        shared: u32,
        mut arguments: Arguments,
        together: bool,
    ) {
        let base = arguments.lines.as_mut_ptr();
        let mut pointers: SmallVec<[*mut c_void; 12]> =
            arguments.starts.iter().map(|&start| base.wrapping_byte_add(start).cast()).collect();
        let [x, y, z] = grid;
        if shared > ASKED {
            self.allow(name, kernel, shared);
        }
        let launch = if together { result::launch_cooperative_kernel } else { result::launch_kernel };
        // SAFETY: the caller's promise; the driver copies the arguments before it returns.
        unsafe { launch(kernel.0, (x, y, z), (block, 1, 1), shared, self.stream(), &mut pointers) }
            .unwrap_or_else(|e| self.broken(name, e));
        if self.waits && !self.captures() {
            self.wait();
        }
    }

    /// Blocks for so many threads' worth of work: enough to fill the card a few times over, each thread doing the rest in
    /// strides of the whole grid.
    pub(crate) fn grid_for(&self, threads: usize) -> [u32; 3] {
        let most = self.multiprocessors as usize * 32;
        [threads.div_ceil(BLOCK as usize).clamp(1, most) as u32, 1, 1]
    }
}
