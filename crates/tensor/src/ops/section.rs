//! Writing into a section of a tensor: the other direction of a view.

use crate::tensor::same_device;
use crate::{Layout, Shape, Slice, Tensor, ensure};

/// Do no two elements lie in one place?
fn distinct(layout: &Layout) -> bool {
    if layout.numel() == 0 {
        return true;
    }
    let mut steps: Vec<(usize, usize)> = layout
        .shape
        .iter()
        .zip(&layout.strides)
        .filter(|&(&n, _)| n > 1)
        .map(|(&n, &s)| (s.unsigned_abs(), n))
        .collect();
    steps.sort_unstable();
    // Where each step is longer than all the shorter ones together, as in any section by ranges and indices, the places
    // are numerals in a mixed base.
    let (mut nested, mut reach) = (true, 0);
    for &(s, n) in &steps {
        nested &= s > reach;
        reach += (n - 1) * s;
    }
    // Else they have to be looked at: windows may overlap, and interleaved steps need not.
    nested
        || layout.numel() <= reach + 1 && {
            let mut places = vec![0];
            for (s, n) in steps {
                places = places.iter().flat_map(|&p| (0..n).map(move |i| p + i * s)).collect();
            }
            places.sort_unstable();
            places.windows(2).all(|pair| pair[0] != pair[1])
        }
}

impl Tensor {
    /// A copy of this tensor in which the elements that `section` selects are replaced by `src`, which broadcasts to
    /// them and is cast to this dtype.
    ///
    /// ```
    /// use ferrograd_tensor::Tensor;
    /// let x = Tensor::zeros([2, 2]).replace(|x| x.diagonal(), &Tensor::new([1.0, 2.0f32]));
    /// assert_eq!(x.to_vec::<f32>(), [1.0, 0.0, 0.0, 2.0]);
    /// ```
    ///
    /// # Panics
    /// If `section` returns anything but a view in which every element occurs once, or the shapes do not fit.
    #[track_caller]
    pub fn replace(&self, section: impl FnOnce(&Tensor) -> Tensor, src: &Tensor) -> Tensor {
        self.copy().into_replaced(section, src)
    }
    /// [`replace`](Tensor::replace) that consumes the tensor: in place if nobody else holds the storage.
    #[track_caller]
    pub fn into_replaced(self, section: impl FnOnce(&Tensor) -> Tensor, src: &Tensor) -> Tensor {
        const OP: &str = "replace";
        same_device(OP, &[&self, src]);
        let mut out = self;
        out.make_unique();
        let view = section(&out);
        ensure!(view.shares_storage(&out), Value, OP, "the section must be a view of the tensor that it is given");
        let region = view.layout.clone();
        drop(view);
        ensure!(distinct(&region), Value, OP, "the section {} holds an element more than once", region.shape);
        let src = src.to_dtype(out.dtype);
        let src = src.with_layout(src.layout.expand(&region.shape, OP));
        if region.numel() > 0 {
            out.device.backend().write(&mut out, &region, &src);
        }
        out
    }
    /// A copy in which the section [`slice`](Tensor::slice) takes is replaced by `src`, which broadcasts to it.
    #[track_caller]
    pub fn slice_scatter(&self, section: impl AsRef<[Slice]>, src: &Tensor) -> Tensor {
        self.replace(|x| x.slice(section), src)
    }
    /// Zeros of `shape` with this tensor in the place that `section` selects: the adjoint of that view.
    #[track_caller]
    pub fn embed(&self, shape: impl Into<Shape>, section: impl FnOnce(&Tensor) -> Tensor) -> Tensor {
        Tensor::full_on(shape, 0.0, self.dtype, &self.device).into_replaced(section, self)
    }
}
