//! How a tensor looks in print: like NumPy's arrays, abbreviated when large.

use crate::{DType, Tensor};
use std::fmt;

/// More elements than this are abbreviated.
const FULL: usize = 1000;
/// Entries shown at each end of an abbreviated dimension.
const EDGE: usize = 3;

/// How every element of one tensor is written.
enum Format {
    Plain,
    Fixed(usize),
    Scientific(usize),
}

impl Format {
    /// The fewest digits (at most `precision`) that show every value; scientific where the range is wide.
    fn choose(values: &[f64], dtype: DType, precision: usize) -> Format {
        if !dtype.is_float() {
            return Format::Plain;
        }
        let finite = || values.iter().copied().filter(|v| v.is_finite() && *v != 0.0).map(f64::abs);
        let (small, large) = (finite().fold(f64::INFINITY, f64::min), finite().fold(0.0, f64::max));
        let wide = large >= 1e8 || (small < 1e-4 && large > 0.0) || (large / small > 1e3 && small < 1e-3);
        let exact =
            |d: usize| finite().all(|v| format!("{v:.d$}").parse::<f64>().is_ok_and(|w| (w - v).abs() <= v * 1e-7));
        match (wide, (0..=precision).find(|&d| exact(d))) {
            (true, _) => Format::Scientific(precision),
            (false, digits) => Format::Fixed(digits.unwrap_or(precision).max(1)),
        }
    }
    fn write(&self, v: f64, dtype: DType) -> String {
        match self {
            Format::Plain if dtype == DType::Bool => (v != 0.0).to_string(),
            Format::Plain => v.to_string(),
            _ if v.is_nan() => "NaN".into(),
            _ if v.is_infinite() => if v > 0.0 { "inf" } else { "-inf" }.into(),
            Format::Fixed(d) => format!("{v:.d$}"),
            Format::Scientific(d) => format!("{v:.d$e}"),
        }
    }
}

/// The tensor without the middles of its long dimensions.
fn edges(x: &Tensor, abbreviate: bool) -> Tensor {
    let mut out = x.clone();
    if abbreviate {
        for d in 0..x.rank() {
            let n = x.dims()[d];
            if n > 2 * EDGE {
                let ends: Vec<i64> = (0..EDGE).chain(n - EDGE..n).map(|i| i as i64).collect();
                let parts: Vec<Tensor> = ends.iter().map(|&i| out.narrow(d as isize, i as usize, 1)).collect();
                out = join(&parts, d);
            }
        }
    }
    out
}

/// The parts side by side along dimension `d`, on the host.
fn join(parts: &[Tensor], d: usize) -> Tensor {
    let shape = parts[0].shape().with(d, parts.len());
    let size = parts[0].dtype().size();
    let outer: usize = parts[0].dims()[..d].iter().product();
    let bytes: Vec<Vec<u8>> = parts.iter().map(Tensor::to_bytes).collect();
    let run = bytes[0].len().checked_div(outer).unwrap_or(0);
    debug_assert!(run % size == 0);
    let joined: Vec<u8> =
        (0..outer).flat_map(|o| bytes.iter().flat_map(move |b| &b[o * run..(o + 1) * run])).copied().collect();
    Tensor::from_bytes(&joined, shape, parts[0].dtype())
}

impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let abbreviate = self.numel() > FULL;
        let shown = edges(self, abbreviate);
        let values: Vec<f64> = if self.dtype() == DType::I64 { Vec::new() } else { shown.to_f64_vec() };
        let texts: Vec<String> = if self.dtype() == DType::I64 {
            shown.to_vec::<i64>().iter().map(i64::to_string).collect()
        } else {
            let format = Format::choose(&values, self.dtype(), f.precision().unwrap_or(4));
            values.iter().map(|&v| format.write(v, self.dtype())).collect()
        };
        let width = texts.iter().map(String::len).max().unwrap_or(0);
        let full: Vec<usize> = self.dims().to_vec();
        write_level(f, &texts, width, shown.dims(), &full, abbreviate, 1)
    }
}

fn write_level(
    f: &mut fmt::Formatter,
    texts: &[String],
    width: usize,
    shown: &[usize],
    full: &[usize],
    abbreviate: bool,
    depth: usize,
) -> fmt::Result {
    let Some((&n, inner)) = shown.split_first() else { return f.write_str(&texts[0]) };
    let stride: usize = inner.iter().product();
    f.write_str("[")?;
    for i in 0..n {
        if i > 0 {
            match inner.is_empty() {
                true => f.write_str(", ")?,
                false => write!(f, ",{}{:depth$}", "\n".repeat(inner.len().min(2)), "")?,
            }
        }
        if abbreviate && full[0] > 2 * EDGE && i == EDGE {
            match inner.is_empty() {
                true => f.write_str("…, ")?,
                false => write!(f, "…,\n{:depth$}", "")?,
            }
        }
        match inner.is_empty() {
            true => write!(f, "{:>width$}", texts[i])?,
            false => {
                let part = if texts.is_empty() { texts } else { &texts[i * stride..(i + 1) * stride] };
                write_level(f, part, width, inner, &full[1..], abbreviate, depth + 1)?
            }
        }
    }
    f.write_str("]")
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{self}\nTensor {} {} on {}", self.shape(), self.dtype(), self.device())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_like_numpy() {
        assert_eq!(Tensor::new([[1.0, 2.5], [-3.0, 4.0f32]]).to_string(), "[[ 1.0,  2.5],\n [-3.0,  4.0]]");
        assert_eq!(Tensor::new([1i64, 20, 300]).to_string(), "[  1,  20, 300]");
        assert_eq!(Tensor::new([-128i8, 7]).to_string(), "[-128,    7]");
        assert_eq!(Tensor::new([true, false]).to_string(), "[ true, false]");
        assert_eq!(Tensor::scalar(3.0f64).to_string(), "3.0");
        assert_eq!(Tensor::zeros([2, 0]).to_string(), "[[],\n []]");
        assert_eq!(Tensor::new([f32::NAN, f32::INFINITY, 0.5]).to_string(), "[NaN, inf, 0.5]");
        let large = Tensor::arange(0i64, 5000, 1).to_string();
        assert_eq!(large, "[   0,    1,    2, …, 4997, 4998, 4999]");
    }
}
