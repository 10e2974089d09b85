//! Derivatives of pooling: PyTorch's values, differences to second order.

#[path = "../../../golden/reader.rs"]
mod golden;
mod numeric;

use ferrograd_autograd::*;
use ferrograd_tensor::{Tensor, catch};
use golden::Golden;
use numeric::*;
use serde_json::Value;

fn options(config: &Value) -> Pool2dOptions {
    Pool2dOptions {
        kernel: pair(config, "kernel_size", 0),
        stride: (!config["stride"].is_null()).then(|| pair(config, "stride", 0)),
        padding: pair(config, "padding", 0),
        dilation: pair(config, "dilation", 1),
        ceil_mode: config["ceil_mode"].as_bool().unwrap_or(false),
        count_include_pad: config["count_include_pad"].as_bool().unwrap_or(true),
    }
}

fn one_dimensional(o: Pool2dOptions) -> Pool1dOptions {
    Pool1dOptions {
        kernel: o.kernel[0],
        stride: o.stride.map(|s| s[0]),
        padding: o.padding[0],
        dilation: o.dilation[0],
        ceil_mode: o.ceil_mode,
        count_include_pad: o.count_include_pad,
    }
}

#[test]
fn pytorch() {
    let file = Golden::open("ops");
    let mut seen = 0;
    for case in file.cases().iter().filter(|c| c.contains("_pool")) {
        let (config, x) = (file.config(case), Var::leaf(file.expect(case, "input.input")));
        let size = pair(&config, "output_size", 0);
        let name = case.split_once("d_").map_or(case.clone(), |(name, _)| format!("{name}d"));
        let y = match name.as_str() {
            "max_pool1d" => x.max_pool1d(&one_dimensional(options(&config))),
            "max_pool2d" => x.max_pool2d(&options(&config)),
            "avg_pool1d" => x.avg_pool1d(&one_dimensional(options(&config))),
            "avg_pool2d" => x.avg_pool2d(&options(&config)),
            "adaptive_avg_pool1d" => x.adaptive_avg_pool1d(size[0]),
            "adaptive_avg_pool2d" => x.adaptive_avg_pool2d(size),
            "adaptive_max_pool1d" => x.adaptive_max_pool1d(size[0]),
            "adaptive_max_pool2d" => x.adaptive_max_pool2d(size),
            other => panic!("{other}"),
        };
        assert_close(y.tensor(), &file.expect(case, "output.out"), 1e-14);
        let dx = y.backward_from(&file.expect(case, "grad_output")).wrt(&x).clone();
        assert_close(&dx, &file.expect(case, "grad_input.input"), 1e-14);
        seen += 1;
    }
    assert_eq!(seen, 18);
}

#[test]
fn second_order() {
    let at = [values(&[1, 2, 4, 5], 1)];
    let overlapping =
        Pool2dOptions { kernel: [3, 2], stride: Some([2, 1]), padding: [1, 1], ..Pool2dOptions::default() };
    for options in [overlapping, Pool2dOptions { ceil_mode: true, count_include_pad: false, ..overlapping }] {
        check(|v| v[0].max_pool2d(&options), &at);
        check(|v| v[0].avg_pool2d(&options), &at);
    }
    check(|v| v[0].adaptive_avg_pool2d([3, 2]), &at);
    check(|v| v[0].adaptive_max_pool2d([3, 2]), &at);
    let (at, options) =
        ([values(&[2, 1, 6], 2)], Pool1dOptions { kernel: 3, stride: Some(2), ..Pool1dOptions::default() });
    check(|v| v[0].max_pool1d(&options), &at);
    check(|v| v[0].avg_pool1d(&options), &at);
    check(|v| v[0].adaptive_avg_pool1d(4), &at);
    check(|v| v[0].adaptive_max_pool1d(4), &at);
}

#[test]
fn a_maximum_that_is_used_twice_gets_both_gradients() {
    // Windows of 2 with step 1 over [1, 3, 2]: the 3 is both windows' maximum.
    let x = Var::leaf(Tensor::new([[[1.0f64, 3.0, 2.0]]]));
    let y = x.max_pool1d(&Pool1dOptions { kernel: 2, stride: Some(1), ..Pool1dOptions::default() });
    assert_eq!(y.backward_from(&Tensor::new([[[10.0f64, 1.0]]])).wrt(&x).to_vec::<f64>(), [0.0, 11.0, 0.0]);
}

#[test]
fn messages_name_the_operation_that_was_called() {
    let x = Var::leaf(values(&[1, 2, 3], 1));
    let o = Pool1dOptions { kernel: 4, ..Pool1dOptions::default() };
    for (name, error) in [
        ("max_pool1d", catch(|| x.max_pool1d(&o)).unwrap_err()),
        ("avg_pool1d", catch(|| x.avg_pool1d(&o)).unwrap_err()),
    ] {
        assert!(error.to_string().starts_with(&format!("{name}: the window does not fit")), "{error}");
    }
    assert!(catch(|| x.avg_pool2d(&Pool2dOptions::default())).unwrap_err().to_string().contains("[N, C, H, W]"));
}
