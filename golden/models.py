"""Whole models, tiny: outputs, loss and the gradient of every parameter.

Parameters, inputs and results are stored as f32; the reference computes in f64 from exactly the stored values and rounds at the end,
so that a test's tolerance is only about the tested framework's own rounding. Gpt and Bert are Hugging Face's `transformers`.
Where `output.loss` exists, the gradients are those of the loss; otherwise they come from the stored cotangents.
"""

import math
import os

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from common import F64, Group, Rng

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is downloaded: the models are built from configs
from transformers import (  # noqa: E402
    BertConfig,
    BertForMaskedLM,
    BertForNextSentencePrediction,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
)

G = Group("models", store=torch.float32)


def make(name, build):
    r = Rng(f"models/{name}")
    module = build().to(F64).eval()
    r.randomise(module)
    return module, r


def gpt():
    config = dict(vocab_size=19, n_positions=16, n_embd=12, n_layer=2, n_head=3, activation_function="gelu_new", layer_norm_epsilon=1e-5)
    build = lambda: GPT2LMHeadModel(GPT2Config(  # noqa: E731
        **config, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0, attn_implementation="eager"))

    def forward(m, tokens, targets):
        logits = m(tokens).logits
        return {"logits": logits, "loss": F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)}

    module, r = make("gpt", build)
    text = r.int(19, 2, 8)
    inputs = {"tokens": text[:, :-1], "targets": text[:, 1:]}
    with torch.no_grad():  # the model's own loss, which it computes in f32, is the same
        theirs, ours = module(text, labels=text).loss, forward(module, **inputs)["loss"]
        assert abs(theirs.item() - ours.item()) < 1e-5
    G.module("gpt", module, inputs, config, forward, loss="loss")

    module, r = make("gpt_ignored_targets", build)
    text = r.int(19, 3, 6)
    targets = text[:, 1:].clone()
    targets[0, :3] = targets[2, 4:] = -100
    G.module("gpt_ignored_targets", module, {"tokens": text[:, :-1], "targets": targets}, config, forward, loss="loss")

    # greedy continuation (a test of the key-value cache); checked not to be near a tie
    case = "gpt_greedy"
    module, r = make(case, build)
    G.begin(case, config)
    for n, p in module.named_parameters():
        p.data.copy_(G.representable(p.data))
        G.put(case, f"param.{n}", p)
    tokens = r.int(19, 2, 4)
    G.put(case, "input.prompt", tokens)
    with torch.no_grad():
        for _ in range(8):
            logits = module(tokens).logits[:, -1]
            best = logits.topk(2, -1).values
            assert (best[:, 0] - best[:, 1]).min() > 0.01
            tokens = torch.cat([tokens, logits.argmax(-1, keepdim=True)], 1)
    G.put(case, "output.tokens", tokens)
    G.put(case, "output.last_logits", logits)


def bert():
    config = dict(vocab_size=29, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20,
                  max_position_embeddings=16, type_vocab_size=2, hidden_act="gelu", layer_norm_eps=1e-12)

    def build(cls, **more):
        return lambda: cls(BertConfig(**config, **more, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, attn_implementation="eager"))

    mask = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0]])  # 1 = a token, 0 = padding
    types = torch.tensor([[0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 0, 0, 0]])

    def batch(r, pad=True):
        tokens = r.int(29, 2, 7, low=1)
        return {"input_ids": tokens * mask if pad else tokens, "token_type_ids": types, "attention_mask": mask}

    def base(m, **inputs):
        y = m(**inputs)
        return {"last_hidden_state": y.last_hidden_state, "pooler_output": y.pooler_output}

    # Hugging Face's word embedding has padding_idx 0, which keeps gradients from row 0; here no token is 0, so that it does not matter
    module, r = make("bert", build(BertModel))
    G.module("bert", module, batch(r, pad=False), config, base)
    module, r = make("bert_defaults", build(BertModel))
    G.module("bert_defaults", module, {"input_ids": r.int(29, 3, 5, low=1)}, config, base)

    # in the heads padding is token 0, and no loss is taken there
    def head(m, labels, **inputs):
        y = m(**inputs, labels=labels)
        return {"logits": y.logits, "loss": y.loss}

    labels = torch.full((2, 7), -100)
    labels[0, [1, 4]], labels[1, 2] = torch.tensor([17, 5]), 26
    module, r = make("bert_masked_lm", build(BertForMaskedLM))
    G.module("bert_masked_lm", module, batch(r) | {"labels": labels}, config, head, loss="loss")
    module, r = make("bert_next_sentence", build(BertForNextSentencePrediction))
    G.module("bert_next_sentence", module, batch(r) | {"labels": torch.tensor([0, 1])}, config, head, loss="loss")
    module, r = make("bert_sequence_classification", build(BertForSequenceClassification, num_labels=4, problem_type="single_label_classification"))
    G.module("bert_sequence_classification", module, batch(r) | {"labels": torch.tensor([3, 1])}, config | {"num_labels": 4}, head, loss="loss")
    module, r = make("bert_token_classification", build(BertForTokenClassification, num_labels=5))
    labels = torch.where(mask == 1, r.int(5, 2, 7), -100)
    G.module("bert_token_classification", module, batch(r) | {"labels": labels}, config | {"num_labels": 5}, head, loss="loss")


