//! Every model against PyTorch and Hugging Face: outputs, loss and the gradient of every parameter.
//!
//! The reference is computed in f64; PyTorch in f32 stays within 3e-6 of it, relative to a tensor's largest element or
//! 0.1, whichever is more (`golden/README.md`). Other orders of summation in f32 are allowed three times that.

#[path = "../../../golden/reader.rs"]
mod golden;

use ferrograd_autograd::{Gradients, Var};
use ferrograd_models::*;
use ferrograd_nn::{Module, StateDict};
use ferrograd_tensor::Tensor;
use golden::Golden;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;

const TOLERANCE: f64 = 1e-5;

/// One case, and the keys that were compared: a test must not pass by looking at nothing.
struct Case {
    golden: Golden,
    name: &'static str,
    compared: BTreeSet<String>,
}

impl Case {
    fn open(name: &'static str) -> Case {
        Case { golden: Golden::open("models"), name, compared: BTreeSet::new() }
    }
    fn config<C: DeserializeOwned>(&self, not_the_models: &[&str]) -> C {
        let mut config = self.golden.config(self.name);
        let object = config.as_object_mut().unwrap();
        not_the_models.iter().for_each(|key| drop(object.remove(*key)));
        serde_json::from_value(config).unwrap()
    }
    fn input(&self, name: &str) -> Tensor {
        self.golden.expect(self.name, &format!("input.{name}"))
    }
    /// Gives `model` the case's parameters. Strict: every name and shape must be PyTorch's.
    fn load<M: Module>(&self, model: M) -> M {
        let keys = self.golden.keys(self.name, "param.");
        let state: StateDict =
            keys.iter().map(|k| (k["param.".len()..].to_string(), self.golden.expect(self.name, k))).collect();
        assert!(model.load_state_dict(&state, true).unwrap().is_clean());
        model.eval();
        model
    }
    fn compare(&mut self, key: &str, got: &Tensor) {
        let want = self.golden.expect(self.name, key);
        assert_eq!(got.shape(), want.shape(), "{}/{key}", self.name);
        let (got, want) = (got.to_f64_vec(), want.to_f64_vec());
        let scale = want.iter().fold(0.1f64, |m, x| m.max(x.abs()));
        for (i, (g, w)) in got.iter().zip(&want).enumerate() {
            let error = (g - w).abs() / scale;
            assert!(error <= TOLERANCE, "{}/{key}[{i}]: {g}, PyTorch {w} (error {error:e})", self.name);
        }
        self.compared.insert(key.to_string());
    }
    fn output(&mut self, name: &str, got: &Var) {
        self.compare(&format!("output.{name}"), got.tensor());
    }
    /// Compares every parameter's gradient, and checks that nothing of the case was left out.
    fn finish<M: Module>(mut self, model: &M, grads: &Gradients) {
        for (name, p) in model.named_parameters() {
            let key = format!("grad.{name}");
            match self.golden.get(self.name, &key) {
                Some(_) => self.compare(&key, grads.wrt(&p)),
                // A tied parameter has its gradient under its first name.
                None => {
                    let tied = model.named_parameters().into_iter().any(|(n, q)| n != name && q.is(&p));
                    assert!(tied, "{}: no gradient of {name}", self.name);
                }
            }
        }
        let keys = ["output.", "grad.", "grad_input."].iter().flat_map(|p| self.golden.keys(self.name, p));
        assert_eq!(self.compared, keys.collect::<BTreeSet<_>>());
    }
}

fn bert_base(name: &'static str) {
    let mut case = Case::open(name);
    let model = case.load(Bert::new(&case.config(&[])).unwrap());
    let types = case.golden.get(name, "input.token_type_ids");
    let mask = case.golden.get(name, "input.attention_mask");
    let y = model.forward(&case.input("input_ids"), types.as_ref(), mask.as_ref());
    let pooled = y.pooler_output.unwrap();
    case.output("last_hidden_state", &y.last_hidden_state);
    case.output("pooler_output", &pooled);
    let weighted = |y: &Var, key| (y * Var::constant(case.golden.expect(name, key))).sum();
    let loss = weighted(&y.last_hidden_state, "grad_output.last_hidden_state")
        + weighted(&pooled, "grad_output.pooler_output");
    case.finish(&model, &loss.backward());
}

