"""Times every operator against the other libraries, and prints which of theirs does what ours do (--list)."""

import argparse
import importlib
import inspect
import json
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from common import FORMATS, Loev, excerpt, one_thread, tracks, write

one_thread()

import numpy as np  # noqa: E402
import torch  # noqa: E402

TABLE = Path(__file__).with_name("operators.json")
SECONDS = 3.0
ROUND_SECONDS = 0.1
# Peers this many times slower than the fastest are timed once only.
TOO_SLOW = 20


def filled(value, places):
    """`$name` and `$rate/x` in options, replaced."""
    if isinstance(value, str) and value.startswith("$"):
        name, _, divisor = value[1:].partition("/")
        return places[name] / float(divisor) if divisor else places[name]
    return value


def step(entry, places):
    """A function of samples (an array, one-dimensional when mono) that does what an entry of the table says."""
    module, name = entry["call"].rsplit(".", 1)
    library, rate = module.split(".")[0], places["rate"]
    function = getattr(importlib.import_module(module), name)
    options = {key: filled(value, places) for key, value in entry.get("with", {}).items()}
    if library == "audiomentations":
        transform = partial(function(p=1.0, **options), sample_rate=rate)
        # Some return a reversed or cut view of their input, which the next reader would pay for.
        return lambda x: np.ascontiguousarray(transform(x))
    if library == "torch_audiomentations":
        transform = function(p=1.0, sample_rate=rate, output_type="tensor", **options)
        return lambda x: transform(x.reshape(1, -1, x.shape[-1]))
    if library == "pedalboard" and inspect.isclass(function):
        return partial(function(**options), sample_rate=rate)
    if library == "pedalboard":
        return lambda x: function(x, rate, **options)
    if library == "librosa":
        rates = {"orig_sr": rate} if name == "resample" else {"sr": rate} if name == "pitch_shift" else {}
        return partial(function, **rates, **options)
    if library == "soxr":
        return lambda x: function(x.T, rate, **options)
    if inspect.isclass(function):
        return function(**options)
    names = inspect.signature(function).parameters
    rates = {key: rate for key in ("sample_rate", "orig_freq") if key in names}
    return partial(function, **rates, **options)


def peer(entry, places):
    """What a peer of the table does, and its name."""
    entries = entry.get("steps", [entry])
    steps = [step(one, places) for one in entries]
    name = entries[0]["call"] + (f" and {len(entries) - 1} more" if len(entries) > 1 else "")

    def run(x):
        for do in steps:
            x = do(x)
        return x

    return name + described(entry), run


def described(entry):
    """What a table says about a peer, in brackets. `lesser`: does less than we do, and so cannot be the best."""
    notes = [entry[key] for key in ["note"] if key in entry] + ["lesser"] * entry.get("lesser", False)
    return f" ({', '.join(notes)})" if notes else ""


def source_of(entry, audio):
    """The audio as the library of an entry wants it; tensors are made outside of what is timed."""
    library = entry.get("steps", [entry])[0]["call"].split(".")[0]
    samples = audio[0] if len(audio) == 1 else audio
    return torch.from_numpy(audio.copy()) if library.startswith("torch") else samples


def median_time(run, count):
    times = []
    for _ in range(count):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def our_view(name, entry, places, fixed):
    """One operator, always applied; with the parameters of the table, or all it draws by default."""
    ours = {key: value for key, value in entry.get("ours", {}).items() if fixed or key == "from"}
    chain = entry.get("chain", {"base": [{name: ours | {"p": 1}}]})
    shape = {"sample_rate": places["rate"], "seconds": SECONDS, "channels": places["channels"]}
    partners = {key: places[key] for key in ("noise", "impulse")}
    return {"input": places["clip"], "chain": shape | chain, "partners": partners}


