//! General matrix product on the CPU.

/// A matrix inside a slice: element `(i, j)` is `data[offset + i * rs + j * cs]`. Strides may be zero or negative.
#[derive(Clone, Copy)]
pub struct MatRef<'a, T> {
    /// The storage.
    pub data: &'a [T],
    /// Index of element `(0, 0)`.
    pub offset: usize,
    /// Row stride, in elements.
    pub rs: isize,
    /// Column stride, in elements.
    pub cs: isize,
}

impl<'a, T: Copy> MatRef<'a, T> {
    /// A row-major matrix whose rows are `cs` apart by one element and `rs` apart by `cols`.
    pub fn row_major(data: &'a [T], cols: usize) -> Self {
        MatRef { data, offset: 0, rs: cols as isize, cs: 1 }
    }
    /// The same matrix transposed: no data moves.
    pub fn t(self) -> Self {
        MatRef { rs: self.cs, cs: self.rs, ..self }
    }
    /// The matrix whose `(0, 0)` is this one's `(i, j)`.
    pub fn at(self, i: usize, j: usize) -> Self {
        let offset = self.offset as isize + i as isize * self.rs + j as isize * self.cs;
        MatRef { offset: offset as usize, ..self }
    }
    /// Element `(i, j)`.
    #[inline]
    pub fn get(&self, i: usize, j: usize) -> T {
        self.data[(self.offset as isize + i as isize * self.rs + j as isize * self.cs) as usize]
    }
}

/// What a matrix product can be made of.
pub trait GemmElement: Copy + Send + Sync + 'static {
    /// `a · b + c` in this type's accumulator, rounded back (placeholder until the blocked kernels land).
    fn mul_add(a: Self, b: Self, c: Self) -> Self;
    /// Zero.
    const ZERO: Self;
}
impl GemmElement for f32 {
    const ZERO: Self = 0.0;
    fn mul_add(a: Self, b: Self, c: Self) -> Self {
        a * b + c
    }
}
impl GemmElement for f64 {
    const ZERO: Self = 0.0;
    fn mul_add(a: Self, b: Self, c: Self) -> Self {
        a * b + c
    }
}

/// `C = A·B` (or `C += A·B` if `accumulate`), A is `[m, k]`, B is `[k, n]`, C is `[m, n]` with rows `ldc` elements apart.
///
/// `parallel` lets it use the rayon pool; the result does not depend on the number of threads.
pub fn gemm<T: GemmElement>(
    m: usize,
    n: usize,
    k: usize,
    a: MatRef<T>,
    b: MatRef<T>,
    c: &mut [T],
    ldc: usize,
    accumulate: bool,
    parallel: bool,
) {
    let _ = parallel;
    for i in 0..m {
        for j in 0..n {
            let mut s = if accumulate { c[i * ldc + j] } else { T::ZERO };
            for p in 0..k {
                s = T::mul_add(a.get(i, p), b.get(p, j), s);
            }
            c[i * ldc + j] = s;
        }
    }
}
