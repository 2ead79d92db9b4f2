#!/usr/bin/env python3
"""Compares our decoding with ffmpeg's, file by file: length, place in time, and segments.

    decode_compare.py [--reader PROGRAM] [--json OUT] [--seeks N] FILE_OR_FOLDER...

For each file: our whole decode against ffmpeg's (length, lag by cross-correlation, largest difference,
SNR), and N random segments against the same range of our own whole decode and of ffmpeg's. Prints one
line per file and a table per codec in Markdown. Needs Python 3, NumPy and ffmpeg; PROGRAM is the bench
`peers-decode`, which cargo is asked for when it is not given.

Opus is compared with libopus where ffmpeg has it: ffmpeg's own decoder gives other samples at times.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

SUFFIXES = {".wav", ".aiff", ".aif", ".flac", ".mp3", ".mp2", ".ogg", ".oga", ".opus", ".m4a", ".mp4",
            ".aac", ".mka", ".webm"}
LOSSLESS = ("pcm", "flac", "alac")


def build() -> str:
    """The path of the bench program, built by cargo."""
    command = ["cargo", "bench", "-p", "loev-ops", "--bench", "peers-decode", "--no-run",
               "--message-format=json"]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    found = [json.loads(line).get("executable") for line in lines if '"peers-decode"' in line]
    return [path for path in found if path][-1]


def run_jobs(reader: str, jobs: list) -> list:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(jobs, file)
        file.flush()
        out = subprocess.run([reader, file.name], check=True, stdout=subprocess.PIPE, text=True).stdout
    return [json.loads(line) for line in out.splitlines()]


def ask(path: Path) -> dict:
    """What ffprobe says of the first audio stream."""
    command = ["ffprobe", "-v", "error", "-select_streams", "a:0", "-of", "json", "-show_entries",
               "stream=codec_name,sample_rate,channels", str(path)]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    return json.loads(out)["streams"][0]


def ffmpeg(path: Path, codec: str, channels: int) -> np.ndarray:
    """Frames by channels."""
    before = ["-request_sample_fmt", "flt", "-c:a", "libopus"] if codec == "opus" else []
    command = ["ffmpeg", "-v", "quiet", "-nostdin", *before, "-i", str(path), "-map", "0:a:0",
               "-f", "f32le", "-"]
    out = subprocess.run(command, stdout=subprocess.PIPE).stdout
    return np.frombuffer(out, "<f4").reshape(-1, channels)


def links(path: Path) -> list:
    """The bytes of each link of a chained Ogg file; of any other file nothing."""
    data = path.read_bytes()
    starts, at, first = [], 0, False
    while data[at:at + 4] == b"OggS":
        began = bool(data[at + 5] & 2)
        if began and not first:
            starts.append(at)
        first = began
        segments = data[at + 26]
        at += 27 + segments + sum(data[at + 27:at + 27 + segments])
    return [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)])] if len(starts) > 1 else []


def reference(path: Path, codec: str, channels: int, scratch: Path) -> np.ndarray:
    """ffmpeg's decode. It plays the encoder's delay of all links of a chain but the first, so each is
    decoded as a file of its own."""
    parts = []
    for link in links(path):
        (scratch / "link.ogg").write_bytes(link)
        parts.append(ffmpeg(scratch / "link.ogg", codec, channels))
    return np.concatenate(parts) if parts else ffmpeg(path, codec, channels)


def lag(ours: np.ndarray, theirs: np.ndarray, reach: int = 4096) -> int:
    """By how many frames ours comes later, of the loudest second-and-a-half of theirs."""
    a, b = ours.mean(axis=1), theirs.mean(axis=1)
    size = 1 << 16
    n = min(len(a), len(b))
    if n <= size + 2 * reach:
        size = max(1, n - 2 * reach)
    starts = range(reach, max(reach + 1, n - size - reach), size)
    start = max(starts, key=lambda s: float(np.dot(b[s:s + size], b[s:s + size])))
    part = b[start:start + size].astype(np.float64)
    wide = a[max(0, start - reach):start + size + reach].astype(np.float64)
    length = 1 << (len(wide) + len(part)).bit_length()
    product = np.fft.irfft(np.fft.rfft(wide, length) * np.conj(np.fft.rfft(part, length)), length)
    valid = product[:max(1, len(wide) - len(part) + 1)]
    return int(np.argmax(valid)) - (start - max(0, start - reach))


def difference(a: np.ndarray, b: np.ndarray) -> float:
    n = min(len(a), len(b))
    return float(np.abs(a[:n] - b[:n]).max()) if n else 0.0


def compare(reader: str, path: Path, seeks: int, rng: random.Random, scratch: Path) -> dict:
    info = ask(path)
    codec, rate, channels = info["codec_name"], int(info["sample_rate"]), int(info["channels"])
    theirs = reference(path, codec, channels, scratch)
    result = {"file": path.name, "codec": codec, "container": path.suffix[1:], "rate": rate,
              "channels": channels, "theirs": len(theirs)}
    whole = run_jobs(reader, [{"path": str(path), "out": str(scratch / "whole")}])[0]
    if "error" in whole:
        return result | {"error": whole["error"]}
    if whole["rate"] != rate or whole["channels"] != channels:
        return result | {"error": f"{whole['rate']} Hz, {whole['channels']} channels"}
    ours = np.fromfile(scratch / "whole", "<f4").reshape(-1, channels)
    n = min(len(ours), len(theirs))
    noise = float(np.square(ours[:n].astype(np.float64) - theirs[:n]).sum())
    signal = float(np.square(theirs[:n].astype(np.float64)).sum())
    result |= {
        "ours": len(ours),
        "lag": lag(ours, theirs),
        "max": difference(ours, theirs),
        "snr": 10 * np.log10(signal / noise) if noise > 0 and signal > 0 else float("inf"),
    }
    jobs = []
    longest = max(1, min(4 * rate, len(ours) // 2))
    for i in range(seeks):
        frames = rng.randint(1, longest)
        # The first and the last frames, and anything between.
        start = {0: 0, 1: len(ours) - frames}.get(i, rng.randint(0, len(ours) - frames))
        jobs.append({"path": str(path), "start": start / rate, "seconds": frames / rate, "rate": rate,
                     "out": str(scratch / f"{i}"), "frame": start})
    own = foreign = 0.0
    answers = run_jobs(reader, [{k: v for k, v in job.items() if k != "frame"} for job in jobs])
    for job, answer in zip(jobs, answers):
        if "error" in answer:
            return result | {"error": f"at {job['start']:.3f} s: {answer['error']}"}
        part = np.fromfile(job["out"], "<f4").reshape(-1, channels)
        own = max(own, difference(part, ours[job["frame"]:job["frame"] + len(part)]))
        foreign = max(foreign, difference(part, theirs[job["frame"]:job["frame"] + len(part)]))
    return result | {"seek_own": own, "seek_theirs": foreign, "seeks": len(jobs)}


def group(row: dict) -> str:
    codec = "pcm" if row["codec"].startswith("pcm") else row["codec"]
    return f"{codec} in {row['container']}"


def table(rows: list) -> str:
    head = ["codec", "files", "rates (kHz)", "channels", "refused", "largest lag", "length differs",
            "by at most", "largest difference", "least SNR (dB)", "segment vs whole", "segment vs ffmpeg"]
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join(["---"] * len(head)) + " |"]
    span = lambda values: f"{min(values):g}" if len(set(values)) == 1 else f"{min(values):g}-{max(values):g}"
    for name in sorted({group(r) for r in rows}):
        all_rows = [r for r in rows if group(r) == name]
        good = [r for r in all_rows if "error" not in r]
        cells = [name, str(len(all_rows)), span([r["rate"] / 1000 for r in all_rows]),
                 span([r["channels"] for r in all_rows]), str(len(all_rows) - len(good))]
        if good:
            lengths = [r["ours"] - r["theirs"] for r in good]
            snr = min(r["snr"] for r in good)
            cells += [
                str(max((r["lag"] for r in good), key=abs)),
                str(sum(d != 0 for d in lengths)),
                str(max(lengths, key=abs)),
                f"{max(r['max'] for r in good):.1e}" if snr < float("inf") else "0",
                f"{snr:.0f}" if snr < float("inf") else "equal",
                *(f"{v:.1e}" if v else "0" for v in
                  (max(r["seek_own"] for r in good), max(r["seek_theirs"] for r in good))),
            ]
        else:
            cells += [""] * 7
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--reader")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeks", type=int, default=8)
    arguments = parser.parse_args()
    reader = arguments.reader or build()
    files = []
    for name in arguments.files:
        inside = sorted(p for p in name.rglob("*") if p.suffix.lower() in SUFFIXES) if name.is_dir() else [name]
        files += inside
    rows = []
    rng = random.Random(7)
    with tempfile.TemporaryDirectory() as scratch:
        for path in files:
            try:
                row = compare(reader, path, arguments.seeks, rng, Path(scratch))
            except (ValueError, KeyError, subprocess.CalledProcessError) as error:
                row = {"file": path.name, "codec": "?", "container": path.suffix[1:], "rate": 0,
                       "channels": 0, "error": f"not compared: {error}"}
            rows.append(row)
            figures = row.get("error") or (
                f"length {row['ours']} ({row['ours'] - row['theirs']:+d}), lag {row['lag']}, "
                f"max {row['max']:.1e}, SNR {row['snr']:.0f} dB, segments {row['seek_own']:.1e} own, "
                f"{row['seek_theirs']:.1e} ffmpeg")
            print(f"{row['file']}: {row['codec']} {row['rate']} Hz x{row['channels']}: {figures}",
                  file=sys.stderr, flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))
    print(table(rows))
    print(f"\n{len(rows)} files, {sum(r.get('seeks', 0) for r in rows)} segments.")


if __name__ == "__main__":
    main()
