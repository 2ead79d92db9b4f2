#!/usr/bin/env python3
"""Writes the vectors that `models/tests/vectors.rs` holds our layers against: PyTorch, in double precision.

    python models/tests/vectors/make.py

Each file holds inputs and parameters by name, the output `y`, the gradient `d_y` that comes back to it, and
the gradients `grad.NAME` that autograd makes of it. Needs torch 2.11 and safetensors.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent
torch.set_default_dtype(torch.float64)


def normal(*shape, size=1.0, shift=0.0):
    return torch.randn(shape) * size + shift


def write(name, inputs, function, constant=()):
    """Runs `function` on `inputs` and writes all there is to compare; `constant` inputs have no gradient."""
    leaves = {key: t.clone().requires_grad_(key not in constant) for key, t in inputs.items()}
    y = function(**{key.replace(".", "_"): t for key, t in leaves.items()})
    d_y = normal(*y.shape)
    y.backward(d_y)
    grads = {f"grad.{key}": t.grad for key, t in leaves.items() if t.requires_grad}
    save({**inputs, "y": y.detach(), "d_y": d_y, **grads}, name)


def save(tensors, name):
    save_file({key: t.contiguous() for key, t in sorted(tensors.items())}, HERE / f"{name}.safetensors")


def attend(query, key_value, heads):
    def split(t):
        return t.reshape(*t.shape[:2], heads, -1).transpose(1, 2)

    key, value = key_value.chunk(2, -1)
    mixed = F.scaled_dot_product_attention(split(query), split(key), split(value))
    return mixed.transpose(1, 2).flatten(2)


def block(heads, queries):
    def run(x, norm1_weight, norm1_bias, attention_query_weight, attention_query_bias,
            attention_key_value_weight, attention_output_weight, attention_output_bias, norm2_weight,
            norm2_bias, mlp_up_weight, mlp_up_bias, mlp_down_weight, mlp_down_bias):
        dim = x.shape[-1:]
        normed = F.layer_norm(x, dim, norm1_weight, norm1_bias)
        query = F.linear(normed[:, :queries], attention_query_weight, attention_query_bias)
        mixed = attend(query, F.linear(normed, attention_key_value_weight), heads)
        mid = x[:, :queries] + F.linear(mixed, attention_output_weight, attention_output_bias)
        up = F.linear(F.layer_norm(mid, dim, norm2_weight, norm2_bias), mlp_up_weight, mlp_up_bias)
        return mid + F.linear(F.gelu(up, approximate="tanh"), mlp_down_weight, mlp_down_bias)

    return run


def block_inputs(views, tokens, dim, hidden):
    shapes = {
        "norm1.weight": [dim], "norm1.bias": [dim],
        "attention.query.weight": [dim, dim], "attention.query.bias": [dim],
        "attention.key_value.weight": [2 * dim, dim],
        "attention.output.weight": [dim, dim], "attention.output.bias": [dim],
        "norm2.weight": [dim], "norm2.bias": [dim],
        "mlp.up.weight": [hidden, dim], "mlp.up.bias": [hidden],
        "mlp.down.weight": [dim, hidden], "mlp.down.bias": [dim],
    }
    return {"x": normal(views, tokens, dim), **{key: normal(*s, size=0.5) for key, s in shapes.items()}}


def tokens(kept):
    """Time slices of normalised frames, embedded by a strided convolution over whole columns."""

    def run(features, mean, deviation, weight, bias, position, classes):
        views, _, mels = features.shape
        dim, patches = weight.shape[0], position.shape[0]
        x = ((features - mean) / deviation).transpose(1, 2).unsqueeze(1)
        wide = weight.shape[1] // mels
        kernel = weight.reshape(dim, wide, mels).transpose(1, 2).unsqueeze(1)
        x = F.conv2d(x, kernel, bias, stride=(mels, wide)).squeeze(2).transpose(1, 2)[:, :patches] + position
        if kept is not None:
            x = x[torch.arange(views)[:, None], kept]
        return torch.cat([classes.expand(views, -1, -1), x], 1)

    return run


def contrastive(groups, temperature):
    """SupCon with the mean of positives outside the logarithm, anchor by anchor (arXiv 2004.11362)."""

    def run(z):
        z, terms = F.normalize(z, dim=1), []
        for i, group in enumerate(groups):
            mates = [j for j, other in enumerate(groups) if j != i and other == group]
            others = [j for j in range(len(groups)) if j != i]
            if mates:
                total = torch.logsumexp(z[others] @ z[i] / temperature, 0)
                terms.append((total - z[mates] @ z[i] / temperature).mean())
        return torch.stack(terms).mean()

    return run


def adamw():
    """Ten steps with decay for `a` alone, gradients clipped to a norm of 1, a rate that falls."""
    parameters = {"a": normal(4, 5), "b": normal(6)}
    leaves = {key: t.clone().requires_grad_() for key, t in parameters.items()}
    groups = [{"params": [leaves["a"]], "weight_decay": 0.1}, {"params": [leaves["b"]], "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.999), eps=1e-8)
    out = dict(parameters)
    for step in range(1, 11):
        for key, leaf in leaves.items():
            out[f"step{step}.grad.{key}"] = leaf.grad = normal(*leaf.shape, size=0.1 * step)
        # Clipped by hand: torch's own adds 1e-6 to the norm.
        norm = torch.cat([leaf.grad.flatten() for leaf in leaves.values()]).norm()
        for leaf in leaves.values():
            leaf.grad = leaf.grad * (1.0 / norm).clamp_max(1.0)
        for group in adam.param_groups:
            group["lr"] = 0.01 / step
        adam.step()
        for key, leaf in leaves.items():
            out[f"step{step}.{key}"] = leaf.detach().clone()
    save(out, "adamw")


def main():
    torch.manual_seed(17)
    write("linear", {"x": normal(2, 3, 5), "weight": normal(4, 5), "bias": normal(4)}, F.linear)
    write("norm", {"x": normal(2, 3, 20, size=2.0, shift=0.5), "weight": normal(20), "bias": normal(20)},
          lambda x, weight, bias: F.layer_norm(x, [20], weight, bias))
    write("gelu", {"x": normal(60, size=2.5)}, lambda x: F.gelu(x, approximate="tanh"))
    write("attention", {"query": normal(2, 4, 6), "key_value": normal(2, 5, 12)},
          lambda query, key_value: attend(query, key_value, 3))
    write("block", block_inputs(2, 5, 6, 10), block(2, 5))
    write("block_queries", block_inputs(3, 4, 8, 6), block(4, 1))
    features = {"features": normal(3, 9, 4, size=9.0, shift=-40.0), "mean": normal(4, shift=-40.0),
                "deviation": torch.tensor([7.5, 8.0, 10.0, 12.25])}
    # The statistics are kept in single precision.
    features["mean"] = features["mean"].float().double()
    parameters = {"weight": normal(5, 8), "bias": normal(5), "position": normal(4, 5), "classes": normal(2, 5)}
    constant = ("features", "mean", "deviation")
    write("tokens", {**features, **parameters}, tokens(None), constant)
    kept = torch.tensor([[0, 2], [1, 3], [0, 3]])
    write("tokens_kept", {**features, **parameters}, tokens(kept), constant)
    groups = [[0, 0, 1, 1, 2, 2, 2, 3], [5, 5, 5, 5, -1, -1, -1, -1], [0, 1, 0, 2, 3, 3, 4, 5]]
    for i, own in enumerate(groups):
        write(f"contrastive{i}", {"z": normal(8, 5)}, contrastive(own, [0.1, 0.5, 1.0][i]))
    adamw()


if __name__ == "__main__":
    main()
