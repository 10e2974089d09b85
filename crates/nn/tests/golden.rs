//! Every layer and every loss against PyTorch: outputs, the gradient of every parameter and input, and buffers.

#[path = "../../../golden/reader.rs"]
mod golden;

use ferrograd_autograd::ops::RnnNonlinearity;
use ferrograd_autograd::{
    Activation, AttentionOptions, CrossEntropy, GradOptions, Reduction, RotaryPairs, Var, grad_with,
};
use ferrograd_nn::losses::*;
use ferrograd_nn::*;
use ferrograd_tensor::{DType, Tensor};
use golden::Golden;
extern crate ferrograd_nn as ferrograd;
use serde_json::Value;

/// Everything is f64; sums of at most a few hundred terms of order 1, in another order.
const TOLERANCE: f64 = 1e-10;

#[track_caller]
fn close(what: &str, got: &Tensor, expected: &Tensor) {
    assert_eq!(got.shape(), expected.shape(), "{what}");
    let (got, expected) = (got.to_f64_vec(), expected.to_f64_vec());
    for (i, (g, e)) in got.iter().zip(&expected).enumerate() {
        let near = (g - e).abs() <= TOLERANCE * (1.0 + e.abs());
        assert!(near || g == e, "{what}, element {i}: {g}, expected {e}");
    }
}

/// A case of `layers.safetensors`: its configuration and what goes in.
struct Case<'a> {
    file: &'a Golden,
    name: &'a str,
    config: Value,
}
impl Case<'_> {
    fn n(&self, key: &str) -> usize {
        self.config[key].as_u64().unwrap_or_else(|| panic!("{}: no {key}", self.name)) as usize
    }
    fn number(&self, key: &str, default: f64) -> f64 {
        self.config[key].as_f64().unwrap_or(default)
    }
    fn flag(&self, key: &str, default: bool) -> bool {
        self.config[key].as_bool().unwrap_or(default)
    }
    fn pair(&self, key: &str, default: usize) -> [usize; 2] {
        match &self.config[key] {
            Value::Null => [default; 2],
            Value::Array(v) => [v[0].as_u64().unwrap() as usize, v[1].as_u64().unwrap() as usize],
            v => [v.as_u64().unwrap() as usize; 2],
        }
    }
    fn tensor(&self, input: &str) -> Option<Tensor> {
        self.file.get(self.name, &format!("input.{input}"))
    }
    /// Float inputs that get a gradient are leaves.
    fn inputs(&self) -> Vec<(String, Var)> {
        let keys = self.file.keys(self.name, "input.");
        let input = |key: String| {
            let (name, t) = (key["input.".len()..].to_string(), self.file.expect(self.name, &key));
            let leaf = self.file.get(self.name, &format!("grad_input.{name}")).is_some();
            (name, if leaf { Var::leaf(t) } else { Var::constant(t) })
        };
        keys.into_iter().map(input).collect()
    }

    /// Loads the parameters, runs `forward`, and compares all that the file knows. `forward` gives the outputs by name.
    fn check<M: Module>(&self, module: M, forward: impl Fn(&M, &dyn Fn(&str) -> Var) -> Vec<(&'static str, Var)>) {
        let (file, name) = (self.file, self.name);
        let module = module.to_dtype(DType::F64);
        let mut state = StateDict::new();
        for kind in ["param.", "buffer."] {
            for key in file.keys(name, kind) {
                state.insert(&key[kind.len()..], file.expect(name, &key));
            }
        }
        let report = module.load_state_dict(&state, true).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(report.is_clean());
        module.set_training(self.flag("training", true));

        let inputs = self.inputs();
        let outputs = forward(&module, &|key| {
            inputs.iter().find(|(n, _)| n == key).unwrap_or_else(|| panic!("{name}: no input {key}")).1.clone()
        });
        let mut total: Option<Var> = None;
        for (output, y) in &outputs {
            close(&format!("{name}: {output}"), y.tensor(), &file.expect(name, &format!("output.{output}")));
            let key = if outputs.len() == 1 { "grad_output".into() } else { format!("grad_output.{output}") };
            if let Some(g) = file.get(name, &key) {
                let term = (y * &g).sum();
                total = Some(total.map_or(term.clone(), |t| t + &term));
            }
        }
        assert_eq!(file.keys(name, "output.").len(), outputs.len(), "{name}: outputs");
        let grads = total.unwrap_or_else(|| panic!("{name}: nothing to differentiate")).backward();
        for (path, p) in module.named_parameters() {
            let expected = file.expect(name, &format!("grad.{path}"));
            close(&format!("{name}: gradient of {path}"), grads.wrt(&p), &expected);
        }
        for (input, x) in inputs.iter().filter(|(_, x)| x.requires_grad()) {
            let expected = file.expect(name, &format!("grad_input.{input}"));
            close(&format!("{name}: gradient of input {input}"), grads.wrt(x), &expected);
        }
        for (path, b) in module.named_buffers() {
            let expected = file.expect(name, &format!("buffer_after.{path}"));
            assert_eq!(b.tensor().dtype(), expected.dtype(), "{name}: {path}");
            close(&format!("{name}: {path} afterwards"), &b.tensor(), &expected);
        }
    }
    fn simple<L: Layer>(&self, layer: L) {
        self.check(layer, |layer, input| vec![("out", Layer::forward(layer, &input("input")))]);
    }
}

