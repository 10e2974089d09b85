//! Quantised weights against the definition and against their decoded selves.

mod layouts;

use ferrograd_tensor::{BlockFormat, DType, Device, Q8_0, QuantizedTensor, Tensor};
use half::f16;
use layouts::{Random, error};

/// Numbers on ±1 that no format holds exactly, f32.
fn numbers(shape: &[usize], seed: u64) -> Tensor {
    let mut random = Random(seed);
    let n = shape.iter().product();
    Tensor::from_vec((0..n).map(|_| random.below(1 << 20) as f32 / (1 << 19) as f32 - 1.0).collect(), shape)
}

/// The bytes that ggml's reference implementation writes.
#[test]
fn a_block_as_ggml_writes_it() {
    let mut x = [0.0f32; 64];
    (x[0], x[1], x[2], x[31]) = (127.0, -63.5, 0.49, 1.5);
    (x[32], x[63]) = (-2.54, 1.27);
    let w = QuantizedTensor::quantize(&Tensor::from_slice(&x, [1, 64]), &Q8_0);
    let bytes = w.blocks().to_vec::<u8>();
    assert_eq!((w.blocks().dims(), bytes.len()), (&[1, 68][..], 68));
    assert_eq!(bytes[..2], f16::from_f32(1.0).to_le_bytes());
    // Halves go away from zero: −63.5 is −64 and 1.5 is 2.
    assert_eq!([bytes[2], bytes[3], bytes[4], bytes[33]], [127, -64i8 as u8, 0, 2]);
    assert_eq!(bytes[34..36], f16::from_f32(0.02).to_le_bytes());
    assert_eq!([bytes[36], bytes[67]], [-127i8 as u8, 64]);
    let back = QuantizedTensor::from_blocks(w.blocks(), &Q8_0);
    assert_eq!((back.shape(), format!("{back:?}").as_str()), (w.shape(), "QuantizedTensor [1, 64] q8_0 on cpu"));
    assert_eq!(back.dequantize().to_vec::<f32>(), w.dequantize().to_vec::<f32>());
}

#[test]
fn a_weight_is_off_by_half_a_step() {
    let x = numbers(&[37, 96], 1);
    for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
        let x = x.to_dtype(dtype);
        let got = QuantizedTensor::quantize(&x, &Q8_0).dequantize().to_vec::<f32>();
        for (x, got) in x.to_dtype(DType::F32).to_vec::<f32>().chunks(32).zip(got.chunks(32)) {
            let d = x.iter().fold(0f32, |m, x| m.max(x.abs())) / 127.0;
            for (x, got) in x.iter().zip(got) {
                // The last term: the multiplication by 1/d and that by d are rounded.
                let bound = d / 2.0 + x.abs() / 2048.0 + 1e-6;
                assert!((x - got).abs() <= bound, "{x} became {got}, off by more than {bound}");
            }
        }
    }
    // Nothing but zeros, and numbers too small for an f16 scale, are zero.
    for tiny in [0.0, 1e-12] {
        let w = QuantizedTensor::quantize(&Tensor::from_vec(vec![tiny; 32], [1, 32]), &Q8_0);
        assert_eq!(w.dequantize().to_vec::<f32>(), [0.0; 32]);
    }
}

/// Few rows and many, one panel of weights and several, any layout and dtype of the activations.
#[test]
fn products_are_those_of_the_decoded_weights() {
    let check = |x: &Tensor, w: &QuantizedTensor| {
        let y = x.matmul_quantized(w);
        let [n, k] = w.shape().to_vec().try_into().unwrap();
        let lead = &x.dims()[..x.rank() - 1];
        assert_eq!((y.dims(), y.dtype()), (&[lead, &[n]].concat()[..], x.dtype()));
        let (wide, weights) = (x.to_dtype(DType::F64), w.dequantize().to_dtype(DType::F64));
        let want = wide.matmul(&weights.t());
        let size = wide.abs().matmul(&weights.abs().t());
        for ((got, want), size) in y.to_f64_vec().into_iter().zip(want.to_f64_vec()).zip(size.to_f64_vec()) {
            // K + 1 roundings of f32 (x is one, of f64), and one of the result; two more for the scale.
            let bound = (k + 4) as f64 * f32::EPSILON as f64 / 2.0 * size + x.dtype().epsilon() * want.abs();
            assert!((got - want).abs() <= bound, "{} × {w:?} {}: {got}, not {want}", x.shape(), x.dtype());
        }
    };
    for (n, k) in [(1, 32), (7, 64), (16, 96), (33, 512), (65, 1056), (2100, 1056), (5, 70_400)] {
        let w = QuantizedTensor::quantize(&numbers(&[n, k], 3), &Q8_0);
        for m in [1, 2, 3, 4, 5, 7, 17, 33] {
            check(&numbers(&[m, k], 4), &w);
        }
    }
    let w = QuantizedTensor::quantize(&numbers(&[31, 64], 5), &Q8_0);
    for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
        for lead in [&[][..], &[3], &[2, 3], &[3, 1, 5]] {
            check(&Random(6).strided(&[lead, &[64]].concat(), dtype), &w);
        }
    }
    let none = QuantizedTensor::quantize(&Tensor::zeros([0, 64]), &Q8_0);
    assert_eq!(*numbers(&[2, 64], 7).matmul_quantized(&none).shape(), [2, 0]);
    let empty = QuantizedTensor::quantize(&Tensor::zeros([3, 0]), &Q8_0);
    assert_eq!(Tensor::zeros([2, 0]).matmul_quantized(&empty).to_vec::<f32>(), [0.0; 6]);
    assert_eq!(*Tensor::zeros([0, 64]).matmul_quantized(&w).shape(), [0, 31]);
}

