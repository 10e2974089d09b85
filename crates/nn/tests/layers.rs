//! Behaviour of layers that no golden value shows: gradients, modes, statistics, messages, printing, training.

use ferrograd_autograd::{GradOptions, Var, autocast, grad, grad_with, gradcheck, no_grad};
use ferrograd_nn::*;
use ferrograd_tensor::random::with_seed;
use ferrograd_tensor::{DType, Tensor, catch};

/// Numbers in (−1, 1) that no ties or kinks come near.
fn numbers(shape: &[usize], seed: u64) -> Tensor {
    with_seed(seed, || Tensor::uniform(shape, -1.0, 1.0))
}
fn constant(shape: &[usize], seed: u64) -> Var {
    Var::constant(numbers(shape, seed))
}

#[test]
fn linear_layer_norm_linear_gives_every_parameter_its_gradient() {
    let model = Sequential::new().add(Linear::new(6, 5)).add(LayerNorm::new(5)).add(Linear::new(5, 3));
    let grads = mse(&model.forward(&constant(&[4, 6], 1)), Tensor::zeros([4, 3])).backward();
    for (name, p) in model.named_parameters() {
        let g = grads.wrt(&p);
        assert_eq!(g.shape(), p.tensor().shape(), "{name}");
        assert!(g.abs().max().item::<f64>() > 1e-6, "{name} has a zero gradient");
    }
    assert_eq!(model.named_parameters().len(), 6);
}

#[test]
fn dropout_in_training_only() {
    let layer = Dropout::new(0.4);
    let x = Var::constant(Tensor::ones([10_000]));
    let y = with_seed(1, || layer.forward(&x)).tensor().to_vec::<f32>();
    let zeros = y.iter().filter(|&&v| v == 0.0).count() as f64 / 1e4;
    assert!((zeros - 0.4).abs() < 0.02, "{zeros}"); // 4 standard errors
    assert!(y.iter().all(|&v| v == 0.0 || (v - 1.0 / 0.6).abs() < 1e-6));
    layer.eval();
    assert_eq!(layer.forward(&x).tensor().to_vec::<f32>(), vec![1.0; 10_000]);

    // Inside composite layers too: in evaluation they are deterministic, in training they are not.
    let transformer = TransformerEncoderLayer::new(8, 2).dim_feedforward(16).dropout(0.5);
    let lstm = Lstm::new(8, 4).num_layers(2).dropout(0.5).recurrent_dropout(0.5);
    let model = Sequential::new().add(transformer).add(lstm);
    let x = constant(&[2, 5, 8], 2);
    let run = || model.forward(&x).tensor().to_vec::<f32>();
    assert_ne!(run(), run());
    model.eval();
    assert_eq!(run(), run());
}

#[test]
fn recurrent_dropout_holds_over_a_sequence() {
    // With recurrent dropout of 1 no state comes back: each step is a first step.
    let lstm = Lstm::new(3, 4).recurrent_dropout(1.0);
    let x = constant(&[2, 5, 3], 3);
    let (y, _) = lstm.forward(&x);
    assert!(y.tensor().is_finite().all().item::<bool>());
    let rnn = Rnn::new(3, 4).recurrent_dropout(1.0);
    let (y, _) = rnn.forward(&x);
    for t in 0..5 {
        let (first, _) = rnn.forward(&x.narrow(1, t, 1));
        assert!(first.tensor().squeeze(1).all_close(&y.tensor().select(1, t as isize), 1e-6, 1e-6));
    }
}

