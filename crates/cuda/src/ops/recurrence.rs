//! What RNN, LSTM and GRU share: the products for all of time, and the launches of `kernels/recurrence*.cu` between them.
//!
//! Half types: states, cells, activated gates and all sums are f32 through all of time. Rounded are the input's part of the sums, once,
//! as a linear layer's result is; the outputs; and the sums' gradients, since those of the weights and the input are products of them.

use super::elementwise::{cast, copy, full};
use super::gru::GRU;
use super::lstm::LSTM;
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
    networks.into_iter().flat_map(|network| ["recurrence.cu", "recurrence_step.cu"].map(|file| (file, network.define)))
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

/// The same as `Matrix` in `recurrence.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Matrix {
    data: u64,
    term: i64,
    unit: i64,
    output: i64,
}

/// The same as `Division` in `recurrence.cu`.
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

    /// Launches a kernel of `recurrence.cu`, once for as many rows of the batch as can be on their way together.
    ///
    /// # Safety
    /// `pass` is what the kernel takes, and `outputs` and `terms` describe its product.
    #[track_caller]
    unsafe fn launch<P: Copy>(&self, name: &'static str, pass: P, matrix: Matrix, plan: Plan) {
        let (cuda, wide) = (self.cuda, self.dtype.accumulator());
        let together = plan.rows * plan.groups;
        let launches = self.batch.div_ceil(together);
        let alone = plan.slices == 1;
        let exchanged = (!alone).then(|| full(cuda, &[2, together, plan.pitch].into(), wide, 0.0));
        let arrived = (!alone).then(|| full(cuda, &[launches, plan.groups].into(), DType::I32, 0.0));
        for n in 0..launches {
            let division = Division {
                rows: plan.rows as i32,
                units: plan.units as i32,
                slices: plan.slices as i32,
                first: (n * together) as i32,
                exchanged: optional(exchanged.as_ref()),
                arrived: optional(arrived.as_ref()) + (n * plan.groups * size_of::<i32>()) as u64,
            };
            let arguments = Arguments::default().value(pass).value(matrix).value(division);
            let (id, blocks) = (self.kernel("recurrence.cu", name), (plan.slices * plan.groups) as u32);
            let (threads, shared) = ((plan.rows * plan.units) as u32, plan.shared as u32);
            // SAFETY: the caller's promise; what is exchanged has room for the rows of all blocks, and every block a place to be
            // counted. Blocks that wait for each other are no more than there are multiprocessors.
            unsafe {
                match alone {
                    true => cuda.launch(id, [blocks, 1, 1], threads, shared, arguments),
                    false => cuda.launch_together(id, blocks, threads, shared, arguments),
                }
            }
        }
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

/// How the work is divided among blocks.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Plan {
    /// Of a block: rows of the batch, units of the state.
    rows: usize,
    units: usize,
    /// Blocks that have the same rows, and sets of rows in a launch.
    slices: usize,
    groups: usize,
    /// From a row of a block's tile to the next.
    pitch: usize,
    /// Bytes of shared memory.
    shared: usize,
}

/// What a card has.
#[derive(Clone, Copy)]
struct Limits {
    multiprocessors: usize,
    shared_memory: usize,
}

/// Threads of a block, most: `THREADS` in `recurrence.cu`.
const THREADS: usize = 512;

impl Plan {
    /// The cheapest division of a product of `outputs` sums for each unit, each of so many terms; none if no part of its matrix fits
    /// into shared memory.
    fn of(limits: Limits, dtype: DType, [outputs, terms]: [usize; 2], batch: usize, hidden: usize) -> Option<Plan> {
        let all = hidden.next_multiple_of(8);
        let units = [8, 16, 32, 64].into_iter().filter(|&units| units < all).chain([all]);
        let rows = [4, 8, 16, 32, 64].into_iter().filter(|&rows| rows < 2 * batch.max(4));
        let plans = units.flat_map(|units| rows.clone().map(move |rows| (rows, units)));
        let plans = plans.filter(|(rows, units)| rows * units <= THREADS);
        let plans = plans.filter_map(|(rows, units)| {
            let (slices, pitch) = (hidden.div_ceil(units), pitch(terms));
            let tiles = if slices == 1 { 2 } else { 1 };
            let shared = pitch * (outputs * units * dtype.size() + tiles * rows * dtype.accumulator().size());
            let groups = batch.div_ceil(rows);
            let groups = if slices == 1 { groups } else { groups.min(limits.multiprocessors / slices) };
            let fits = shared <= limits.shared_memory && groups > 0;
            fits.then_some(Plan { rows, units, slices, groups, pitch, shared })
        });
        let cost = |plan: &Plan| plan.cycles(limits, [outputs, terms], batch);
        plans.min_by_key(cost)
    }

