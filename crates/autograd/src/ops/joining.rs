//! Joining, padding and repeating.

use crate::{Function, Saved, Var};
use ferrograd_tensor::ops::{pad, repeat};
use ferrograd_tensor::{DType, PadMode, Shape, Tensor, ensure, fail, pad_pieces, shape::axis};

/// One after another along a dimension: each operand's gradient is its section.
struct Cat(usize);
impl Function for Cat {
    fn name(&self) -> &'static str {
        "cat"
    }
    fn forward(&self, x: &[Tensor], _: &mut Saved) -> Vec<Tensor> {
        vec![Tensor::cat(&x.iter().collect::<Vec<_>>(), self.0 as isize)]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let mut start = 0;
        (0..saved.num_inputs())
            .map(|i| {
                let len = saved.input_shape(i)[self.0];
                start += len;
                let g = g[0].as_ref().filter(|_| saved.needs_grad(i))?;
                Some(g.narrow(self.0 as isize, start - len, len))
            })
            .collect()
    }
}

/// One value around: the gradient is that of the middle.
struct ConstantPad {
    pads: Vec<(isize, isize)>,
    value: f64,
}
impl Function for ConstantPad {
    fn name(&self) -> &'static str {
        "pad"
    }
    fn forward(&self, x: &[Tensor], _: &mut Saved) -> Vec<Tensor> {
        vec![x[0].pad(&self.pads, PadMode::Constant(self.value))]
    }
    fn backward(&self, _: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        // What was added is cut off, and what was cut off is zero.
        let back: Vec<_> = self.pads.iter().map(|&(before, after)| (-before, -after)).collect();
        vec![g[0].as_ref().map(|g| g.pad(&back, PadMode::Constant(0.0)))]
    }
}

impl Var {
    /// The values one after another along `dim`; in all other dimensions they must be equal. dtypes are promoted.
    ///
    /// # Panics
    /// If there are none, or their ranks, other extents or devices differ.
    #[track_caller]
    pub fn cat(vars: &[&Var], dim: isize) -> Var {
        let Some(dtype) = vars.iter().map(|x| x.dtype()).reduce(DType::promote) else {
            fail!(Value, "cat", "needs at least one tensor")
        };
        let dim = axis(dim, vars[0].rank(), "cat");
        let vars: Vec<Var> = vars.iter().map(|x| x.to_dtype(dtype)).collect();
        Cat(dim).apply1(&vars.iter().collect::<Vec<_>>())
    }
    /// The values, all of one shape, along a new dimension `dim` (−1 appends). dtypes are promoted.
    #[track_caller]
    pub fn stack(vars: &[&Var], dim: isize) -> Var {
        ensure!(!vars.is_empty(), Value, "stack", "needs at least one tensor");
        for (i, x) in vars.iter().enumerate() {
            ensure!(
                x.shape() == vars[0].shape(),
                Shape,
                "stack",
                "shapes must be equal: tensor 0 is {}, tensor {i} is {}",
                vars[0].shape(),
                x.shape()
            );
        }
        let dim = axis(dim, vars[0].rank() + 1, "stack") as isize;
        let vars: Vec<Var> = vars.iter().map(|x| x.unsqueeze(dim)).collect();
        Var::cat(&vars.iter().collect::<Vec<_>>(), dim)
    }
    /// Elements added before and after: `pads` are the pairs for the last `pads.len()` dimensions, in their order;
    /// negative numbers cut off instead. See [`Tensor::pad`].
    #[track_caller]
    pub fn pad(&self, pads: &[(isize, isize)], mode: PadMode) -> Var {
        if let PadMode::Constant(value) = mode {
            return ConstantPad { pads: pads.to_vec(), value }.apply1(&[self]);
        }
        let mut x = self.clone();
        for (d, [cut_before, cut_after], add) in pad::plan(self.dims(), pads, mode) {
            if cut_before + cut_after > 0 {
                x = x.narrow(d as isize, cut_before, x.dims()[d] - cut_before - cut_after);
            }
            let (before, after) = pad_pieces!(x, d, add, mode);
            x = Var::cat(&[&before, &x, &after], d as isize);
        }
        x
    }
    /// The value `times[d]` times along each dimension d; with more numbers than dimensions, new leading ones.
    #[track_caller]
    pub fn repeat(&self, times: &[usize]) -> Var {
        let [split, expanded, joined]: [Shape; 3] = repeat::repeat_shapes(self.shape(), times);
        self.reshape(split).expand(expanded).reshape(joined)
    }
    /// The entries of `dim` moved by `shift` places to higher indices; what falls off one end comes in at the other.
    #[track_caller]
    pub fn roll(&self, shift: isize, dim: isize) -> Var {
        let d = axis(dim, self.rank(), "roll");
        let n = self.dims()[d];
        let shift = if n == 0 { 0 } else { shift.rem_euclid(n as isize) as usize };
        if shift == 0 {
            return self.clone();
        }
        let [front, back] = [n - shift, shift];
        match &self.split(&[front, back], d as isize)[..] {
            [front, back] => Var::cat(&[back, front], d as isize),
            _ => unreachable!("split into two gives two"),
        }
    }
}
