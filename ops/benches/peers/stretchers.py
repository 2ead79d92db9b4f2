"""The pitch shifters and time stretchers that are compared.

Each takes audio of shape (channels, frames), its rate, a shift in semitones and a speed (1.25 is a quarter
faster), and gives audio of about `frames / speed` frames.
"""

import librosa
import numpy as np
import pedalboard
import torch
import torchaudio
from python_stretch import Signalsmith


def rubber_band(finer):
    """Rubber Band 3 as in pedalboard: the R3 engine ("finer") or R2 ("faster")."""

    def stretch(audio, rate, semitones, speed):
        return pedalboard.time_stretch(
            audio, rate, speed, semitones, high_quality=finer, preserve_formants=False
        )

    return stretch


def signalsmith(audio, rate, semitones, speed):
    """Signalsmith Stretch as audiomentations calls it."""
    stretcher = Signalsmith.Stretch()
    stretcher.preset(len(audio), rate)
    stretcher.setTimeFactor(speed)
    stretcher.setTransposeSemitones(semitones)
    return stretcher.process(audio)


def librosa_vocoder(audio, rate, semitones, speed):
    """The phase vocoder of librosa."""
    if speed != 1.0 or semitones == 0.0:
        audio = librosa.effects.time_stretch(audio, rate=speed)
    if semitones != 0.0:
        audio = librosa.effects.pitch_shift(audio, sr=rate, n_steps=semitones)
    return audio


def torchaudio_vocoder(audio, rate, semitones, speed):
    """The phase vocoder of torchaudio, with frames of 46 ms (its own default for shifts is 512 samples)."""
    size = 2048 if rate > 30_000 else 1024
    hop, window, samples = size // 4, torch.hann_window(size), torch.from_numpy(np.ascontiguousarray(audio))
    if speed != 1.0 or semitones == 0.0:
        spectra = torch.stft(samples, size, hop, window=window, return_complex=True)
        advance = torch.linspace(0, np.pi * hop, spectra.shape[-2])[:, None]
        spectra = torchaudio.functional.phase_vocoder(spectra, speed, advance)
        frames = round(samples.shape[-1] / speed)
        samples = torch.istft(spectra, size, hop, window=window, length=frames)
    if semitones != 0.0:
        samples = torchaudio.functional.pitch_shift(samples, rate, semitones, n_fft=size, hop_length=hop)
    return samples.numpy()


def all_stretchers(loev):
    """By the name that tables show."""
    return {
        "loev": loev.warp,
        "Rubber Band R3": rubber_band(True),
        "Rubber Band R2": rubber_band(False),
        "Signalsmith": signalsmith,
        "librosa": librosa_vocoder,
        "torchaudio": torchaudio_vocoder,
    }