def compare(loev, entry, name, places, audio, rounds):
    """Seconds per round by name, ours first, all taking turns; then the worst by the median of our own draws."""
    ours = partial(loev.ask, "time", view=our_view(name, entry, places, True))
    varied = not entry.get("ours", {}).keys() - {"from"}

    def our_time(count):
        return statistics.median(ours(draws=8 if varied else 1, iterations=count)["seconds"])

    frames = round(SECONDS * entry.get("seconds", 1.0) * places["rate"])
    timers = {"loev": our_time}
    for other in entry["peers"]:
        label, run = peer(other, places)
        timers[label] = partial(median_time, partial(run, source_of(other, audio[:, :frames])))
    for label, timer in list(timers.items()):
        try:
            timer(1)
        except Exception as error:
            if label == "loev":
                raise
            print(f"{name}: {label} left out: {str(error).splitlines()[0]}", file=sys.stderr)
            del timers[label]
    once = {label: timer(1) for label, timer in timers.items()}
    times = {label: [seconds] for label, seconds in once.items()}
    fastest = min([once[label] for label in timers if label != "loev"], default=0.0)
    racing = [label for label in timers if label == "loev" or once[label] < TOO_SLOW * fastest]
    times.update((label, []) for label in racing)
    for _ in range(rounds):
        for label in racing:
            count = int(np.clip(ROUND_SECONDS / once[label], 1, 500))
            times[label].append(timers[label](count))
    draws = loev.ask("time", view=our_view(name, entry, places, False), draws=24, iterations=5)
    return times, max(draws["seconds"]) / statistics.median(draws["seconds"])


def row(name, times, spread):
    """A line of the result, and its numbers."""
    middle = {label: statistics.median(found) for label, found in times.items()}
    peers = [label for label in times if label != "loev" and not label.endswith("lesser)")]
    text = f"| {name} | {1e6 * middle['loev']:,.0f} "
    ratio = best = None
    if peers:
        best = min(peers, key=middle.get)
        ratio = statistics.median(a / b for a, b in zip(times["loev"], times[best]))
        text += f"| {best} | {1e6 * middle[best]:,.0f} | {ratio:.3f} "
    else:
        text += "| | | "
    print(text + f"| {spread:.2f} |", flush=True)
    return {"operator": name, "best": best, "ratio": ratio, "worst_by_median": spread, "seconds": middle}


def listing(table):
    """The peers of every operator as a Markdown table."""
    libraries = ["audiomentations", "torch_audiomentations", "pedalboard", "torchaudio", "librosa", "soxr"]
    print("| operator | " + " | ".join(libraries) + " |\n|" + " --- |" * (len(libraries) + 1))
    for name, entry in table.items():
        if "chain" in entry:
            continue
        cells = {library: [] for library in libraries}
        for other in entry["peers"]:
            for one in other.get("steps", [other]):
                library, _, call = one["call"].partition(".")
                call = call.rsplit(".", 1)[-1]
                text = call + described(other)
                cells[library] += [] if text in cells[library] else [text]
        print(f"| {name} | " + " | ".join(", ".join(cells[library]) for library in libraries) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("music", type=Path, nargs="?", help="a folder of FLAC, MP3, Ogg or WAV files")
    parser.add_argument("--list", action="store_true", help="print which peer does what, and stop")
    parser.add_argument("--rounds", type=int, default=7, help="how often all take turns (default 7)")
    parser.add_argument("--only", nargs="+", help="operators to time")
    parser.add_argument("--json", type=Path, help="write all times here")
    parser.add_argument("--program", help="the program `peers` where it is built already")
    options = parser.parse_args()
    table = json.loads(TABLE.read_text())
    if options.list or not options.music:
        return listing(table)

    torch.set_num_threads(1)
    loev = Loev(options.program)
    folder = Path(tempfile.mkdtemp(dir=loev.folder.name))
    path = tracks(options.music, 1)[0]
    results = []
    for title, (rate, channels) in FORMATS.items():
        places = {"rate": rate, **{k: str(folder / f"{k} {rate}.wav") for k in ("clip", "noise", "impulse")}}
        places["channels"] = "stereo" if channels == 2 else "mono"
        audio = excerpt(path, 20, rate, channels)
        decay = np.exp(-np.arange(rate // 2) / (0.1 * rate)) * np.random.default_rng(1).normal(size=rate // 2)
        write(places["clip"], audio, rate)
        write(places["noise"], audio[:1, ::-1], rate)
        write(places["impulse"], (0.1 * decay[None]).astype(np.float32), rate)
        print(f"\n## Views of {SECONDS:g} s at {title}\n")
        print("| operator | loev, us | best peer | peer, us | loev / peer | worst / median draw |")
        print("| --- | ---: | --- | ---: | ---: | ---: |")
        for name, entry in table.items():
            if options.only and name not in options.only:
                continue
            if "chain" not in entry and not loev.ask("knows", operator=name):
                print(f"| {name} | not there | | | | |")
                continue
            result = row(name, *compare(loev, entry, name, places, audio, options.rounds))
            results.append({"format": title, **result})
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