#[test]
fn products_do_not_depend_on_the_threads() {
    let w = QuantizedTensor::quantize(&numbers(&[700, 512], 8), &Q8_0);
    for m in [1, 3, 40] {
        let x = numbers(&[m, 512], 9);
        let run = || x.matmul_quantized(&w).to_vec::<f32>();
        let on = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap().install(run);
        assert!(on(1) == on(3), "{m} rows");
    }
}

/// Blocks of three signs: whatever a format says, the products follow, through its default matrix × vector.
#[derive(Debug)]
struct Signs;

impl BlockFormat for Signs {
    fn name(&self) -> &'static str {
        "signs"
    }
    fn block_len(&self) -> usize {
        3
    }
    fn block_bytes(&self) -> usize {
        1
    }
    fn quantize(&self, x: &[f32], out: &mut [u8]) -> Result<(), String> {
        for (x, out) in x.chunks_exact(3).zip(out) {
            *out = x.iter().enumerate().map(|(i, &x)| ((x < 0.0) as u8) << i).sum();
        }
        Ok(())
    }
    fn dequantize(&self, blocks: &[u8], out: &mut [f32]) {
        for (block, out) in blocks.iter().zip(out.chunks_exact_mut(3)) {
            out.iter_mut().enumerate().for_each(|(i, o)| *o = if block >> i & 1 == 1 { -1.0 } else { 1.0 });
        }
    }
}

#[test]
fn a_format_of_ones_own() {
    let w = QuantizedTensor::quantize(&numbers(&[41, 21], 10).to_device(&Device::CPU), &Signs);
    assert_eq!(w.blocks().dims(), [41, 7]);
    for m in [1, 3, 9] {
        // Eighths: the sums are exact.
        let x = Random(11).values(&[m, 21], DType::F32).to_device(&Device::CPU);
        assert_eq!(x.matmul_quantized(&w).to_vec::<f32>(), x.matmul(&w.dequantize().t()).to_vec::<f32>());
    }
}

#[test]
fn mistakes_are_named() {
    let quantize = |x: Tensor| error(move || QuantizedTensor::quantize(&x, &Q8_0));
    assert_eq!(quantize(Tensor::zeros([2, 33])), "quantize: K = 33 of [2, 33] is no multiple of q8_0's block of 32");
    assert_eq!(quantize(Tensor::zeros([32])), "quantize: weights are a matrix [N, K], got [32]");
    assert_eq!(
        quantize(Tensor::zeros([1, 32]).to_dtype(DType::I8)),
        "quantize: needs a float tensor, got i8 (cast with to_dtype)"
    );
    let mut x = vec![0.0f32; 64];
    x[35] = f32::NAN;
    assert_eq!(quantize(Tensor::from_vec(x, [2, 32])), "quantize: NaN at [1, 3]: q8_0 holds finite numbers only");
    assert_eq!(
        quantize(Tensor::from_vec(vec![1e9f32; 32], [1, 32])),
        "quantize: q8_0: a block's largest magnitude is 1e9, beyond 127 × 65504, the largest f16"
    );
    let blocks = |x: Tensor| error(move || QuantizedTensor::from_blocks(&x, &Q8_0));
    assert_eq!(blocks(Tensor::zeros([1, 34])), "from_blocks: blocks are bytes, u8, not f32");
    assert_eq!(
        blocks(Tensor::zeros([1, 35]).to_dtype(DType::U8)),
        "from_blocks: rows of 35 bytes are no whole number of q8_0 blocks of 34: [1, 35]"
    );
    let w = QuantizedTensor::quantize(&Tensor::zeros([4, 32]), &Q8_0);
    assert_eq!(
        error(|| Tensor::zeros([2, 31]).matmul_quantized(&w)),
        "matmul_quantized: the last dimension of the input [2, 31] is not the weight's number of inputs: q8_0 [4, 32] is \
         [N, K = 32]"
    );
    assert_eq!(
        error(|| Tensor::new([1i64; 32]).matmul_quantized(&w)),
        "matmul_quantized: needs a float tensor, got i64 (cast with to_dtype)"
    );
}
