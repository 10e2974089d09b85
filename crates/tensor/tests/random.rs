//! Random tensors: repeatable, of the right distribution, and careful with their arguments.

use ferrograd_tensor::random::{RngState, manual_seed, reserve, rng_state, set_rng_state, with_rng_state, with_seed};
use ferrograd_tensor::{DType, Device, Tensor, catch};
use std::sync::{Mutex, MutexGuard};

/// Tests that touch the process's generator take turns.
fn process_generator() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(|e| e.into_inner())
}

#[test]
fn a_seed_repeats_everything() {
    let _turn = process_generator();
    let draw = || {
        manual_seed(42);
        let x = [Tensor::rand([3, 4]), Tensor::randn(5), Tensor::bernoulli(9, 0.3), Tensor::uniform(3, -2.0, 5.0)];
        let y = [Tensor::randint(-3, 9, 6), Tensor::randperm(7), Tensor::ones(4).multinomial(2, false)];
        (x.map(|x| x.to_vec::<f32>()), y.map(|y| y.to_vec::<i64>()), rng_state())
    };
    let (x, y, state) = draw();
    assert_eq!((x.clone(), y, state), draw());
    assert_eq!(state, RngState { seed: 42, offset: 7 });
    assert_ne!(x[0], Tensor::rand([3, 4]).to_vec::<f32>());
    set_rng_state(RngState { seed: 42, offset: 1 });
    assert_eq!(Tensor::randn(5).to_vec::<f32>(), x[1]);
}

#[test]
fn a_thread_can_have_its_own() {
    let _turn = process_generator();
    manual_seed(1);
    let outside = rng_state();
    let first = with_seed(7, || (Tensor::rand(3).to_vec::<f32>(), rng_state()));
    assert_eq!(first.1, RngState { seed: 7, offset: 1 });
    assert_eq!(rng_state(), outside);
    // Nested, changed inside, and left by a panic.
    let caught = catch(|| {
        with_seed(7, || {
            with_seed(8, || manual_seed(9));
            assert_eq!(rng_state(), RngState { seed: 7, offset: 0 });
            assert_eq!(Tensor::rand(3).to_vec::<f32>(), first.0);
            Tensor::bernoulli(1, 2.0)
        })
    });
    assert!(caught.is_err());
    assert_eq!(rng_state(), outside);
    assert_eq!(with_rng_state(RngState { seed: 7, offset: 0 }, || Tensor::rand(3).to_vec::<f32>()), first.0);
    let other = std::thread::spawn(|| with_seed(7, || Tensor::rand(3).to_vec::<f32>())).join().unwrap();
    assert_eq!(other, first.0);
    assert_eq!(reserve(5), outside);
    assert_eq!(rng_state().offset, outside.offset + 5);
}

/// Element i depends on (seed, stream, i) only: a shorter tensor is the beginning of a longer one.
#[test]
fn elements_depend_on_their_place_alone() {
    for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
        let draws: [fn(usize, DType) -> Tensor; 3] = [
            |n, d| Tensor::uniform_on(n, -1.0, 3.0, d, &Device::default()),
            |n, d| Tensor::normal_on(n, 1.0, 2.0, d, &Device::default()),
            |n, d| Tensor::bernoulli_on(n, 0.4, d, &Device::default()),
        ];
        for draw in draws {
            let long = with_seed(3, || draw(70_000, dtype)).to_f64_vec();
            let short = with_seed(3, || draw(1_003, dtype)).to_f64_vec();
            assert_eq!(short, long[..1_003]);
        }
    }
    let long = with_seed(3, || Tensor::randint(-5, 1000, 50_000)).to_vec::<i64>();
    assert_eq!(with_seed(3, || Tensor::randint(-5, 1000, 11)).to_vec::<i64>(), long[..11]);
}