#[test]
fn bert() {
    bert_base("bert");
}
#[test]
fn bert_without_segments_and_mask() {
    bert_base("bert_defaults");
}

/// A head: its logits, its loss and the gradients.
macro_rules! bert_head {
    ($($case:ident: $model:ident;)*) => {$(
        #[test]
        fn $case() {
            let mut case = Case::open(stringify!($case));
            let model = case.load($model::new(&case.config(&[])).unwrap());
            let (types, mask) = (case.input("token_type_ids"), case.input("attention_mask"));
            let logits = model.forward(&case.input("input_ids"), Some(&types), Some(&mask));
            let loss = $model::loss(&logits, &case.input("labels"));
            case.output("logits", &logits);
            case.output("loss", &loss);
            case.finish(&model, &loss.backward());
        }
    )*};
}
bert_head! {
    bert_masked_lm: BertForMaskedLm;
    bert_next_sentence: BertForNextSentence;
    bert_sequence_classification: BertForSequenceClassification;
    bert_token_classification: BertForTokenClassification;
}

fn lstm_classifier(name: &'static str) {
    let mut case = Case::open(name);
    let model = case.load(LstmClassifier::new(&case.config(&[])).unwrap());
    let lengths = case.golden.get(name, "input.lengths");
    let lengths = lengths.map(|l| l.to_vec::<i64>().into_iter().map(|n| n as usize).collect::<Vec<_>>());
    let logits = model.forward(&case.input("tokens"), lengths.as_deref());
    let loss = LstmClassifier::loss(&logits, &case.input("labels"));
    case.output("logits", &logits);
    case.output("loss", &loss);
    case.finish(&model, &loss.backward());
}

#[test]
fn lstm_classifier_bidirectional() {
    lstm_classifier("lstm_classifier");
}
#[test]
fn lstm_classifier_with_lengths() {
    lstm_classifier("lstm_classifier_lengths");
}
#[test]
fn lstm_classifier_one_way() {
    lstm_classifier("lstm_classifier_one_way");
}

fn lstm_lm(name: &'static str) {
    let mut case = Case::open(name);
    let model = case.load(LstmLm::new(&case.config(&[])).unwrap());
    let state = |key| case.golden.get(name, key).map(Var::leaf);
    let state = state("input.h_0").zip(state("input.c_0"));
    let (logits, (h_n, c_n)) = model.forward(&case.input("tokens"), state.as_ref().map(|(h, c)| (h, c)));
    let loss = LstmLm::loss(&logits, &case.input("targets"));
    for (name, y) in [("logits", &logits), ("loss", &loss), ("h_n", &h_n), ("c_n", &c_n)] {
        case.output(name, y);
    }
    let grads = loss.backward();
    if let Some((h_0, c_0)) = &state {
        case.compare("grad_input.h_0", grads.wrt(h_0));
        case.compare("grad_input.c_0", grads.wrt(c_0));
    }
    case.finish(&model, &grads);
}

#[test]
fn lstm_lm_with_state() {
    lstm_lm("lstm_lm");
}
#[test]
fn lstm_lm_tied() {
    lstm_lm("lstm_lm_tied");
}

fn transformer_case(name: &'static str) {
    let mut case = Case::open(name);
    let config = TransformerConfig {
        pad_token_id: case.golden.config(name)["pad"].as_i64(),
        ..case.config(&["pad", "label_smoothing"])
    };
    let model = case.load(Transformer::new(&config).unwrap());
    let logits = model.forward(&case.input("src"), &case.input("tgt"));
    let smoothing = case.golden.config(name)["label_smoothing"].as_f64().unwrap();
    let loss = model.loss(&logits, &case.input("targets"), smoothing);
    case.output("logits", &logits);
    case.output("loss", &loss);
    case.finish(&model, &loss.backward());
}

#[test]
fn transformer() {
    transformer_case("transformer");
}
#[test]
fn transformer_with_label_smoothing() {
    transformer_case("transformer_smoothing");
}

