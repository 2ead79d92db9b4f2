#!/usr/bin/env python3
"""Renders traditional tunes with exact key, tempo and style, as FLAC files and one manifest.

    pip install music21                  # the tunes (ABC), about 20 MB; nothing of it is imported
    apt install abcmidi fluidsynth ffmpeg timgm6mb-soundfont fluid-soundfont-gm
    python3 examples/render-tunes.py TUNES --clips 1200

writes TUNES/*.flac and TUNES/manifest.csv (path, key, bpm, style, instrument, soundfont, tune, split).

The melodies are played in a drawn key, tempo and instrument over a harmonisation of our own (per bar the
triad of the key that holds most of the melody) with bass, chords and drums. `bpm` counts quarter notes and
is empty where the felt beat is another one (compound metres). Splits are by tune; the test split is played
half with a soundfont that the other splits never use. All choices follow from the tune and the seed. The
tunes come from collections with licences of their own: use them, do not publish them.
"""

import argparse
import collections
import concurrent.futures
import csv
import hashlib
import importlib.util
import pathlib
import random
import re
import subprocess
import sys
import tempfile
from fractions import Fraction

FONTS = ["/usr/share/sounds/sf2/TimGM6mb.sf2", "/usr/share/sounds/sf2/FluidR3_GM.sf2"]
COLLECTIONS = ["ryansMammoth", "oneills1850", "nottingham-dataset"]
SHARPS = ["C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B"]
PITCH = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
METRES = {"2/4": 2, "4/4": 4, "C": 4, "C|": 4, "3/4": 3, "6/8": 3, "9/8": Fraction(9, 2), "12/8": 6}
KEY = re.compile(r"^([A-G])([#b]?)\s*(maj|major|m|min|minor)?$", re.I)
# General MIDI programs that carry a melody, with the octave in which they sound well.
MELODY = {
    "piano": (0, 0), "accordion": (21, 0), "guitar": (24, 0), "violin": (40, 0), "trumpet": (56, -1),
    "sax": (65, -1), "clarinet": (71, 0), "flute": (73, 0), "marimba": (12, 0), "harpsichord": (6, 0),
    "vibraphone": (11, 0), "recorder": (74, 0), "oboe": (68, 0), "banjo": (105, -1), "organ": (19, 0),
}
CHORDS = [0, 4, 24, 25, 26, 48, 49, 16, 21]
BASSES = [32, 33, 35, 43]
# Notes of the drum kit: kick, snare, closed hat, open hat, side stick, tambourine.
KICK, SNARE, HAT, OPEN, STICK, TAMBOURINE = 36, 38, 42, 46, 37, 54
NOTE = re.compile(
    r"(?P<tuplet>\((?P<n>[2-9]))|(?P<acc>\^\^|__|[\^_=])?(?P<name>[A-Ga-gz])(?P<oct>[,']*)(?P<len>\d*(?:/+\d*)?)(?P<broken>[<>]*)"
)


def collection_folder():
    spec = importlib.util.find_spec("music21")
    if spec is None:
        sys.exit("the tunes come with the Python package music21: pip install music21")
    return pathlib.Path(spec.origin).parent / "corpus"


def tunes(folder):
    """(name, fields, body) of every tune that has one plain key and one metre."""
    for collection in COLLECTIONS:
        for path in sorted((folder / collection).glob("**/*.abc")):
            text = path.read_text(encoding="latin-1")
            for number, block in enumerate(re.split(r"(?m)^(?=X:)", text)[1:]):
                fields, body = {}, []
                for line in block.splitlines():
                    field = re.match(r"^([A-Za-z]):\s*(.*?)\s*(?:%.*)?$", line)
                    if field and not body:
                        fields.setdefault(field[1], field[2])
                    elif field and field[1] in "KML":
                        fields.clear()
                        break
                    elif not field and line.strip():
                        body.append(line)
                if {"K", "M", "T"} <= fields.keys() and KEY.match(fields["K"]) and fields["M"] in METRES:
                    yield f"{collection}/{path.stem}/{number}", fields, "\n".join(body)


def length(text):
    if not text:
        return Fraction(1)
    top, *below = text.split("/")
    value = Fraction(int(top or 1))
    for part in below:
        value /= int(part or 2)
    return value