#[test]
fn distributions() {
    let n = 100_000;
    let sigma = 1.0 / (n as f64).sqrt();
    let moments = |x: &Tensor| {
        let v = x.to_f64_vec();
        let mean = v.iter().sum::<f64>() / n as f64;
        (mean, v.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64)
    };
    for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
        // Five standard errors, and what rounding to the dtype can shift the mean by.
        let slack = |scale: f64| 5.0 * sigma * scale + dtype.epsilon() * scale;
        let (u, z) = with_seed(11, || {
            (
                Tensor::uniform_on(n, -1.0, 3.0, dtype, &Device::default()),
                Tensor::normal_on(n, 0.5, 2.0, dtype, &Device::default()),
            )
        });
        assert!(u.to_f64_vec().iter().all(|v| (-1.0..3.0).contains(v)), "{dtype}");
        let (mean, var) = moments(&u);
        assert!((mean - 1.0).abs() < slack(2.0) && (var - 16.0 / 12.0).abs() < slack(2.0), "{dtype} {mean} {var}");
        let (mean, var) = moments(&z);
        assert!((mean - 0.5).abs() < slack(2.0) && (var - 4.0).abs() < slack(8.0), "{dtype} {mean} {var}");
    }
    for dtype in DType::ALL {
        let x = with_seed(12, || Tensor::bernoulli_on(n, 0.3, dtype, &Device::default()));
        assert_eq!(x.dtype(), dtype);
        assert!((moments(&x).0 - 0.3).abs() < 5.0 * sigma);
    }
    for dtype in [DType::I64, DType::I32, DType::I8, DType::U8, DType::F32] {
        let x = with_seed(13, || Tensor::randint_on(2, 7, n, dtype, &Device::default())).to_f64_vec();
        for k in 2..7 {
            let share = x.iter().filter(|&&v| v == k as f64).count() as f64 / n as f64;
            assert!((share - 0.2).abs() < 5.0 * sigma, "{dtype} {k} {share}");
        }
    }
    let wide = with_seed(14, || Tensor::randint(i64::MIN, i64::MAX, 1000)).to_vec::<i64>();
    assert!(wide.iter().any(|&v| v < i64::MIN / 2) && wide.iter().any(|&v| v > i64::MAX / 2));
    assert!(with_seed(15, || Tensor::bernoulli(1000, 0.0)).to_vec::<f32>().iter().all(|&v| v == 0.0));
    assert!(with_seed(15, || Tensor::bernoulli(1000, 1.0)).to_vec::<f32>().iter().all(|&v| v == 1.0));
    assert_eq!(Tensor::randn([0, 3]).numel(), 0);
}

#[test]
fn permutations() {
    for n in [0, 1, 2, 100] {
        let mut p = with_seed(1, || Tensor::randperm(n)).to_vec::<i64>();
        assert!(n < 100 || p != (0..n as i64).collect::<Vec<_>>());
        p.sort_unstable();
        assert_eq!(p, (0..n as i64).collect::<Vec<_>>());
    }
    // All orders of three, equally often.
    let mut count = std::collections::HashMap::new();
    with_seed(2, || (0..6000).for_each(|_| *count.entry(Tensor::randperm(3).to_vec::<i64>()).or_insert(0) += 1));
    assert_eq!(count.len(), 6);
    assert!(count.values().all(|&c: &i32| (c - 1000).abs() < 150), "{count:?}");
}

#[test]
fn drawing_by_weights() {
    let weights = Tensor::new([[1.0, 0.0, 3.0, 4.0], [0.0, 0.0, 0.0, 2.0]]);
    let n = 20_000;
    let drawn = with_seed(5, || weights.multinomial(n, true));
    assert_eq!(*drawn.shape(), [2, n]);
    let first = drawn.select(0, 0).to_vec::<i64>();
    for (class, p) in [0.125, 0.0, 0.375, 0.5].into_iter().enumerate() {
        let share = first.iter().filter(|&&c| c == class as i64).count() as f64 / n as f64;
        assert!((share - p).abs() < 0.02 && (p > 0.0 || share == 0.0), "{class} {share}");
    }
    assert!(drawn.select(0, 1).to_vec::<i64>().iter().all(|&c| c == 3));

    // Without replacement: all different, never weight 0, the first by its weight, the second by what is left.
    let weights = Tensor::new([1.0, 0.0, 3.0, 4.0]).expand([8000, 4]);
    let pairs = with_seed(6, || weights.multinomial(2, false)).to_vec::<i64>();
    let share = |a: i64, b: i64| pairs.chunks(2).filter(|p| *p == [a, b]).count() as f64 / 8000.0;
    let mut total = 0.0;
    for (a, b, p) in [(0, 2, 0.125 * 3.0 / 7.0), (2, 3, 0.375 * 0.8), (3, 0, 0.5 * 0.25), (3, 2, 0.5 * 0.75)] {
        assert!((share(a, b) - p).abs() < 0.02, "{a} {b} {}", share(a, b));
        total += share(a, b);
    }
    assert!((total + share(0, 3) + share(2, 0) - 1.0).abs() < 1e-9);
    assert_eq!(*Tensor::zeros([0, 3]).multinomial(2, true).shape(), [0, 2]);
    assert_eq!(*Tensor::new([1e308, 1e308]).multinomial(5, true).shape(), [5]);
}

