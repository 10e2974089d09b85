//! CUDA graphs: a captured step makes what the step makes without, bit for bit.
//!
//! They need a card, or the emulator: `cargo xtask test-cuda`.

mod common;

use common::{cuda, there};
use ferrograd_autograd::{AttentionOptions, Var};
use ferrograd_cuda::CudaGraph;
use ferrograd_nn::{BatchNorm1d, Embedding, LayerNorm, Linear, Module, Param, cross_entropy};
use ferrograd_optim::{
    Adadelta, Adagrad, Adam, AdamW, Ema, Lion, Muon, Optimizer, ParamGroup, RmsProp, Sgd, clip_grad_norm,
};
use ferrograd_tensor::random::{rng_state, with_seed};
use ferrograd_tensor::{DType, Device, Tensor, catch};

const B: usize = 2;
const T: usize = 5;
const C: usize = 8;
const V: usize = 11;

/// A language model with every kind of dropout there is, its optimiser and an average of its weights.
struct Training {
    embed: Embedding,
    norm: LayerNorm,
    head: Linear,
    adam: AdamW,
    ema: Ema,
}

impl Training {
    fn new() -> Training {
        let (embed, norm, head) = (Embedding::new(V, C), LayerNorm::new(C), Linear::new(C, V));
        let (embed, norm, head) = (embed.to(&cuda()), norm.to(&cuda()), head.to(&cuda()));
        let plain = [norm.parameters(), head.parameters()].concat();
        let adam = AdamW::new(embed.parameters()).lr(0.05);
        let adam = adam.add_group(ParamGroup::new(plain.clone()).weight_decay(0.0).lr(0.02));
        Training { embed, norm, head, adam, ema: Ema::new(plain, 0.9) }
    }

    /// The loss and the gradient's norm.
    fn step(&mut self, tokens: &Tensor) -> (Tensor, Tensor) {
        let x = self.embed.forward(tokens);
        let heads = x.reshape([B, T, 2, C / 2]).transpose(1, 2);
        let options = AttentionOptions { causal: true, dropout: 0.2, ..AttentionOptions::default() };
        let y = heads.scaled_dot_product_attention(&heads, &heads, &options);
        let noise = Tensor::randn_on([B, T, C], DType::F32, &cuda()) * 0.01;
        let x = &x + &y.transpose(1, 2).reshape([B, T, C]).dropout(0.1) + &Var::constant(noise);
        let logits = self.head.forward(&self.norm.forward(&x)).reshape([B * T, V]);
        let loss = cross_entropy(&logits, tokens.reshape([B * T]));
        let mut grads = loss.backward();
        let norm = clip_grad_norm(&mut grads, &self.adam.parameters(), 0.5, 2.0);
        self.adam.step(&grads);
        self.ema.update();
        (loss.tensor().clone(), norm)
    }

    /// All there is after training.
    fn everything(&self) -> Vec<(String, Vec<f64>)> {
        let mut all: Vec<(String, Vec<f64>)> = Vec::new();
        all.extend(self.adam.state_dict().iter().map(|(name, x)| (name.to_string(), x.to_f64_vec())));
        all.extend(self.ema.state_dict().iter().map(|(name, x)| (name.to_string(), x.to_f64_vec())));
        all.extend(self.adam.parameters().iter().map(|p| ("parameter".to_string(), p.tensor().to_f64_vec())));
        all
    }
}

fn batch(step: i64) -> Tensor {
    let token = |i: usize| (i as i64 * (step + 2)) % V as i64;
    Tensor::from_vec((0..B * T).map(token).collect(), [B, T])
}

/// A learning rate for each step.
fn schedule(adam: &mut AdamW, step: i64) {
    adam.set_option(0, "lr", 0.05 / (step + 1) as f64).unwrap();
    adam.set_option(1, "beta1", 0.9 - 0.1 * step as f64).unwrap();
}

const STEPS: i64 = 5;

