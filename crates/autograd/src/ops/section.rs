//! Sections: views that hold some of the elements, each once. The gradient is put back into zeros.

use crate::{Function, Saved, Var};
use ferrograd_tensor::{Axes, Shape, Slice, Tensor, shape::axis};

/// Which elements.
#[derive(Clone)]
enum Section {
    Narrow { dim: isize, start: usize, len: usize },
    Select { dim: isize, index: isize },
    Slice(Vec<Slice>),
    Diagonal,
}

impl Section {
    #[track_caller]
    fn of(&self, x: &Tensor) -> Tensor {
        match self {
            Section::Narrow { dim, start, len } => x.narrow(*dim, *start, *len),
            Section::Select { dim, index } => x.select(*dim, *index),
            Section::Slice(slices) => x.slice(slices),
            Section::Diagonal => x.diagonal(),
        }
    }
}

impl Function for Section {
    fn name(&self) -> &'static str {
        match self {
            Section::Narrow { .. } => "narrow",
            Section::Select { .. } => "select",
            Section::Slice(_) => "slice",
            Section::Diagonal => "diagonal",
        }
    }
    fn forward(&self, x: &[Tensor], _: &mut Saved) -> Vec<Tensor> {
        vec![self.of(&x[0])]
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let embed = |g: &Var| Embed { section: self.clone(), shape: saved.input_shape(0).clone() }.apply1(&[g]);
        vec![g[0].as_ref().map(embed)]
    }
}

/// Zeros of a shape with x in a section: the adjoint of taking the section, which is its derivative in turn.
struct Embed {
    section: Section,
    shape: Shape,
}
impl Function for Embed {
    fn name(&self) -> &'static str {
        "embed"
    }
    fn forward(&self, x: &[Tensor], _: &mut Saved) -> Vec<Tensor> {
        vec![x[0].embed(&self.shape, |zeros| self.section.of(zeros))]
    }
    fn backward(&self, _: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        vec![g[0].as_ref().map(|g| self.section.clone().apply1(&[g]))]
    }
}

/// Entries in reverse order: its own derivative.
#[derive(Clone)]
struct Flip(Vec<usize>);
impl Function for Flip {
    fn name(&self) -> &'static str {
        "flip"
    }
    fn forward(&self, x: &[Tensor], _: &mut Saved) -> Vec<Tensor> {
        vec![x[0].flip(&self.0[..])]
    }
    fn backward(&self, _: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        vec![g[0].as_ref().map(|g| self.clone().apply1(&[g]))]
    }
}

/// All of a dimension in consecutive sections; the gradient is theirs joined, in one pass.
struct Split {
    sizes: Vec<usize>,
    dim: usize,
}
impl Function for Split {
    fn name(&self) -> &'static str {
        "split"
    }
    fn forward(&self, x: &[Tensor], _: &mut Saved) -> Vec<Tensor> {
        x[0].split(&self.sizes, self.dim as isize)
    }
    fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        let Some(some) = g.iter().flatten().next() else { return vec![None] };
        let (dtype, device) = (some.dtype(), some.device());
        let zeros = |&size: &usize| {
            let shape = saved.input_shape(0).with(self.dim, size);
            Var::constant(Tensor::full_on(shape, 0.0, dtype, &device))
        };
        let parts: Vec<Var> =
            g.iter().zip(&self.sizes).map(|(g, size)| g.clone().unwrap_or_else(|| zeros(size))).collect();
        vec![Some(Var::cat(&parts.iter().collect::<Vec<_>>(), self.dim as isize))]
    }
}

impl Var {
    /// `len` entries of dimension `dim` from `start`.
    #[track_caller]
    pub fn narrow(&self, dim: isize, start: usize, len: usize) -> Var {
        Section::Narrow { dim, start, len }.apply1(&[self])
    }
    /// Entry `index` (from the end if negative) of dimension `dim`, which disappears.
    #[track_caller]
    pub fn select(&self, dim: isize, index: isize) -> Var {
        Section::Select { dim, index }.apply1(&[self])
    }
    /// A section of several dimensions: `x.slice(s![0, 1..3, .., ..;2])`, see [`Tensor::slice`].
    #[track_caller]
    pub fn slice(&self, section: impl AsRef<[Slice]>) -> Var {
        Section::Slice(section.as_ref().to_vec()).apply1(&[self])
    }
    /// The diagonal of the last two dimensions.
    #[track_caller]
    pub fn diagonal(&self) -> Var {
        Section::Diagonal.apply1(&[self])
    }
    /// The entries along the named dimensions in reverse order.
    #[track_caller]
    pub fn flip(&self, dims: impl Axes) -> Var {
        Flip(dims.resolve(self.rank(), "flip").to_vec()).apply1(&[self])
    }
    /// Sections of dimension `dim` of the given sizes, which must add up.
    #[track_caller]
    pub fn split(&self, sizes: &[usize], dim: isize) -> Vec<Var> {
        let dim = axis(dim, self.rank(), "split");
        Split { sizes: sizes.to_vec(), dim }.apply(&[self])
    }
    /// `n` sections of dimension `dim`, equal but for the last ones, which may be smaller or missing.
    #[track_caller]
    pub fn chunk(&self, n: usize, dim: isize) -> Vec<Var> {
        let sizes: Vec<usize> = self.tensor().chunk(n, dim).iter().map(|x| x.dim(dim)).collect();
        self.split(&sizes, dim)
    }
}
