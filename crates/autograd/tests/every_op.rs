//! Every operation that has a derivative, against finite differences: first and second order, over several layouts.
//!
//! The names are read from the sources, so that a new operation cannot be forgotten: it must appear in `cases` below.

use ferrograd_autograd::*;
use ferrograd_tensor::ops::pad::PadMode;
use ferrograd_tensor::random::{RngState, with_rng_state, with_seed};
use ferrograd_tensor::{DType, Device, Tensor};
use std::collections::BTreeSet;
use std::path::Path;

type Op = Box<dyn Fn(&[Var]) -> Var>;

struct Case {
    op: Op,
    inputs: Vec<Tensor>,
    /// A kink in the derivative (relu networks) or a forward that cannot be smooth: first order only.
    second_order: bool,
}

/// f64 normal numbers, none near 0 or 1 and no two alike, where kinks and ties could be.
fn normal(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    let jitter = Tensor::randn_on([n], DType::F64, &Device::default()).to_vec::<f64>();
    let values = jitter.iter().map(|v| if v.abs() < 0.1 || (v.abs() - 1.0).abs() < 0.05 { v + 0.23 } else { *v });
    Tensor::from_vec(values.collect(), shape)
}
/// f64 numbers in [½, 1½].
fn positive(shape: &[usize]) -> Tensor {
    Tensor::uniform_on(shape, 0.5, 1.5, DType::F64, &Device::default())
}

fn case(inputs: Vec<Tensor>, op: impl Fn(&[Var]) -> Var + 'static) -> Case {
    Case { op: Box::new(op), inputs, second_order: true }
}
fn first_order(inputs: Vec<Tensor>, op: impl Fn(&[Var]) -> Var + 'static) -> Case {
    Case { op: Box::new(op), inputs, second_order: false }
}

fn elementwise() -> Vec<Case> {
    let mut cases = Vec::new();
    macro_rules! unary {
        ($make:ident: $($name:ident)*) => {$( cases.push(case(vec![$make(&[3, 4])], |x| x[0].$name())); )*};
    }
    unary!(normal: sin cos tanh sigmoid erf relu gelu gelu_tanh silu softplus exp expm1 abs square recip sign floor ceil round neg);
    unary!(positive: log log1p sqrt rsqrt);
    cases.push(case(vec![normal(&[3, 4])], |x| x[0].elu(0.7)));
    cases.push(case(vec![normal(&[3, 4])], |x| x[0].leaky_relu(0.2)));
    cases.push(case(vec![normal(&[3, 4])], |x| x[0].clamp(-0.55, 0.65)));
    cases.push(case(vec![normal(&[3, 4])], |x| x[0].powi(3)));
    cases.push(case(vec![positive(&[3, 4])], |x| x[0].powf(1.7)));
    cases.push(case(vec![positive(&[3, 4]), normal(&[4])], |x| x[0].pow(&x[1])));
    // Broadcast against each other, both ways.
    cases.push(case(vec![normal(&[3, 1]), normal(&[2, 1, 4])], |x| {
        (&x[0] + &x[1]) * &x[0] - &x[1] / (&x[0].square() + 1.0)
    }));
    cases.push(case(vec![normal(&[3, 4]), normal(&[4])], |x| x[0].maximum(&x[1]) + x[1].minimum(&x[0]) * &x[0]));
    cases.push(case(vec![positive(&[3]), positive(&[2, 3])], |x| x[0].atan2(&x[1])));
    cases.push(first_order(vec![positive(&[3]) * 3.0, positive(&[2, 3])], |x| x[0].rem(&x[1])));
    cases.push(case(vec![normal(&[3])], |x| (2.0 - &x[0] * 3.0 + 1.0) / 4.0 + 1.0 / (&x[0] + 9.0)));
    let mask = Tensor::new([[true, false, true], [false, false, true]]);
    let m = mask.clone();
    cases.push(case(vec![normal(&[2, 3]), normal(&[3])], move |x| Var::where_(&m, &x[0].exp(), &x[1].square())));
    cases.push(case(vec![normal(&[2, 3])], move |x| x[0].exp().masked_fill(&mask, 2.0)));
    cases.push(case(vec![normal(&[4, 5])], |x| {
        with_rng_state(RngState { seed: 7, offset: 0 }, || x[0].square().dropout(0.4))
    }));
    cases
}

