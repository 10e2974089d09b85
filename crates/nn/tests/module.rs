//! Names, state, modes and summaries of a derived module.

use ferrograd_nn::{Buffer, Mode, Module, Param};
use ferrograd_tensor::{DType, Tensor};
extern crate ferrograd_nn as ferrograd;

#[derive(Module)]
struct Linear {
    weight: Param,
    bias: Option<Param>,
}
fn linear(i: usize, o: usize) -> Linear {
    Linear { weight: Param::new(Tensor::ones([o, i])), bias: Some(Param::new(Tensor::zeros([o]))) }
}

#[derive(Module)]
struct Net {
    layers: Vec<Linear>,
    running: Buffer,
    mode: Mode,
    width: usize,
    #[module(rename = "final")]
    last: Linear,
    tied: Param,
    #[module(skip)]
    _secret: Vec<String>,
}
fn net() -> Net {
    let last = linear(3, 2);
    Net {
        layers: vec![linear(2, 3), linear(3, 3)],
        running: Buffer::new(Tensor::zeros([4])),
        mode: Mode::new(),
        width: 3,
        tied: last.weight.clone(),
        last,
        _secret: vec![],
    }
}

#[test]
fn names_follow_the_declaration() {
    let net = net();
    let names: Vec<String> = net.state_dict().iter().map(|(n, _)| n.to_string()).collect();
    assert_eq!(
        names,
        [
            "layers.0.weight",
            "layers.0.bias",
            "layers.1.weight",
            "layers.1.bias",
            "running",
            "final.weight",
            "final.bias",
            "tied"
        ]
    );
    assert_eq!(net.num_parameters(), 6 + 3 + 9 + 3 + 6 + 2);
    assert_eq!(net.parameters().len(), 6);
    assert!(net.mode.training() && net.width == 3);
    net.eval();
    assert!(!net.mode.training());
}

#[test]
fn strict_and_lenient_loading() {
    let net = net();
    let mut state = net.state_dict();
    state.insert("layers.0.weight", Tensor::full([3, 2], 7.0).to_dtype(DType::F64));
    assert!(net.load_state_dict(&state, true).unwrap().is_clean());
    assert_eq!(net.layers[0].weight.tensor().to_vec::<f32>(), [7.0; 6]);
    let state = state.rename(|n| (n != "final.weight").then(|| n.replace("layers.1.bias", "layers.9.bias")));
    let mut state = state;
    state.insert("running", Tensor::zeros([5]));
    let error = net.load_state_dict(&state, true).unwrap_err().to_string();
    assert_eq!(
        error,
        "load_state_dict: missing: layers.1.bias; unexpected: layers.9.bias; of another shape: running is [4], the state has [5]"
    );
    let report = net.load_state_dict(&state, false).unwrap();
    assert_eq!(report.missing, ["layers.1.bias"]);
}

#[test]
fn freezing_by_pattern() {
    let net = net();
    assert_eq!(net.freeze("layers.*.weight"), 2);
    assert!(!net.layers[0].weight.requires_grad() && net.layers[0].bias.as_ref().unwrap().requires_grad());
    assert_eq!(net.unfreeze("*"), 7);
}

#[test]
fn summary_counts_tied_once() {
    let text = net().summary();
    assert!(text.contains("layers.0 (Linear)  weight [3, 2], bias [3]"), "{text}");
    assert!(text.contains("Parameters: 29 trainable, 0 frozen; buffers: 4"), "{text}");
}
