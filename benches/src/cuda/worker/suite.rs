//! How a case is timed on a card; `peers/torch_cuda.py` does the same, step by step.

use super::shapes::Shapes;
use bench_measure::{Rounds, Sample, Work, median};
use ferrograd::cuda::time;
use ferrograd::prelude::*;
use std::cell::Cell;

/// The most rounds of a case, however short.
const MOST: usize = 200;

/// A card, the sizes, and what is to be timed.
pub struct Suite<'a> {
    pub device: Device,
    pub shapes: Shapes,
    /// For each case.
    pub seconds: f64,
    /// The case that this process is for, if not for all of its groups'.
    pub only: Option<&'a str>,
    /// Cases that did not work.
    pub failed: Cell<usize>,
}

/// Does the card's cache matter?
#[derive(Clone, Copy, PartialEq)]
pub enum Cache {
    /// Emptied before each round: a single operation, whose operands come from memory.
    Cold,
    /// As the round before left it: a whole training step, as it is repeated. The host's time counts if the card waits for it.
    AsItIs,
}

impl Suite<'_> {
    /// Times a single operation: what `make` returns, called again and again. It prepares the operands and is only called if the
    /// case is wanted. A failure is reported, and the next case goes on.
    pub fn case<F: FnMut()>(&self, case: &str, work: Work, make: impl FnOnce() -> F) {
        self.timed("ferrograd", case, Some(work), Cache::Cold, make);
    }

    /// The same of a whole training step.
    pub fn step<F: FnMut()>(&self, case: &str, work: Work, make: impl FnOnce() -> F) {
        self.timed("ferrograd", case, Some(work), Cache::AsItIs, make);
    }

    /// The same operation done by another kernel of ours, a step of a ladder.
    pub fn aside<F: FnMut()>(&self, case: &str, kernel: &str, make: impl FnOnce() -> F) {
        self.timed(kernel, case, None, Cache::Cold, make);
    }

    /// The time of a backward pass: the gradients of `Σ y · g` over all `y` that `make` returns, with respect to their inputs.
    pub fn backward<const M: usize, const N: usize>(
        &self,
        case: &str,
        work: Work,
        make: impl FnOnce() -> ([Var; M], [Var; N]),
    ) {
        self.case(case, work, || {
            let (ys, inputs) = make();
            let gs: Vec<Var> = ys.iter().map(|y| Var::from(self.randn(y.shape().clone(), y.dtype()))).collect();
            move || {
                let grad_outputs = Some(gs.clone());
                let options = GradOptions { retain_graph: true, grad_outputs, ..Default::default() };
                drop(grad_with(&ys.each_ref(), &inputs.each_ref(), options));
            }
        });
    }

    fn timed<F: FnMut()>(&self, peer: &str, case: &str, work: Option<Work>, cache: Cache, make: impl FnOnce() -> F) {
        if self.only.is_some_and(|only| only != case) {
            return;
        }
        match catch(|| self.rounds(cache, make())) {
            Ok(times) => {
                let (peer, case, rounds) = (peer.into(), case.into(), Some(Rounds::of(&times)));
                let aside = work.is_none();
                let sample = Sample { case, peer, ms: median(&times), peak_mib: None, work, rounds, aside };
                println!("{}", serde_json::to_string(&sample).expect("a sample is plain data"));
            }
            Err(error) => {
                eprintln!("{case}: {peer}: {error}");
                self.failed.set(self.failed.get() + 1);
            }
        }
    }

    /// Milliseconds of each round. Three calls compile what is needed, three tell how many rounds fit into the time, a fifth of
    /// these again brings the card up to speed; then the rounds follow each other without a pause.
    pub fn rounds(&self, cache: Cache, mut f: impl FnMut()) -> Vec<f64> {
        let flush = || {
            if cache == Cache::Cold {
                drop(Tensor::full_on([self.shapes.flush_mib << 18], 0.0, DType::F32, &self.device));
            }
        };
        (0..3).for_each(|_| f());
        let three = time(&self.device, 1, || (), || (0..3).for_each(|_| (flush(), f()).0))[0];
        let fit = self.seconds * 1e3 / (three / 3.0).max(1e-3);
        let rounds = (fit as usize).clamp(self.shapes.rounds, MOST.max(self.shapes.rounds));
        (0..rounds / 5).for_each(|_| f());
        time(&self.device, rounds, flush, f)
    }

    /// Normal random numbers on the card.
    pub fn randn(&self, shape: impl Into<Shape>, dtype: DType) -> Tensor {
        Tensor::randn_on(shape, dtype, &self.device)
    }

    /// Random integers in `0..high` on the card.
    pub fn randint(&self, high: usize, shape: impl Into<Shape>) -> Tensor {
        Tensor::randint_on(0, high as i64, shape, DType::I64, &self.device)
    }
}