fn views() -> Vec<Case> {
    use ferrograd_tensor::s;
    vec![
        case(vec![normal(&[2, 3, 4])], |x| x[0].reshape([4, 6]).t().square().permute([1, 0])),
        case(vec![normal(&[3, 1, 4])], |x| x[0].squeeze(1).unsqueeze(0).expand([2, 3, 4]).square()),
        case(vec![normal(&[4, 5])], |x| x[0].slice(s![1.., ..;-2]).square() * x[0].narrow(1, 1, 3).narrow(0, 0, 3)),
        case(vec![normal(&[4, 5])], |x| x[0].select(0, -1).exp() + x[0].flip([0, 1]).select(0, 1)),
        case(vec![normal(&[4, 4])], |x| x[0].diagonal().square()),
        case(vec![normal(&[5, 2])], |x| {
            let parts = x[0].split(&[2, 3], 0);
            Var::cat(&[&parts[1].square(), &parts[0]], 0) + Var::stack(&[&x[0].select(1, 0), &x[0].select(1, 1)], 1)
        }),
        case(vec![normal(&[3, 4])], |x| {
            x[0].pad(&[(1, 2), (0, 1)], PadMode::Constant(0.5)).square().sum()
                + x[0].pad(&[(1, 2), (2, 1)], PadMode::Reflect).exp().sum()
        }),
        case(vec![normal(&[3, 4])], |x| x[0].square().tril(0) + x[0].exp().triu(1)),
        case(vec![normal(&[2, 3])], |x| x[0].square().repeat(&[2, 2]).roll(1, 1)),
        first_order(vec![normal(&[2, 3])], |x| x[0].to_dtype(DType::F32).to_dtype(DType::F64) * &x[0]),
        case(vec![normal(&[2, 2])], |x| checkpoint(|x| vec![x[0].exp() * &x[0]], &[&x[0]]).remove(0)),
    ]
}

fn reductions() -> Vec<Case> {
    let index = Tensor::new([[2i64, 0], [1, 1], [0, 2]]);
    let [i1, i2] = [index.clone(), index];
    let rows = Tensor::new([2i64, 0, 2, 3]);
    let [r1, r2, r3] = [rows.clone(), rows.clone(), rows.reshape([2, 2])];
    vec![
        case(vec![normal(&[2, 3, 4])], |x| x[0].square().sum_dims([0, 2]) * x[0].mean_keepdims(1).square().sum()),
        case(vec![normal(&[3, 4])], |x| x[0].prod_dims(1)),
        case(vec![normal(&[3, 4])], |x| x[0].square().max_dims(0) + x[0].square().min_dims(0)),
        case(vec![normal(&[3, 4])], |x| x[0].var_dims(1, 1) + x[0].std_dims(1, 0) + x[0].logsumexp_dims(1)),
        case(vec![normal(&[3, 4])], |x| x[0].norm_dims(2.0, 1) + x[0].norm_dims(3.0, 1) * x[0].norm(1.0)),
        case(vec![normal(&[3, 4])], |x| x[0].cumsum(1).square()),
        case(vec![normal(&[3, 4])], |x| x[0].sort(1, true).0.square()),
        case(vec![normal(&[3, 4])], |x| x[0].topk(2, 1, true).0.square()),
        case(vec![normal(&[3, 4])], |x| x[0].square().max_with_index(1).0 * x[0].square().min_with_index(1).0),
        case(vec![normal(&[3, 3])], move |x| x[0].square().gather(1, &i1)),
        case(vec![normal(&[3, 3]), normal(&[3, 2])], move |x| x[0].scatter_add(1, &i2, &x[1].square()).square()),
        case(vec![normal(&[4, 3])], move |x| x[0].square().index_select(0, &r1)),
        case(vec![normal(&[4, 3]), normal(&[4, 3])], move |x| x[0].index_add(0, &r2, &x[1].square()).square()),
        case(vec![normal(&[4, 3])], move |x| x[0].square().embedding(&r3, None)),
    ]
}