def bars(body, signature, unit, metre):
    """Whole bars as (ABC text, weight of each pitch class); what cannot be read is left out."""
    body = re.sub(r'%.*|\\|"[^"]*"|![^!]*!|\{[^}]*\}', " ", body)
    body = re.sub(r"\((?![2-9])|\)|[~.uvTHLMPSJRO]", "", body)
    for text in re.split(r"(?:\|?\[\d|:*\|[\d\]|:]*|:+)", body):
        text = re.sub(r"[\s-]+", "", text)
        weights, accidentals, at, total = collections.Counter(), {}, 0, Fraction(0)
        tuplet, factor, dotted = 0, Fraction(1), None
        for match in NOTE.finditer(text):
            if match.start() != at:
                break
            at = match.end()
            if match["tuplet"]:
                tuplet, factor = int(match["n"]), Fraction(2, 3) if match["n"] == "3" else Fraction(1)
                continue
            duration = length(match["len"]) * unit * 4
            if tuplet:
                duration, tuplet = duration * factor, tuplet - 1
            if dotted:
                duration, dotted = duration * dotted, None
            if match["broken"]:
                duration *= Fraction(3, 2) if match["broken"][0] == ">" else Fraction(1, 2)
                dotted = Fraction(1, 2) if match["broken"][0] == ">" else Fraction(3, 2)
            total += duration
            if match["name"] != "z":
                name = match["name"].upper()
                if match["acc"]:
                    accidentals[name] = {"^": 1, "^^": 2, "_": -1, "__": -2, "=": 0}[match["acc"]]
                shift = accidentals.get(name, signature.get(name, 0))
                weights[(PITCH[name] + shift) % 12] += float(duration)
        if at == len(text) and text and total == metre and weights:
            yield text, weights


def key_of(field):
    letter, sign, mode = KEY.match(field).groups()
    minor = bool(mode) and mode.lower() in ("m", "min", "minor")
    tonic = (PITCH[letter.upper()] + {"": 0, "#": 1, "b": -1}[sign]) % 12
    fifths = (((tonic + (3 if minor else 0)) * 7) % 12 + 5) % 12 - 5
    order = "FCGDAEB"
    signature = {n: 1 for n in order[:fifths]} if fifths >= 0 else {n: -1 for n in order[::-1][:-fifths]}
    return tonic, minor, signature


def chord(weights, tonic, minor, last):
    triads = [(0, "m"), (3, ""), (5, "m"), (7, ""), (8, ""), (10, "")] if minor else [
        (0, ""), (2, "m"), (5, ""), (7, ""), (9, "m")]

    def fit(triad):
        root = (tonic + triad[0]) % 12
        third = (root + (3 if triad[1] else 4)) % 12
        fifth = (root + 7) % 12
        favour = 0.3 if triad[0] in (0, 5, 7) else 0.0
        return weights[root] + weights[third] + 0.8 * weights[fifth] + favour - (0.4 if triad == last else 0)

    return max(triads, key=fit)