fn run(c: &Case) {
    let out = |y: Var| vec![("out", y)];
    let masks = |attn: &str, padding: &str| {
        let mut masks = AttentionMasks::new();
        if let Some(mask) = c.tensor(attn) {
            masks = masks.attn_mask(mask);
        }
        match c.tensor(padding) {
            Some(mask) => masks.key_padding_mask(&mask),
            None => masks,
        }
    };
    let lengths = c.tensor("lengths").map(|l| l.to_vec::<i64>().into_iter().map(|n| n as usize).collect::<Vec<_>>());
    let lengths = lengths.as_deref();
    let bias = c.flag("bias", true);
    macro_rules! recurrent {
        ($Layer:ident) => {
            $Layer::new(c.n("input_size"), c.n("hidden_size"))
                .num_layers(c.n("num_layers"))
                .bidirectional(c.flag("bidirectional", false))
                .batch_first(c.flag("batch_first", false))
                .bias(bias)
        };
    }
    macro_rules! batch_norm {
        ($Layer:ident) => {
            c.simple(
                $Layer::new(c.n("num_features"))
                    .eps(c.number("eps", 1e-5))
                    .momentum(c.config["momentum"].as_f64())
                    .affine(c.flag("affine", true))
                    .track_running_stats(c.flag("track_running_stats", true)),
            )
        };
    }
    macro_rules! transformer {
        ($Layer:ident) => {
            $Layer::new(c.n("d_model"), c.n("nhead"))
                .dim_feedforward(c.n("dim_feedforward"))
                .dropout(c.number("dropout", 0.1))
                .norm_first(c.flag("norm_first", false))
                .activation(c.config["activation"].as_str().unwrap().parse().unwrap())
        };
    }
    let shape = || c.config["normalized_shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize);
    match c.config["layer"].as_str().unwrap() {
        "Linear" => c.simple(Linear::new(c.n("in_features"), c.n("out_features")).bias(bias)),
        "Embedding" => {
            let layer = Embedding::new(c.n("num_embeddings"), c.n("embedding_dim"));
            let padding = c.config["padding_idx"].as_u64();
            c.simple(if let Some(i) = padding { layer.padding_idx(i as usize) } else { layer })
        }
        "Conv1d" => c.simple(
            Conv1d::new(c.n("in_channels"), c.n("out_channels"), c.n("kernel_size"))
                .stride(c.n("stride"))
                .padding(c.n("padding"))
                .groups(c.n("groups")),
        ),
        "Conv2d" => c.simple(
            Conv2d::new(c.n("in_channels"), c.n("out_channels"), c.pair("kernel_size", 1))
                .stride(c.pair("stride", 1))
                .padding(c.pair("padding", 0))
                .dilation(c.pair("dilation", 1))
                .groups(c.pair("groups", 1)[0])
                .bias(bias),
        ),
        "ConvTranspose2d" => c.simple(
            ConvTranspose2d::new(c.n("in_channels"), c.n("out_channels"), c.pair("kernel_size", 1))
                .stride(c.pair("stride", 1))
                .padding(c.pair("padding", 0))
                .output_padding(c.pair("output_padding", 0))
                .groups(c.pair("groups", 1)[0]),
        ),
        "BatchNorm1d" => batch_norm!(BatchNorm1d),
        "BatchNorm2d" => batch_norm!(BatchNorm2d),
        "LayerNorm" => c.simple(LayerNorm::new(shape().collect::<Vec<_>>()).eps(c.number("eps", 1e-5)).bias(bias)),
        "RMSNorm" => c.simple(RmsNorm::new(shape().collect::<Vec<_>>()).eps(c.number("eps", 1e-5))),
        "GroupNorm" => c.simple(GroupNorm::new(c.n("num_groups"), c.n("num_channels")).eps(c.number("eps", 1e-5))),
        "MultiheadAttention" => {
            let mut layer = MultiHeadAttention::new(c.n("embed_dim"), c.n("num_heads")).bias(bias);
            if !c.config["kdim"].is_null() {
                layer = layer.kdim(c.n("kdim")).vdim(c.n("vdim"));
            }
            let masks = masks("attn_mask", "key_padding_mask");
            c.check(layer, |layer, input| {
                let q = input("query");
                let (k, v) = if c.flag("self_attention", false) {
                    (q.clone(), q.clone())
                } else {
                    (input("key"), input("value"))
                };
                // Both ways to self-attention: one product for all three projections, and one for each.
                if c.flag("self_attention", false) {
                    close(
                        c.name,
                        layer.self_attention(&q, &masks).tensor(),
                        layer.forward(&q, &k, &v, &masks).tensor(),
                    );
                }
                if !c.flag("need_weights", true) {
                    return out(layer.forward(&q, &k, &v, &masks));
                }
                let of = if c.flag("average_attn_weights", true) {
                    AttentionWeights::Averaged
                } else {
                    AttentionWeights::PerHead
                };
                let (y, weights) = layer.forward_with_weights(&q, &k, &v, &masks, of);
                close(c.name, layer.forward(&q, &k, &v, &masks).tensor(), y.tensor());
                vec![("out", y), ("weights", weights)]
            })
        }
        "TransformerEncoderLayer" => {
            let masks = masks("src_mask", "src_key_padding_mask");
            c.check(transformer!(TransformerEncoderLayer), |layer, input| out(layer.forward(&input("src"), &masks)))
        }
        "TransformerDecoderLayer" => {
            let (tgt, memory) =
                (masks("tgt_mask", "tgt_key_padding_mask"), masks("memory_mask", "memory_key_padding_mask"));
            c.check(transformer!(TransformerDecoderLayer), |layer, input| {
                out(layer.forward(&input("tgt"), &input("memory"), &tgt, &memory))
            })
        }
        "LSTM" => c.check(recurrent!(Lstm), |layer, input| {
            let state = c.tensor("h_0").map(|_| (input("h_0"), input("c_0")));
            let (y, (h, c)) = layer.forward_with(&input("input"), state.as_ref().map(|(h, c)| (h, c)), lengths);
            vec![("out", y), ("h_n", h), ("c_n", c)]
        }),
        "GRU" => c.check(recurrent!(Gru), |layer, input| {
            let state = c.tensor("h_0").map(|_| input("h_0"));
            let (y, h) = layer.forward_with(&input("input"), state.as_ref(), lengths);
            vec![("out", y), ("h_n", h)]
        }),
        "RNN" => {
            let relu = c.config["nonlinearity"] == "relu";
            let nonlinearity = if relu { RnnNonlinearity::Relu } else { RnnNonlinearity::Tanh };
            c.check(recurrent!(Rnn).nonlinearity(nonlinearity), |layer, input| {
                let state = c.tensor("h_0").map(|_| input("h_0"));
                let (y, h) = layer.forward_with(&input("input"), state.as_ref(), lengths);
                vec![("out", y), ("h_n", h)]
            })
        }
        other => panic!("{}: no layer for {other}", c.name),
    }
}

#[test]
fn every_layer() {
    let file = Golden::open("layers");
    let cases = file.cases();
    assert!(cases.len() >= 88, "{}", cases.len());
    for name in &cases {
        run(&Case { file: &file, name, config: file.config(name) });
    }
}

#[test]
fn gated_mlp() {
    let file = Golden::open("transformer");
    for (name, activation) in [("gated_mlp_silu", Activation::Silu), ("gated_mlp_gelu_tanh", Activation::GeluTanh)] {
        let case = Case { file: &file, name, config: file.config(name) };
        let layer = GatedMlp::new(case.n("dim"), case.n("hidden_dim")).activation(activation);
        case.simple(layer.bias(case.flag("bias", false)));
    }
}

/// Llama's attention: fewer heads of keys and values than of queries, which are turned by their positions.
#[derive(Module)]
struct LlamaAttention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    rotary: RotaryEmbedding,
    heads: usize,
    kv_heads: usize,
}
impl LlamaAttention {
    fn forward(&self, x: &Var) -> Var {
        let [b, t, c] = x.dims_of("LlamaAttention");
        let split = |y: Var, heads: usize| y.reshape([b, t, heads, c / self.heads]).transpose(1, 2);
        let q = self.rotary.forward(&split(self.q_proj.forward(x), self.heads));
        let k = self.rotary.forward(&split(self.k_proj.forward(x), self.kv_heads));
        let v = split(self.v_proj.forward(x), self.kv_heads);
        let causal = AttentionOptions { causal: true, ..AttentionOptions::default() };
        let y = q.scaled_dot_product_attention(&k, &v, &causal);
        self.o_proj.forward(&y.transpose(1, 2).reshape([b, t, c]))
    }
}