#[test]
fn running_statistics_of_batch_norm() {
    let layer = BatchNorm1d::new(2).momentum(0.1);
    let x = Tensor::new([[1.0, 10.0], [3.0, 10.0], [5.0, 16.0f32]]);
    layer.forward(&Var::constant(x.clone()));
    let (mean, var) = (layer.running_mean().unwrap().tensor(), layer.running_var().unwrap().tensor());
    // 0.9 · 0 + 0.1 · (3, 12); 0.9 · 1 + 0.1 · (4, 12), unbiased.
    assert!(mean.all_close(&Tensor::new([0.3, 1.2f32]), 1e-6, 0.0), "{mean}");
    assert!(var.all_close(&Tensor::new([1.3, 2.1f32]), 1e-6, 0.0), "{var}");
    layer.eval();
    let y = layer.forward(&Var::constant(x)).into_tensor();
    let expected = (1.0 - 0.3) / (1.3f64 + 1e-5).sqrt();
    assert!((y.select(0, 0).select(0, 0).item::<f64>() - expected).abs() < 1e-5);
    assert_eq!(layer.state_dict().get("num_batches_tracked").unwrap().item::<i64>(), 1);
    assert_eq!(layer.running_mean().unwrap().tensor().to_vec::<f32>(), mean.to_vec::<f32>());

    // Cumulative: the mean of all batches.
    let layer = BatchNorm1d::new(1).momentum(None);
    for values in [[1.0, 3.0f32], [5.0, 7.0], [9.0, 11.0]] {
        layer.forward(&Var::constant(Tensor::new(values).reshape([2, 1])));
    }
    assert!((layer.running_mean().unwrap().tensor().item::<f64>() - 6.0).abs() < 1e-5);
    let one = catch(|| layer.forward(&Var::constant(Tensor::zeros([1, 1])))).unwrap_err().to_string();
    assert_eq!(one, "BatchNorm1d: training needs more than one value per channel, got input [1, 1]");
}

#[test]
fn embedding_of_padding() {
    let layer = Embedding::new(4, 3).padding_idx(2);
    assert_eq!(layer.weight.tensor().select(0, 2).to_vec::<f32>(), [0.0; 3]);
    let grads = layer.forward(Tensor::new([[0i64, 2], [2, 3]])).sum().backward();
    let sums = grads.wrt(&layer.weight).sum_dims(1).to_vec::<f32>();
    assert_eq!(sums, [3.0, 0.0, 0.0, 3.0]);
}

#[test]
fn messages() {
    let message = |f: &dyn Fn() -> Var| catch(f).unwrap_err().to_string();
    let x = |shape: &[usize]| Var::constant(Tensor::zeros(shape));
    for (text, f) in [
        (
            "Linear: expected input […, 784], got [2, 10] (Linear(in_features=784, out_features=10, bias=true))",
            &(|| Linear::new(784, 10).forward(&x(&[2, 10]))) as &dyn Fn() -> Var,
        ),
        ("Embedding: expected integers, got [2] of f32 (Embedding(5, 3))", &|| Embedding::new(5, 3).forward(x(&[2]))),
        (
            "Conv2d: expected input [B, 3, H, W], got [2, 4, 8, 8] (Conv2d(3, 6, kernel_size=(3, 3), stride=(1, 1), bias=true))",
            &|| Conv2d::new(3, 6, 3).forward(&x(&[2, 4, 8, 8])),
        ),
        (
            "LayerNorm: expected input […, 5, 6], got [2, 6] (LayerNorm([5, 6], eps=0.00001, elementwise_affine=true))",
            &|| LayerNorm::new([5, 6]).forward(&x(&[2, 6])),
        ),
        (
            "BatchNorm2d: expected input [B, 3, H, W], got [2, 3] (BatchNorm2d(3, eps=0.00001, momentum=0.1, affine=true, \
             track_running_stats=true))",
            &|| BatchNorm2d::new(3).forward(&x(&[2, 3])),
        ),
        ("Lstm: expected input [B, T, 3], got [2, 4] (Lstm(3, 5, batch_first=true))", &|| {
            Lstm::new(3, 5).forward(&x(&[2, 4])).0
        }),
        ("Lstm: the initial state must be [1, 2, 5], got [1, 3, 5]", &|| {
            let state = x(&[1, 3, 5]);
            Lstm::new(3, 5).forward_with(&x(&[2, 4, 3]), Some((&state, &state)), None).0
        }),
        (
            "MultiHeadAttention: expected key [B, T, 8], got [2, 4, 6] (MultiHeadAttention(8, 2, dropout=0, bias=true))",
            &|| {
                MultiHeadAttention::new(8, 2).forward(
                    &x(&[2, 3, 8]),
                    &x(&[2, 4, 6]),
                    &x(&[2, 4, 8]),
                    &AttentionMasks::new(),
                )
            },
        ),
        ("MultiHeadAttention: key_padding_mask must be [2, 3], got [3, 2]", &|| {
            let mask = Tensor::zeros([3, 2]).to_dtype(DType::Bool);
            let masks = AttentionMasks::new().key_padding_mask(&mask);
            MultiHeadAttention::new(8, 2).self_attention(&x(&[2, 3, 8]), &masks)
        }),
        ("mse: input and target must have one shape, got [4, 1] and [4]", &|| mse(&x(&[4, 1]), Tensor::zeros([4]))),
        ("bce: probabilities must be in [0, 1] (for logits, use bce_with_logits)", &|| {
            bce(&Var::constant(Tensor::new([1.5f32])), Tensor::new([1.0f32]))
        }),
        ("nll: a target lies outside 0..3", &|| nll(&x(&[2, 3]), Tensor::new([0i64, 3]))),
        (
            "MaxPool2d: expected input [B, C, H, W], got [2, 3] (MaxPool2d(kernel_size=(2, 2), stride=(2, 2), \
          padding=(0, 0), dilation=(1, 1), ceil_mode=false))",
            &|| MaxPool2d::new(2).forward(&x(&[2, 3])),
        ),
    ] {
        assert_eq!(message(f), text);
    }
    let error = "gelou".parse::<Activation>().unwrap_err().to_string();
    assert!(error.starts_with("activation: `gelou` is none of identity, relu, gelu"), "{error}");
    let error = catch(|| Dropout::new(1.5)).unwrap_err().to_string();
    assert_eq!(error, "Dropout: the dropout probability 1.5 is not in [0, 1]");
    let error = catch(|| MultiHeadAttention::new(10, 3)).unwrap_err().to_string();
    assert_eq!(error, "MultiHeadAttention: 10 features do not divide into 3 heads");
}