fn eager() -> (Vec<f64>, Training) {
    let mut training = Training::new();
    let mut seen = Vec::new();
    for step in 0..STEPS {
        schedule(&mut training.adam, step);
        let (loss, norm) = training.step(&there(&batch(step)));
        seen.extend([loss.item::<f64>(), norm.item::<f64>()]);
    }
    (seen, training)
}

fn graphed() -> (Vec<f64>, Training) {
    let mut training = Training::new();
    schedule(&mut training.adam, 0);
    let mut seen = vec![training.step(&there(&batch(0)))];
    schedule(&mut training.adam, 1);
    let (mut graph, first) = CudaGraph::capture(&cuda(), &[&batch(1)], |x| training.step(&x[0])).unwrap();
    seen.push(first);
    for step in 2..STEPS {
        schedule(&mut training.adam, step);
        // From the host and from the card.
        let tokens = if step % 2 == 0 { batch(step) } else { there(&batch(step)) };
        seen.push(graph.replay(&[&tokens]));
    }
    // What was returned earlier is a value like any other: later replays have left it alone.
    (seen.iter().flat_map(|(loss, norm)| [loss.item::<f64>(), norm.item::<f64>()]).collect(), training)
}

#[test]
fn a_captured_training_step_is_the_step() {
    let (want, trained) = with_seed(3, || (eager(), rng_state()));
    let (got, replayed) = with_seed(3, || (graphed(), rng_state()));
    assert_eq!(got.0, want.0);
    assert_eq!(replayed, trained, "the random generator");
    for ((name, got), (_, want)) in got.1.everything().iter().zip(want.1.everything()) {
        assert_eq!(*got, want, "{name}");
    }
}

/// Optimisers whose numbers change from step to step, of two matrices, one a half type.
fn optimizers(params: &[Param]) -> Vec<Box<dyn Optimizer>> {
    let p = || params.to_vec();
    vec![
        Box::new(Sgd::new(p()).lr(0.1).momentum(0.9).nesterov(true)),
        Box::new(Adam::new(p()).lr(0.1).amsgrad(true)),
        Box::new(Adagrad::new(p()).lr(0.1).lr_decay(0.1)),
        Box::new(RmsProp::new(p()).lr(0.1).centered(true)),
        Box::new(Adadelta::new(p()).lr(0.1)),
        Box::new(Lion::new(p()).lr(0.1)),
        Box::new(Muon::new(p()).lr(0.1)),
        Box::new(Muon::new(p()).lr(0.1).momentum(0.5).nesterov(false)),
    ]
}

fn parameters() -> Vec<Param> {
    let make = |shape: [usize; 2], dtype| Param::new(there(&Tensor::randn(shape).to_dtype(dtype)));
    with_seed(1, || vec![make([3, 4], DType::F32), make([5, 2], DType::BF16), make([0, 2], DType::F32)])
}

/// A step towards x.
fn pull(params: &[Param], optimizer: &mut dyn Optimizer, x: &Tensor) -> Tensor {
    let away = |p: &Param| (p.var() - Var::constant(x.clone())).square().sum().to_dtype(DType::F32);
    let loss = away(&params[0]) + away(&params[1]) + away(&params[2]);
    optimizer.step(&loss.backward());
    loss.tensor().clone()
}

#[test]
fn every_optimizer_can_be_captured() {
    for which in 0..optimizers(&parameters()).len() {
        let x = |step: usize| there(&Tensor::full((), step as f64));
        let run = |graphed: bool| {
            let params = parameters();
            let mut optimizer = optimizers(&params).swap_remove(which);
            let mut losses = vec![pull(&params, &mut *optimizer, &x(0))];
            if graphed {
                let step = |x: &[Tensor]| pull(&params, &mut *optimizer, &x[0]);
                let (mut graph, loss) = CudaGraph::capture(&cuda(), &[&x(1)], step).unwrap();
                losses.push(loss);
                for step in 2..5 {
                    optimizer.set_lr(0.1 / step as f64);
                    losses.push(graph.replay(&[&x(step)]));
                }
            } else {
                losses.push(pull(&params, &mut *optimizer, &x(1)));
                for step in 2..5 {
                    optimizer.set_lr(0.1 / step as f64);
                    losses.push(pull(&params, &mut *optimizer, &x(step)));
                }
            }
            let weights: Vec<Vec<f64>> = params.iter().map(|p| p.tensor().to_f64_vec()).collect();
            (optimizer.name(), losses.iter().map(|l| l.item::<f64>()).collect::<Vec<_>>(), weights)
        };
        assert_eq!(run(true), run(false));
    }
}