/// `h = x + attention(norm x)`, `y = h + mlp(norm h)`.
#[derive(Module)]
struct LlamaBlock {
    input_layernorm: RmsNorm,
    self_attn: LlamaAttention,
    post_attention_layernorm: RmsNorm,
    mlp: GatedMlp,
}
impl LlamaBlock {
    fn new(case: &Case) -> LlamaBlock {
        let (dim, heads, kv_heads) = (case.n("dim"), case.n("heads"), case.n("kv_heads"));
        let projection = |outputs| Linear::new(dim, outputs).bias(false);
        let norm = || RmsNorm::new(dim).eps(case.number("eps", 0.0));
        LlamaBlock {
            input_layernorm: norm(),
            self_attn: LlamaAttention {
                q_proj: projection(dim),
                k_proj: projection(dim / heads * kv_heads),
                v_proj: projection(dim / heads * kv_heads),
                o_proj: projection(dim),
                rotary: RotaryEmbedding::new(dim / heads, 16),
                heads,
                kv_heads,
            },
            post_attention_layernorm: norm(),
            mlp: GatedMlp::new(dim, case.n("hidden_dim")),
        }
    }
    fn forward(&self, x: &Var) -> Var {
        let attended = self.self_attn.forward(&self.input_layernorm.forward(x));
        let (normed, sum) = self.post_attention_layernorm.forward_add(&attended, x);
        sum + self.mlp.forward(&normed)
    }
}