    /// Of a step of the whole batch, roughly: what multiplies at 128 numbers a cycle, what comes from L2 at 8, and that blocks meet there
    /// costs as much as some thousand cycles. It ranks plans, and says nothing else.
    fn cycles(&self, limits: Limits, [outputs, terms]: [usize; 2], batch: usize) -> usize {
        let multiply = self.rows * self.units * outputs * terms / 128;
        let exchange = if self.slices == 1 { 0 } else { 2000 + self.rows * terms / 8 };
        let groups = batch.div_ceil(self.rows);
        let at_once = if self.slices == 1 { limits.multiprocessors } else { self.groups };
        (500 + multiply + exchange) * groups.div_ceil(at_once)
    }
}

/// `pitch_of` in `recurrence.cu`.
fn pitch(terms: usize) -> usize {
    16 * (terms.div_ceil(16) | 1)
}

impl Cuda {
    fn plan(&self, pass: &Pass, product: [usize; 2]) -> Option<Plan> {
        let limits = Limits { multiprocessors: self.multiprocessors as usize, shared_memory: self.shared_memory };
        Plan::of(limits, pass.dtype, product, pass.batch, pass.hidden)
    }
}

/// See [`Backend::lstm`] and its like.
#[track_caller]
pub fn forward(cuda: &'static Cuda, network: &Network, args: &SequenceArgs, c0: Option<&Tensor>) -> Outputs {
    let pass = &Pass::new(cuda, network, args);
    let (dtype, wide, gates) = (pass.dtype, pass.dtype.accumulator(), network.gates);
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
    match cuda.plan(pass, [gates, pass.hidden]) {
        Some(plan) => {
            let [row, column] = [0, 1].map(|d| pass.w_hh.layout().strides[d] as i64);
            let matrix = Matrix { data: address(pass.w_hh), term: column, unit: row, output: row * pass.hidden as i64 };
            // SAFETY: row-major arrays of the pass's shapes and types.
            unsafe { pass.launch("recurrence_forward", arrays, matrix, plan) };
        }
        None => forward_by_steps(pass, arrays, &h0, c0.as_ref()),
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
        match cuda.plan(pass, [1, network.gates * pass.hidden]) {
            Some(plan) => {
                let [row, column] = [0, 1].map(|d| pass.w_hh.layout().strides[d] as i64);
                let matrix = Matrix { data: address(pass.w_hh), term: row, unit: column, output: 0 };
                // SAFETY: row-major arrays of the pass's shapes and types.
                unsafe { pass.launch("recurrence_backward", arrays, matrix, plan) };
            }
            None => backward_by_steps(pass, arrays, &d),
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
    use super::{DType, Limits, Plan, THREADS, pitch};

    const H100: Limits = Limits { multiprocessors: 132, shared_memory: 227 << 10 };

    fn plan(dtype: DType, batch: usize, hidden: usize) -> Option<Plan> {
        Plan::of(H100, dtype, [4, hidden], batch, hidden)
    }

    #[test]
    fn small_states_have_a_block_to_themselves() {
        assert_eq!(plan(DType::F32, 32, 32).map(|p| (p.slices, p.groups, p.rows)), Some((1, 8, 4)));
        assert_eq!(plan(DType::BF16, 32, 128).map(|p| p.slices), Some(1));
    }

    #[test]
    fn large_states_are_cut_and_very_large_ones_do_not_fit() {
        let plan_of_512 = plan(DType::F32, 64, 512).expect("it fits");
        assert!(plan_of_512.slices > 1 && plan_of_512.groups * plan_of_512.rows >= 64, "{plan_of_512:?}");
        assert_eq!(plan(DType::F32, 64, 4096), None);
    }

    #[test]
    fn every_plan_fits_the_card() {
        for (hidden, batch) in (1..1500).step_by(37).flat_map(|hidden| [1, 3, 17, 200].map(|batch| (hidden, batch))) {
            for dtype in [DType::F64, DType::F32, DType::BF16] {
                for (outputs, terms) in [(4, hidden), (1, 4 * hidden)] {
                    let Some(p) = Plan::of(H100, dtype, [outputs, terms], batch, hidden) else { continue };
                    assert!(p.shared <= H100.shared_memory && p.rows * p.units <= THREADS, "{p:?}");
                    assert!(
                        p.rows.is_multiple_of(4) && p.units.is_multiple_of(8) && p.units * p.slices >= hidden,
                        "{p:?}"
                    );
                    assert!(p.slices == 1 || p.slices * p.groups <= H100.multiprocessors, "{p:?}");
                }
            }
        }
    }

    #[test]
    fn two_rows_of_a_tile_lie_in_different_banks() {
        assert_eq!([1, 16, 17, 32, 64, 128, 130].map(pitch), [16, 16, 48, 48, 80, 144, 144]);
    }
}
