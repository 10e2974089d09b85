//! Random tensors, and the state of the generator behind them.
//!
//! The generator is Philox 4×32-10, which is counter-based (Salmon et al., "Parallel random numbers: as easy as 1, 2,
//! 3", SC 2011): the state is a seed and the number of the next stream, every operation takes the next stream, and
//! element `i` of its result depends on `(seed, stream, i)` only. So the same program gives the same numbers on every
//! device and on any number of threads.
//!
//! There is one state for the process; [`with_seed`] gives a thread its own for a while.

use crate::backend::Distribution;
use crate::cpu::random::{fill_uniform, u64_at};
use crate::{DType, Device, Shape, Tensor, ensure};
use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;

/// Where the generator stands: all there is to save and restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RngState {
    /// The key.
    pub seed: u64,
    /// The number of the next stream.
    pub offset: u64,
}

/// The process's generator; seeded by the operating system at first use.
static STATE: Mutex<Option<RngState>> = Mutex::new(None);

thread_local! {
    static OVERRIDE: Cell<Option<RngState>> = const { Cell::new(None) };
}

/// Reads and changes the state in force on this thread.
fn with_state<T>(f: impl FnOnce(&mut RngState) -> T) -> T {
    if let Some(mut state) = OVERRIDE.get() {
        let result = f(&mut state);
        OVERRIDE.set(Some(state));
        return result;
    }
    let mut state = STATE.lock().unwrap_or_else(|e| e.into_inner());
    f(state.get_or_insert_with(|| RngState { seed: RandomState::new().hash_one("ferrograd"), offset: 0 }))
}

/// Starts the generator afresh: what follows is the same in every run.
pub fn manual_seed(seed: u64) {
    set_rng_state(RngState { seed, offset: 0 });
}
/// Where the generator stands, for a checkpoint.
pub fn rng_state() -> RngState {
    with_state(|state| *state)
}
/// Goes back to where [`rng_state`] was.
pub fn set_rng_state(new: RngState) {
    with_state(|state| *state = new);
}
/// Takes `streams` streams for an operation's own use: their seed and the number of the first.
pub fn reserve(streams: u64) -> RngState {
    with_state(|state| {
        let taken = *state;
        state.offset = state.offset.wrapping_add(streams);
        taken
    })
}
/// Runs `f` with a generator of its own on this thread, started at `seed`; nothing else notices. Restores the old one
/// also when `f` panics.
///
/// ```
/// use ferrograd_tensor::{Tensor, random::with_seed};
/// let draw = || with_seed(7, || Tensor::rand(3).to_vec::<f32>());
/// assert_eq!(draw(), draw());
/// ```
pub fn with_seed<T>(seed: u64, f: impl FnOnce() -> T) -> T {
    with_rng_state(RngState { seed, offset: 0 }, f)
}
/// [`with_seed`] from any state: to run something again with the numbers it had before.
pub fn with_rng_state<T>(state: RngState, f: impl FnOnce() -> T) -> T {
    struct Restore(Option<RngState>);
    impl Drop for Restore {
        fn drop(&mut self) {
            OVERRIDE.set(self.0);
        }
    }
    let _restore = Restore(OVERRIDE.replace(Some(state)));
    f()
}

#[track_caller]
fn draw(distribution: Distribution, shape: Shape, dtype: DType, device: &Device) -> Tensor {
    let RngState { seed, offset } = reserve(1);
    device.backend().random(distribution, &shape, dtype, seed, offset)
}

#[track_caller]
fn need_float(op: &'static str, dtype: DType) {
    ensure!(dtype.is_float(), DType, op, "only for floats, got {dtype}");
}

