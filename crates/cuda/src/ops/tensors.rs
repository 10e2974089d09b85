//! Many tensors in one launch.

use crate::cuda::Cuda;
use crate::launch::{Arguments, BLOCK};
use crate::memory::address;
use crate::programs::KernelId;
use ferrograd_tensor::Tensor;

// The same in `kernels/tensors.cuh`.
const TENSORS: usize = 64;
const OPERANDS: usize = 5;
const CHUNK: usize = 4096;

/// The tensors of a launch; the same as `Tensors` there.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Tensors {
    at: [[u64; OPERANDS]; TENSORS],
    numel: [i64; TENSORS],
    first: [i32; TENSORS],
    count: i32,
    blocks: i32,
}

/// Where the operands of one tensor lie, and how many elements they have.
pub type Entry = ([u64; OPERANDS], usize);

/// The operands, all row-major and of one shape.
pub fn entry<'a>(operands: impl IntoIterator<Item = &'a Tensor>) -> Entry {
    let (mut at, mut numel) = ([0; OPERANDS], 0);
    for (x, at) in operands.into_iter().zip(&mut at) {
        (*at, numel) = (address(x), x.numel());
    }
    (at, numel)
}

/// As few tables as hold all tensors; those without elements are left out.
pub fn tables(entries: impl IntoIterator<Item = Entry>) -> Vec<Tensors> {
    let empty = Tensors { at: [[0; OPERANDS]; TENSORS], numel: [0; TENSORS], first: [0; TENSORS], count: 0, blocks: 0 };
    let mut tables: Vec<Tensors> = Vec::new();
    for (at, numel) in entries.into_iter().filter(|(_, numel)| *numel > 0) {
        let chunks = numel.div_ceil(CHUNK) as i32;
        let room = |t: &Tensors| (t.count as usize) < TENSORS && t.blocks.checked_add(chunks).is_some();
        if !tables.last().is_some_and(room) {
            tables.push(empty);
        }
        let table = tables.last_mut().expect("there is one now");
        let k = table.count as usize;
        (table.at[k], table.numel[k], table.first[k]) = (at, numel as i64, table.blocks);
        table.count += 1;
        table.blocks += chunks;
    }
    tables
}

impl Tensors {
    /// Chunks of all its tensors, each a block's work.
    pub fn blocks(&self) -> usize {
        self.blocks as usize
    }
    /// Launches a kernel that takes the table first.
    ///
    /// # Safety
    /// As [`Cuda::launch`]; the kernel changes only tensors that nobody else holds.
    #[track_caller]
    pub unsafe fn launch(self, cuda: &Cuda, id: KernelId, rest: impl FnOnce(Arguments) -> Arguments) {
        let arguments = rest(Arguments::default().value(self));
        // SAFETY: the caller's promise; there is a block for each chunk.
        unsafe { cuda.launch(id, [self.blocks as u32, 1, 1], BLOCK, 0, arguments) };
    }
}