/// A parameter, its optimiser after one step, and its captured step.
fn captured() -> (Vec<Param>, Sgd, CudaGraph<Tensor>) {
    let params = parameters();
    let mut sgd = Sgd::new(params.clone()).lr(0.1).momentum(0.9);
    let x = Tensor::ones(());
    pull(&params, &mut sgd, &there(&x));
    let (graph, _) = CudaGraph::capture(&cuda(), &[&x], |x| pull(&params, &mut sgd, &x[0])).unwrap();
    (params, sgd, graph)
}

fn message<T>(f: impl FnOnce() -> T) -> String {
    catch(f).err().expect("an error").to_string()
}

#[test]
fn what_a_replay_would_not_see_is_an_error() {
    let x = Tensor::ones(());
    // Other inputs.
    let (params, mut sgd, mut graph) = captured();
    assert_eq!(message(|| graph.replay(&[])), "replay: the step was captured with 1 inputs, got 0");
    assert!(message(|| graph.replay(&[&Tensor::ones(2)])).contains("got [2] f32"));
    // Another kernel.
    sgd.set_option(0, "momentum", 0.0).unwrap();
    assert!(message(|| graph.replay(&[&x])).contains("an option has changed that chooses another kernel"));
    sgd.set_option(0, "momentum", 0.9).unwrap();
    // A parameter that somebody looks at, and one that was replaced.
    let held = params[0].tensor();
    assert!(message(|| graph.replay(&[&x])).contains("is held elsewhere"));
    drop(held);
    graph.replay(&[&x]);
    params[0].set(params[0].tensor().copy());
    assert!(message(|| graph.replay(&[&x])).contains("replaced since the step was recorded"));
}

#[test]
fn what_a_step_leaves_behind_is_an_error() {
    let x = Tensor::ones(());
    let eager = || {
        let params = parameters();
        let mut sgd = Sgd::new(params.clone()).lr(0.1).momentum(0.9);
        (0..2).for_each(|_| drop(pull(&params, &mut sgd, &there(&x))));
        params[0].tensor().to_f64_vec()
    };
    // The optimiser's state, where no step was made before; all goes on without a graph.
    let params = parameters();
    let mut sgd = Sgd::new(params.clone()).lr(0.1).momentum(0.9);
    let error = CudaGraph::capture(&cuda(), &[&x], |x| pull(&params, &mut sgd, &x[0])).err().expect("an error");
    assert!(error.to_string().contains("leaves behind"), "{error}");
    pull(&params, &mut sgd, &there(&x));
    assert_eq!(params[0].tensor().to_f64_vec(), eager());
    // A parameter that an update had to copy.
    let params = parameters();
    let mut sgd = Sgd::new(params.clone()).lr(0.1);
    let held = params[0].tensor();
    let error = CudaGraph::capture(&cuda(), &[&x], |x| pull(&params, &mut sgd, &x[0])).err().expect("an error");
    assert!(error.to_string().contains("made 1 tensors"), "{error}");
    assert_ne!(params[0].tensor().to_f64_vec(), held.to_f64_vec());
}