impl Tensor {
    /// Uniform on [0, 1), f32 on the default device.
    pub fn rand(shape: impl Into<Shape>) -> Tensor {
        Tensor::rand_on(shape, DType::F32, &Device::default())
    }
    /// Uniform on [0, 1).
    #[track_caller]
    pub fn rand_on(shape: impl Into<Shape>, dtype: DType, device: &Device) -> Tensor {
        need_float("rand", dtype);
        draw(Distribution::Uniform { low: 0.0, high: 1.0 }, shape.into(), dtype, device)
    }
    /// Standard normal, f32 on the default device.
    pub fn randn(shape: impl Into<Shape>) -> Tensor {
        Tensor::randn_on(shape, DType::F32, &Device::default())
    }
    /// Standard normal.
    #[track_caller]
    pub fn randn_on(shape: impl Into<Shape>, dtype: DType, device: &Device) -> Tensor {
        need_float("randn", dtype);
        draw(Distribution::Normal { mean: 0.0, std: 1.0 }, shape.into(), dtype, device)
    }
    /// Uniform on [low, high), f32 on the default device.
    #[track_caller]
    pub fn uniform(shape: impl Into<Shape>, low: f64, high: f64) -> Tensor {
        Tensor::uniform_on(shape, low, high, DType::F32, &Device::default())
    }
    /// Uniform on [low, high).
    ///
    /// # Panics
    /// Unless `low < high`, both finite and not further apart than a float can say.
    #[track_caller]
    pub fn uniform_on(shape: impl Into<Shape>, low: f64, high: f64, dtype: DType, device: &Device) -> Tensor {
        need_float("uniform", dtype);
        ensure!(low < high && (high - low).is_finite(), Value, "uniform", "[{low}, {high}) is no interval");
        draw(Distribution::Uniform { low, high }, shape.into(), dtype, device)
    }
    /// Normal with mean μ and standard deviation σ ≥ 0, f32 on the default device.
    #[track_caller]
    pub fn normal(shape: impl Into<Shape>, mean: f64, std: f64) -> Tensor {
        Tensor::normal_on(shape, mean, std, DType::F32, &Device::default())
    }
    /// Normal with mean μ and standard deviation σ ≥ 0.
    #[track_caller]
    pub fn normal_on(shape: impl Into<Shape>, mean: f64, std: f64, dtype: DType, device: &Device) -> Tensor {
        need_float("normal", dtype);
        ensure!(
            mean.is_finite() && std.is_finite() && std >= 0.0,
            Value,
            "normal",
            "mean {mean} and standard deviation {std} must be finite, the latter not negative"
        );
        draw(Distribution::Normal { mean, std }, shape.into(), dtype, device)
    }
    /// 1 with probability `p`, else 0; f32 on the default device.
    #[track_caller]
    pub fn bernoulli(shape: impl Into<Shape>, p: f64) -> Tensor {
        Tensor::bernoulli_on(shape, p, DType::F32, &Device::default())
    }
    /// 1 (true) with probability `p`, else 0, in any dtype.
    #[track_caller]
    pub fn bernoulli_on(shape: impl Into<Shape>, p: f64, dtype: DType, device: &Device) -> Tensor {
        ensure!((0.0..=1.0).contains(&p), Value, "bernoulli", "probability {p} is not in [0, 1]");
        draw(Distribution::Bernoulli { p }, shape.into(), dtype, device)
    }
    /// Integers uniform on [low, high), i64 on the default device.
    #[track_caller]
    pub fn randint(low: i64, high: i64, shape: impl Into<Shape>) -> Tensor {
        Tensor::randint_on(low, high, shape, DType::I64, &Device::default())
    }
    /// Integers uniform on [low, high), in any dtype but bool.
    ///
    /// # Panics
    /// Unless `low < high` and the dtype is an integer type that holds both `low` and `high − 1`, or a float.
    #[track_caller]
    pub fn randint_on(low: i64, high: i64, shape: impl Into<Shape>, dtype: DType, device: &Device) -> Tensor {
        const OP: &str = "randint";
        ensure!(low < high, Value, OP, "[{low}, {high}) holds no integer");
        ensure!(dtype != DType::Bool, DType, OP, "not for bool (use bernoulli)");
        let range = match dtype {
            DType::I8 => -128..=127,
            DType::U8 => 0..=255,
            DType::I32 => i32::MIN as i64..=i32::MAX as i64,
            _ => i64::MIN..=i64::MAX,
        };
        ensure!(
            range.contains(&low) && range.contains(&(high - 1)),
            Value,
            OP,
            "{dtype} does not hold [{low}, {high})"
        );
        draw(Distribution::Integers { low, high }, shape.into(), dtype, device)
    }
    /// The integers 0 … n − 1 in random order, i64 on the default device.
    pub fn randperm(n: usize) -> Tensor {
        Tensor::randperm_on(n, &Device::default())
    }
    /// The integers 0 … n − 1 in random order, i64: sorted by a random 64-bit key each.
    pub fn randperm_on(n: usize, device: &Device) -> Tensor {
        let RngState { seed, offset } = reserve(1);
        let mut keyed: Vec<(u64, i64)> = (0..n as i64).map(|i| (u64_at(seed, offset, i as u64), i)).collect();
        keyed.sort_unstable();
        Tensor::from_vec(keyed.into_iter().map(|(_, i)| i).collect(), n).to_device(device)
    }

