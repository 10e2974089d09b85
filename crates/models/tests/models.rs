//! Configurations, names of published weights, modes and errors.

use ferrograd_autograd::Var;
use ferrograd_models::*;
use ferrograd_nn::{Module, StateDict};
use ferrograd_tensor::{Activation, DType, Tensor, catch};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::path::PathBuf;

fn small_bert() -> BertConfig {
    BertConfig {
        vocab_size: 11,
        hidden_size: 8,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 12,
        max_position_embeddings: 6,
        ..Default::default()
    }
}
fn small_gpt() -> GptConfig {
    GptConfig { vocab_size: 11, n_positions: 8, n_embd: 8, n_layer: 2, n_head: 2, ..Default::default() }
}
fn small_transformer() -> TransformerConfig {
    TransformerConfig {
        src_vocab_size: 9,
        tgt_vocab_size: 9,
        d_model: 8,
        nhead: 2,
        num_encoder_layers: 1,
        num_decoder_layers: 1,
        dim_feedforward: 12,
        ..Default::default()
    }
}
fn small_lm() -> LstmLmConfig {
    LstmLmConfig { vocab_size: 7, embed_dim: 4, hidden_size: 4, num_layers: 1, tie_weights: true, ..Default::default() }
}
/// An empty folder of this test's own.
fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("ferrograd-models-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}
fn save(path: PathBuf, state: &StateDict) {
    state.save(path).unwrap();
}
fn values(x: &Var) -> Vec<f32> {
    x.tensor().to_vec()
}

#[test]
fn configs_round_trip_through_json() {
    fn round_trip<C: Serialize + DeserializeOwned + PartialEq + Debug>(config: C) {
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<C>(&text).unwrap(), config, "{text}");
    }
    round_trip(BertConfig { hidden_act: Activation::GeluTanh, pad_token_id: None, ..small_bert() });
    round_trip(BertConfig { num_labels: Some(3), classifier_dropout: Some(0.2), ..BertConfig::large() });
    round_trip(small_transformer());
    round_trip(small_lm());
    round_trip(LstmClassifierConfig { bidirectional: false, ..Default::default() });
    round_trip(CnnConfig { channels: [1, 2, 3], ..Default::default() });
}