#[test]
fn looking_at_numbers_in_a_capture_is_an_error() {
    let x = Tensor::ones(());
    let (params, mut sgd, _) = captured();
    let error = message(|| {
        CudaGraph::capture(&cuda(), &[&x], |x| {
            let loss = pull(&params, &mut sgd, &x[0]);
            loss.item::<f32>();
            loss
        })
    });
    assert!(error.starts_with("download: `item`, `to_vec` or printing while a step is captured"), "{error}");
    // What the step had done before is done: the card is where the host is.
    let (others, mut other, _) = captured();
    pull(&others, &mut other, &there(&x));
    assert_eq!(params[0].tensor().to_f64_vec(), others[0].tensor().to_f64_vec());
    let error = CudaGraph::capture(&Device::CPU, &[], |_| ()).err().expect("an error");
    assert!(error.to_string().contains("a CUDA graph needs a CUDA device"), "{error}");
}

#[test]
fn what_a_step_drew_before_it_panicked_is_drawn() {
    let draw = || Tensor::rand_on([5], DType::F32, &cuda());
    let wanted = with_seed(3, || [(); 4].map(|()| draw().to_f64_vec()));
    let got = with_seed(3, || {
        let mut first = None;
        let step = |_: &[Tensor]| {
            first = Some(draw());
            draw().to_f64_vec();
        };
        let error = message(|| CudaGraph::capture(&cuda(), &[], step));
        assert!(error.starts_with("download: "), "{error}");
        let (_graph, third) = CudaGraph::capture(&cuda(), &[], |_| draw()).expect("a graph");
        [first.expect("it was drawn"), third, draw()].map(|x| x.to_f64_vec())
    });
    assert_eq!(got, [0, 2, 3].map(|i| wanted[i].clone()));
}

#[test]
fn the_books_example() -> ferrograd_tensor::Result<()> {
    let cuda = cuda();
    let model = Linear::new(C, V).to(&cuda);
    let mut adam = Adam::new(model.parameters());
    let batch = |i: i64| (Tensor::full([3, C], i as f64).to_device(&cuda), Tensor::new([0, i, 1]).to_device(&cuda));
    let (x, y) = batch(0);

    let mut step = |x: &Tensor, y: &Tensor| {
        let loss = cross_entropy(&model.forward(&Var::constant(x.clone())).dropout(0.1), y.clone());
        let mut grads = loss.backward();
        clip_grad_norm(&mut grads, &model.parameters(), 1.0, 2.0);
        adam.step(&grads);
        loss.tensor().clone()
    };
    step(&x, &y); // one step as usual: it compiles the kernels, and makes the optimiser's state
    let (mut graph, loss) = CudaGraph::capture(&cuda, &[&x, &y], |batch| step(&batch[0], &batch[1]))?;
    let mut losses = vec![loss];
    for (x, y) in (1..4).map(batch) {
        adam.set_lr(0.1);
        losses.push(graph.replay(&[&x, &y]));
    }
    assert!(losses.iter().all(|loss| loss.item::<f32>() > 0.0));
    Ok(())
}

#[test]
fn running_statistics_are_kept() {
    let batch = |step: usize| with_seed(step as u64, || Tensor::randn([4, 3]));
    for momentum in [Some(0.3), None] {
        let run = |graphed: bool| {
            let norm = BatchNorm1d::new(3).momentum(momentum).to(&cuda());
            let step = |x: &Tensor| norm.forward(&Var::constant(x.clone())).tensor().clone();
            let mut seen = vec![step(&there(&batch(0)))];
            if graphed {
                let (mut graph, y) = CudaGraph::capture(&cuda(), &[&batch(1)], |x| step(&x[0])).unwrap();
                seen.extend([y, graph.replay(&[&batch(2)]), graph.replay(&[&batch(3)])]);
            } else {
                seen.extend((1..4).map(|i| step(&there(&batch(i)))));
            }
            let state = norm.state_dict();
            let state: Vec<(String, Vec<f64>)> = state.iter().map(|(k, x)| (k.to_string(), x.to_f64_vec())).collect();
            (seen.iter().map(|y| y.to_f64_vec()).collect::<Vec<_>>(), state)
        };
        assert_eq!(run(true), run(false), "{momentum:?}");
    }
}

