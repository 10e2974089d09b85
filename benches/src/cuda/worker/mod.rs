//! Ferrograd's cases on a card, in a process that the driver starts.

mod attention;
mod fused;
mod ladder;
mod matmul;
mod rows;
mod shapes;
mod suite;
mod training;
mod work;

use crate::floor::Limits;
use crate::peer::Result;
use crate::records::Record;
use ferrograd::prelude::*;
use shapes::Shapes;
use suite::{Cache, Suite};

/// Times the groups and prints a JSON line for each case.
pub fn run(groups: &[String], only: Option<&str>, seconds: f64, tiny: bool) -> Result<()> {
    let suite = open(only, seconds, tiny)?;
    for name in groups {
        let group = match name.as_str() {
            "matmul" => matmul::matmul,
            "ladder" => ladder::ladder,
            "attention" => attention::attention,
            "layer_norm" => rows::layer_norm,
            "softmax" => rows::softmax,
            "cross_entropy" => rows::cross_entropy,
            "elementwise" => rows::elementwise,
            "rope" => fused::rope,
            "gated" => fused::gated,
            "add_norm" => fused::add_norm,
            "feed_forward" => fused::feed_forward,
            "adamw" => training::adamw,
            "lstm" => training::lstm,
            "gpt2" => training::gpt2,
            other => return Err(format!("no group {other:?}").into()),
        };
        group(&suite);
    }
    match suite.failed.get() {
        0 => Ok(()),
        n => Err(format!("{n} cases failed").into()),
    }
}

/// Prints what the card is, and what ferrograd reaches on it.
pub fn limits(seconds: f64, tiny: bool) -> Result<()> {
    let suite = open(None, seconds, tiny)?;
    let about = format!("ferrograd {} on {}", env!("CARGO_PKG_VERSION"), suite.device.backend().description());
    for record in [Record::About { about }, Record::Limits(measured(&suite))] {
        println!("{}", serde_json::to_string(&record)?);
    }
    Ok(())
}

/// The shortest of all rounds counts: a limit is what can be reached.
fn measured(suite: &Suite) -> Limits {
    let best = |f: &mut dyn FnMut()| suite.rounds(Cache::Cold, f).into_iter().fold(f64::INFINITY, f64::min) / 1e3;
    let n = suite.shapes.product;
    let flops = |dtype: DType| {
        let [a, b] = [(); 2].map(|()| suite.randn([n, n], dtype));
        work::gemm(n, n, n, dtype.is_half()).flops / best(&mut || drop(a.matmul(&b)))
    };
    let copied = suite.randn([suite.shapes.copy_mib << 18], DType::F32);
    let bandwidth = work::elements(DType::F32, 2, 0, copied.numel()).bytes / best(&mut || drop(copied.copy()));
    Limits { flops: flops(DType::F32), bf16_flops: flops(DType::BF16), bandwidth }
}

fn open(only: Option<&str>, seconds: f64, tiny: bool) -> Result<Suite<'_>> {
    let device = Device::cuda(0)?;
    device.make_default();
    manual_seed(0);
    Ok(Suite { device, shapes: Shapes::new(tiny), seconds, only, failed: 0.into() })
}
