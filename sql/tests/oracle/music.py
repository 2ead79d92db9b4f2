"""Prints the answers of slt/music.slt. Ran with Python 3.11, mir_eval 0.8.2, numpy 2.4.6."""

import mir_eval
import numpy as np

SHARPS = {"C": 0, "G": 1, "D": 2, "A": 3, "E": 4, "B": 5, "F#": 6, "Db": -5, "Ab": -4, "Eb": -3, "Bb": -2, "F": -1}
SEMITONES = {"C": 0, "Db": 1, "D": 2, "Eb": 3, "E": 4, "F": 5, "F#": 6, "G": 7, "Ab": 8, "A": 9, "Bb": 10, "B": 11}
RELATIVE = {"A": "C", "E": "G", "B": "D", "F#": "A", "C#": "E", "D": "F", "G": "Bb", "C": "Eb", "F": "Ab"}

print("circle of fifths (signatures as in any textbook)")
for name, sharps in SHARPS.items():
    print(f"{name} major", sharps, f"{(sharps + 7) % 12 + 1}B")
for name, major in RELATIVE.items():
    print(f"{name} minor", SHARPS[major], f"{(SHARPS[major] + 7) % 12 + 1}A")


def apart(a, b):
    return min((a - b) % 12, (b - a) % 12)


print("key distance: fifths, semitones")
for a, b in [("C", "E"), ("C", "F#"), ("Db", "B"), ("Eb", "A")]:
    print(a, b, apart(SHARPS[a], SHARPS[b]), apart(SEMITONES[a], SEMITONES[b]))

print("mirex score of estimates against C major")
for estimate in ["C major", "G major", "F major", "A minor", "C minor", "E minor"]:
    print(estimate, mir_eval.key.weighted_score("C major", estimate))

print("octave errors of tempi against 120")
for tempo in [120, 60, 240, 180, 369, 130]:
    one = np.log2(tempo / 120)
    two = min((np.log2(z * tempo / 120) for z in [1, 2, 3, 1 / 2, 1 / 3]), key=abs)
    print(tempo, f"{one:.5g} {two:.5g}")
