"""Makes conv.safetensors and sf_nfnet.safetensors: what PyTorch says of convolutions and of a small SlowFast network.

    python sf_nfnet.py        # PyTorch 2.11 on the CPU, numpy

Inputs and weights are sines that the tests compute again, so that only results are stored, all in 64 bits: of a
convolution its output and both gradients; of a network the embedding of each subspace, and for each parameter (in
order of names) the product of its gradient with a sine.
"""

import json
import math
import pathlib
import struct

import numpy
import torch
import torch.nn.functional as F

HERE = pathlib.Path(__file__).parent


def wave(shape, step, size=1.0):
    i = numpy.arange(math.prod(shape), dtype=numpy.float64)
    return torch.from_numpy(numpy.sin((i + 0.3) * step) * size).reshape(shape)


def store(name, tensors):
    header, data = {}, b""
    for key, tensor in sorted(tensors.items()):
        values = tensor.detach().contiguous().numpy().astype("<f8").tobytes()
        header[key] = {"dtype": "F64", "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    header = json.dumps(header, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    (HERE / name).write_bytes(struct.pack("<Q", len(header)) + header + data)


# Input, weight, stride, padding, groups: the cases of models/src/layers/conv.rs.
CONVOLUTIONS = [
    ((2, 3, 4, 5), (4, 3, 1, 1), (1, 1), (0, 0), 1),
    ((3, 2, 5, 7), (2, 2, 3, 3), (1, 1), (1, 1), 1),
    ((1, 4, 5, 7), (6, 2, 1, 3), (2, 1), (0, 1), 2),
    ((2, 4, 6, 5), (4, 2, 3, 1), (1, 1), (1, 0), 2),
    ((20, 1, 7, 9), (3, 1, 3, 1), (2, 8), (1, 0), 1),
    ((2, 3, 2, 11), (3, 1, 1, 7), (1, 4), (0, 3), 3),
    ((2, 2, 3, 12), (3, 2, 1, 7), (1, 4), (0, 0), 1),
    ((2, 3, 8, 6), (5, 3, 3, 3), (2, 2), (1, 1), 1),
    ((2, 1, 1, 2), (2, 1, 3, 5), (1, 3), (1, 3), 1),
    ((2, 2, 5, 6), (2, 2, 1, 1), (3, 4), (2, 2), 1),
]


def convolutions():
    tensors = {}
    for i, (x, w, stride, padding, groups) in enumerate(CONVOLUTIONS):
        x, w = wave(x, 0.7).requires_grad_(), wave(w, 1.1).requires_grad_()
        y = F.conv2d(x, w, stride=stride, padding=padding, groups=groups)
        (y * wave(y.shape, 1.9)).sum().backward()
        tensors |= {f"{i}.y": y, f"{i}.dx": x.grad, f"{i}.dw": w.grad}
    store("conv.safetensors", tensors)


WIDTH, DEPTHS, OWN, SUBSPACES = 24, (1, 1, 1, 2), 1, 3
SCALE = 1.7015043497085571


class Network:
    """The network from its parameters' names alone; `published` as the published code has it."""

    def __init__(self, published):
        self.published, self.parameters, self.known = published, {}, None

    def get(self, name, shape):
        """A parameter; in the first of two passes it is only written down."""
        if self.known is None:
            self.parameters[name] = shape
            return wave(shape, 0.5)
        return self.known[name]

    def activate(self, x):
        return F.relu(x) if self.published else F.gelu(x, approximate="tanh") * SCALE

    def standard(self, name, x, out, kernel, gain, **options):
        groups = options.get("groups", 1)
        w = self.get(f"{name}.weight", (out, x.shape[1] // groups, *kernel))
        variance, mean = torch.var_mean(w, (1, 2, 3), keepdim=True, correction=0 if gain else 1)
        w = (w - mean) / torch.sqrt(torch.clamp(variance * w[0].numel(), min=1e-4))
        if not gain:
            return F.conv2d(x, w, **options)
        w = w * self.get(f"{name}.gain", (out,)).reshape(-1, 1, 1, 1)
        return F.conv2d(x, w, self.get(f"{name}.bias", (out,)), **options)

    def stem(self, path, x, width):
        kernels = [(3, 1), (3, 1), (3, 1), (3, 3)] if path == "slow" else [(3, 3)] * 4
        strides = [(2, 8) if path == "slow" else (2, 2), (1, 1), (1, 1), (2, 2)]
        for i, (kernel, stride) in enumerate(zip(kernels, strides)):
            out, padding = max(1, width * 2**i // 8), tuple(k // 2 for k in kernel)
            name = f"stem.{path}.{i}"
            if self.published:
                w = self.get(f"{name}.weight", (out, x.shape[1], *kernel))
                x = F.conv2d(x, w, self.get(f"{name}.bias", (out,)), stride=stride, padding=padding)
                w, b = self.get(f"{name}.norm.weight", (out,)), self.get(f"{name}.norm.bias", (out,))
                x = F.relu(F.instance_norm(x, weight=w, bias=b, eps=1e-5))
            else:
                x = x if i == 0 else self.activate(x)
                x = self.standard(name, x, out, kernel, True, stride=stride, padding=padding)
        return x

    def block(self, name, x, out, width, stage, i):
        gain, half = not self.published, out // 2
        stride = (1, 2, 2, 2)[stage] if i == 0 else 1
        beta = 1 / math.sqrt(1 + 0.04 * (i + (stage > 0)))
        active = self.activate(x) * beta
        skip = x
        if i == 0:
            skip = F.avg_pool2d(active, (stride, 1)) if stride > 1 else active
            skip = self.standard(f"{name}.skip", skip, out, (1, 1), gain)
        y = self.standard(f"{name}.in", active, half, (1, 1), gain)
        options = dict(groups=half // width, stride=(stride, 1), padding=(0, 1))
        y = self.standard(f"{name}.columns", self.activate(y), half, (1, 3), gain, **options)
        y = self.standard(f"{name}.rows", self.activate(y), half, (3, 1), gain, groups=half // width, padding=(1, 0))
        y = self.standard(f"{name}.out", self.activate(y), out, (1, 1), gain)
        down, up = f"{name}.excite.down", f"{name}.excite.up"
        gate = y.mean((2, 3)) @ self.get(f"{down}.weight", (half, out)).T + self.get(f"{down}.bias", (half,))
        gate = F.relu(gate) @ self.get(f"{up}.weight", (out, half)).T + self.get(f"{up}.bias", (out,))
        y = y * torch.sigmoid(gate)[:, :, None, None] * (1 if self.published else 2)
        return skip + y * self.get(f"{name}.gain", (1,)) * 0.2

    def embed(self, x):
        """`x` is views x frames x bands; an embedding for each subspace."""
        x = x.transpose(1, 2)[:, None]
        paths = {"slow": (self.stem("slow", x, WIDTH), WIDTH), "fast": (self.stem("fast", x, WIDTH // 8), WIDTH // 8)}
        for stage in range(4):
            slow, fast = paths["slow"][0], paths["fast"][0]
            middle = fast.shape[1] * (1 if self.published or stage else 2)
            outside = WIDTH * (1, 2, 4, 12 if self.published else 24)[stage]
            options = dict(stride=(1, 4), padding=(0, 0 if self.published else 3))
            fused = self.standard(f"stage.{stage}.fuse.columns", fast, middle, (1, 7), not self.published, **options)
            fused = self.standard(f"stage.{stage}.fuse.out", fused, outside, (1, 1), not self.published)
            inputs = {"slow": torch.cat([slow, fused], 3 if self.published else 1), "fast": fast}
            for path, x in inputs.items():
                width = paths[path][1]
                for i in range(DEPTHS[stage] - (OWN if stage == 3 else 0)):
                    x = self.block(f"stage.{stage}.{path}.{i}", x, width * (2, 4, 12, 12)[stage], width, stage, i)
                paths[path] = (x, width)
        embeddings = []
        for k in range(SUBSPACES):
            pooled = []
            for path, (x, width) in paths.items():
                for i in range(DEPTHS[3] - OWN, DEPTHS[3]):
                    x = self.block(f"branch.{k}.{path}.{i}", x, width * 12, width, 3, i)
                pooled.append(x.mean((2, 3)))
            embeddings.append(F.gelu(torch.cat(pooled, 1), approximate="tanh") * SCALE)
        return embeddings


def networks():
    tensors = {}
    for name, published in [("default", False), ("published", True)]:
        network, features = Network(published), wave((3, 57, 32), 0.71, 2.0)
        network.embed(features)
        shapes = sorted(network.parameters.items())
        network.known = {key: wave(s, 0.7 + 0.013 * i).requires_grad_() for i, (key, s) in enumerate(shapes)}
        embeddings = network.embed(features)
        sum((e * wave(e.shape, 1.9 + k)).sum() for k, e in enumerate(embeddings)).backward()
        slopes = [(p.grad * wave(p.shape, 1.3)).sum() for _, p in sorted(network.known.items())]
        tensors |= {f"{name}.embeddings": torch.stack(embeddings), f"{name}.slopes": torch.stack(slopes)}
    store("sf_nfnet.safetensors", tensors)


convolutions()
networks()