class LstmClassifier(nn.Module):
    def __init__(self, vocab_size, embed_dim, hidden_size, num_layers, num_classes, bidirectional):
        super().__init__()
        self.embed = nn.Embedding(vocab_size, embed_dim)
        self.lstm = nn.LSTM(embed_dim, hidden_size, num_layers, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(hidden_size * (1 + bidirectional), num_classes)

    def forward(self, tokens, lengths=None):
        x = self.embed(tokens)
        if lengths is not None:
            x = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        _, (h_n, _) = self.lstm(x)  # [layers * directions, B, H], the last layer's directions at the end
        h = torch.cat([h_n[-2], h_n[-1]], -1) if self.lstm.bidirectional else h_n[-1]
        return self.head(h)


class LstmLm(nn.Module):
    def __init__(self, vocab_size, embed_dim, hidden_size, num_layers, tie_weights):
        super().__init__()
        self.embed = nn.Embedding(vocab_size, embed_dim)
        self.lstm = nn.LSTM(embed_dim, hidden_size, num_layers, batch_first=True)
        self.head = nn.Linear(hidden_size, vocab_size)
        if tie_weights:
            self.head.weight = self.embed.weight

    def forward(self, tokens, state=None):
        h, state = self.lstm(self.embed(tokens), state)
        return self.head(h), state


def lstm():
    config = dict(vocab_size=17, embed_dim=5, hidden_size=6, num_layers=2, num_classes=4, bidirectional=True)

    def classify(m, tokens, labels, lengths=None):
        logits = m(tokens, lengths)
        return {"logits": logits, "loss": F.cross_entropy(logits, labels)}

    for name, more, lengths in (
        ("lstm_classifier", {}, None),
        ("lstm_classifier_lengths", {}, torch.tensor([4, 7, 2])),
        ("lstm_classifier_one_way", {"num_layers": 1, "bidirectional": False}, None),
    ):
        module, r = make(name, lambda: LstmClassifier(**config | more))
        inputs = {"tokens": r.int(17, 3, 7), "labels": torch.tensor([3, 0, 2])}
        G.module(name, module, inputs | ({} if lengths is None else {"lengths": lengths}), config | more, classify, loss="loss")

    def model_language(m, tokens, targets, h_0=None, c_0=None):
        logits, (h_n, c_n) = m(tokens, None if h_0 is None else (h_0, c_0))
        return {"logits": logits, "h_n": h_n, "c_n": c_n, "loss": F.cross_entropy(logits.flatten(0, 1), targets.flatten())}

    for tied in (False, True):
        name = "lstm_lm_tied" if tied else "lstm_lm"
        config = dict(vocab_size=17, embed_dim=6 if tied else 5, hidden_size=6, num_layers=2, tie_weights=tied)
        module, r = make(name, lambda: LstmLm(**config))
        text = r.int(17, 3, 8)
        inputs = {"tokens": text[:, :-1], "targets": text[:, 1:]}
        if not tied:
            inputs |= {"h_0": r.normal(2, 3, 6), "c_0": r.normal(2, 3, 6)}
        G.module(name, module, inputs, config, model_language, loss="loss")


class Transformer(nn.Module):
    """Vaswani et al. 2017 out of nn.Transformer's parts."""

    def __init__(self, src_vocab_size, tgt_vocab_size, d_model, nhead, num_encoder_layers, num_decoder_layers, dim_feedforward):
        super().__init__()
        self.d_model = d_model
        self.src_embed = nn.Embedding(src_vocab_size, d_model)
        self.tgt_embed = nn.Embedding(tgt_vocab_size, d_model)
        self.transformer = nn.Transformer(d_model, nhead, num_encoder_layers, num_decoder_layers, dim_feedforward, dropout=0.0, batch_first=True)
        self.generator = nn.Linear(d_model, tgt_vocab_size)

    def positions(self, t):
        """PE(pos, 2i) = sin(pos / 10000^(2i/d)), PE(pos, 2i+1) = cos(the same)."""
        pos = torch.arange(t, dtype=F64)[:, None]
        angle = pos / 10000 ** (torch.arange(0, self.d_model, 2, dtype=F64) / self.d_model)
        return torch.stack([angle.sin(), angle.cos()], -1).flatten(1).to(self.generator.weight.dtype)

    def forward(self, src, tgt, pad):
        embed = lambda table, ids: table(ids) * math.sqrt(self.d_model) + self.positions(ids.shape[1])  # noqa: E731
        t = tgt.shape[1]
        h = self.transformer(
            embed(self.src_embed, src),
            embed(self.tgt_embed, tgt),
            tgt_mask=torch.ones(t, t, dtype=torch.bool).triu(1),
            src_key_padding_mask=src == pad,
            tgt_key_padding_mask=tgt == pad,
            memory_key_padding_mask=src == pad,
        )
        return self.generator(h)


def transformer():
    config = dict(src_vocab_size=13, tgt_vocab_size=11, d_model=8, nhead=2, num_encoder_layers=2, num_decoder_layers=2, dim_feedforward=12)
    pad = 0
    for smoothing in (0.0, 0.1):
        name = "transformer_smoothing" if smoothing else "transformer"
        module, r = make(name, lambda: Transformer(**config))
        module.train()  # no dropout in it, and the eval mode has a separate fast path
        src, text = r.int(13, 3, 7, low=1), r.int(11, 3, 6, low=1)
        src[1, 4:] = src[2, 6:] = pad
        text[0, 5:] = text[1, 3:] = pad

        def forward(m, src, tgt, targets):
            logits = m(src, tgt, pad)
            loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=pad, label_smoothing=smoothing)
            return {"logits": logits, "loss": loss}

        inputs = {"src": src, "tgt": text[:, :-1], "targets": text[:, 1:]}
        G.module(name, module, inputs, config | {"pad": pad, "label_smoothing": smoothing}, forward, loss="loss")


class Cnn(nn.Module):
    """Keras's MNIST example."""

    def __init__(self, channels, hidden, num_classes):
        super().__init__()
        a, b, c = channels
        self.conv1, self.conv2, self.conv3 = nn.Conv2d(1, a, 3), nn.Conv2d(a, b, 3), nn.Conv2d(b, c, 3)
        self.fc1, self.fc2 = nn.Linear(c * 3 * 3, hidden), nn.Linear(hidden, num_classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)  # 28 -> 26 -> 13
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)  # 13 -> 11 -> 5
        x = F.relu(self.conv3(x)).flatten(1)  # 5 -> 3
        return self.fc2(F.relu(self.fc1(x)))


def cnn():
    def forward(m, images, labels):
        logits = m(images)
        return {"logits": logits, "loss": F.cross_entropy(logits, labels)}

    config = dict(channels=[4, 8, 8], hidden=12, num_classes=10)
    module, r = make("cnn", lambda: Cnn(**config))
    G.module("cnn", module, {"images": r.uniform(2, 1, 28, 28), "labels": torch.tensor([7, 2])}, config, forward, loss="loss")


for make_cases in (gpt, bert, lstm, transformer, cnn):
    make_cases()
G.save()