#[test]
fn other_threads_go_on_during_a_capture() {
    let x = there(&Tensor::arange(0.0f32, 64.0, 1.0));
    let work = || {
        let y = there(&Tensor::ones(64));
        (&y + &y).sum().item::<f64>()
    };
    let (mut graph, y) = CudaGraph::capture(&cuda(), &[&x], |x| {
        let y = x[0].square();
        // What the step brings along is a constant.
        let constant = Tensor::full(64, 2.0).to_device(&cuda());
        let other = std::thread::scope(|scope| scope.spawn(work).join().unwrap());
        assert_eq!(other, 128.0);
        (y + constant).exp().log()
    })
    .unwrap();
    assert!((y.to_f64_vec()[3] - 11.0).abs() < 1e-5);
    // The graph has what it needs, whoever drops it.
    drop(x);
    let again = graph.replay(&[&Tensor::full(64, 3.0)]);
    assert!((again.to_f64_vec()[63] - 11.0).abs() < 1e-5);
    assert!((y.to_f64_vec()[3] - 11.0).abs() < 1e-5);
}

#[test]
fn a_graph_that_returns_nothing_keeps_its_memory() {
    let cuda = cuda();
    let w = Param::new(Tensor::full([64], 1.0f64).to_device(&cuda));
    let mut sgd = Sgd::new([w.clone()]).lr(0.25);
    let mut step = || {
        let loss = (&w.var() * &w.var()).sum();
        sgd.step(&loss.backward());
    };
    step();
    let (mut graph, ()) = CudaGraph::capture(&cuda, &[], |_| step()).expect("a graph");
    for i in 0..3 {
        // Would lie where the graph writes, if that were free.
        let others: Vec<Tensor> = (0..20).map(|k| Tensor::full([64], k as f64 + 0.5).to_device(&cuda)).collect();
        graph.replay(&[]);
        for (k, x) in others.iter().enumerate() {
            assert_eq!(x.to_f64_vec(), [k as f64 + 0.5; 64], "replay {i}");
        }
    }
    // Five times w ← w − ¼ · 2 w.
    assert_eq!(w.tensor().to_f64_vec(), [1.0 / 32.0; 64]);
}

#[test]
fn what_a_step_brings_to_the_card_is_a_constant() {
    let cuda = cuda();
    let x = Tensor::full([5], 2.0f64).to_device(&cuda);
    let step = |x: &Tensor| {
        let mut sum = Tensor::full([5], 1.0f64).to_device(&cuda);
        sum.add_assign(x);
        sum
    };
    let (mut graph, first) = CudaGraph::capture(&cuda, &[&x], |x| step(&x[0])).expect("a graph");
    assert_eq!(first.to_f64_vec(), [3.0; 5]);
    for _ in 0..3 {
        assert_eq!(graph.replay(&[&x]).to_f64_vec(), [3.0; 5]);
    }
}

#[test]
fn what_a_replay_would_get_wrong_is_refused_and_not_counted() {
    let cuda = cuda();
    let new = |value: f64| Param::new(Tensor::full([3], value).to_device(&cuda));
    let (a, b) = (new(1.0), new(2.0));
    let mut adam = Adam::new([a.clone(), b.clone()]).lr(0.1);
    let loss = || (&a.var() * &b.var()).sum();
    adam.step(&loss().backward());
    let (mut graph, ()) = CudaGraph::capture(&cuda, &[], |_| adam.step(&loss().backward())).expect("a graph");
    let mut refused = |rule: &str| {
        let error = catch(|| graph.replay(&[])).expect_err("a refusal").to_string();
        assert!(error.contains(rule), "{error}");
    };
    b.set_requires_grad(false);
    refused("was frozen since");
    b.set_requires_grad(true);
    let held = adam.state_dict();
    refused("is held elsewhere");
    drop(held);
    graph.replay(&[]);
    // Only one of the two moves on.
    let grads = (&a.var() * 2.0).sum().backward();
    adam.step(&grads);
    let error = catch(|| graph.replay(&[])).expect_err("a refusal").to_string();
    assert!(error.contains("more steps than others"), "{error}");
}