#[derive(Module)]
struct Net {
    stem: Linear,
    blocks: Vec<TransformerEncoderLayer>,
    width: usize,
    head: Option<Linear>,
}
extern crate ferrograd_nn as ferrograd;

#[test]
fn printing() {
    assert_eq!(Linear::new(784, 10).bias(false).to_string(), "Linear(in_features=784, out_features=10, bias=false)");
    assert_eq!(Relu.to_string(), "Relu()");
    assert_eq!(format!("{:?}", Gelu::new().tanh(true)), "Gelu(tanh=true)");
    assert_eq!(
        Lstm::new(3, 4).bidirectional(true).last().to_string(),
        "Last(Lstm(3, 4, batch_first=true, bidirectional=true))"
    );
    let model = Sequential::new().add(Linear::new(4, 8)).add(Sequential::new().add(Relu).add(Dropout::new(0.1)));
    assert_eq!(
        model.to_string(),
        "Sequential(\n  (0): Linear(in_features=4, out_features=8, bias=true)\n  (1): Sequential(\n    (0): Relu()\n    \
         (1): Dropout(p=0.1)\n  )\n)"
    );
    let net = Net {
        stem: Linear::new(4, 8),
        blocks: vec![TransformerEncoderLayer::new(8, 2).dim_feedforward(16)],
        width: 8,
        head: None,
    };
    assert!(net.width == 8 && net.head.is_none());
    let text = net.describe();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[..5],
        [
            "Net(",
            "  (stem): Linear(in_features=4, out_features=8, bias=true)",
            "  (blocks): ModuleList(",
            "    (0): TransformerEncoderLayer(norm_first=false",
            "      (self_attn): MultiHeadAttention(8, 2, dropout=0.1, bias=true",
        ]
    );
    assert_eq!(lines[5], "        (out_proj): Linear(in_features=8, out_features=8, bias=true)");
    assert!(text.contains("      (activation): Activation(relu)"), "{text}");
}

#[test]
fn names_are_pytorchs() {
    let names = |m: &dyn Module| m.state_dict().iter().map(|(n, _)| n.to_string()).collect::<Vec<_>>();
    let lstm = Lstm::new(2, 3).num_layers(2).bidirectional(true);
    assert_eq!(names(&lstm)[..5], ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", "weight_ih_l0_reverse"]);
    assert_eq!(names(&lstm).len(), 16);
    assert_eq!(names(&Sequential::new().add(lstm.last()))[0], "0.weight_ih_l0");
    assert_eq!(names(&BatchNorm2d::new(2)), ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]);
    let decoder = TransformerDecoder::new(2, || TransformerDecoderLayer::new(4, 2)).norm(LayerNorm::new(4));
    let names = names(&decoder);
    for name in [
        "layers.1.multihead_attn.in_proj_weight",
        "layers.0.self_attn.out_proj.bias",
        "layers.1.norm3.weight",
        "norm.bias",
    ] {
        assert!(names.iter().any(|n| n == name), "{name} is not among {names:?}");
    }
}

