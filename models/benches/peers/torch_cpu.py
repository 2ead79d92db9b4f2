#!/usr/bin/env python3
"""Training steps of the quickstart's model: loev and PyTorch in turns, on the CPU.

    torch_cpu.py [--threads N] [--rounds N] [--steps N] [--eager] [--program PROGRAM] [--json OUT]

Both sides start from the same weights and train on the same batch; the losses of the first steps are
printed beside each other. Each round gives every side `--steps` steps, in an order that is shuffled, and
the machine a moment of large matrix products; of the rounds' ratios the median counts. Processor time is
shown beside time on the clock (Linux): it holds on a machine that does other work too. PROGRAM is the bench
`peers-train`, which cargo is asked for when it is not given. See README.md.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(REPOSITORY / "examples"))


def processor_time(pid):
    """Seconds that all threads of a process have run."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


class Ours:
    """The program `peers-train` (main.rs), which answers one job at a time."""

    def __init__(self, threads, program):
        cargo = "cargo bench --quiet --locked -p loev-models --bench peers-train --".split()
        command = [*([program] if program else cargo), "-"]
        environment = {**os.environ, "RAYON_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, job, **fields):
        print(json.dumps({"do": job, **fields}), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the program `peers-train` stopped; see its message above")
        answer = json.loads(line)
        if isinstance(answer, dict) and "error" in answer:
            raise SystemExit(answer["error"])
        return answer

    def steps(self, n):
        start = processor_time(self.pid)
        answer = self.ask("steps", n=n)
        return sum(answer["seconds"]), processor_time(self.pid) - start, answer["losses"]


class Torch:
    """The same training in PyTorch: the model of examples/loev_torch.py, AdamW in its fused form."""

    def __init__(self, folder, about, compiled):
        import loev_torch
        import numpy
        import torch

        self.torch, self.train, self.step = torch, about["train"], 0
        shape = about["views"], about["frames"], about["mels"]
        self.features = numpy.fromfile(folder / "features.f32", numpy.float32).reshape(shape)
        self.model = loev_torch.load(folder / "model.safetensors").train()
        plain = {"position", "class", "rhythm.group"}
        decayed = [p for name, p in self.model.named_parameters() if p.ndim > 1 and name not in plain]
        others = [p for name, p in self.model.named_parameters() if p.ndim == 1 or name in plain]
        groups = [{"params": decayed, "weight_decay": self.train["weight_decay"]},
                  {"params": others, "weight_decay": 0.0}]
        self.adam = torch.optim.AdamW(groups, lr=0.0, fused=True)
        itself = torch.eye(about["views"], dtype=torch.bool)
        ids = [torch.tensor(group) for group in about["groups"]]
        pairs = [(own[:, None] == own) & ~itself for own in ids]
        weights = [p / p.sum(1, keepdim=True) / p.shape[0] for p in pairs]
        bar = torch.zeros(itself.shape).masked_fill(itself, -torch.inf)
        unit = torch.nn.functional.normalize

        def loss(frames):
            total = 0.0
            for k, embedding in enumerate(self.model.embed(frames)):
                z = unit(self.model.project(k, embedding))
                logs = (z @ z.T / self.train["temperature"] + bar).log_softmax(1)
                total = total - logs.masked_fill(itself, 0.0).mul(weights[k]).sum()
            return total / len(weights)

        self.loss = torch.compile(loss) if compiled else loss

    def steps(self, n):
        losses, start, used = [], time.perf_counter(), processor_time(os.getpid())
        for _ in range(n):
            self.step += 1
            for group in self.adam.param_groups:
                group["lr"] = self.train["lr"] * min(self.step / self.train["warmup"], 1.0)
            loss = self.loss(self.torch.from_numpy(self.features))
            losses.append(loss.item())
            loss.backward()
            self.torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.train["clip"])
            self.adam.step()
            self.adam.zero_grad(set_to_none=True)
        return time.perf_counter() - start, processor_time(os.getpid()) - used, losses


def spread(values):
    """Median, and the quartiles about it."""
    low, median, high = statistics.quantiles(values, n=4)
    return f"{median:.2f} ({low:.2f} to {high:.2f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--eager", action="store_true", help="leave torch.compile out")
    parser.add_argument("--program", help="the built bench")
    parser.add_argument("--json", help="write the times of all rounds here")
    args = parser.parse_args()

    import torch

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        ours = Ours(args.threads, args.program)
        about = ours.ask("begin", folder=folder)
        ours.pid = about.get("pid", ours.process.pid)
        sides = {"loev": ours, "PyTorch": Torch(Path(folder), about, False)}
        if not args.eager:
            sides["PyTorch, compiled"] = Torch(Path(folder), about, True)
        print(f"{args.threads} threads, PyTorch {torch.__version__}; losses of the first steps:")
        for name, side in sides.items():
            print(f"  {name}: {' '.join(f'{x:.5f}' for x in side.steps(4)[2])}")
        times = {name: [] for name in sides}
        rates = []
        for _ in range(args.rounds):
            for name in random.sample(list(sides), len(sides)):
                times[name].append(sides[name].steps(args.steps)[:2])
            start = processor_time(ours.pid)
            done = ours.ask("products", n=10)
            rates.append(done * args.threads / (processor_time(ours.pid) - start))
    views = about["views"] * args.steps
    print("\n| side | views/s | loev / side | views/s of processor time | loev / side |")
    print("| --- | --- | --- | --- | --- |")
    for name, own in times.items():
        cells = []
        for clock in range(2):
            ratios = [b[clock] / a[clock] for a, b in zip(times["loev"], own)]
            cells += [spread([views / t[clock] for t in own]), spread(ratios)]
        print(f"| {name} | {' | '.join(cells)} |")
    flops = about["flops"] * args.steps / 1e9
    used = [t[1] / args.threads for t in times["loev"]]
    shares = [flops / t / rate for t, rate in zip(used, rates)]
    print(f"\nA step is {about['flops'] / 1e9:.2f} GFLOP of matrix products; loev does them at "
          f"{spread([flops / t for t in used])} GFLOP/s of processor time, large products run at "
          f"{spread(rates)}: a share of {spread(shares)}.")
    if args.json:
        Path(args.json).write_text(json.dumps({"about": about, "times": times, "rates": rates}))


if __name__ == "__main__":
    main()
