#!/usr/bin/env python3
"""The figures of `loev bench gpu` beside PyTorch's, on the same GPU.

    loev bench gpu --json loev.json
    torch_gpu.py loev.json [--json OUT] [--steps N] [--no-compile]

Training: for each model of loev.json the same encoder (examples/loev_torch.py), batch, groups, loss and optimiser: bf16
by autocast with f32 masters, scaled dot product attention, fused AdamW with clipping, features already on the GPU;
eager and by torch.compile. Rendering: the chain that torch-audiomentations and torchaudio offer for the same
operators. They cannot give each view its own shift or rate, so a batch is cut into groups that share one, as their
users do; `--groups` says into how many. What cannot be imported is named and left out. See README.md.
"""

import argparse
import importlib.util
import json
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

HERE = Path(__file__).resolve().parent
for folder in (HERE, *HERE.parents):
    if (folder / "examples/loev_torch.py").exists():
        sys.path.insert(0, str(folder / "examples"))
        break


def timed(work, least=1.0, warm=3):
    """Median seconds of `work`, by events on the GPU, over at least `least` seconds."""
    for _ in range(warm):
        work()
    torch.cuda.synchronize()
    times, start = [], time.perf_counter()
    while time.perf_counter() - start < least or len(times) < 5:
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        work()
        last.record()
        torch.cuda.synchronize()
        times.append(first.elapsed_time(last) / 1e3)
    return statistics.median(times)


class Trainer:
    """A training of the model that a row of loev.json describes."""

    def __init__(self, row, compiled):
        import loev_torch

        torch.manual_seed(0)
        config, self.train = row["config"], row["train"]
        self.model = loev_torch.Encoder(config)
        for parameter in self.model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.trunc_normal_(parameter, std=0.02)
        self.model.cuda().train()
        plain = {"position", "class", "rhythm.group"}
        named = list(self.model.named_parameters())
        decayed = [p for name, p in named if p.ndim > 1 and name not in plain]
        others = [p for name, p in named if p.ndim == 1 or name in plain]
        groups = [{"params": decayed, "weight_decay": self.train["weight_decay"]},
                  {"params": others, "weight_decay": 0.0}]
        self.adam = torch.optim.AdamW(groups, lr=self.train["lr"], fused=True)
        views, shape = row["views"], (row["views"], config["frames"], config["front_end"]["mels"])
        self.features = torch.randn(shape, device="cuda") * 12 - 40
        self.model.mean.fill_(-40.0)
        self.model.deviation.fill_(12.0)
        segment = torch.arange(views, device="cuda") // row["views_per_segment"]
        within = torch.arange(views, device="cuda") % row["views_per_segment"]
        # The invariant subspace groups whole segments, each other one by a level of its factor.
        ids = [segment] + [segment * 2 + (within >> k) % 2 for k in range(len(config["subspaces"]) - 1)]
        self.ids = ids
        self.diagonal = torch.eye(views, dtype=torch.bool, device="cuda")
        self.loss = torch.compile(self.forward) if compiled else self.forward

    def forward(self, frames):
        with torch.autocast("cuda", torch.bfloat16):
            projected = [self.model.project(k, e) for k, e in enumerate(self.model.embed(frames))]
        total = 0.0
        for z, ids in zip(projected, self.ids):
            z = F.normalize(z.float(), dim=1)
            logits = (z @ z.T / self.train["temperature"]).masked_fill(self.diagonal, -1e9)
            pairs = ((ids[:, None] == ids) & ~self.diagonal).float()
            logs = logits.log_softmax(1)
            total = total - (logs * pairs / pairs.sum(1, keepdim=True).clamp_min(1)).sum(1).mean()
        return total / len(projected)

    def step(self):
        self.loss(self.features).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.train["clip"], foreach=True)
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)


def training(rows, seconds, compile_too):
    out = []
    for row in rows:
        for compiled in ([False, True] if compile_too else [False]):
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            entry = {"name": row["name"], "seconds": row["seconds"], "views": row["views"], "compiled": compiled}
            try:
                trainer = Trainer(row, compiled)
                per_step = timed(trainer.step, seconds)
                entry["views_s"] = row["views"] / per_step
                entry["peak_bytes"] = torch.cuda.max_memory_allocated()
                entry["loev_over"] = row["views_s"] / entry["views_s"]
            except (torch.OutOfMemoryError, RuntimeError) as error:
                entry["error"] = str(error).split("\n")[0]
            out.append(entry)
            print(json.dumps(entry), flush=True)
            trainer = None
    return out