#[test]
fn a_summary_that_fails_leaves_the_model_in_training() {
    let model = Sequential::new().add(Dropout::new(0.5)).add(Linear::new(4, 2));
    let wrong = Tensor::ones([2, 3]);
    assert!(catch(|| model.summary_for(&wrong)).is_err());
    let dropped = model.iter().next().unwrap().forward(&Var::from(Tensor::ones([1000])));
    assert!(dropped.tensor().eq_scalar(0.0).any().item::<bool>());
}

/// Keras's IMDb example in small: embedding, LSTM, one logit. The class is whether token 1 outnumbers token 2.
#[test]
fn keras_style_model_trains() {
    with_seed(7, || {
        let model = Sequential::new()
            .add(Embedding::new(20, 8))
            .add(Lstm::new(8, 8).recurrent_dropout(0.1).last())
            .add(Linear::new(8, 1));
        let tokens = Tensor::randint(0, 20, [32, 6]);
        let labels = tokens.lt_scalar(8.0).to_dtype(DType::F32).sum_dims(1).gt_scalar(2.0).to_dtype(DType::F32);
        let table = model.summary_for(&tokens);
        for line in ["0 (Embedding) [32, 6, 8] 160", "1 (Last) [32, 8] 576", "Parameters: 745 trainable, 0 frozen"] {
            let spaced = table.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(spaced.contains(line), "{table}");
        }
        assert!(model.iter().count() == 3 && !model.is_empty());
        let x = Var::from(&tokens);
        let mut losses = Vec::new();
        for _ in 0..60 {
            let loss = bce_with_logits(&model.forward(&x).squeeze(1), &labels);
            losses.push(loss.item::<f64>());
            let grads = loss.backward();
            for p in model.parameters() {
                p.update(|w| *w = w.sub(&grads.wrt(&p).mul_scalar(1.0)));
            }
        }
        let (first, last) = (losses[0], losses[59]);
        assert!(last < 0.6 * first, "the loss goes from {first} to {last}");
    });
}

#[test]
fn attention_that_sees_nothing_is_zero() {
    let layer = MultiHeadAttention::new(4, 2);
    let x = Var::leaf(numbers(&[2, 3, 4], 4));
    // The second row of the batch is all padding.
    let padding = Tensor::new([[false, false, true], [true, true, true]]);
    let masks = AttentionMasks::new().key_padding_mask(&padding).causal();
    let (y, w) = layer.forward_with_weights(&x, &x, &x, &masks, AttentionWeights::PerHead);
    let bias = layer.out_proj.bias.as_ref().unwrap().tensor();
    assert!(y.tensor().select(0, 1).all_close(&bias.expand([3, 4]), 1e-6, 1e-6));
    let sums = w.tensor().sum_dims(-1);
    assert!(sums.all_close(&Tensor::new([1.0, 0.0f32]).reshape([2, 1, 1]).expand([2, 2, 3]), 1e-6, 1e-6));
    assert!(y.sum().backward().wrt(&x).is_finite().all().item::<bool>());
    // Causal: the first query sees the first key only.
    assert!((w.tensor().select(0, 0).select(0, 0).select(0, 0).select(0, 0).item::<f64>() - 1.0).abs() < 1e-6);
}

#[test]
fn lengths_are_padding_at_the_end() {
    let layer = MultiHeadAttention::new(4, 2);
    let x = Var::leaf(numbers(&[3, 3, 4], 4));
    let padding = Tensor::new([[false, false, true], [false, false, false], [true, true, true]]);
    let lengths = AttentionMasks::new().causal().key_lengths(&Tensor::new([2i64, 3, 0]));
    let padded = AttentionMasks::new().causal().key_padding_mask(&padding);
    let [(y, w, g), (z, v, h)] = [lengths, padded].map(|masks| {
        let (y, w) = layer.forward_with_weights(&x, &x, &x, &masks, AttentionWeights::PerHead);
        let g = layer.self_attention(&x, &masks).square().sum().backward().wrt(&x).clone();
        (y, w, g)
    });
    for (a, b) in [(y.tensor(), z.tensor()), (w.tensor(), v.tensor()), (&g, &h)] {
        assert!(a.all_close(b, 1e-6, 1e-6));
    }
}

#[test]
fn float_masks_have_gradients() {
    let layer = MultiHeadAttention::new(4, 2).to_dtype(DType::F64);
    let inputs = [numbers(&[2, 3, 4], 5).to_dtype(DType::F64), numbers(&[2, 3, 3], 6).to_dtype(DType::F64)];
    let f = |x: &[Var]| layer.self_attention(&x[0], &AttentionMasks::new().causal().attn_mask(x[1].unsqueeze(0)));
    gradcheck(f, &inputs).unwrap();
}

