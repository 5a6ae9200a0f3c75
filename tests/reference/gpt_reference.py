"""Remakes tests/golden/{gpt,optimizers}.safetensors: what plain PyTorch says about the same models and optimizers.

An independent model (nn.Module, explicit attention, complex rotary factors), so that a mistake in Tessera's C++ is not made
twice. Run it in the environment of make_venv.sh; CI compares the stored vectors, whose metadata carry the torch version and
the xxh3-128 of this file, and a test fails when this file changed without remaking them.
"""

import contextlib
import json
import pathlib

import torch
import xxhash
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

HERE = pathlib.Path(__file__).resolve()
GOLDEN = HERE.parent.parent / "golden"

MODELS = {
    "learned_gelu_bias": dict(width=16, layers=2, heads=2, vocab=29, context=8, bias=True),
    "rotary_swiglu_grouped": dict(
        width=24, layers=2, heads=4, kv_heads=2, ffn=40, vocab=31, context=10, positions="rotary", activation="swiglu"
    ),
    "rmsnorm_untied_one_key_head": dict(
        width=16, layers=1, heads=4, kv_heads=1, ffn=24, vocab=23, context=8, norm="rmsnorm", tied=False
    ),
    "rotary_swiglu_rmsnorm_bias_untied": dict(
        width=16, layers=2, heads=2, ffn=32, vocab=23, context=8, positions="rotary", activation="swiglu",
        norm="rmsnorm", bias=True, tied=False,
    ),
}
DEFAULTS = dict(kv_heads=0, ffn=0, positions="learned", activation="gelu", norm="layernorm", bias=False, tied=True)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads, self.groups = c["heads"], c["kv_heads"] or c["heads"]
        self.size = c["width"] // self.heads
        self.rotary = c["positions"] == "rotary"
        self.q = nn.Linear(c["width"], self.heads * self.size, bias=c["bias"])
        self.k = nn.Linear(c["width"], self.groups * self.size, bias=c["bias"])
        self.v = nn.Linear(c["width"], self.groups * self.size, bias=c["bias"])
        self.o = nn.Linear(self.heads * self.size, c["width"], bias=c["bias"])

    def turn(self, x):  # x: batch, head, time, size
        half = self.size // 2
        rate = 10000.0 ** (-torch.arange(half, dtype=torch.float64) * 2 / self.size)
        angle = torch.arange(x.shape[2], dtype=torch.float64)[:, None] * rate
        pairs = torch.complex(x[..., :half].contiguous(), x[..., half:].contiguous())
        turned = pairs * torch.polar(torch.ones_like(angle), angle).to(pairs.dtype)
        return torch.cat([turned.real, turned.imag], dim=-1)

    def forward(self, x):
        batch, time, _ = x.shape
        q, k, v = (
            layer(x).reshape(batch, time, -1, self.size).permute(0, 2, 1, 3) for layer in (self.q, self.k, self.v)
        )
        if self.rotary:
            q, k = self.turn(q), self.turn(k)
        outputs = []
        for head in range(self.heads):
            group = head // (self.heads // self.groups)
            scores = q[:, head] @ k[:, group].transpose(1, 2) / self.size**0.5
            future = torch.ones(time, time, dtype=torch.bool).triu(1)
            outputs.append(scores.masked_fill(future, float("-inf")).softmax(-1) @ v[:, group])
        return self.o(torch.cat(outputs, dim=-1))


class Mlp(nn.Module):
    def __init__(self, c):
        super().__init__()
        hidden = c["ffn"] or 4 * c["width"]
        self.up = nn.Linear(c["width"], hidden, bias=c["bias"])
        self.gate = nn.Linear(c["width"], hidden, bias=c["bias"]) if c["activation"] == "swiglu" else None
        self.down = nn.Linear(hidden, c["width"], bias=c["bias"])

    def forward(self, x):
        if self.gate is None:
            return self.down(functional.gelu(self.up(x)))
        return self.down(functional.silu(self.gate(x)) * self.up(x))