#[test]
fn dropout_is_a_function_of_its_stream() {
    let state = RngState { seed: 4, offset: 9 };
    let n = 50_000;
    for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
        let x = Tensor::full_on(n, 3.0, dtype, &Device::default());
        let y = x.dropout_with(0.25, state).to_f64_vec();
        let kept = with_rng_state(state, || Tensor::bernoulli(n, 0.75)).to_f64_vec();
        assert!(y.iter().zip(&kept).all(|(&y, &k)| y == 4.0 * k));
        let t = Tensor::full_on([n / 2, 2], 3.0, dtype, &Device::default()).t().dropout_with(0.25, state);
        assert_eq!(t.to_f64_vec(), y);
    }
    let x = Tensor::new([f32::NAN; 20]);
    assert_eq!(x.dropout_with(1.0, state).to_vec::<f32>(), [0.0; 20]);
    assert!(x.dropout_with(0.0, state).to_vec::<f32>().iter().all(|v| v.is_nan()));
}

#[test]
fn mistakes() {
    let message = |f: &dyn Fn() -> Tensor| catch(f).unwrap_err().to_string();
    let on = Device::default();
    assert_eq!(message(&|| Tensor::bernoulli(2, 1.5)), "bernoulli: probability 1.5 is not in [0, 1]");
    assert_eq!(message(&|| Tensor::uniform(2, 1.0, 1.0)), "uniform: [1, 1) is no interval");
    assert_eq!(message(&|| Tensor::randn_on(2, DType::I64, &on)), "randn: only for floats, got i64");
    assert_eq!(message(&|| Tensor::randint(3, 3, 2)), "randint: [3, 3) holds no integer");
    assert_eq!(message(&|| Tensor::randint_on(0, 257, 2, DType::U8, &on)), "randint: u8 does not hold [0, 257)");
    assert_eq!(message(&|| Tensor::randint_on(-129, 0, 2, DType::I8, &on)), "randint: i8 does not hold [-129, 0)");
    assert_eq!(
        message(&|| Tensor::normal(2, 0.0, -1.0)),
        "normal: mean 0 and standard deviation -1 must be finite, the latter not negative"
    );
    assert_eq!(
        message(&|| Tensor::new([1.0, -1.0]).multinomial(1, true)),
        "multinomial: weight 1 of row 0 is -1, not a number ≥ 0"
    );
    assert_eq!(
        message(&|| Tensor::new([1.0, f64::NAN]).multinomial(1, true)),
        "multinomial: weight 1 of row 0 is NaN, not a number ≥ 0"
    );
    assert_eq!(message(&|| Tensor::zeros([1, 3]).multinomial(1, true)), "multinomial: all 3 weights of row 0 are 0");
    assert_eq!(
        message(&|| Tensor::new([1.0, 0.0, 2.0]).multinomial(3, false)),
        "multinomial: row 0 has 2 weights above 0, too few to draw 3 without replacement"
    );
    assert_eq!(
        message(&|| Tensor::zeros([2]).dropout_with(-0.5, RngState { seed: 0, offset: 0 })),
        "dropout: probability -0.5 is not in [0, 1]"
    );
}