fn products_and_norms() -> Vec<Case> {
    let targets = Tensor::new([1i64, 0, 2]);
    let options = CrossEntropy { label_smoothing: 0.1, ..CrossEntropy::default() };
    let (mean, variance) = (normal(&[3]), positive(&[3]));
    let angles = normal(&[3, 2]);
    let (cos, sin) = (angles.cos(), angles.sin());
    vec![
        case(vec![normal(&[2, 3, 4]), normal(&[4, 2])], |x| x[0].matmul(&x[1]).square()),
        case(vec![normal(&[2, 1, 3]), normal(&[2, 3, 2])], |x| x[0].matmul(&x[1])),
        case(vec![normal(&[2, 3]), normal(&[3, 4])], |x| Var::einsum("ij,jk->ki", &[&x[0], &x[1]])),
        case(vec![normal(&[2, 3]), normal(&[4, 3]), normal(&[4])], |x| x[0].linear(&x[1], Some(&x[2])).tanh()),
        case(vec![normal(&[2, 3]), normal(&[4, 3]), normal(&[2, 4]), normal(&[4])], |x| {
            x[0].feed_forward([&x[1], &x[2]], [Some(&x[3]), None], Activation::Gelu)
        }),
        case(vec![normal(&[3, 4])], |x| x[0].softmax(0) * x[0].log_softmax(1)),
        case(vec![normal(&[2, 3, 4]), normal(&[3, 4]), normal(&[3, 4])], |x| {
            x[0].layer_norm(&[3, 4], Some(&x[1]), Some(&x[2]), 1e-3)
        }),
        case(vec![normal(&[3, 4]), normal(&[4])], |x| x[0].rms_norm(&[4], Some(&x[1]), 1e-3)),
        case(vec![normal(&[3, 4]), normal(&[3, 4]), normal(&[4]), normal(&[4])], |x| {
            let (y, sum) = x[0].add_layer_norm(&x[1], &[4], Some(&x[2]), Some(&x[3]), 1e-3);
            let (z, sum) = y.add_rms_norm(&sum, &[4], Some(&x[2]), 1e-3);
            z * sum
        }),
        case(vec![normal(&[3, 4]), normal(&[3, 4])], |x| {
            let all = Activation::ALL.map(|f| x[0].gated(&x[1], f));
            all.into_iter().reduce(|a, b| a + b).unwrap() + x[0].swiglu(&x[1]) * x[1].geglu(&x[0])
        }),
        case(vec![normal(&[2, 3, 5])], move |x| {
            let [a, b] = [RotaryPairs::Halves, RotaryPairs::Interleaved].map(|p| x[0].rope(&cos, &sin, p).square());
            a + b
        }),
        case(vec![normal(&[2, 4, 3]), normal(&[4]), normal(&[4])], |x| {
            x[0].group_norm(2, Some(&x[1]), Some(&x[2]), 1e-3)
        }),
        case(vec![normal(&[4, 3, 2]), normal(&[3]), normal(&[3])], |x| {
            x[0].batch_norm(Some(&x[1]), Some(&x[2]), 1e-3).0
        }),
        case(vec![normal(&[4, 3]), normal(&[3]), normal(&[3])], move |x| {
            x[0].batch_norm_eval(&mean, &variance, Some(&x[1]), Some(&x[2]), 1e-3).square()
        }),
        case(vec![normal(&[3, 4])], move |x| x[0].cross_entropy(&targets, &options)),
    ]
}

