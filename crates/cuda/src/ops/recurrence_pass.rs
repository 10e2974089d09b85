//! A pass over a sequence, and the launches of `kernels/recurrence*.cu` that make it: one for all of time, or one for each step.

use super::elementwise::full;
use super::matmul::has_tensor_cores;
use super::recurrence::Network;
use super::recurrence_plan::{Limits, Plan, Product};
use crate::cuda::Cuda;
use crate::launch::{Arguments, BLOCK};
use crate::memory::address;
use crate::programs::KernelId;
use ferrograd_tensor::ops::recurrence::SequenceArgs;
use ferrograd_tensor::{DType, Tensor};

/// The same as `Sequence` in `recurrence.cuh`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Sequence {
    pub steps: i32,
    pub batch: i32,
    pub hidden: i32,
    pub reverse: i32,
    pub lengths: u64,
    pub mask: u64,
}

/// The same as `ForwardPass` in `recurrence.cuh`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ForwardPass {
    pub sequence: Sequence,
    pub x: u64,
    pub bias: u64,
    pub first: [u64; 2],
    pub hs: u64,
    pub last: [u64; 2],
    pub gates: u64,
    pub cells: u64,
}

/// The same as `BackwardPass` in `recurrence.cuh`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct BackwardPass {
    pub sequence: Sequence,
    pub first: [u64; 2],
    pub hs: u64,
    pub gates: u64,
    pub cells: u64,
    pub upstream: [u64; 3],
    pub d: u64,
    pub before: u64,
    pub d_first: [u64; 2],
}

/// The same as `Matrix` in `recurrence_blocks.cuh`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Matrix {
    data: u64,
    term: i64,
    unit: i64,
    output: i64,
    terms: i32,
    units: i32,
}

/// The same as `Division` in `recurrence_blocks.cuh`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Division {
    rows: i32,
    units: i32,
    slices: i32,
    first: i32,
    exchanged: u64,
    arrived: u64,
}

/// The same as `States` in `recurrence_step.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct States {
    pub h: u64,
    pub c: u64,
    pub masked: u64,
}

pub fn optional(x: Option<&Tensor>) -> u64 {
    x.map_or(0, address)
}

/// Of a pass: W_hh h has a sum for each gate, and W_hhᵀ d is one of all gates.
#[derive(Clone, Copy)]
pub enum Direction {
    Forward,
    Backward,
}

/// A pass over a sequence: what the launches of either direction need to know.
pub struct Pass<'a> {
    pub cuda: &'static Cuda,
    pub network: &'a Network,
    pub dtype: DType,
    pub steps: usize,
    pub batch: usize,
    pub hidden: usize,
    reverse: bool,
    pub w_hh: &'a Tensor,
    /// On the card.
    lengths: Option<Tensor>,
    /// Row-major, in the type that is computed in.
    pub mask: Option<Tensor>,
}