#[test]
fn hugging_face_config_json() {
    let text = r#"{"architectures": ["BertForSequenceClassification"], "attention_probs_dropout_prob": 0.1,
        "hidden_act": "gelu_new", "hidden_size": 384, "id2label": {"0": "a", "1": "b", "2": "c"}, "use_cache": true,
        "classifier_dropout": null, "model_type": "bert", "num_attention_heads": 12, "transformers_version": "4.8.2"}"#;
    let config: BertConfig = serde_json::from_str(text).unwrap();
    assert_eq!((config.hidden_size, config.num_hidden_layers, config.labels()), (384, 12, 3));
    assert_eq!(config.hidden_act, Activation::GeluTanh);
    config.check().unwrap();
    assert!(serde_json::to_string(&config).unwrap().contains(r#""hidden_act":"gelu_new""#));
    let error = serde_json::from_str::<BertConfig>(r#"{"hidden_act": "mish"}"#).unwrap_err().to_string();
    assert!(error.contains("`mish` is none of identity, relu, gelu"), "{error}");
    // Ours are strict: a misspelt field is not silently a default.
    assert!(serde_json::from_str::<CnnConfig>(r#"{"chanels": [1, 2, 3]}"#).is_err());
}

#[test]
fn unusable_configs_are_errors() {
    let text = |config: BertConfig| Bert::new(&config).err().unwrap().to_string();
    let heads = text(BertConfig { num_attention_heads: 3, ..small_bert() });
    assert_eq!(heads, "BertConfig: hidden_size 8 is not divisible by num_attention_heads 3");
    assert!(text(BertConfig { model_type: "roberta".into(), ..small_bert() }).contains("roberta"));
    assert!(text(BertConfig { hidden_dropout_prob: 1.0, ..small_bert() }).contains("hidden_dropout_prob is 1"));
    assert!(text(BertConfig { pad_token_id: Some(11), ..small_bert() }).contains("pad_token_id"));
    assert!(
        text(BertConfig { position_embedding_type: "relative_key".into(), ..small_bert() }).contains("relative_key")
    );
    let tied = LstmLm::new(&LstmLmConfig { embed_dim: 3, ..small_lm() }).err().unwrap().to_string();
    assert!(tied.contains("embed_dim = hidden_size, got 3 and 4"), "{tied}");
    assert!(Transformer::new(&TransformerConfig { nhead: 3, ..small_transformer() }).is_err());
    let shared = TransformerConfig { share_embeddings: true, tgt_vocab_size: 8, ..small_transformer() };
    assert!(Transformer::new(&shared).is_err());
    assert!(Cnn::new(&CnnConfig { image_size: [28, 17], ..Default::default() }).is_err());
    assert!(LstmClassifier::new(&LstmClassifierConfig { num_layers: 0, ..Default::default() }).is_err());
}

#[test]
fn mistakes_in_the_input_are_named() {
    let bert = Bert::new(&small_bert()).unwrap();
    bert.eval();
    let error =
        |ids: Tensor, mask: Option<Tensor>| catch(|| bert.forward(&ids, None, mask.as_ref())).unwrap_err().to_string();
    let text = error(Tensor::new([[3i64, 11]]), None);
    assert!(text.contains("11"), "{text}");
    let text = error(Tensor::new([[3i64, -1]]), None);
    assert!(text.contains("-1"), "{text}");
    let text = error(Tensor::new([[1i64; 7]]), None);
    assert_eq!(text, "Bert: the sequence has 7 tokens, the model 6 positions (max_position_embeddings)");
    let text = error(Tensor::new([1i64, 2]), None);
    assert_eq!(text, "Bert: tokens must be [B, T] of i64, got [2] of i64");
    let text = error(Tensor::new([[1i64, 2]]), Some(Tensor::ones([1, 3])));
    assert_eq!(text, "Bert: tokens are [1, 2], their attention_mask [1, 3]");
    let cnn = Cnn::new(&CnnConfig { channels: [1, 1, 1], hidden: 2, ..Default::default() }).unwrap();
    let text = catch(|| cnn.forward(&Tensor::zeros([2, 3, 28, 28]).into())).unwrap_err().to_string();
    assert_eq!(text, "Cnn: images are [2, 3, 28, 28], the model is for [B, 1, 28, 28]");
    let lm = LstmLm::new(&small_lm()).unwrap();
    assert!(catch(|| lm.forward(&Tensor::new([[7i64]]), None)).unwrap_err().to_string().contains('7'));
    assert!(catch(|| lm.forward(&Tensor::new([7i64]), None)).unwrap_err().to_string().starts_with("LstmLm: tokens"));
}

#[test]
fn padding_changes_nothing() {
    let bert = Bert::new(&small_bert()).unwrap();
    bert.eval();
    let short = bert.forward(&Tensor::new([[1i64, 2, 3]]), None, None).last_hidden_state;
    // Whatever stands in the padding, and whatever the mask's dtype.
    for dtype in [DType::I64, DType::Bool, DType::F32] {
        let mask = Tensor::new([[1i64, 1, 1, 0, 0]]).to_dtype(dtype);
        let long = bert.forward(&Tensor::new([[1i64, 2, 3, 9, 4]]), None, Some(&mask)).last_hidden_state;
        let kept = Tensor::all_close(&long.tensor().narrow(1, 0, 3), short.tensor(), 1e-5, 1e-5);
        assert!(kept, "{short} {long}");
    }
    let config = LstmClassifierConfig { vocab_size: 9, embed_dim: 4, hidden_size: 3, ..Default::default() };
    let classifier = LstmClassifier::new(&config).unwrap();
    let short = classifier.forward(&Tensor::new([[1i64, 2, 3]]), None);
    let long = classifier.forward(&Tensor::new([[1i64, 2, 3, 8, 8]]), Some(&[3]));
    assert!(long.tensor().all_close(short.tensor(), 1e-5, 1e-6));
}

#[test]
fn dropout_is_active_in_training_only() {
    let config = BertConfig { hidden_dropout_prob: 0.5, attention_probs_dropout_prob: 0.5, ..small_bert() };
    let bert = Bert::new(&config).unwrap();
    let run = || values(&bert.forward(&Tensor::new([[1i64, 2, 3]]), None, None).last_hidden_state);
    assert_ne!(run(), run());
    bert.eval();
    assert_eq!(run(), run());
    // Attention dropout alone is enough to notice.
    let bert = Bert::new(&BertConfig { hidden_dropout_prob: 0.0, ..config }).unwrap();
    let run = || values(&bert.forward(&Tensor::new([[1i64, 2, 3]]), None, None).last_hidden_state);
    assert_ne!(run(), run());
}

#[test]
fn padding_token_gets_no_gradient() {
    let bert = Bert::new(&small_bert()).unwrap();
    bert.eval();
    let table = &bert.embeddings.word_embeddings.weight;
    assert_eq!(table.tensor().select(0, 0).to_vec::<f32>(), [0.0; 8]);
    let hidden = bert.forward(&Tensor::new([[0i64, 2]]), None, None).last_hidden_state;
    let grads = hidden.square().select(-1, 0).sum().backward();
    let g = grads.wrt(table);
    assert_eq!(g.select(0, 0).to_vec::<f32>(), [0.0; 8]);
    assert!(g.select(0, 2).to_vec::<f32>().iter().any(|&x| x != 0.0));
}

#[test]
fn published_weights_under_every_name() {
    let config = small_bert();
    let dir = folder("names");
    std::fs::write(dir.join("config.json"), serde_json::to_string(&config).unwrap()).unwrap();
    let model = BertForMaskedLm::new(&config).unwrap();
    model.eval();
    let tokens = Tensor::new([[1i64, 5, 9, 2]]);
    let want = values(&model.forward(&tokens, None, None));

    // As TensorFlow's conversions name them, with the buffer of position numbers and the tied output left out.
    let old = model.state_dict().rename(|name| {
        let name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
        (!name.contains("decoder")).then_some(name)
    });
    let mut old = old;
    old.insert("bert.embeddings.position_ids", Tensor::arange(0i64, 6, 1).unsqueeze(0));
    save(dir.join("model.safetensors"), &old);
    let (loaded, report) = BertForMaskedLm::from_pretrained(&dir).unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(values(&loaded.forward(&tokens, None, None)), want);
    // Still tied.
    let (word, output) = (&loaded.bert.embeddings.word_embeddings.weight, &loaded.cls.predictions.decoder.weight);
    assert!(word.is(output));

    // The encoder alone reads the same file, whose names have a prefix, and says what is left over.
    let (_, report) = Bert::from_pretrained(&dir).unwrap();
    assert_eq!(report.missing, ["pooler.dense.weight", "pooler.dense.bias"]);
    assert_eq!(report.unexpected.len(), 5, "{report}");
    assert!(report.unexpected.iter().all(|name| name.starts_with("cls.predictions.")), "{report}");

    // A head reads an encoder without the prefix, and starts at random itself.
    let encoder = Bert::new(&config).unwrap();
    save(dir.join("model.safetensors"), &encoder.state_dict());
    let (head, report) = BertForSequenceClassification::from_pretrained(&dir).unwrap();
    assert_eq!(report.missing, ["classifier.weight", "classifier.bias"]);
    assert!(report.unexpected.is_empty(), "{report}");
    encoder.eval();
    let pooled = |b: &Bert| values(&b.forward(&tokens, None, None).pooler_output.unwrap());
    assert_eq!(pooled(&head.bert), pooled(&encoder));

    // The same in two shards.
    std::fs::remove_file(dir.join("model.safetensors")).unwrap();
    let state = encoder.state_dict();
    let shard = |name: &str| if name.contains("layer.1") { "b.safetensors" } else { "a.safetensors" };
    for file in ["a.safetensors", "b.safetensors"] {
        save(dir.join(file), &state.clone().rename(|name| (shard(name) == file).then(|| name.to_string())));
    }
    let map: serde_json::Map<_, _> = state.iter().map(|(name, _)| (name.to_string(), shard(name).into())).collect();
    let index = serde_json::json!({"metadata": {}, "weight_map": map});
    std::fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
    let (sharded, report) = Bert::from_pretrained(&dir).unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(pooled(&sharded), pooled(&encoder));
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn weights_that_do_not_fit_are_errors() {
    let dir = folder("unfit");
    let text = |result: ferrograd_tensor::Result<_>| {
        let result: ferrograd_tensor::Result<(Bert, ferrograd_nn::LoadReport)> = result;
        result.err().unwrap().to_string()
    };
    assert!(text(Bert::from_pretrained(&dir)).contains("config.json"));
    let weights = dir.join("model.safetensors");
    save(weights.clone(), &Bert::new(&small_bert()).unwrap().state_dict());
    let wide = BertConfig { vocab_size: 12, ..small_bert() };
    let error = text(Bert::from_safetensors(&wide, &weights));
    assert!(error.contains("word_embeddings.weight is [12, 8], the state has [11, 8]"), "{error}");
    save(weights.clone(), &LstmLm::new(&small_lm()).unwrap().state_dict());
    let error = text(Bert::from_safetensors(&small_bert(), &weights));
    assert!(error.contains("none of its tensors is a parameter of Bert"), "{error}");
    std::fs::write(dir.join("model.safetensors.index.json"), r#"{"weight_map": {"a": "../a.safetensors"}}"#).unwrap();
    std::fs::write(dir.join("config.json"), serde_json::to_string(&small_bert()).unwrap()).unwrap();
    assert!(text(Bert::from_pretrained(&dir)).contains("no file name"));
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn gpt_loads_published_folders() {
    let dir = folder("gpt");
    let gpt = Gpt::new(&small_gpt()).unwrap();
    gpt.eval();
    let published = gpt.state_dict().strip_prefix("transformer.");
    save(dir.join("model.safetensors"), &published);
    let config = |extra: &[(&str, serde_json::Value)]| {
        let mut json = serde_json::to_value(small_gpt()).unwrap();
        extra.iter().for_each(|(field, value)| json[field] = value.clone());
        std::fs::write(dir.join("config.json"), json.to_string()).unwrap();
    };
    let error = || Gpt::from_pretrained(&dir).err().unwrap().to_string();
    config(&[("model_type", "gpt2".into()), ("activation_function", "gelu_new".into()), ("n_ctx", 8.into())]);
    let (loaded, report) = Gpt::from_pretrained(&dir).unwrap();
    assert!(report.is_clean());
    // Equal only without dropout.
    let tokens = Tensor::new([[1i64, 2, 3]]);
    assert_eq!(values(&loaded.forward(&tokens)), values(&gpt.forward(&tokens)));
    assert_eq!(loaded.generate(&[1, 2], 9, &Sampling::GREEDY), gpt.generate(&[1, 2], 9, &Sampling::GREEDY));

    config(&[("activation_function", "relu".into())]);
    assert!(error().contains("activation_function is relu; supported: gelu_new"), "{}", error());
    config(&[("scale_attn_by_inverse_layer_idx", true.into())]);
    assert!(error().contains("scale_attn_by_inverse_layer_idx is true"), "{}", error());
    config(&[]);
    let mut head = published.clone();
    head.insert("lm_head.weight", published.get("wte.weight").unwrap().clone());
    save(dir.join("model.safetensors"), &head);
    assert!(Gpt::from_pretrained(&dir).is_ok());
    head.insert("lm_head.weight", published.get("wte.weight").unwrap().mul_scalar(2.0));
    save(dir.join("model.safetensors"), &head);
    assert!(error().contains("lm_head.weight is not wte.weight"), "{}", error());
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_single_logit_learns_by_binary_cross_entropy() {
    let logits = Var::leaf(Tensor::new([[0.0f32], [0.0]]));
    let loss = LstmClassifier::loss(&logits, &Tensor::new([0i64, 1]));
    assert!((loss.item::<f32>() - std::f32::consts::LN_2).abs() < 1e-6);
    assert_eq!(loss.backward().wrt(&logits).to_vec::<f32>(), [0.25, -0.25]);
    let config = LstmClassifierConfig { vocab_size: 9, embed_dim: 4, hidden_size: 3, ..Default::default() };
    let classifier = LstmClassifier::new(&config).unwrap();
    let text = catch(|| classifier.forward(&Tensor::new([[1i64], [2]]), Some(&[1, 0]))).unwrap_err().to_string();
    assert_eq!(text, "LstmClassifier: sequence 1 has no tokens: lengths lie in 1..=1");
}

#[test]
fn state_carries_from_one_piece_of_text_to_the_next() {
    let lm = LstmLm::new(&LstmLmConfig { num_layers: 2, ..small_lm() }).unwrap();
    lm.eval();
    assert!(lm.embed.weight.is(&lm.head.weight));
    let text = Tensor::new([[1i64, 2, 3, 4, 5]]);
    let (whole, (h, c)) = lm.forward(&text, None);
    let (first, (h1, c1)) = lm.forward(&text.narrow(1, 0, 2), None);
    let (rest, (h2, c2)) = lm.forward(&text.narrow(1, 2, 3), Some((&h1, &c1)));
    let pieces = Tensor::cat(&[first.tensor(), rest.tensor()], 1);
    for (a, b) in [(whole.tensor(), &pieces), (h.tensor(), h2.tensor()), (c.tensor(), c2.tensor())] {
        assert!(a.all_close(b, 1e-5, 1e-6));
    }
}

#[test]
fn the_decoder_sees_no_future_and_decodes_greedily() {
    let model = Transformer::new(&TransformerConfig { share_embeddings: true, ..small_transformer() }).unwrap();
    model.eval();
    assert!(model.src_embed.weight.is(&model.generator.weight) && model.src_embed.weight.is(&model.tgt_embed.weight));
    let src = Tensor::new([[3i64, 4, 5, 0], [6, 7, 8, 2]]);
    let scores = |tgt: [[i64; 3]; 2]| model.forward(&src, &Tensor::new(tgt)).tensor().narrow(1, 0, 2).copy();
    assert!(scores([[1, 2, 3], [1, 4, 5]]).all_close(&scores([[1, 2, 8], [1, 4, 7]]), 1e-6, 1e-6));

    // Each token is the likeliest after those before it; a row ends before the end token.
    let (start, end) = (1, 2);
    for (row, tokens) in model.greedy(&src, start, end, 7).into_iter().enumerate() {
        assert!(tokens[0] == start && tokens.len() <= 7 && !tokens[1..].contains(&end));
        let one = src.narrow(0, row, 1);
        for t in 1..=tokens.len().min(6) {
            let tgt = Tensor::from_slice(&tokens[..t], [1, t]);
            let best: i64 = model.forward(&one, &tgt).select(1, -1).argmax(-1).item();
            assert_eq!(best, tokens.get(t).copied().unwrap_or(end));
        }
    }
}

#[test]
fn positions_are_the_papers() {
    let pe = sinusoidal_positions(50, 6).to_vec::<f32>();
    let (pos, i) = (37.0f64, 2);
    let angle = pos / 10000f64.powf(2.0 * i as f64 / 6.0);
    assert!((pe[37 * 6 + 2 * i] as f64 - angle.sin()).abs() < 1e-7);
    assert!((pe[37 * 6 + 2 * i + 1] as f64 - angle.cos()).abs() < 1e-7);
}

#[test]
fn sizes_are_the_published_ones() {
    // BERT's 110 million (Hugging Face's BertModel: 109 482 240) scale with these sizes; counted on a narrow one.
    let config = BertConfig { hidden_size: 24, intermediate_size: 96, ..BertConfig::base() };
    let c = 24;
    let layer = 4 * (c * c + c) + 2 * 2 * c + (c * 96 + 96) + (96 * c + c);
    let want = (30522 + 512 + 2) * c + 2 * c + 12 * layer + c * c + c;
    assert_eq!(Bert::new(&config).unwrap().num_parameters(), want);
    let cnn = Cnn::new(&CnnConfig::default()).unwrap();
    assert_eq!(cnn.num_parameters(), 93_322); // Keras's summary
}