#[test]
fn llama_block() {
    let file = Golden::open("transformer");
    let case = Case { file: &file, name: "llama_block", config: file.config("llama_block") };
    case.check(LlamaBlock::new(&case), |block, input| vec![("out", block.forward(&input("x")))]);
}

#[test]
fn rotary_embedding() {
    let file = Golden::open("transformer");
    let cases: Vec<String> = file.cases().into_iter().filter(|case| case.starts_with("rope")).collect();
    assert_eq!(cases.len(), 6);
    for case in &cases {
        let (config, positions) = (file.config(case), file.expect(case, "input.positions"));
        let pairs = match config["pairs"].as_str() {
            Some("interleaved") => RotaryPairs::Interleaved,
            _ => RotaryPairs::Halves,
        };
        let layer = RotaryEmbedding::new(config["dim"].as_u64().unwrap() as usize, 2048);
        let layer = layer.base(config["base"].as_f64().unwrap()).pairs(pairs);
        let x = Var::leaf(file.expect(case, "input.x"));
        let y = match positions.rank() {
            1 => layer.forward_from(&x, positions.select(0, 0).item::<i64>() as usize),
            _ => layer.forward_at(&x, &positions),
        };
        close(case, y.tensor(), &file.expect(case, "output.out"));
        let grads = y.backward_from(&file.expect(case, "grad_output"));
        close(case, grads.wrt(&x), &file.expect(case, "grad_input.x"));
    }
}