impl<'a> Pass<'a> {
    #[track_caller]
    pub fn new(cuda: &'static Cuda, network: &'a Network, args: &SequenceArgs<'a>) -> Pass<'a> {
        let options = args.options;
        let on_card = |lengths: &Vec<usize>| {
            let numbers: Vec<i32> = lengths.iter().map(|&length| length as i32).collect();
            Tensor::from_vec(numbers, [lengths.len()]).to_device(&args.x.device())
        };
        Pass {
            cuda,
            network,
            dtype: args.x.dtype(),
            steps: args.x.dims()[0],
            batch: args.x.dims()[1],
            hidden: args.h0.dims()[1],
            reverse: options.reverse,
            w_hh: args.weights.w_hh,
            lengths: options.lengths.as_ref().map(on_card),
            mask: options.recurrent_mask.as_ref().map(Tensor::contiguous),
        }
    }
    pub fn sequence(&self) -> Sequence {
        Sequence {
            steps: self.steps as i32,
            batch: self.batch as i32,
            hidden: self.hidden as i32,
            reverse: self.reverse as i32,
            lengths: optional(self.lengths.as_ref()),
            mask: optional(self.mask.as_ref()),
        }
    }
    /// `[T, B, gates·H]` of unspecified contents.
    #[track_caller]
    pub fn over_time(&self, gates: usize, dtype: DType) -> Tensor {
        self.cuda.empty(&[self.steps, self.batch, gates * self.hidden].into(), dtype)
    }
    /// `[B, H]` likewise.
    #[track_caller]
    pub fn state(&self, dtype: DType) -> Tensor {
        self.cuda.empty(&[self.batch, self.hidden].into(), dtype)
    }
    /// The time of step `n`.
    pub fn time(&self, n: usize) -> isize {
        (if self.reverse { self.steps - 1 - n } else { n }) as isize
    }
    fn kernel(&self, file: &'static str, name: &'static str) -> KernelId {
        KernelId { file, define: self.network.define, name, dtype: Some(self.dtype) }
    }

    /// The recurrent product.
    fn product(&self, direction: Direction) -> Product {
        let (gates, hidden) = (self.network.gates, self.hidden);
        let (outputs, terms) = match direction {
            Direction::Forward => (gates, hidden),
            Direction::Backward => (1, gates * hidden),
        };
        Product { tensor_cores: has_tensor_cores(self.dtype), size: self.dtype.size(), outputs, terms }
    }
    /// Its division among blocks; none if no part of its matrix fits into a block.
    fn plan(&self, product: Product) -> Option<Plan> {
        let Cuda { multiprocessors, shared_memory, .. } = *self.cuda;
        let limits = Limits { multiprocessors: multiprocessors as usize, shared_memory };
        Plan::of(limits, product, self.batch, self.hidden)
    }

    /// Launches a kernel that goes through time, once for as many rows of the batch as can be on their way together. Says whether it did: for
    /// some matrices there is no plan.
    ///
    /// # Safety
    /// `pass` is what the kernel takes, which goes in this direction.
    #[track_caller]
    pub unsafe fn launch<P: Copy>(&self, name: &'static str, pass: P, direction: Direction) -> bool {
        let product = self.product(direction);
        let Some(plan) = self.plan(product) else { return false };
        let (cuda, together) = (self.cuda, plan.rows * plan.groups);
        let launches = self.batch.div_ceil(together);
        // What blocks exchange, two tiles of each, and behind it how many have come, for each set of rows and launch: all in words.
        let tiles = 2 * together * product.pitch() / DType::I32.size();
        let meeting = (plan.slices > 1).then(|| full(cuda, &[tiles + launches * plan.groups].into(), DType::I32, 0.0));
        let exchanged = optional(meeting.as_ref());
        let [row, column] = [0, 1].map(|d| self.w_hh.layout().strides[d] as i64);
        let [term, unit] = match direction {
            Direction::Forward => [column, row],
            Direction::Backward => [row, column],
        };
        let matrix = Matrix {
            data: address(self.w_hh),
            term,
            unit,
            output: row * self.hidden as i64,
            terms: product.terms as i32,
            units: self.hidden as i32,
        };
        for n in 0..launches {
            let division = Division {
                rows: plan.rows as i32,
                units: plan.units as i32,
                slices: plan.slices as i32,
                first: (n * together) as i32,
                exchanged,
                arrived: exchanged + ((tiles + n * plan.groups) * DType::I32.size()) as u64,
            };
            let arguments = Arguments::default().value(pass).value(matrix).value(division);
            let (id, blocks) = (self.kernel(product.file(), name), (plan.slices * plan.groups) as u32);
            let (threads, shared) = (plan.threads as u32, plan.shared as u32);
            // SAFETY: the caller's promise; what is exchanged has room for the rows of all blocks, and every block a place to be
            // counted. Blocks that wait for each other are no more than there are multiprocessors.
            unsafe {
                match meeting {
                    None => cuda.launch(id, [blocks, 1, 1], threads, shared, arguments),
                    Some(_) => cuda.launch_together(id, blocks, threads, shared, arguments),
                }
            }
        }
        true
    }

    /// Launches a kernel of `recurrence_step.cu` for step `n`.
    ///
    /// # Safety
    /// `pass` is what the kernel takes, and the product is the one of that step.
    #[track_caller]
    pub unsafe fn launch_step<P: Copy>(
        &self,
        name: &'static str,
        pass: P,
        states: States,
        product: Option<&Tensor>,
        n: i32,
    ) {
        let arguments = Arguments::default().value(pass).value(states).value(optional(product)).value(n);
        let blocks = (self.batch * self.hidden).div_ceil(BLOCK as usize) as u32;
        // SAFETY: the caller's promise; there is a thread for each unit of each row.
        unsafe { self.cuda.launch(self.kernel("recurrence_step.cu", name), [blocks, 1, 1], BLOCK, 0, arguments) };
    }
}
