//! Random tensors of random layouts: permuted, sliced, flipped and expanded, with empty and single dimensions.

use ferrograd_tensor::{DType, Tensor};

/// A small generator (splitmix64): the same numbers for the same seed.
pub struct Random(pub u64);

impl Random {
    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
    /// Eighths in ±1½: exact in every float type, with ties.
    pub fn values(&mut self, shape: &[usize], dtype: DType) -> Tensor {
        let n: usize = shape.iter().product();
        let signed = !matches!(dtype, DType::U8 | DType::Bool);
        let value =
            |k: usize| if dtype.is_float() { k as f64 / 8.0 - 1.5 } else { k as f64 - 12.0 * signed as u8 as f64 };
        let values: Vec<f64> = (0..n).map(|_| value(self.below(25))).collect();
        Tensor::from_vec(values, shape).to_dtype(dtype)
    }
    /// A tensor of `shape` whose elements lie in memory in any way.
    pub fn strided(&mut self, shape: &[usize], dtype: DType) -> Tensor {
        let rank = shape.len();
        let mut order: Vec<usize> = (0..rank).collect();
        (1..rank).for_each(|i| order.swap(i, self.below(i + 1)));
        let kinds: Vec<usize> = (0..rank).map(|_| self.below(6)).collect();
        // The stored extents: 1 where the dimension is expanded, twice as many where it is sliced.
        let stored = |d: usize| match kinds[d] {
            0 if shape[d] > 0 => 1,
            1 => 2 * shape[d] + 1,
            _ => shape[d],
        };
        let mut x = self.values(&order.iter().map(|&d| stored(d)).collect::<Vec<_>>(), dtype);
        let mut inverse = vec![0; rank];
        order.iter().enumerate().for_each(|(i, &d)| inverse[d] = i);
        x = x.permute_dims(&inverse);
        for d in 0..rank {
            x = match kinds[d] {
                1 => x.slice_dim(d as isize, 1, None, 2),
                2 => x.flip(d),
                _ => x,
            };
        }
        x.expand(shape)
    }
    /// Extents of up to four dimensions, each below `limit`.
    pub fn shape(&mut self, limit: usize) -> Vec<usize> {
        (0..self.below(5)).map(|_| self.below(limit)).collect()
    }
}

/// The multi-index of element `i` in row-major order.
pub fn unravel(mut i: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for d in (0..shape.len()).rev() {
        index[d] = i % shape[d];
        i /= shape[d];
    }
    index
}

/// The place of a multi-index in row-major order.
pub fn ravel(index: &[usize], shape: &[usize]) -> usize {
    index.iter().zip(shape).fold(0, |at, (i, n)| at * n + i)
}

/// The values that each element of a reduction over `dims` is made of, in order.
pub fn groups(x: &Tensor, dims: &[usize]) -> Vec<Vec<f64>> {
    let shape: Vec<usize> = x.dims().iter().enumerate().map(|(d, &n)| if dims.contains(&d) { 1 } else { n }).collect();
    let mut out = vec![Vec::new(); shape.iter().product()];
    for (i, v) in x.to_f64_vec().into_iter().enumerate() {
        let mut index = unravel(i, x.dims());
        dims.iter().for_each(|&d| index[d] = 0);
        out[ravel(&index, &shape)].push(v);
    }
    out
}

/// What this message is said to be.
#[track_caller]
pub fn error<T: std::fmt::Debug, F: FnOnce() -> T>(f: F) -> String {
    ferrograd_tensor::catch(f).unwrap_err().to_string()
}

/// Each test uses the part it needs: none of this is dead code where it is included.
const _: () = {
    let _ = (Random::below, Random::values, Random::strided, Random::shape, unravel, ravel, groups, error::<(), fn()>);
};