def norm(c):
    if c["norm"] == "rmsnorm":
        return nn.RMSNorm(c["width"], eps=1e-5)
    return nn.LayerNorm(c["width"], eps=1e-5, bias=c["bias"])


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm1, self.attention, self.norm2, self.mlp = norm(c), Attention(c), norm(c), Mlp(c)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Gpt(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.tokens = nn.Embedding(c["vocab"], c["width"])
        self.positions = nn.Embedding(c["context"], c["width"]) if c["positions"] == "learned" else None
        self.blocks = nn.ModuleList(Block(c) for _ in range(c["layers"]))
        self.final_norm = norm(c)
        self.head = None if c["tied"] else nn.Linear(c["width"], c["vocab"], bias=False)

    def forward(self, tokens):
        x = self.tokens(tokens)
        if self.positions is not None:
            x = x + self.positions(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        x = self.final_norm(x)
        return x @ self.tokens.weight.t() if self.head is None else self.head(x)


def tessera_name(name):
    """Tessera's name of a module parameter, and whether it is stored transposed (input units first)."""
    parts = name.split(".")
    kind = parts.pop()
    path = ".".join(parts)
    if path in ("tokens", "positions"):
        return "embed." + path, False
    if "norm" in parts[-1]:
        return path + (".gain" if kind == "weight" else ".bias"), False
    if kind == "bias":
        return path + "_bias", False
    return path, parts[-1] in ("o", "down")


def model_vectors(name, settings, tensors):
    torch.manual_seed(1000 + len(tensors))
    settings = DEFAULTS | settings
    model = Gpt(settings)
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            is_gain = path.endswith("weight") and "norm" in path
            parameter.copy_(torch.randn_like(parameter) * (0.1 if parameter.dim() == 1 else 0.3) + float(is_gain))
    tokens = torch.randint(settings["vocab"], (3, settings["context"] + 1))
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    targets[1, 2:5] = -1  # not counted

    def loss_of(precision):
        model.to(precision)
        logits = model(inputs).flatten(0, 1)
        return functional.cross_entropy(logits, targets.flatten(), ignore_index=-1, reduction="mean")

    with torch.no_grad():
        for path, parameter in model.named_parameters():
            ours, transposed = tessera_name(path)
            tensors[f"{name}/weight/{ours}"] = (parameter.t() if transposed else parameter).clone().contiguous()
        tensors[f"{name}/loss_f32"] = loss_of(torch.float32).clone()
    loss = loss_of(torch.float64)
    loss.backward()
    tensors[f"{name}/loss"] = loss.detach()
    tensors[f"{name}/tokens"], tensors[f"{name}/targets"] = inputs, targets
    for path, parameter in model.named_parameters():
        ours, transposed = tessera_name(path)
        tensors[f"{name}/gradient/{ours}"] = (parameter.grad.t() if transposed else parameter.grad).contiguous()


# Tessera's name and settings of an optimizer, and PyTorch's.
OPTIMIZERS = {
    "sgd_plain": ("sgd", dict(lr=0.1), torch.optim.SGD, dict(lr=0.1)),
    "sgd_momentum_decay": (
        "sgd", dict(lr=0.1, momentum=0.9, weight_decay=0.01),
        torch.optim.SGD, dict(lr=0.1, momentum=0.9, weight_decay=0.01),
    ),
    "sgd_nesterov_decay": (
        "sgd", dict(lr=0.05, momentum=0.8, nesterov=True, weight_decay=0.02),
        torch.optim.SGD, dict(lr=0.05, momentum=0.8, nesterov=True, weight_decay=0.02),
    ),
    "adam": ("adam", dict(lr=0.01), torch.optim.Adam, dict(lr=0.01, betas=(0.9, 0.95))),
    "adam_decay": (
        "adam", dict(lr=0.01, betas=[0.8, 0.99], eps=1e-6, weight_decay=0.1),
        torch.optim.Adam, dict(lr=0.01, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.1),
    ),
    "adamw": (
        "adamw", dict(lr=0.01, betas=[0.9, 0.999], weight_decay=0.1),
        torch.optim.AdamW, dict(lr=0.01, betas=(0.9, 0.999), weight_decay=0.1),
    ),
    "muon": (
        "muon", dict(lr=0.02, momentum=0.9, nesterov=True, scale="original", weight_decay=0.1),
        torch.optim.Muon, dict(lr=0.02, momentum=0.9, nesterov=True, adjust_lr_fn="original", weight_decay=0.1),
    ),
    "muon_plain": (
        "muon", dict(lr=0.02, momentum=0.8, nesterov=False, scale="match_rms", rounds=4, weight_decay=0.0),
        torch.optim.Muon,
        dict(lr=0.02, momentum=0.8, nesterov=False, adjust_lr_fn="match_rms_adamw", ns_steps=4, weight_decay=0.0),
    ),
}
STEPS = 6


@contextlib.contextmanager
def without_rounding():
    """torch.optim.Muon orthogonalizes in bfloat16; ours stays in the weights' own precision."""
    rounding, torch.Tensor.bfloat16 = torch.Tensor.bfloat16, lambda tensor: tensor.clone()
    try:
        yield
    finally:
        torch.Tensor.bfloat16 = rounding


def optimizer_vectors(name, tensors):
    _, _, make, settings = OPTIMIZERS[name]
    torch.manual_seed(2000 + len(tensors))
    value = nn.Parameter(torch.randn(5, 7, dtype=torch.float64))
    optimizer = make([value], **settings)
    gradients, values = [], [value.detach().clone()]
    for step in range(STEPS):
        value.grad = torch.zeros_like(value) if step == 3 else torch.randn_like(value) * 10.0 ** (-step)
        gradients.append(value.grad.clone())
        with without_rounding():
            optimizer.step()
        values.append(value.detach().clone())
    tensors[f"{name}/gradients"], tensors[f"{name}/values"] = torch.stack(gradients), torch.stack(values)


def save(file, tensors, settings):
    metadata = {
        "torch": torch.__version__,
        "script_xxh3_128": xxhash.xxh3_128_hexdigest(HERE.read_bytes()),
        "settings": json.dumps(settings, sort_keys=True),
    }
    save_file(tensors, GOLDEN / file, metadata=metadata)
    print(file, (GOLDEN / file).stat().st_size, "bytes,", len(tensors), "tensors")


def main():
    GOLDEN.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    tensors = {}
    for name, settings in MODELS.items():
        model_vectors(name, settings, tensors)
    save("gpt.safetensors", tensors, MODELS)
    tensors = {}
    for name in OPTIMIZERS:
        optimizer_vectors(name, tensors)
    save("optimizers.safetensors", tensors, {n: {"name": o[0]} | o[1] for n, o in OPTIMIZERS.items()})


if __name__ == "__main__":
    main()