def drum_line(style, quarters, draw):
    """An abc2midi drum line of eighths, or None for a tune without drums."""
    eighths = int(quarters * 2)
    if style == 0:
        return None
    hits = []
    for i in range(eighths):
        if quarters == 3 and eighths == 6:
            kinds = {0: KICK, 2: STICK, 4: STICK}
        elif eighths % 3 == 0:
            kinds = {i: KICK if i == 0 else SNARE for i in range(0, eighths, 3)}
        else:
            kinds = {i: (KICK if (i // 2) % 2 == 0 else SNARE) for i in range(0, eighths, 2)}
        if style == 1:
            hits.append(kinds.get(i))
        elif style == 2:
            hits.append(kinds.get(i, HAT))
        else:
            hits.append(TAMBOURINE if i % 2 == 0 else (OPEN if draw.random() < 0.1 else HAT))
    pattern = "".join("d" if hit else "z" for hit in hits)
    played = [hit for hit in hits if hit]
    loud = [str(draw.randint(55, 95)) for _ in played]
    return f"%%MIDI drum {pattern} {' '.join(map(str, played))} {' '.join(loud)}\n%%MIDI drumon"


def compose(name, fields, body, draw, seconds):
    """ABC of the arrangement and its labels, or None when the tune has too few readable bars."""
    tonic, minor, signature = key_of(fields["K"])
    metre = METRES[fields["M"]]
    unit = Fraction(fields["L"]) if "/" in fields.get("L", "") else Fraction(1, 8)
    music = list(bars(body, signature, unit, Fraction(metre)))
    if len(music) < 6:
        return None
    compound = fields["M"].endswith("/8")
    bpm = round(70 * 2 ** draw.uniform(0, 1.35))
    transpose = draw.randint(-6, 5)
    instrument, (program, octave) = draw.choice(sorted(MELODY.items()))
    octave += draw.choice([0, 0, -1] if octave == 0 else [0])
    style = draw.randint(0, 3)
    start = draw.randrange(len(music))
    needed = int(seconds * bpm / 60 / float(metre)) + 2
    lines, last = [], None
    for i in range(needed):
        text, weights = music[(start + i) % len(music)]
        last = chord(weights, tonic, minor, last)
        lines.append(f'"{SHARPS[(tonic + last[0]) % 12]}{last[1]}" {text} |')
    drums = drum_line(style, metre, draw)
    backed = draw.random() < 0.9
    abc = "\n".join(filter(None, [
        "X:1", f"T:{name}", f"M:{fields['M']}", f"L:{unit}", f"Q:1/4={bpm}", f"K:{fields['K']}",
        f"%%MIDI program {program}",
        f"%%MIDI transpose {transpose + 12 * octave}",
        f"%%MIDI chordprog {draw.choice(CHORDS)}", f"%%MIDI bassprog {draw.choice(BASSES)}",
        f"%%MIDI chordvol {draw.randint(45, 80)}", f"%%MIDI bassvol {draw.randint(55, 95)}",
        f"%%MIDI gchord{'on' if backed else 'off'}", drums, *lines, "",
    ]))
    labels = {
        "key": SHARPS[(tonic + transpose) % 12] + (" minor" if minor else " major"),
        "bpm": "" if compound else bpm,
        "style": {2: "two", 3: "three"}.get(metre, "four") if not compound else "compound",
        "instrument": instrument,
        "tune": name,
    }
    return abc, labels


def render(job):
    name, abc, labels, font, draw, seconds, out = job
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        (scratch / "a.abc").write_text(abc)
        made = subprocess.run(["abc2midi", scratch / "a.abc", "-o", scratch / "a.mid", "-silent"], capture_output=True)
        if made.returncode or not (scratch / "a.mid").exists():
            return None
        room = [f"-osynth.reverb.level={draw.uniform(0, 0.8):.2f}", f"-osynth.reverb.room-size={draw.uniform(0.1, 0.9):.2f}"]
        subprocess.run(["fluidsynth", "-ni", "-q", "-g", f"{draw.uniform(0.3, 0.7):.2f}", "-r", "44100", *room,
                        "-F", scratch / "a.wav", font, scratch / "a.mid"], capture_output=True, check=True)
        file = f"{hashlib.sha1(name.encode()).hexdigest()[:12]}.flac"
        subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", scratch / "a.wav", "-t", str(seconds), "-ac", "1",
                        "-sample_fmt", "s16", out / file], check=True)
    return {"path": file, **labels}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--clips", type=int, default=1200)
    parser.add_argument("--seconds", type=float, default=16)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    jobs = []
    found = sorted(tunes(collection_folder()), key=lambda t: hashlib.sha1(f"{args.seed}/{t[0]}".encode()).digest())
    for name, fields, body in found:
        draw = random.Random(f"{args.seed}/{name}")
        composed = compose(name, fields, body, draw, args.seconds)
        if composed is None:
            continue
        split = draw.choices(["train", "valid", "test"], [0.55, 0.15, 0.30])[0]
        font = FONTS[draw.randrange(2)] if split == "test" else FONTS[0]
        abc, labels = composed
        labels |= {"soundfont": pathlib.Path(font).stem, "split": split}
        jobs.append((name, abc, labels, font, draw, args.seconds, args.out))
        if len(jobs) == args.clips:
            break
    with concurrent.futures.ThreadPoolExecutor() as pool:
        rows = [row for row in pool.map(render, jobs) if row]
    with (args.out / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "key", "bpm", "style", "instrument", "soundfont", "tune", "split"])
        writer.writeheader()
        writer.writerows(rows)
    print(f"{len(rows)} clips of {len(found)} tunes in {args.out}")


if __name__ == "__main__":
    main()