/// `‖∂L/∂x‖²`, the penalty of Gulrajani et al. 2017, differentiated by x: second derivatives through the fused layers.
fn gradient_penalty(forward: impl Fn(&Var) -> Var, x: &Tensor) {
    let penalty = |x: &Var, create_graph: bool| {
        let y = forward(x).tanh().sum();
        let options = GradOptions { create_graph, ..GradOptions::default() };
        grad_with(&[&y], &[x], options)[0].square().sum()
    };
    let leaf = Var::leaf(x.clone());
    let analytic = grad(&penalty(&leaf, true), &[&leaf])[0].tensor().to_vec::<f64>();
    let base = x.to_vec::<f64>();
    let h = 1e-5;
    for k in 0..base.len() {
        let at = |h: f64| {
            let mut bumped = base.clone();
            bumped[k] += h;
            penalty(&Var::leaf(Tensor::from_vec(bumped, x.shape())), false).item::<f64>()
        };
        let numeric = (at(h) - at(-h)) / (2.0 * h);
        let near = (numeric - analytic[k]).abs() <= 1e-6 + 1e-5 * numeric.abs();
        assert!(near, "element {k}: {} by differentiation, {numeric} by differences", analytic[k]);
    }
}

#[test]
fn gradient_penalty_through_lstm_and_attention() {
    let x = numbers(&[2, 3, 4], 8).to_dtype(DType::F64);
    let lstm = with_seed(9, || Lstm::new(4, 3).bidirectional(true)).to_dtype(DType::F64);
    gradient_penalty(|x| lstm.forward(x).0, &x);
    let attention = with_seed(10, || MultiHeadAttention::new(4, 2)).to_dtype(DType::F64);
    gradient_penalty(|x| attention.self_attention(x, &AttentionMasks::new().causal()), &x);
    let block = with_seed(11, || TransformerEncoderLayer::new(4, 2).dim_feedforward(6).dropout(0.0));
    let block = block.activation(Activation::Gelu).to_dtype(DType::F64);
    gradient_penalty(|x| block.forward(x, &AttentionMasks::new()), &x);
}

#[test]
fn activations_by_name() {
    let x = constant(&[7], 12);
    let same = |a: Var, b: Var| assert!(a.tensor().all_close(b.tensor(), 1e-6, 1e-7));
    same(x.activate(Activation::Gelu), Gelu::new().forward(&x));
    same(x.activate("gelu_new".parse().unwrap()), Gelu::new().tanh(true).forward(&x));
    same(Layer::forward(&Activation::Silu, &x), &x * &x.sigmoid());
    same(Softplus::new().beta(2.0).forward(&x), ((&x * 2.0).exp() + 1.0).log() / 2.0);
    same(Softmax::new(0).forward(&x).log(), LogSoftmax::new(0).forward(&x));
    same(Elu::new().alpha(0.5).forward(&x), x.elu(0.5));
    same(LeakyRelu::new().forward(&x), x.leaky_relu(0.01));
}

#[test]
fn pooling_and_convolution_shapes() {
    let shape = |layer: &dyn Layer, x: &[usize]| no_grad(|| layer.forward(&constant(x, 13))).dims().to_vec();
    let image = [2, 4, 9, 8];
    assert_eq!(shape(&MaxPool2d::new(3).stride(2).padding(1), &image), [2, 4, 5, 4]);
    assert_eq!(shape(&AvgPool2d::new([2, 3]).ceil_mode(true), &image), [2, 4, 5, 3]);
    assert_eq!(shape(&AdaptiveAvgPool2d::new(3), &image), [2, 4, 3, 3]);
    assert_eq!(shape(&AdaptiveMaxPool2d::new([1, 2]), &image), [2, 4, 1, 2]);
    assert_eq!(shape(&MaxPool1d::new(2), &[2, 3, 7]), [2, 3, 3]);
    assert_eq!(shape(&AvgPool1d::new(3).stride(1).padding(1), &[2, 3, 7]), [2, 3, 7]);
    assert_eq!(shape(&AdaptiveAvgPool1d::new(1usize), &[2, 3, 7]), [2, 3, 1]);
    assert_eq!(shape(&AdaptiveMaxPool1d::new(4usize), &[2, 3, 7]), [2, 3, 4]);
    assert_eq!(shape(&Conv2d::new(4, 6, [3, 2]).stride([2, 1]).padding(1).groups(2), &image), [2, 6, 5, 9]);
    assert_eq!(shape(&Flatten::new(), &image), [2, 288]);
    assert_eq!(shape(&Flatten::dims(0, 1), &image), [8, 9, 8]);
}

