//! What RNN, LSTM and GRU share: the products for all of time, and the launches of `kernels/recurrence*.cu` between them.
//!
//! The recurrent product is made on tensor cores for half types, and for f32 where TF32 will do; else it is exact.
//!
//! What is rounded: in half types states, cells, activated gates and all sums are f32 through all of time. Rounded are the input's part
//! of the sums, once, as a linear layer's result is; the masked state, where it is multiplied; the outputs; and the sums' gradients, of
//! which those of the weights, the input and the state before are products. TF32 rounds the operands of products, and nothing else.
//! Where the weights fit on no chip there is a launch for each step, and the recurrent product's result is rounded too.

use super::elementwise::{cast, copy, full};
use super::gru::GRU;
use super::lstm::LSTM;
use super::matmul::has_tensor_cores;
use super::reduce::reduce;
use super::rnn::{RNN_RELU, RNN_TANH};
use crate::cuda::Cuda;
use crate::launch::{Arguments, BLOCK};
use crate::memory::address;
use crate::programs::{KernelId, Program};
use ferrograd_tensor::backend::{Backend, Reduce};
use ferrograd_tensor::ops::recurrence::{SequenceArgs, SequenceGradients};
use ferrograd_tensor::{DType, Tensor};

/// A network, as `kernels/recurrence.cuh` has it.
pub struct Network {
    pub define: &'static str,
    /// With weights of their own.
    pub gates: usize,
    /// Those that are kept, and have gradients.
    pub sums: usize,
    /// Are the activated gates kept, or are the outputs enough?
    pub keeps_gates: bool,
}

/// What [`forward`] makes.
pub struct Outputs {
    pub hs: Tensor,
    pub h_n: Tensor,
    /// The final cell, `[B, H]`, where there is one.
    pub c_n: Option<Tensor>,
    /// `[T, B, sums·H]`, if they are kept.
    pub gates: Option<Tensor>,
    /// `[T, B, H]`, where there are cells.
    pub cells: Option<Tensor>,
}

/// What of it the way back needs.
pub struct Kept<'a> {
    pub hs: &'a Tensor,
    pub gates: Option<&'a Tensor>,
    /// The first cell, and all of them.
    pub cells: Option<(&'a Tensor, &'a Tensor)>,
}

/// What [`backward`] finds.
pub struct Found {
    pub x: Option<Tensor>,
    pub h0: Tensor,
    pub c0: Option<Tensor>,
    pub w_hh: Tensor,
    pub w_ih: Tensor,
    pub b_ih: Tensor,
    pub b_hh: Tensor,
}

/// What is compiled ahead of time.
pub fn programs() -> impl Iterator<Item = Program> {
    let networks = [&LSTM, &GRU, &RNN_TANH, &RNN_RELU];
    let files = ["recurrence_mma.cu", "recurrence_simt.cu", "recurrence_step.cu"];
    networks.into_iter().flat_map(move |network| files.map(|file| (file, network.define)))
}

/// Of the products forward: every weight once for each row and step.
pub fn flops(args: &SequenceArgs) -> f64 {
    let weights = args.weights.w_ih.numel() + args.weights.w_hh.numel();
    2.0 * (args.x.dims()[0] * args.x.dims()[1]) as f64 * weights as f64
}

/// The same as `Sequence` in `recurrence.cuh`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Sequence {
    steps: i32,
    batch: i32,
    hidden: i32,
    reverse: i32,
    lengths: u64,
    mask: u64,
}

/// The same as `ForwardPass` in `recurrence.cuh`.
#[repr(C)]
#[derive(Clone, Copy)]
struct ForwardPass {
    sequence: Sequence,
    x: u64,
    bias: u64,
    first: [u64; 2],
    hs: u64,
    last: [u64; 2],
    gates: u64,
    cells: u64,
}

