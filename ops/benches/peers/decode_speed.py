#!/usr/bin/env python3
"""Times reading audio for training, on one thread: decode, mix to mono, resample to 16 kHz.

    decode_speed.py [--reader PROGRAM] [--crops N] [--rounds N] FILE_OR_FOLDER...

Two tasks per codec: random crops of 3 to 10 s, and whole files. Against ours run those peers that are
installed: ffmpeg (one process per read), torchcodec, soundfile + soxr, librosa. All read the same crops,
in an order that is shuffled in each round; of the rounds the median counts. Times are processor times,
which hold on a machine that does other work too. Prints seconds of audio per second, and the ratios of
ours to the best peer. Ours runs twice: `cold` in a process that meets each file for the first time, and
`warm` where it has read from it once.
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402

from decode_compare import SUFFIXES, ask, build, run_jobs  # noqa: E402

RATE = 16_000


def ffmpeg(path, start, seconds):
    command = ["ffmpeg", "-v", "quiet", "-nostdin", "-threads", "1"]
    command += ["-ss", f"{start:.6f}", "-t", f"{seconds:.6f}"] if seconds else []
    command += ["-i", path, "-map", "0:a:0", "-ac", "1", "-ar", str(RATE), "-f", "f32le", "-"]
    return np.frombuffer(subprocess.run(command, stdout=subprocess.PIPE).stdout, "<f4")


def peers():
    found = {"ffmpeg": ffmpeg}
    try:
        import torch
        from torchcodec.decoders import AudioDecoder
        torch.set_num_threads(1)

        def torchcodec(path, start, seconds):
            decoder = AudioDecoder(path, sample_rate=RATE, num_channels=1)
            if seconds is None:
                return decoder.get_all_samples().data.numpy()
            return decoder.get_samples_played_in_range(start, start + seconds).data.numpy()
        found["torchcodec"] = torchcodec
    except (ImportError, RuntimeError, OSError) as error:
        print(f"no torchcodec: {str(error).splitlines()[0]}", file=sys.stderr)
    try:
        import soundfile
        import soxr

        def sound_soxr(path, start, seconds):
            with soundfile.SoundFile(path) as file:
                file.seek(round(start * file.samplerate))
                count = -1 if seconds is None else round(seconds * file.samplerate)
                audio = file.read(count, dtype="float32", always_2d=True)
                return soxr.resample(audio.mean(axis=1), file.samplerate, RATE)
        found["soundfile+soxr"] = sound_soxr
    except ImportError as error:
        print(f"no soundfile: {error}", file=sys.stderr)
    try:
        import librosa

        def rosa(path, start, seconds):
            return librosa.load(path, sr=RATE, mono=True, offset=start, duration=seconds)[0]
        found["librosa"] = rosa
    except ImportError as error:
        print(f"no librosa: {error}", file=sys.stderr)
    return found


def clock():
    """Processor time of this process and of those that it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def ours(reader, reads, warm):
    jobs = [{"path": p, "start": s, "seconds": n, "rate": RATE, "mono": True} for p, s, n in reads]
    first = sorted({p for p, _, _ in reads}) if warm else []
    head = [{"path": p, "start": end - 0.2, "seconds": 0.1, "rate": RATE}
            for p, end in ((p, LENGTHS[p]) for p in first)]
    answers = run_jobs(reader, head + jobs)[len(head):]
    for answer in answers:
        if "error" in answer:
            sys.exit(answer["error"])
    return sum(a["took"] for a in answers)


LENGTHS = {}


def length(path):
    command = ["ffprobe", "-v", "error", "-of", "json", "-show_entries", "format=duration", path]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    return float(json.loads(out)["format"]["duration"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--reader")
    parser.add_argument("--crops", type=int, default=40, help="crops per codec and round")
    parser.add_argument("--whole", type=int, default=3, help="whole files per codec and round")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    reader = arguments.reader or build()
    files = {}
    for name in arguments.files:
        inside = sorted(p for p in name.rglob("*") if p.suffix.lower() in SUFFIXES) if name.is_dir() else [name]
        for path in inside:
            files.setdefault(ask(path)["codec_name"], []).append(str(path))
    rng = random.Random(3)
    others = peers()
    rows = []
    for codec, paths in sorted(files.items()):
        rng.shuffle(paths)
        paths = paths[:12]
        LENGTHS.update({p: length(p) for p in paths})
        paths = [p for p in paths if LENGTHS[p] > 15]
        for task in ("crops", "whole"):
            reads = []
            for i in range(arguments.crops if task == "crops" else min(arguments.whole, len(paths))):
                path = paths[i % len(paths)]
                seconds = rng.uniform(3, 10)
                start = rng.uniform(0, LENGTHS[path] - seconds - 0.5)
                reads.append((path, round(start, 3), round(seconds, 3)) if task == "crops"
                             else (path, 0.0, int(LENGTHS[path])))
            total = sum(r[2] for r in reads)
            times = {}
            for _ in range(arguments.rounds):
                rng.shuffle(reads)
                for kind in ("cold", "warm") if task == "crops" else ("cold",):
                    times.setdefault(f"ours {kind}", []).append(ours(reader, reads, kind == "warm"))
                for peer, read in others.items():
                    began = clock()
                    try:
                        for path, start, seconds in reads:
                            read(path, start, None if task == "whole" else seconds)
                    except Exception as error:  # a peer that lacks the codec
                        print(f"{peer}, {codec}: {str(error).splitlines()[0]}", file=sys.stderr)
                        continue
                    took = clock() - began
                    times.setdefault(peer, []).append(took)
            speed = {who: total / statistics.median(t) for who, t in times.items() if t}
            mine = {who: v for who, v in speed.items() if who.startswith("ours")}
            theirs = {who: v for who, v in speed.items() if who not in mine}
            best = max(theirs, key=theirs.get)
            ratio = ", ".join(f"{v / theirs[best]:.2f}" for v in mine.values())
            rows.append(f"| {codec} | {task} | " + " | ".join(
                f"{speed[w]:.0f}" if w in speed else "" for w in ("ours cold", "ours warm", *others))
                + f" | {best} | {ratio} |")
            print(rows[-1], file=sys.stderr, flush=True)
    print("| codec | task | ours cold | ours warm | " + " | ".join(others) + " | best peer | ratio |")
    print("|" + " --- |" * (6 + len(others)))
    print("\n".join(rows))


if __name__ == "__main__":
    main()
