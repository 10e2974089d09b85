//! How a recurrent product is divided among blocks: which rows of the batch and which units of the state each has, so that the weights
//! of its units stay on its multiprocessor for all of time.

/// A recurrent product as a kernel makes it, `recurrence_mma.cu` or `recurrence_simt.cu`.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    pub tensor_cores: bool,
    /// Bytes of a number.
    pub size: usize,
    /// Sums for each unit, and terms of each.
    pub outputs: usize,
    pub terms: usize,
}

impl Product {
    pub fn file(self) -> &'static str {
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
    pub fn pitch(self) -> usize {
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
pub struct Plan {
    /// Of a block: rows of the batch, units of the state.
    pub rows: usize,
    pub units: usize,
    pub threads: usize,
    /// Blocks that have the same rows, and sets of rows in a launch.
    pub slices: usize,
    pub groups: usize,
    /// Bytes of shared memory.
    pub shared: usize,
}

/// What a card has.
#[derive(Clone, Copy)]
pub struct Limits {
    pub multiprocessors: usize,
    pub shared_memory: usize,
}

impl Plan {
    /// The cheapest division; none if no part of the matrix fits into a block.
    pub fn of(limits: Limits, product: Product, batch: usize, hidden: usize) -> Option<Plan> {
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