/// The same as `BackwardPass` in `recurrence.cuh`.
#[repr(C)]
#[derive(Clone, Copy)]
struct BackwardPass {
    sequence: Sequence,
    first: [u64; 2],
    hs: u64,
    gates: u64,
    cells: u64,
    upstream: [u64; 3],
    d: u64,
    before: u64,
    d_first: [u64; 2],
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
struct States {
    h: u64,
    c: u64,
    masked: u64,
}

fn optional(x: Option<&Tensor>) -> u64 {
    x.map_or(0, address)
}

/// Of a pass: W_hh h has a sum for each gate, and W_hhᵀ d is one of all gates.
#[derive(Clone, Copy)]
enum Direction {
    Forward,
    Backward,
}

/// A pass over a sequence: what the launches of either direction need to know.
struct Pass<'a> {
    cuda: &'static Cuda,
    network: &'a Network,
    dtype: DType,
    steps: usize,
    batch: usize,
    hidden: usize,
    reverse: bool,
    w_hh: &'a Tensor,
    /// On the card.
    lengths: Option<Tensor>,
    /// Row-major, in the type that is computed in.
    mask: Option<Tensor>,
}

impl<'a> Pass<'a> {
    #[track_caller]
    fn new(cuda: &'static Cuda, network: &'a Network, args: &SequenceArgs<'a>) -> Pass<'a> {
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
    fn sequence(&self) -> Sequence {
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
    fn over_time(&self, gates: usize, dtype: DType) -> Tensor {
        self.cuda.empty(&[self.steps, self.batch, gates * self.hidden].into(), dtype)
    }
    /// `[B, H]` likewise.
    #[track_caller]
    fn state(&self, dtype: DType) -> Tensor {
        self.cuda.empty(&[self.batch, self.hidden].into(), dtype)
    }
    /// The time of step `n`.
    fn time(&self, n: usize) -> isize {
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
    unsafe fn launch<P: Copy>(&self, name: &'static str, pass: P, direction: Direction) -> bool {
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
    unsafe fn launch_step<P: Copy>(
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

/// A recurrent product as a kernel makes it, `recurrence_mma.cu` or `recurrence_simt.cu`.
#[derive(Clone, Copy, Debug)]
struct Product {
    tensor_cores: bool,
    /// Bytes of a number.
    size: usize,
    /// Sums for each unit, and terms of each.
    outputs: usize,
    terms: usize,
}

impl Product {
    fn file(self) -> &'static str {
        if self.tensor_cores { "recurrence_mma.cu" } else { "recurrence_simt.cu" }
    }
    /// What rows and units of a block are multiples of.
    fn grain(self) -> [usize; 2] {
        match self.tensor_cores {
            true => [8, if self.outputs == 1 { 16 } else { 8 }],
            false => [4, 8],
        }
    }
    /// Threads for so many units in rows, and most of a block: `THREADS` in the kernels.
    fn threads(self, units: usize) -> usize {
        match (self.tensor_cores, self.outputs) {
            (true, 1) => units / 4,
            (true, _) => units / 2,
            (false, _) => units,
        }
    }
    fn most_threads(self) -> usize {
        if self.tensor_cores && self.outputs == 1 { 256 } else { 512 }
    }
    /// Of tensor cores: steps of 32 bytes along the terms, and those whose weights are in registers (`KEPT` in the kernel).
    fn steps(self) -> usize {
        (self.terms * self.size).div_ceil(32)
    }
    fn kept(self) -> usize {
        let registers = if self.outputs == 1 { 96 } else { 56 };
        registers / (4 * self.tiles())
    }
    /// Instructions of tensor cores for a step.
    fn tiles(self) -> usize {
        self.outputs.div_ceil(2)
    }
    /// Bytes from a row of what units give to the next: `pitch_of` in the kernels.
    fn pitch(self) -> usize {
        match self.tensor_cores {
            true => 32 * self.steps() + 16,
            false => 16 * self.size * (self.terms.div_ceil(16) | 1),
        }
    }
    /// Bytes of shared memory for a unit's weights.
    fn weights(self) -> usize {
        match self.tensor_cores {
            true => self.outputs * (32 * self.steps().saturating_sub(self.kept()).max(1) + 16),
            false => self.outputs * self.pitch(),
        }
    }
    /// Roughly, of a block of so many rows and units: the cycles of a step's multiplications. CUDA cores multiply 128 numbers a cycle. An
    /// instruction of tensor cores takes 8 of them on one of four cores; what it takes from shared memory comes at 128 bytes a cycle.
    fn cycles(self, rows: usize, units: usize) -> usize {
        if !self.tensor_cores {
            return rows * units * self.outputs * self.terms / 128;
        }
        let [eight, strip] = self.grain();
        let warps = (rows / eight) * (units / strip);
        let (steps, rest) = (self.steps(), self.steps().saturating_sub(self.kept()));
        warps * (steps * self.tiles() * 2).max(steps * 2 + rest * self.tiles() * 4)
    }
}

/// How the work is divided among blocks.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Plan {
    /// Of a block: rows of the batch, units of the state.
    rows: usize,
    units: usize,
    threads: usize,
    /// Blocks that have the same rows, and sets of rows in a launch.
    slices: usize,
    groups: usize,
    /// Bytes of shared memory.
    shared: usize,
}

/// What a card has.
#[derive(Clone, Copy)]
struct Limits {
    multiprocessors: usize,
    shared_memory: usize,
}

impl Plan {
    /// The cheapest division; none if no part of the matrix fits into a block.
    fn of(limits: Limits, product: Product, batch: usize, hidden: usize) -> Option<Plan> {
        let [row_grain, unit_grain] = product.grain();
        let all = hidden.next_multiple_of(unit_grain);
        let units = (unit_grain..all).step_by(unit_grain).chain([all]);
        let rows = [1, 2, 4, 8, 16].into_iter().map(|n| n * row_grain).filter(|&rows| rows < 2 * batch.max(row_grain));
        let plans = units.flat_map(|units| rows.clone().map(move |rows| (rows, units)));
        let plans = plans.filter_map(|(rows, units)| {
            let (slices, threads) = (hidden.div_ceil(units), product.threads(rows * units));
            let tiles = if slices == 1 { 2 } else { 1 };
            let shared = units * product.weights() + tiles * rows * product.pitch();
            let groups = batch.div_ceil(rows);
            let groups = if slices == 1 { groups } else { groups.min(limits.multiprocessors / slices) };
            let fits = threads <= product.most_threads() && shared <= limits.shared_memory && groups > 0;
            fits.then_some(Plan { rows, units, threads, slices, groups, shared })
        });
        plans.min_by_key(|plan| plan.cycles(limits, product, batch))
    }

    /// Of a step of the whole batch, roughly. It ranks plans, and says nothing else. A step of a block is
    /// - some 500 cycles in any case: from a barrier to the next each thread waits for memory and for its own functions;
    /// - the product;
    /// - the gates' functions: about as many instructions for a unit in a row as a multiprocessor begins in a cycle;
    /// - where blocks meet, twice the way to L2 and back, some 2000 cycles, and all of the rows from there at 32 bytes a cycle.
    ///
    /// A multiprocessor has its blocks' work to do one after another, but blocks that meet are never two on one.
    fn cycles(&self, limits: Limits, product: Product, batch: usize) -> usize {
        let exchange = if self.slices == 1 { 0 } else { 2000 + self.rows * product.pitch() / 32 };
        let work = product.cycles(self.rows, self.units) + self.rows * self.units + exchange;
        let groups = batch.div_ceil(self.rows);
        let at_once = if self.slices == 1 { limits.multiprocessors } else { self.groups };
        (500 + work) * groups.div_ceil(at_once)
    }
}

/// See [`Backend::lstm`] and its like.
#[track_caller]
pub fn forward(cuda: &'static Cuda, network: &Network, args: &SequenceArgs, c0: Option<&Tensor>) -> Outputs {
    let pass = &Pass::new(cuda, network, args);
    let (dtype, wide) = (pass.dtype, pass.dtype.accumulator());
    let outputs = Outputs {
        hs: pass.over_time(1, dtype),
        h_n: pass.state(dtype),
        c_n: c0.map(|_| pass.state(dtype)),
        gates: network.keeps_gates.then(|| pass.over_time(network.sums, wide)),
        cells: c0.map(|_| pass.over_time(1, wide)),
    };
    if pass.batch * pass.hidden == 0 {
        return outputs;
    }
    let x = args.x.linear(args.weights.w_ih, args.weights.b_ih);
    let bias = args.weights.b_hh.map(Tensor::contiguous);
    let (h0, c0) = (args.h0.contiguous(), c0.map(Tensor::contiguous));
    let arrays = ForwardPass {
        sequence: pass.sequence(),
        x: address(&x),
        bias: optional(bias.as_ref()),
        first: [address(&h0), optional(c0.as_ref())],
        hs: address(&outputs.hs),
        last: [address(&outputs.h_n), optional(outputs.c_n.as_ref())],
        gates: optional(outputs.gates.as_ref()),
        cells: optional(outputs.cells.as_ref()),
    };
    // SAFETY: row-major arrays of the pass's shapes and types.
    if !unsafe { pass.launch("recurrence_forward", arrays, Direction::Forward) } {
        forward_by_steps(pass, arrays, &h0, c0.as_ref());
    }
    outputs
}

/// The same, a product and a launch for each step.
#[track_caller]
fn forward_by_steps(pass: &Pass, arrays: ForwardPass, h0: &Tensor, c0: Option<&Tensor>) {
    let wide = pass.dtype.accumulator();
    let (h, c) = (cast(pass.cuda, h0, wide), c0.map(|c0| cast(pass.cuda, c0, wide)));
    let masked = match &pass.mask {
        Some(mask) => cast(pass.cuda, &h.mul(mask), pass.dtype),
        None => copy(pass.cuda, h0),
    };
    let states = States { h: address(&h), c: optional(c.as_ref()), masked: address(&masked) };
    for n in 0..=pass.steps as i32 {
        let product = (n < pass.steps as i32).then(|| pass.cuda.matmul(&masked, &pass.w_hh.t()));
        // SAFETY: row-major arrays of the pass's shapes and types, and the product of the states that the launch before left.
        unsafe { pass.launch_step("recurrence_step_forward", arrays, states, product.as_ref(), n) };
    }
}

/// See [`Backend::lstm_backward`] and its like.
#[track_caller]
pub fn backward(
    cuda: &'static Cuda,
    network: &Network,
    args: &SequenceArgs,
    kept: Kept,
    gradients: &SequenceGradients,
    input_gradient: bool,
) -> Found {
    let pass = &Pass::new(cuda, network, args);
    let dtype = pass.dtype;
    let [d, before] = [network.sums, 1].map(|gates| pass.over_time(gates, dtype));
    let (h0, c0) = (pass.state(dtype), kept.cells.map(|_| pass.state(dtype)));
    if h0.numel() > 0 {
        let upstream = [gradients.hs, gradients.h_n, gradients.c_n].map(|g| g.map(Tensor::contiguous));
        let first = [Some(args.h0), kept.cells.map(|(c0, _)| c0)].map(|x| x.map(Tensor::contiguous));
        let saved = [Some(kept.hs), kept.gates, kept.cells.map(|(_, cells)| cells)].map(|x| x.map(Tensor::contiguous));
        let [hs, gates, cells] = saved.each_ref().map(|x| optional(x.as_ref()));
        let arrays = BackwardPass {
            sequence: pass.sequence(),
            first: first.each_ref().map(|x| optional(x.as_ref())),
            hs,
            gates,
            cells,
            upstream: upstream.each_ref().map(|g| optional(g.as_ref())),
            d: address(&d),
            before: address(&before),
            d_first: [address(&h0), optional(c0.as_ref())],
        };
        // SAFETY: row-major arrays of the pass's shapes and types.
        if !unsafe { pass.launch("recurrence_backward", arrays, Direction::Backward) } {
            backward_by_steps(pass, arrays, &d);
        }
    }
    products(pass, args, d, before, input_gradient, (h0, c0))
}

/// The columns of the sums' gradients `[…, sums·H]` that the input has a part in, and those that the state has.
fn parts(pass: &Pass, d: &Tensor) -> [Tensor; 2] {
    let (width, all) = (pass.network.gates * pass.hidden, pass.network.sums * pass.hidden);
    [0, all - width].map(|start| d.narrow(-1, start, width))
}

/// The way back, a product and a launch for each step.
#[track_caller]
fn backward_by_steps(pass: &Pass, arrays: BackwardPass, d: &Tensor) {
    let wide = pass.dtype.accumulator();
    let [h, c] = [0; 2].map(|_| pass.state(wide));
    let states = States { h: address(&h), c: address(&c), masked: 0 };
    for n in (-1..pass.steps as i32).rev() {
        let product = (n + 1 < pass.steps as i32).then(|| {
            let [_, of_state] = parts(pass, &d.select(0, pass.time((n + 1) as usize)));
            pass.cuda.matmul(&of_state, pass.w_hh)
        });
        // SAFETY: row-major arrays of the pass's shapes and types, and the product of what the launch before wrote.
        unsafe { pass.launch_step("recurrence_step_backward", arrays, states, product.as_ref(), n) };
    }
}

/// All that is no recurrence: with the gradients `d` of all sums, the products that give those of the weights and the input.
#[track_caller]
fn products(
    pass: &Pass,
    args: &SequenceArgs,
    d: Tensor,
    before: Tensor,
    input_gradient: bool,
    (h0, c0): (Tensor, Option<Tensor>),
) -> Found {
    let [t, b, e] = args.x.dims_of("sequence");
    let flat = |x: &Tensor| x.reshape([t * b, x.dims()[2]]);
    let (d, x, before) = (flat(&d), flat(args.x), flat(&before));
    let [of_input, of_state] = parts(pass, &d);
    let sums = reduce(pass.cuda, Reduce::Sum, &d, &[0]);
    let [b_ih, b_hh] = parts(pass, &sums.squeeze(0));
    Found {
        x: input_gradient.then(|| of_input.matmul(&as_in_d(pass, args.weights.w_ih)).reshape([t, b, e])),
        h0,
        c0,
        w_hh: of_state.t().matmul(&before),
        w_ih: as_in_weights(pass, &of_input.t().matmul(&x)),
        b_ih: as_in_weights(pass, &b_ih),
        b_hh: b_hh.contiguous(),
    }
}

/// The rows of the input's weights in the order in which their sums' gradients lie: a GRU's are r z n, and n r z.
#[track_caller]
fn as_in_d(pass: &Pass, w: &Tensor) -> Tensor {
    rotated(pass, w, (pass.network.gates - 1) * pass.hidden)
}

/// And back.
#[track_caller]
fn as_in_weights(pass: &Pass, d: &Tensor) -> Tensor {
    rotated(pass, d, pass.hidden)
}

/// The first `n` rows come last, where the sums of the input and of the state are not the same ones.
#[track_caller]
fn rotated(pass: &Pass, x: &Tensor, n: usize) -> Tensor {
    if pass.network.sums == pass.network.gates {
        return x.contiguous();
    }
    Tensor::cat(&[&x.narrow(0, n, x.dims()[0] - n), &x.narrow(0, 0, n)], 0)
}

#[cfg(test)]
mod tests {
    use super::{Limits, Plan, Product};

    const H100: Limits = Limits { multiprocessors: 132, shared_memory: 227 << 10 };
    /// An LSTM's product forward, of a half type, of f32 exactly, and of f32 on tensor cores.
    fn half(terms: usize) -> Product {
        Product { tensor_cores: true, size: 2, outputs: 4, terms }
    }
    fn exact(terms: usize) -> Product {
        Product { tensor_cores: false, size: 4, outputs: 4, terms }
    }
    fn tf32(terms: usize) -> Product {
        Product { size: 4, ..half(terms) }
    }
    /// And the one of the way back.
    fn back(product: Product) -> Product {
        Product { outputs: 1, terms: 4 * product.terms, ..product }
    }

    #[test]
    fn small_states_have_a_block_to_themselves() {
        let plan = |product: Product, batch| Plan::of(H100, product, batch, product.terms).expect("it fits");
        // As many blocks as there are rows for: multiprocessors are plenty.
        assert_eq!((plan(exact(32), 32).slices, plan(exact(32), 32).groups, plan(exact(32), 32).rows), (1, 8, 4));
        assert_eq!((plan(half(32), 32).slices, plan(half(32), 32).groups, plan(half(32), 32).rows), (1, 4, 8));
        assert_eq!((plan(half(128), 32).slices, plan(half(128), 32).threads), (1, 512));
        let plan_back = Plan::of(H100, back(half(128)), 32, 128).expect("it fits");
        assert_eq!((plan_back.slices, plan_back.threads), (1, 256));
    }

    #[test]
    fn large_states_are_cut_and_very_large_ones_do_not_fit() {
        for product in [exact(512), half(512), tf32(512), back(exact(512)), back(half(512)), back(tf32(512))] {
            let plan = Plan::of(H100, product, 64, 512).expect("it fits");
            assert!(plan.slices > 1, "{product:?} {plan:?}");
            // Of half types there is room for the whole batch in one launch.
            assert!(product.size > 2 || plan.groups * plan.rows >= 64, "{product:?} {plan:?}");
        }
        assert_eq!(Plan::of(H100, exact(4096), 64, 4096), None);
        assert_eq!(Plan::of(H100, half(4096), 64, 4096), None);
    }

    #[test]
    fn a_large_batch_is_not_cut_into_more_blocks_than_there_is_room_for() {
        for product in [half(32), back(half(32))] {
            let plan = Plan::of(H100, product, 4096, 32).expect("it fits");
            assert!(plan.groups <= 132, "{product:?} {plan:?}");
        }
    }

    #[test]
    fn every_plan_fits_the_card() {
        let products = |hidden| [exact(hidden), half(hidden), tf32(hidden)].into_iter().flat_map(|p| [p, back(p)]);
        for (hidden, batch) in (1..1500).step_by(37).flat_map(|hidden| [1, 3, 17, 200].map(|batch| (hidden, batch))) {
            for product in products(hidden) {
                let Some(p) = Plan::of(H100, product, batch, hidden) else { continue };
                let [rows, units] = product.grain();
                assert!(p.shared <= H100.shared_memory && p.threads <= product.most_threads(), "{p:?}");
                assert!(p.rows.is_multiple_of(rows) && p.units.is_multiple_of(units), "{p:?}");
                assert!(p.threads.is_multiple_of(32) && p.units * p.slices >= hidden, "{p:?}");
                assert!(p.slices == 1 || p.slices * p.groups <= H100.multiprocessors, "{p:?}");
            }
        }
    }

    #[test]
    fn rows_of_a_tile_lie_in_different_banks() {
        // Two of f32, read by four threads each.
        assert_eq!([1, 16, 17, 32, 64, 128, 130].map(|n| exact(n).pitch() / 4), [16, 16, 48, 48, 80, 144, 144]);
        // Eight, in chunks of 16 bytes, of tensor cores: an odd number of chunks.
        assert!((1..300).all(|n| [half(n), tf32(n)].iter().all(|p| p.pitch() % 32 == 16)));
    }
}