    /// Draws `n` indices with probabilities proportional to the weights along the last dimension: `[…, K]` → `[…, n]`,
    /// i64. With replacement by inverting the distribution function; without, by the `n` smallest of `Eᵢ / wᵢ` with Eᵢ
    /// exponential, which is drawing one after another and taking each out (Efraimidis & Spirakis 2006).
    ///
    /// # Panics
    /// If a weight is negative, infinite or NaN, all weights of a row are 0, or, without replacement, fewer than `n`
    /// are not.
    #[track_caller]
    pub fn multinomial(&self, n: usize, replacement: bool) -> Tensor {
        const OP: &str = "multinomial";
        ensure!(self.rank() >= 1, Shape, OP, "needs at least 1 dimension, got a scalar");
        let classes = self.dim(-1);
        let weights = self.to_f64_vec();
        let rows = self.shape()[..self.rank() - 1].iter().product::<usize>();
        ensure!(classes > 0 || rows == 0, Shape, OP, "no weights to draw from in {}", self.shape());
        let RngState { seed, offset } = reserve(1);
        let per_row = if replacement { n } else { classes };
        let mut u = vec![0f64; rows * per_row];
        fill_uniform(&mut u, seed, offset);
        let mut drawn = Vec::with_capacity(rows * n);
        for row in 0..rows {
            let w = &weights[row * classes..][..classes];
            for (i, &v) in w.iter().enumerate() {
                ensure!(v >= 0.0 && v.is_finite(), Value, OP, "weight {i} of row {row} is {v}, not a number ≥ 0");
            }
            let positive = w.iter().filter(|&&v| v > 0.0).count();
            ensure!(positive > 0, Value, OP, "all {classes} weights of row {row} are 0");
            let u = &u[row * per_row..][..per_row];
            if replacement {
                with_replacement(w, u, &mut drawn);
            } else {
                ensure!(
                    n <= positive,
                    Value,
                    OP,
                    "row {row} has {positive} weights above 0, too few to draw {n} without replacement"
                );
                // 1 − u is in (0, 1], so that the logarithm is finite.
                let mut keyed: Vec<(f64, usize)> =
                    (0..classes).filter(|&i| w[i] > 0.0).map(|i| (-(1.0 - u[i]).ln() / w[i], i)).collect();
                keyed.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                drawn.extend(keyed[..n].iter().map(|&(_, i)| i as i64));
            }
        }
        Tensor::from_vec(drawn, self.shape().with(self.rank() - 1, n)).to_device(&self.device)
    }
}

/// For each u the first class whose cumulative weight exceeds `u Σw`.
fn with_replacement(w: &[f64], u: &[f64], drawn: &mut Vec<i64>) {
    // Scaled by the largest, so that the sum does not overflow.
    let largest = w.iter().copied().fold(0.0, f64::max);
    let mut sum = 0.0;
    let cumulative: Vec<f64> = w
        .iter()
        .map(|v| {
            sum += v / largest;
            sum
        })
        .collect();
    let last = w.iter().rposition(|&v| v > 0.0).unwrap_or(0);
    drawn.extend(u.iter().map(|u| cumulative.partition_point(|&c| c <= u * sum).min(last) as i64));
}
