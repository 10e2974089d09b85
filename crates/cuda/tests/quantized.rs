//! Quantised weights on the card: as on the CPU.
//!
//! They need a card, or the emulator: `cargo xtask test-cuda`.

mod common;
#[path = "../../tensor/tests/layouts/mod.rs"]
mod layouts;

use common::{cuda, is_product};
use ferrograd_tensor::{BlockFormat, DType, Q8_0, QuantizedTensor};
use layouts::Random;

#[test]
fn weights_are_decoded_as_on_the_cpu() {
    let mut random = Random(1);
    for shape in [[0, 32], [1, 32], [7, 96], [33, 1056]] {
        let w = QuantizedTensor::quantize(&random.values(&shape, DType::F32), &Q8_0);
        assert_eq!(w.to_device(&cuda()).dequantize().to_vec::<f32>(), w.dequantize().to_vec::<f32>());
    }
}

#[test]
fn products() {
    let mut random = Random(2);
    for (m, n, k) in
        [(1, 1, 32), (1, 37, 992), (3, 9, 64), (5, 8, 160), (8, 11, 32), (9, 40, 96), (0, 4, 32), (2, 0, 32)]
    {
        for dtype in [DType::F32, DType::BF16] {
            let w = QuantizedTensor::quantize(&random.values(&[n, k], DType::F32), &Q8_0);
            let x = random.strided(&[m, k], dtype);
            let got = x.to_device(&cuda()).matmul_quantized(&w.to_device(&cuda()));
            is_product("matmul_quantized", &got, &x, &w.dequantize().t(), None);
        }
    }
}

/// A format that only the host knows.
#[derive(Debug)]
struct Bytes;

impl BlockFormat for Bytes {
    fn name(&self) -> &'static str {
        "bytes"
    }
    fn block_len(&self) -> usize {
        1
    }
    fn block_bytes(&self) -> usize {
        1
    }
    fn quantize(&self, x: &[f32], out: &mut [u8]) -> Result<(), String> {
        x.iter().zip(out).for_each(|(&x, out)| *out = x as i8 as u8);
        Ok(())
    }
    fn dequantize(&self, blocks: &[u8], out: &mut [f32]) {
        blocks.iter().zip(out).for_each(|(&block, out)| *out = (block as i8).into());
    }
}

#[test]
fn a_format_that_the_card_does_not_know() {
    let w = QuantizedTensor::quantize(&Random(3).values(&[4, 5], DType::F32), &Bytes);
    let there = w.to_device(&cuda());
    let weights = there.dequantize();
    assert_eq!(weights.device(), cuda());
    assert_eq!(weights.to_vec::<f32>(), w.dequantize().to_vec::<f32>());
    let error = layouts::error(|| weights.matmul_quantized(&there));
    assert!(error.starts_with("matmul_quantized: cuda:0 does not know the format bytes"), "{error}");
}
