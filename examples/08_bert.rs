//! 8. BERT fills in the blank (Devlin et al. 2018): which word was masked, from what stands before it *and* after it.
//!
//! The sentences are of a small language with English rules: "the dog near the cats sleeps ." The verb agrees with the first noun, not
//! with the nearer one, and what sleeps, barks or rolls depends on what it is. So of a masked verb the number is certain, and of
//! a masked noun the number, which only the verb behind it tells: a model that reads from left to right could not know.
//!
//! `cargo run --release --example 08_bert` prints a loss that falls to about ln 2 = 0.69 (either of two words could stand there, and
//! nobody can know which), how often number and kind were right at the end, and a few blanks with what the model thinks of them.
//! With `--features cuda` and the argument `cuda` it runs on a card; a second argument is the number of steps.
use ferrograd::models::{BertConfig, BertForMaskedLm};
use ferrograd::prelude::*;

/// Nouns and verbs, singular and plural, by kind: a kind of noun has verbs of its own.
const WORDS: [&str; 28] = [
    "[MASK]", ".", "the", "near", // the rest: kind by kind
    "dog", "dogs", "wolf", "wolves", "barks", "bark", "runs", "run", //
    "cat", "cats", "kitten", "kittens", "purrs", "purr", "sleeps", "sleep", //
    "ball", "balls", "wheel", "wheels", "rolls", "roll", "turns", "turn",
];
const MASK: i64 = 0;
/// the NOUN near the NOUN VERB .
const T: usize = 7;

/// `b` sentences `[B, 7]`.
fn sentences(b: usize) -> Vec<[i64; T]> {
    let draw = |n: i64| Tensor::randint(0, n, [b]).to_vec::<i64>();
    let (kinds, nouns, verbs, plurals) = (draw(3), draw(2), draw(2), draw(2));
    let others: Vec<i64> = draw(12).iter().map(|&i| 4 + i / 4 * 8 + i % 4).collect();
    let sentence = |i: usize| {
        let kind = 4 + 8 * kinds[i];
        let (noun, verb) = (kind + 2 * nouns[i] + plurals[i], kind + 4 + 2 * verbs[i] + plurals[i]);
        [2, noun, 3, 2, others[i], verb, 1]
    };
    (0..b).map(sentence).collect()
}

/// Sentences with the first noun or the verb masked, `[B, 7]`, and what stood there, −100 elsewhere.
fn masked(sentences: &[[i64; T]]) -> (Tensor, Tensor) {
    let places = Tensor::randint(0, 2, [sentences.len()]).to_vec::<i64>();
    let (mut inputs, mut labels) = (sentences.to_vec(), vec![[-100i64; T]; sentences.len()]);
    for (i, &place) in places.iter().enumerate() {
        let place = [1, 5][place as usize];
        labels[i][place] = inputs[i][place];
        inputs[i][place] = MASK;
    }
    (Tensor::new(inputs), Tensor::new(labels))
}

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    ferrograd::device(&arguments.next().unwrap_or("cpu".into()))?.make_default();
    let steps = match arguments.next() {
        Some(steps) => steps.parse().map_err(|_| Error::format("steps", format!("{steps:?} is no number")))?,
        None => 400,
    };
    manual_seed(1);
    let model = BertForMaskedLm::new(&BertConfig {
        vocab_size: WORDS.len(),
        hidden_size: 64,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        intermediate_size: 128,
        max_position_embeddings: T,
        pad_token_id: None,
        ..BertConfig::default()
    })?;
    let mut adam = AdamW::new(model.parameters()).lr(1e-3);
    for step in 1..=steps {
        let (inputs, labels) = masked(&sentences(64));
        let loss = BertForMaskedLm::loss(&model.forward(&inputs, None, None), &labels);
        adam.step(&loss.backward());
        if step % 50 == 0 || step == steps {
            println!("step {step}: loss {:.3}", loss.item::<f32>());
        }
    }

    model.eval();
    let (inputs, labels) = masked(&sentences(500));
    let scores = no_grad(|| model.forward(&inputs, None, None)).softmax(-1);
    let best = scores.tensor().argmax(-1).to_vec::<i64>();
    let (inputs, labels, scores) = (inputs.to_vec::<i64>(), labels.to_vec::<i64>(), scores.tensor().to_vec::<f32>());
    let blanks: Vec<usize> = (0..labels.len()).filter(|&i| labels[i] >= 0).collect();
    // Of a kind there are eight words, singular and plural in turn; four nouns and then four verbs.
    let agree = |a: i64, b: i64| a % 2 == b % 2 && (a - 4).div_euclid(4) == (b - 4).div_euclid(4);
    let right = blanks.iter().filter(|&&i| agree(best[i], labels[i])).count();
    println!("right in kind and number: {:.1} %", 100.0 * right as f64 / blanks.len() as f64);
    for &i in &blanks[..4] {
        let sentence: Vec<&str> = inputs[i / T * T..][..T].iter().map(|&word| WORDS[word as usize]).collect();
        let mut words: Vec<(f32, &str)> = scores[i * WORDS.len()..][..WORDS.len()].iter().copied().zip(WORDS).collect();
        words.sort_by(|a, b| b.0.total_cmp(&a.0));
        let likely: Vec<String> = words[..3].iter().map(|(p, word)| format!("{word} {p:.2}")).collect();
        println!("{}: {}", sentence.join(" "), likely.join(", "));
    }
    Ok(())
}
