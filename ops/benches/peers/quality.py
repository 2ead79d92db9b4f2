"""Compares pitch shifting and time stretching with other libraries, on synthetic sound and on real music."""

import argparse
import csv
from collections import defaultdict
from pathlib import Path

import numpy as np

from common import FORMATS, Loev, excerpt, one_thread, tracks

one_thread()

import measures  # noqa: E402
from stretchers import all_stretchers  # noqa: E402

CHORD_HZ = [130.81, 196.0, 329.63, 493.88, 880.0, 1760.0]
WARPS = [(0.0, 0.75), (0.0, 1.25), (-4.0, 1.0), (4.0, 1.0)]
SECONDS = 8
MUSIC_COLUMNS = {
    "spectral": "spectral, dB",
    "balance": "balance, dB",
    "attack": "attack, dB",
    "timing_ms": "timing, ms",
    "crest": "crest, dB",
    "width": "width, dB",
    "round_trip": "round trip, dB",
    "delay_ms": "delay, ms",
    "frames": "length, frames",
}


def chord(rate):
    time = np.arange(SECONDS * rate) / rate
    tones = [np.sin(2 * np.pi * hz * time + i) for i, hz in enumerate(CHORD_HZ)]
    return (0.1 * sum(tones)).astype(np.float32)[None]


def pulses(rate, hz=110.0):
    """Harmonics all in step, as of a voice: one sharp pulse a period."""
    time = np.arange(SECONDS * rate) / rate
    tones = [np.cos(2 * np.pi * hz * k * time) for k in range(1, int(0.3 * rate / hz))]
    return (0.5 * sum(tones) / len(tones)).astype(np.float32)[None]


def bursts(rate):
    """Noise that decays within 20 ms, twice a second, out of silence; and when."""
    times = np.arange(0.5, SECONDS - 0.5, 0.5)
    noise = np.random.default_rng(1).normal(size=rate // 10) * np.exp(-np.arange(rate // 10) / (0.005 * rate))
    x = np.zeros(SECONDS * rate)
    for time in times:
        x[int(time * rate) :][: len(noise)] += 0.2 * noise
    return x.astype(np.float32)[None], times


def synthetic(stretch, rate):
    """The worst of all warps for each measure on synthetic sound."""
    values = defaultdict(list)
    hits, times = bursts(rate)
    for semitones, speed in WARPS:
        ratio = 2 ** (semitones / 12)
        tones = stretch(chord(rate), rate, semitones, speed)[0]
        wanted = [hz * ratio for hz in CHORD_HZ]
        values["pitch, cents"].append(measures.cents(tones, rate, wanted))
        values["impurity, dB"].append(measures.impurity(tones, rate, wanted))
        voice = stretch(pulses(rate), rate, semitones, speed)[0][rate // 2 : -rate // 2]
        lost = measures.crest(pulses(rate)[0], rate) - measures.crest(voice, rate, 0.025 / ratio)
        values["pulse crest, dB"].append(lost)
        struck = stretch(hits, rate, semitones, speed)[0]
        values["pre-echo, dB"].append(measures.pre_echo(struck, rate, times[1:-1] / speed))
        values["length, frames"].append(abs(len(tones) - round(SECONDS * rate / speed)))
    return {name: max(found) for name, found in values.items()}


def on_track(stretch, audio, rate, semitones, speed):
    ratio = 2 ** (semitones / 12)
    result = stretch(audio, rate, semitones, speed)
    values = measures.on_music(result, audio, rate, ratio, speed)
    back = stretch(np.ascontiguousarray(result), rate, -semitones, 1 / speed)
    values["round_trip"] = measures.compare(back, audio, rate, 1.0, 1.0)["spectral"]
    return values


def table(rows):
    """A Markdown table of dictionaries with the same keys."""
    names = list(rows[0])
    text = [[f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    lines = [names, ["---"] + ["---:"] * (len(names) - 1)] + text
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def synthetic_table(stretchers, rate):
    rows = []
    for name, stretch in stretchers.items():
        row = {"": name} | synthetic(stretch, rate)
        rows.append({k: float(v) if k else v for k, v in row.items()})
    return table(rows)


def summary(records, stretchers):
    """Means over tracks of all measures, and on how many tracks a peer is nearer to the original than we are."""
    rows = []
    ours = {r["track"]: r for r in records if r["by"] == "loev"}
    for name in stretchers:
        mine = [r for r in records if r["by"] == name]
        row = {"": name}
        for key, title in MUSIC_COLUMNS.items():
            found = [abs(r[key]) if key == "delay_ms" else r[key] for r in mine if key in r]
            if found:
                row[title] = float(np.mean(found))
        better = sum(r["spectral"] < ours[r["track"]]["spectral"] for r in mine)
        row["spectral better than loev"] = f"{better} of {len(mine)}"
        rows.append(row)
    return table(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("music", type=Path, help="a folder of FLAC, MP3, Ogg or WAV files")
    parser.add_argument("--tracks", type=int, default=20, help="how many of them (default 20)")
    parser.add_argument("--csv", type=Path, help="write the values of every track here")
    parser.add_argument("--only", nargs="+", help="names of the stretchers to run; loev always runs")
    parser.add_argument("--program", help="the program `peers` where it is built already")
    options = parser.parse_args()

    stretchers = all_stretchers(Loev(options.program))
    if options.only:
        stretchers = {k: v for k, v in stretchers.items() if k == "loev" or k in options.only}
    chosen = tracks(options.music, options.tracks)
    everything = []
    for title, (rate, channels) in FORMATS.items():
        print(f"## {title}\n\nSynthetic sound, worst of {len(WARPS)} warps:\n")
        print(synthetic_table(stretchers, rate), flush=True)
        music = {path.name: excerpt(path, SECONDS, rate, channels) for path in chosen}
        row = {
            name: float(np.mean([measures.identity_snr(f(x, rate, 0.0, 1.0), x, rate) for x in music.values()]))
            for name, f in stretchers.items()
        }
        print(f"SNR at identity on {len(music)} tracks, dB:\n\n{table([row])}")
        for semitones, speed in WARPS:
            records = [
                {"by": name, "track": track} | on_track(stretch, audio, rate, semitones, speed)
                for track, audio in music.items()
                for name, stretch in stretchers.items()
            ]
            print(f"{semitones:+g} semitones at speed {speed:g}, mean of {len(music)} tracks:\n")
            print(summary(records, stretchers), flush=True)
            everything += [{"format": title, "semitones": semitones, "speed": speed} | r for r in records]
    if options.csv:
        with options.csv.open("w", newline="") as file:
            names = ["format", "semitones", "speed", "by", "track", *MUSIC_COLUMNS]
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(everything)


if __name__ == "__main__":
    main()