class Chain:
    """Gain, polarity, coloured noise, filter, pitch shift, time stretch and log-mel of a batch of views."""

    def __init__(self, row, groups):
        import torchaudio

        self.audio, self.groups, self.row = torchaudio, groups, row
        self.rate, self.seconds = row["sample_rate"], row["seconds"]
        self.frames = int(self.rate * self.seconds)
        # A quarter more than a view, so that a stretch has something to read.
        self.source = torch.randn(row["views"], int(self.frames * 1.25), device="cuda") * 0.1
        front_end = row["front_end"]
        self.mel = torchaudio.transforms.MelSpectrogram(
            self.rate, front_end["fft"], front_end["window"], front_end["hop"], front_end["low_hz"],
            front_end["high_hz"], n_mels=front_end["mels"], mel_scale="htk",
        ).cuda()
        self.decibels = torchaudio.transforms.AmplitudeToDB("power")
        self.window = torch.hann_window(2048, device="cuda")
        self.point = self.audiomentations()

    def audiomentations(self):
        if not importlib.util.find_spec("torch_audiomentations"):
            return None
        import torch_audiomentations as ta

        common = {"p": 0.5, "sample_rate": self.rate, "output_type": "tensor"}
        return ta.Compose([
            ta.Gain(-15.0, 5.0, **common), ta.PolarityInversion(**common),
            ta.AddColoredNoise(3.0, 30.0, -2.0, 2.0, **common),
            ta.OneOf([ta.LowPassFilter(1000, 7000, **common), ta.HighPassFilter(40, 500, **common)],
                     output_type="tensor"),
        ], output_type="tensor")

    def pointwise(self, x):
        """What torch-audiomentations does where it is there; else the same from PyTorch's own parts."""
        if self.point is not None:
            return self.point(x[:, None], sample_rate=self.rate)[:, 0]
        n = x.shape[0]
        gain = 10 ** (torch.empty(n, 1, device="cuda").uniform_(-15, 5) / 20)
        x = x * gain * (torch.randint(0, 2, (n, 1), device="cuda") * 2 - 1)
        shape = torch.arange(x.shape[1] // 2 + 1, device="cuda").clamp_min(1).float()
        exponent = torch.empty(n, 1, device="cuda").uniform_(-2, 2)
        noise = torch.fft.irfft(torch.fft.rfft(torch.randn_like(x)) * shape ** (-exponent / 2), x.shape[1])
        snr = 10 ** (torch.empty(n, 1, device="cuda").uniform_(3, 30) / 20)
        level = x.square().mean(1, keepdim=True).sqrt() / snr
        x = x + noise * level / noise.square().mean(1, keepdim=True).sqrt()
        return torch.cat([self.audio.functional.lowpass_biquad(part, self.rate, 2000.0 + 500 * i)
                          for i, part in enumerate(x.chunk(self.groups))])

    def warp(self, x, semitones, rate):
        """torchaudio's phase vocoder and resampling, for views that share both."""
        functional = self.audio.functional
        if rate != 1.0:
            spectrum = torch.stft(x, 2048, 512, window=self.window, return_complex=True)
            advance = torch.linspace(0, torch.pi * 512, 1025, device="cuda")[..., None]
            spectrum = functional.phase_vocoder(spectrum, rate, advance)
            x = torch.istft(spectrum, 2048, 512, window=self.window)
        return functional.pitch_shift(x, self.rate, semitones, n_fft=2048)

    def render(self):
        parts = []
        for i, part in enumerate(self.source.chunk(self.groups)):
            semitones = -4 + 8 * i // max(1, self.groups - 1)
            rate = round(0.85 + 0.35 * i / max(1, self.groups - 1), 2)
            parts.append(F.pad(self.warp(part, semitones, rate), (0, self.frames))[:, : self.frames])
        return self.decibels(self.mel(self.pointwise(torch.cat(parts))))


def rendering(rows, seconds, groups):
    out = []
    for row in rows:
        if row["name"] != "loev":
            continue
        entry = {"name": row["name"], "seconds": row["seconds"], "views": row["views"], "groups": groups}
        try:
            chain = Chain(row, groups)
            entry["by"] = "torchaudio" + (" and torch-audiomentations" if chain.point is not None else "")
            entry["views_s"] = row["views"] / timed(chain.render, seconds, warm=2)
            entry["loev_over"] = row["views_s"] / entry["views_s"]
        except Exception as error:  # What is not installed, or does not fit, is said and left out.
            entry["error"] = f"{type(error).__name__}: {error}".split("\n")[0]
        out.append(entry)
        print(json.dumps(entry), flush=True)
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("ours", help="what `loev bench gpu --json` wrote")
    parser.add_argument("--json", help="write everything here")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each thing is timed")
    parser.add_argument("--groups", type=int, default=8, help="groups of views that share a shift and a rate")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("PyTorch finds no GPU")
    torch.backends.cuda.matmul.allow_tf32 = True
    ours = json.loads(Path(args.ours).read_text())
    print(f"PyTorch {torch.__version__} on {torch.cuda.get_device_name()}", flush=True)
    answer = {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(),
        "render": rendering(ours["render"], args.seconds, args.groups),
        "training": training(ours["training"], args.seconds, not args.no_compile),
    }
    print("\n| what | seconds | views | PyTorch | loev / PyTorch |\n| --- | --- | --- | --- | --- |")
    for row in answer["render"] + answer["training"]:
        how = "compiled" if row.get("compiled") else row.get("by", "eager")
        said = row.get("error") or f"{row['loev_over']:.2f}"
        print(f"| {row['name']} | {row['seconds']:g} | {row['views']} | {how} | {said} |")
    if args.json:
        Path(args.json).write_text(json.dumps(answer, indent=1))


if __name__ == "__main__":
    main()