#[test]
fn rotary_embedding_keeps_its_tables_and_says_what_does_not_fit() {
    let layer = RotaryEmbedding::new(4, 6);
    let x = constant(&[2, 3, 6, 5], 31);
    let y = layer.forward(&x);
    // The same from a cache's end on, and at positions of each sequence's own.
    let tail = layer.forward_from(&x.narrow(2, 4, 2), 4);
    assert!(y.narrow(2, 4, 2).tensor().all_close(tail.tensor(), 0.0, 0.0));
    let positions = Tensor::new([[5i64, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5]]);
    let z = layer.forward_at(&x, &positions);
    assert!(z.select(0, 1).tensor().all_close(y.select(0, 1).tensor(), 0.0, 0.0));
    let turned = layer.forward(&x.flip(2)).flip(2);
    assert!(z.select(0, 0).tensor().all_close(turned.select(0, 0).tensor(), 0.0, 0.0));
    // Half types are turned by angles of f32.
    let half = layer.forward(&x.to_dtype(DType::BF16));
    let rounded = layer.forward(&x.to_dtype(DType::BF16).to_dtype(DType::F32)).to_dtype(DType::BF16);
    assert_eq!(half.tensor().to_bytes(), rounded.tensor().to_bytes());
    assert!(layer.state_dict().is_empty());
    assert_eq!(format!("{layer}"), "RotaryEmbedding(4, max_positions=6, pairs=Halves)");

    let message = |f: &dyn Fn() -> Var| catch(|| drop(f())).unwrap_err().to_string();
    assert_eq!(message(&|| layer.forward_from(&x, 3)), "RotaryEmbedding: position 8 is not below 6");
    assert_eq!(
        message(&|| layer.forward(&constant(&[6, 3], 1))),
        "RotaryEmbedding: expected floats […, T, 4 or more], got f32[6, 3]"
    );
    assert_eq!(
        message(&|| layer.forward_at(&x, &positions.narrow(1, 0, 2))),
        "RotaryEmbedding: positions [2, 2] are not [B, T] of x [2, 3, 6, 5]"
    );
    let odd = catch(|| drop(RotaryEmbedding::new(5, 2))).unwrap_err().to_string();
    assert_eq!(odd, "RotaryEmbedding: dim 5 is odd, but features are turned in pairs");
}

#[test]
fn norms_of_sums_are_norms_and_sums() {
    let (x, residual) = (constant(&[2, 3, 4], 41), constant(&[2, 3, 4], 42));
    let (layer, rms) = (LayerNorm::new(4), RmsNorm::new([3, 4]));
    for ((y, sum), norm) in
        [(layer.forward_add(&x, &residual), &layer as &dyn Layer), (rms.forward_add(&x, &residual), &rms as &dyn Layer)]
    {
        assert!(sum.tensor().all_close((&x + &residual).tensor(), 0.0, 0.0));
        assert!(y.tensor().all_close(norm.forward(&sum).tensor(), 1e-6, 1e-6));
    }
    // The epsilon is that of the dtype which the sum has.
    let tiny = Var::constant(Tensor::full([1, 4], 1e-3).to_dtype(DType::BF16));
    let (y, sum) = RmsNorm::new(4).forward_add(&tiny, &tiny.to_dtype(DType::F32));
    assert_eq!(sum.dtype(), DType::F32);
    assert!((y.tensor().to_vec::<f32>()[0] - 0.985).abs() < 0.01);
}

#[test]
fn rms_norm_adds_the_epsilon_of_the_dtype_that_it_computes_in() {
    let norm = RmsNorm::new(4).elementwise_affine(false);
    let x = Var::from(Tensor::full([2, 4], 0.1).to_dtype(DType::BF16));
    let one = |y: Var| y.tensor().to_vec::<f32>()[0];
    let plain = norm.forward(&x).to_dtype(DType::F32);
    assert!((one(plain) - 0.1 / (0.01f32 + 0.0078125).sqrt()).abs() < 0.01);
    let raised = autocast(DType::BF16, || norm.forward(&x)).to_dtype(DType::F32);
    assert!((one(raised) - 1.0).abs() < 0.01);
}