fn convolutions() -> Vec<Case> {
    let conv = Conv2dOptions { stride: [2, 1], padding: [1, 0], ..Conv2dOptions::default() };
    let back = ConvTranspose2dOptions { stride: [2, 1], ..ConvTranspose2dOptions::default() };
    let pool = Pool2dOptions { kernel: [2, 2], stride: Some([1, 1]), ..Pool2dOptions::default() };
    let pool1 = Pool1dOptions { kernel: 2, ..Pool1dOptions::default() };
    vec![
        case(vec![normal(&[1, 2, 4, 3]), normal(&[3, 2, 2, 2]), normal(&[3])], move |x| {
            x[0].conv2d(&x[1], Some(&x[2]), &conv)
        }),
        case(vec![normal(&[1, 2, 5]), normal(&[2, 2, 3])], |x| x[0].conv1d(&x[1], None, &Conv1dOptions::default())),
        case(vec![normal(&[1, 2, 2, 3]), normal(&[2, 2, 2, 2])], move |x| x[0].conv_transpose2d(&x[1], None, &back)),
        case(vec![normal(&[1, 2, 3, 4])], move |x| x[0].max_pool2d(&pool).square()),
        case(vec![normal(&[1, 2, 3, 4])], move |x| x[0].avg_pool2d(&pool).square()),
        case(vec![normal(&[1, 2, 6])], move |x| x[0].max_pool1d(&pool1).square() + x[0].avg_pool1d(&pool1)),
        case(vec![normal(&[1, 2, 5, 4])], |x| {
            x[0].adaptive_avg_pool2d([2, 3]).square() + x[0].adaptive_max_pool2d([2, 3])
        }),
        case(vec![normal(&[1, 2, 5])], |x| x[0].adaptive_avg_pool1d(3).square() + x[0].adaptive_max_pool1d(3)),
        case(vec![normal(&[1, 1, 3, 2])], |x| {
            x[0].interpolate(&[5, 4], Interpolation::Bilinear { align_corners: false }).square()
        }),
        case(vec![normal(&[1, 1, 3, 2])], |x| x[0].interpolate(&[5, 4], Interpolation::Nearest).square()),
    ]
}

fn sequences() -> Vec<Case> {
    // x, w_ih, w_hh, b_ih, b_hh, then the states.
    let inputs = |gates: usize, states: usize| {
        let mut all = vec![normal(&[3, 2, 2]), normal(&[gates * 3, 2]), normal(&[gates * 3, 3])];
        all.extend([normal(&[gates * 3]), normal(&[gates * 3])]);
        all.extend((0..states).map(|_| normal(&[2, 3])));
        all
    };
    fn weights(x: &[Var]) -> LstmWeights<'_> {
        LstmWeights { w_ih: &x[1], w_hh: &x[2], b_ih: Some(&x[3]), b_hh: Some(&x[4]) }
    }
    let options = || SequenceOptions { lengths: Some(vec![3, 2]), ..SequenceOptions::default() };
    let attention = AttentionOptions { causal: true, ..AttentionOptions::default() };
    let [o1, o2, o3, o4] = [options(), options(), options(), options()];
    vec![
        case(inputs(4, 2), move |x| {
            let (hs, h, c) = lstm(&x[0], &weights(x), &x[5], &x[6], &o1);
            hs.sum_dims(0) + h * c
        }),
        case(inputs(3, 1), move |x| {
            let (hs, h) = gru(&x[0], &weights(x), &x[5], &o2);
            hs.sum_dims(0) * h
        }),
        case(inputs(1, 1), move |x| {
            let (hs, h) = rnn(&x[0], &weights(x), &x[5], RnnNonlinearity::Tanh, &o3);
            hs.sum_dims(0) * h
        }),
        first_order(inputs(1, 1), move |x| rnn(&x[0], &weights(x), &x[5], RnnNonlinearity::Relu, &o4).0),
        case(vec![normal(&[1, 2, 3, 2]), normal(&[1, 1, 3, 2]), normal(&[1, 1, 3, 2])], move |x| {
            x[0].scaled_dot_product_attention(&x[1], &x[2], &attention)
        }),
    ]
}