/// The loss of a case of `ops.safetensors`, if it is one.
fn loss(c: &Case, input: &dyn Fn(&str) -> Var) -> Option<Var> {
    let reduction = match c.config["reduction"].as_str() {
        Some("none") => Reduction::None,
        Some("sum") => Reduction::Sum,
        _ => Reduction::Mean,
    };
    let (weight, ignore_index) = (c.tensor("weight"), c.config["ignore_index"].as_i64().or(Some(-100)));
    let is = |prefix: &str| c.name.starts_with(prefix);
    let xy = || (input("input"), input("target"));
    let pair = || (input("input1"), input("input2"), input("target"));
    let margin = c.number("margin", 0.0);
    Some(if is("mse_") {
        let (x, y) = xy();
        MseLoss { reduction }.loss(&x, y)
    } else if is("l1_") {
        let (x, y) = xy();
        L1Loss { reduction }.loss(&x, y)
    } else if is("smooth_l1_") {
        let (x, y) = xy();
        SmoothL1Loss { beta: c.number("beta", 1.0), reduction }.loss(&x, y)
    } else if is("huber_") {
        let (x, y) = xy();
        HuberLoss { delta: c.number("delta", 1.0), reduction }.loss(&x, y)
    } else if is("bce_logits_") {
        let (x, y) = xy();
        BceWithLogitsLoss { weight, pos_weight: c.tensor("pos_weight"), reduction }.loss(&x, y)
    } else if is("bce_") {
        let (x, y) = xy();
        BceLoss { weight, reduction }.loss(&x, y)
    } else if is("cross_entropy_") {
        let (x, y) = xy();
        let options =
            CrossEntropy { weight, ignore_index, label_smoothing: c.number("label_smoothing", 0.0), reduction };
        match y.dtype().is_int() {
            true => x.cross_entropy(y.tensor(), &options),
            false => x.cross_entropy_probs(y.tensor(), &options),
        }
    } else if is("nll_") {
        let (x, y) = xy();
        NllLoss { weight, ignore_index, reduction }.loss(&x, y)
    } else if is("kl_div_") {
        let (x, y) = xy();
        let reduction = match c.config["reduction"].as_str() {
            Some("batchmean") => KlReduction::BatchMean,
            Some("none") => KlReduction::None,
            Some("sum") => KlReduction::Sum,
            _ => KlReduction::Mean,
        };
        KlDivLoss { log_target: c.flag("log_target", false), reduction }.loss(&x, y)
    } else if is("cosine_embedding_") {
        let (a, b, y) = pair();
        CosineEmbeddingLoss { margin, reduction }.loss(&a, &b, y)
    } else if is("cosine_similarity") {
        cosine_similarity(&input("x1"), &input("x2"), c.n("dim") as isize, 1e-8)
    } else if is("triplet_margin_") {
        let options = TripletMarginLoss { margin, p: c.number("p", 2.0), reduction, ..TripletMarginLoss::default() };
        options.loss(&input("anchor"), &input("positive"), &input("negative"))
    } else if is("hinge_embedding_") {
        let (x, y) = xy();
        HingeEmbeddingLoss { margin, reduction }.loss(&x, y)
    } else if is("margin_ranking_") {
        let (a, b, y) = pair();
        MarginRankingLoss { margin, reduction }.loss(&a, &b, y)
    } else {
        return None;
    })
}

#[test]
fn every_loss() {
    let file = Golden::open("ops");
    let mut seen = 0;
    for name in &file.cases() {
        let c = Case { file: &file, name, config: file.config(name) };
        let inputs = c.inputs();
        let input = |key: &str| inputs.iter().find(|(n, _)| n == key).expect("the input").1.clone();
        let Some(y) = loss(&c, &input) else { continue };
        seen += 1;
        close(name, y.tensor(), &file.expect(name, "output.out"));
        let g = Var::constant(file.expect(name, "grad_output"));
        // Class probabilities are constants in cross_entropy_probs, weights in all losses.
        let differentiable = |n: &str| !(n.ends_with("weight") || name.starts_with("cross_entropy_") && n == "target");
        let leaves: Vec<&(String, Var)> =
            inputs.iter().filter(|(n, x)| x.requires_grad() && differentiable(n)).collect();
        let options = GradOptions { grad_outputs: Some(vec![g]), ..GradOptions::default() };
        let grads = grad_with(&[&y], &leaves.iter().map(|(_, x)| x).collect::<Vec<_>>(), options);
        for ((input, _), grad) in leaves.iter().zip(grads) {
            let expected = file.expect(name, &format!("grad_input.{input}"));
            close(&format!("{name}: gradient of {input}"), grad.tensor(), &expected);
        }
    }
    assert!(seen >= 75, "{seen} losses");
}
