#!/usr/bin/env python3
"""Reads a model that loev trained, in PyTorch: from audio to one embedding per subspace.

    python loev_torch.py MODEL.safetensors CLIP.wav [--out EMBEDDINGS.npz]

or, in a program of your own,

    encoder = loev_torch.load("MODEL.safetensors")
    frames = encoder.log_mel(audio)            # audio: [.., samples], mono, at encoder.sample_rate
    embeddings = encoder(frames)               # {"invariant": [.., dim], ...}

`audio` holds whole views (`encoder.samples` samples, the length that the model was trained on). Needs
PyTorch; the command line also needs soundfile. The numbers are those of `loev`, up to rounding.
"""

import argparse
import json
import math
import struct

import torch
import torch.nn.functional as F
from torch import nn

RATES = 64  # modulation frequencies of a rhythm token ...
LOW_HZ, HIGH_HZ = 0.7, 16.0  # ... and their range


def read(path):
    """The description and the tensors of a checkpoint (safetensors, values in f32)."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = bytearray(file.read())
    meta = json.loads(header.pop("__metadata__")["loev"])
    if meta["format"] != 1:
        raise ValueError(f"{path}: format {meta['format']} is not known here")
    tensors = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        values = torch.frombuffer(data, dtype=torch.float32, offset=start, count=(end - start) // 4)
        tensors[name] = values.reshape(entry["shape"]).clone()
    return meta, tensors


class Block(nn.Module):
    """A pre-norm transformer block. The first `queries` tokens ask and are passed on."""

    def __init__(self, dim, heads, hidden):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = nn.ModuleDict({
            "query": nn.Linear(dim, dim),
            "key_value": nn.Linear(dim, 2 * dim, bias=False),
            "output": nn.Linear(dim, dim),
        })
        self.mlp = nn.ModuleDict({"up": nn.Linear(dim, hidden), "down": nn.Linear(hidden, dim)})

    def forward(self, x, queries):
        def split(t):
            return t.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        normed = self.norm1(x)
        query = split(self.attention["query"](normed[:, :queries]))
        key, value = self.attention["key_value"](normed).chunk(2, -1)
        mixed = F.scaled_dot_product_attention(query, split(key), split(value))
        x = x[:, :queries] + self.attention["output"](mixed.transpose(1, 2).flatten(2))
        return x + self.mlp["down"](F.gelu(self.mlp["up"](self.norm2(x)), approximate="tanh"))


class Branch(nn.Module):
    """The blocks that end a path, the class tokens (`classes`) that take it, and its last norm."""

    def __init__(self, classes, depth, *sizes):
        super().__init__()
        self.classes = classes
        self.blocks = [str(i) for i in range(depth)]
        for name in self.blocks:
            self.add_module(name, Block(*sizes))
        self.norm = nn.LayerNorm(sizes[0])

    def forward(self, x, classes):
        x = torch.cat([x[:, self.classes], x[:, classes:]], 1)
        own = self.classes.stop - self.classes.start
        for name in self.blocks:
            x = getattr(self, name)(x, own if name == self.blocks[-1] else x.shape[1])
        return self.norm(x).unbind(1)


class Rhythm(nn.Module):
    """Tokens of the modulation spectra of groups of mel bands."""

    def __init__(self, frames, mels, groups, frame_rate, dim):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(dim, RATES)), nn.Parameter(torch.zeros(dim))
        self.group = nn.Parameter(torch.zeros(groups, dim))
        member = F.one_hot(torch.arange(mels) * groups // mels, groups).double()
        self.register_buffer("grouping", (member / member.sum(0)).float(), persistent=False)
        time = torch.arange(frames - 1, dtype=torch.float64)[:, None]
        hertz = LOW_HZ * (HIGH_HZ / LOW_HZ) ** (torch.arange(RATES, dtype=torch.float64) / (RATES - 1))
        angle = math.tau * hertz * time / frame_rate
        window = 0.5 - 0.5 * torch.cos(math.tau * (time + 0.5) / (frames - 1))
        waves = torch.cat([window * angle.cos(), window * angle.sin()], 1)
        self.register_buffer("waves", waves.float(), persistent=False)

    def forward(self, frames, deviation):
        onsets = F.relu(frames.diff(dim=1) / deviation) @ self.grouping
        onsets = (onsets - onsets.mean(1, keepdim=True)).transpose(1, 2)
        power = (onsets @ self.waves).square().unflatten(-1, (2, RATES)).sum(-2)
        level = (power + 1e-6).log()
        level = level - level.mean(-1, keepdim=True)
        spread = (level.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return F.linear(level / spread, self.weight, self.bias) + self.group


class Encoder(nn.Module):
    """The encoder of a checkpoint and its projections; parameters have the names of the file."""

    def __init__(self, config):
        super().__init__()
        if set(config["encoder"]) != {"vit"}:
            raise ValueError(f"this loader knows the encoder vit, not {', '.join(config['encoder'])}")
        vit, front_end, frames = config["encoder"]["vit"], config["front_end"], config["frames"]
        self.config, self.front_end, self.frames = config, front_end, frames
        self.subspaces, self.sample_rate = config["subspaces"], front_end["sample_rate"]
        dim, mels, classes = vit["dim"], front_end["mels"], len(self.subspaces)
        self.patch_frames = vit["patch_frames"]
        patches = frames // self.patch_frames
        self.register_buffer("mean", torch.zeros(mels), persistent=False)
        self.register_buffer("deviation", torch.ones(mels), persistent=False)
        self.patch = nn.Linear(self.patch_frames * mels, dim)
        self.position = nn.Parameter(torch.zeros(patches, dim))
        self.register_parameter("class", nn.Parameter(torch.zeros(classes, dim)))
        groups = min(vit["rhythm"], mels) if frames > 1 else 0
        rate = self.sample_rate / front_end["hop"]
        self.rhythm = Rhythm(frames, mels, groups, rate, dim) if groups else None
        sizes = (dim, vit["heads"], dim * vit["mlp_ratio"])
        if config["method"] == "loev++":
            own = vit["branch_depth"]
            branches = [Branch(slice(k, k + 1), own, *sizes) for k in range(classes)]
        else:
            own, branches = 1, [Branch(slice(0, classes), 1, *sizes)]
        self.trunk = nn.ModuleList(Block(*sizes) for _ in range(vit["depth"] - own))
        self.branch = nn.ModuleList(branches)
        widths = [dim, *config["projection"]]
        layers = [[nn.Linear(a, b) for a, b in zip(widths, widths[1:])] for _ in self.subspaces]
        self.projection = nn.ModuleList(nn.ModuleList(own) for own in layers)
        self.register_buffer("window", torch.hann_window(front_end["window"]), persistent=False)
        self.register_buffer("bands", mel_bands(front_end), persistent=False)

    @property
    def samples(self):
        """Samples of a view; up to a hop more give the same frames."""
        return (self.frames - 1) * self.front_end["hop"]

    def log_mel(self, audio):
        """Mono audio [.., samples] to frames [.., frames, mels] in dB."""
        front_end = self.front_end
        spectrum = torch.stft(
            audio.reshape(-1, audio.shape[-1]), front_end["fft"], front_end["hop"], front_end["window"],
            self.window, pad_mode="reflect", return_complex=True,
        )
        power = spectrum.abs().square().transpose(1, 2) @ self.bands
        return 10 * power.clamp_min(1e-10).log10().reshape(*audio.shape[:-1], -1, front_end["mels"])

    def embed(self, frames):
        """One embedding [views, dim] per subspace, of frames [views, frames, mels] in dB."""
        patches = self.position.shape[0]
        x = (frames[:, : patches * self.patch_frames] - self.mean) / self.deviation
        x = self.patch(x.reshape(x.shape[0], patches, -1)) + self.position
        tokens = [getattr(self, "class").expand(x.shape[0], -1, -1), x]
        if self.rhythm is not None:
            tokens.append(self.rhythm(frames, self.deviation))
        x = torch.cat(tokens, 1)
        for block in self.trunk:
            x = block(x, x.shape[1])
        return [e for branch in self.branch for e in branch(x, len(self.subspaces))]

    def forward(self, frames):
        """Embeddings by subspace, of frames [.., frames, mels] in dB."""
        views = frames.reshape(-1, *frames.shape[-2:])
        shape = frames.shape[:-2]
        return {name: e.reshape(*shape, -1) for name, e in zip(self.subspaces, self.embed(views))}

    def project(self, k, embedding):
        """What the loss of subspace `k` compared."""
        for i, layer in enumerate(self.projection[k]):
            embedding = layer(F.gelu(embedding, approximate="tanh") if i else embedding)
        return embedding


def mel_bands(front_end):
    """[bins, mels]: triangles in Hz whose corners are equally spaced on the HTK mel scale."""

    def mel(hertz):
        return 2595 * math.log10(1 + hertz / 700)

    corners = torch.linspace(mel(front_end["low_hz"]), mel(front_end["high_hz"]), front_end["mels"] + 2,
                             dtype=torch.float64)
    corners = 700 * (10 ** (corners / 2595) - 1)
    bins = torch.arange(front_end["fft"] // 2 + 1, dtype=torch.float64)[:, None]
    bins = bins * front_end["sample_rate"] / front_end["fft"]
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    rise, fall = (bins - left) / (centre - left), (right - bins) / (right - centre)
    return torch.minimum(rise, fall).clamp_min(0).float()


def load(path):
    """The encoder of a checkpoint, ready to embed."""
    meta, tensors = read(path)
    encoder = Encoder(meta["config"])
    encoder.mean.copy_(tensors.pop("normaliser.mean"))
    encoder.deviation.copy_(tensors.pop("normaliser.deviation"))
    encoder.load_state_dict(tensors)
    return encoder.eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("clip", help="audio at the model's sample rate")
    parser.add_argument("--out", help="NumPy archive: one array [segments, dim] per subspace")
    args = parser.parse_args()

    import numpy
    import soundfile

    encoder = load(args.model)
    audio, rate = soundfile.read(args.clip, dtype="float32", always_2d=True)
    if rate != encoder.sample_rate:
        parser.error(f"{args.clip} is at {rate} Hz; the model reads {encoder.sample_rate} Hz")
    audio = torch.from_numpy(audio).mean(1)
    segments = audio.unfold(0, encoder.samples, encoder.samples) if len(audio) >= encoder.samples else None
    if segments is None:
        parser.error(f"{args.clip} is shorter than a view of {encoder.samples / rate:g} s")
    with torch.no_grad():
        embeddings = encoder(encoder.log_mel(segments))
    if args.out:
        numpy.savez(args.out, **{name: e.numpy() for name, e in embeddings.items()})
    for name, e in embeddings.items():
        print(f"{name}: {e.shape[0]} segments of {encoder.samples / rate:g} s, {e.shape[1]} values each; "
              f"mean {' '.join(f'{x:.3f}' for x in e.mean(0)[:6])} ...")


if __name__ == "__main__":
    main()