/// The same numbers in row-major order, with the dimensions' strides reversed, and running backwards.
fn layouts(x: &Tensor) -> [Tensor; 3] {
    let reversed: Vec<usize> = (0..x.rank()).rev().collect();
    let columns = x.permute_dims(&reversed).copy().permute_dims(&reversed);
    [x.clone(), columns, x.flip(..).copy().flip(..)]
}

/// The names of all operations in the history of `y`.
fn names(y: &Var, out: &mut BTreeSet<String>) {
    let mut stack: Vec<_> = y.node().cloned().into_iter().collect();
    while let Some(node) = stack.pop() {
        out.insert(node.name().to_string());
        stack.extend(node.parents().cloned());
    }
}

/// The names in the sources: the literals in `fn name` and `op:`, and the rows of the tables of elementwise functions.
fn names_in_sources() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../autograd/src/ops");
    let mut out = BTreeSet::new();
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let literals = |s: &str| s.split('"').skip(1).step_by(2).map(String::from).collect::<Vec<_>>();
        for body in text.split("fn name(&self) -> &'static str {").skip(1) {
            let body = &body[..body.find("\n    }\n").unwrap_or(body.len())];
            out.extend(literals(body));
        }
        for rest in text.split("op: \"").skip(1) {
            out.extend(rest.split('"').next().map(String::from));
        }
        if let Some(table) = text.split("\nunary! {").nth(1) {
            for row in table[..table.find("\n}").unwrap_or(table.len())].lines() {
                let mut words = row.split_whitespace();
                let (first, second) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
                if first.starts_with(char::is_uppercase) && second.contains('(') {
                    out.extend(second.split('(').next().map(String::from));
                }
            }
        }
    }
    out
}

#[test]
fn every_operation_passes_gradcheck() {
    let cases = with_seed(11, || {
        [elementwise(), views(), reductions(), products_and_norms(), convolutions(), sequences()]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
    });
    // A move needs a second device; a plane_gather is the derivative of plane_scatter, itself one of max_pool2d's: the
    // second-order check of max_pool2d goes through it.
    let mut met = BTreeSet::from(["to_device".to_string(), "plane_gather".to_string()]);
    for case in &cases {
        let leaves: Vec<Var> = case.inputs.iter().map(|x| Var::leaf(x.clone())).collect();
        let y = (case.op)(&leaves);
        names(&y, &mut met);
        let mut here = BTreeSet::new();
        names(&y, &mut here);
        let what = || format!("{here:?}");
        for variant in 0..3 {
            let inputs: Vec<Tensor> = case.inputs.iter().map(|x| layouts(x)[variant].clone()).collect();
            // A cast to f32 and back is as coarse as f32.
            let options = match here.contains("to_dtype") {
                true => GradcheckOptions { step: 1e-2, rtol: 1e-4, atol: 1e-4 },
                false => GradcheckOptions::default(),
            };
            gradcheck_with(&case.op, &inputs, options).unwrap_or_else(|e| panic!("{}: {e}", what()));
        }
        if case.second_order {
            // Some operations only appear in derivatives.
            let leaves: Vec<&Var> = leaves.iter().collect();
            let derivative = |y: &Var| {
                let options = GradOptions { create_graph: true, allow_unused: true, ..GradOptions::default() };
                let grads = grad_with(&[y], &leaves, options);
                grads.iter().filter(|g| g.requires_grad()).map(|g| g.square().sum()).reduce(|a, b| a + b)
            };
            derivative(&y.square().sum()).iter().for_each(|d| names(d, &mut met));
            let options = GradcheckOptions { rtol: 1e-3, atol: 1e-5, ..GradcheckOptions::default() };
            gradgradcheck_with(&case.op, &case.inputs, options)
                .unwrap_or_else(|e| panic!("second order of {}: {e}", what()));
        }
    }
    let forgotten: Vec<String> = names_in_sources().difference(&met).cloned().collect();
    assert!(names_in_sources().len() > 80, "the sources could not be read: {:?}", names_in_sources());
    assert!(forgotten.is_empty(), "operations without a case in this test: {forgotten:?}");
}