#[test]
fn cnn() {
    let mut case = Case::open("cnn");
    let model = case.load(Cnn::new(&case.config(&[])).unwrap());
    let images = Var::leaf(case.input("images"));
    let logits = model.forward(&images);
    let loss = Cnn::loss(&logits, &case.input("labels"));
    case.output("logits", &logits);
    case.output("loss", &loss);
    let grads = loss.backward();
    case.compare("grad_input.images", grads.wrt(&images));
    case.finish(&model, &grads);
}

#[test]
fn gpt() {
    for name in ["gpt", "gpt_ignored_targets"] {
        let mut case = Case::open(name);
        let model = case.load(Gpt::new(&case.config(&["activation_function"])).unwrap());
        let (tokens, targets) = (case.input("tokens"), case.input("targets"));
        if case.golden.get(name, "output.logits").is_some() {
            case.output("logits", &model.forward(&tokens));
        }
        let loss = model.loss(&tokens, &targets);
        case.output("loss", &loss);
        let grads = loss.backward();
        case.finish(&model, &grads);
    }
}

#[test]
fn gpt_writes_what_hugging_face_writes() {
    let case = Case::open("gpt_greedy");
    let model = case.load(Gpt::new(&case.config(&["activation_function"])).unwrap());
    let (prompts, all) = (case.input("prompt"), case.golden.expect("gpt_greedy", "output.tokens"));
    for row in 0..all.dim(0) as isize {
        let prompt = prompts.select(0, row).to_vec::<i64>();
        let want = all.select(0, row).to_vec::<i64>();
        let new = model.generate(&prompt, want.len() - prompt.len(), &Sampling::GREEDY);
        assert_eq!([prompt, new].concat(), want);
    }
}

/// With a cache, in one piece or several, the logits are those of the whole sequence.
#[test]
fn gpt_cache_changes_nothing() {
    let case = Case::open("gpt");
    let model = case.load(Gpt::new(&case.config(&["activation_function"])).unwrap());
    let tokens = case.input("tokens").narrow(0, 0, 1);
    let whole = model.forward(&tokens);
    let (t, mut cache) = (tokens.dim(1), KvCache::new(&model));
    let pieces: Vec<Tensor> =
        [(0, 2), (2, 1), (3, t - 3)].map(|(s, n)| model.forward_cached(&tokens.narrow(1, s, n), &mut cache)).into();
    let joined = Tensor::cat(&pieces.iter().collect::<Vec<_>>(), 1);
    assert!(joined.all_close(whole.tensor(), 1e-5, 1e-5));
    assert_eq!(cache.len(), t);
    // Back to the second position, and on again.
    cache.truncate(2);
    let again = model.forward_cached(&tokens.narrow(1, 2, t - 2), &mut cache);
    assert!(again.all_close(&whole.tensor().narrow(1, 2, t - 2), 1e-5, 1e-5));
    let two = Tensor::cat(&[&tokens, &tokens], 0).narrow(1, 0, 1);
    let error = ferrograd_tensor::catch(|| model.forward_cached(&two, &mut KvCache::new(&model)).dim(0));
    assert_eq!(error.unwrap(), 2);
    cache.truncate(1);
    let error = ferrograd_tensor::catch(|| model.forward_cached(&two, &mut cache)).unwrap_err().to_string();
    assert_eq!(error, "Gpt: tokens [2, 1] for a cache of 1 sequences");
}

#[test]
fn gpt_refuses_nonsense() {
    let error = |c: &GptConfig| Gpt::new(c).err().unwrap().to_string();
    let config = GptConfig { vocab_size: 5, n_positions: 4, n_embd: 6, n_layer: 1, n_head: 2, ..GptConfig::default() };
    assert_eq!(
        error(&GptConfig { n_head: 4, ..config.clone() }),
        "GPT configuration: n_head 4 does not divide n_embd 6"
    );
    let model = Gpt::new(&config).unwrap();
    let catch = |t: Tensor| ferrograd_tensor::catch(|| model.forward(&t)).err().unwrap().to_string();
    assert_eq!(catch(Tensor::new([[0i64, 1, 2, 3, 4]])), "Gpt: 5 positions exceed n_positions 4");
    assert!(catch(Tensor::new([[0i64, 5]])).starts_with("embedding: index 5 lies outside 0..5"));
}
