"""What both comparisons need: our side as a program, and real music."""

import json
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import soxr

REPOSITORY = Path(__file__).resolve().parents[3]
FORMATS = {"16 kHz mono": (16_000, 1), "44.1 kHz stereo": (44_100, 2)}


def one_thread():
    """Keep every library to one thread. Must come before they are imported."""
    for name in ("OMP", "MKL", "OPENBLAS", "NUMBA", "VECLIB_MAXIMUM"):
        os.environ[f"{name}_NUM_THREADS"] = "1"


class Loev:
    """The program `peers` (main.rs), which answers one job at a time."""

    def __init__(self, program=None):
        command = [program] if program else "cargo bench --quiet --locked -p loev-ops --bench peers --".split()
        self.process = subprocess.Popen(
            [*command, "-"], cwd=REPOSITORY, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.folder = tempfile.TemporaryDirectory()

    def ask(self, job, **fields):
        """The answer to a job; raises RuntimeError with the reason when it fails."""
        print(json.dumps({"do": job, **fields}), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the program `peers` stopped; see its message above")
        answer = json.loads(line)
        if isinstance(answer, dict) and "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def file(self, name):
        """A path for a temporary file."""
        return str(Path(self.folder.name) / name)

    def warp(self, audio, rate, semitones, speed):
        """Our vocoder over whole audio of shape (channels, frames)."""
        source, result = self.file("in.wav"), self.file("out.wav")
        write(source, audio, rate)
        self.ask("warp", input=source, output=result, semitones=semitones, rate=speed)
        return soundfile.read(result, dtype="float32", always_2d=True)[0].T


def write(path, audio, rate):
    """Audio of shape (channels, frames) as a WAV file of 32-bit floats."""
    soundfile.write(path, audio.T, rate, subtype="FLOAT")


def tracks(folder, count):
    """Files spread evenly over the sub-folders of a folder and over their names."""
    groups = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.suffix in (".flac", ".mp3", ".ogg", ".wav") and soundfile.info(path).duration > 30:
            groups.setdefault(path.parent, []).append(path)
    chosen = []
    for i, (_, paths) in enumerate(sorted(groups.items())):
        share = (count - len(chosen)) // (len(groups) - i)
        chosen += [paths[round((k + 0.5) * len(paths) / share - 0.5)] for k in range(share)]
    return chosen


def excerpt(path, seconds, rate, channels):
    """Audio of shape (channels, frames) from 40 % into a track, at a peak of 0.5."""
    info = soundfile.info(path)
    start, frames = int(0.4 * info.frames), int((seconds + 1) * info.samplerate)
    audio, native = soundfile.read(path, frames, start, dtype="float32", always_2d=True)
    audio = soxr.resample(audio, native, rate, "VHQ")[: int(seconds * rate)]
    audio = audio.mean(1, keepdims=True) if channels == 1 else np.repeat(audio, 2, 1)[:, [0, -1]]
    return np.ascontiguousarray(0.5 / np.abs(audio).max() * audio.T, dtype=np.float32)
