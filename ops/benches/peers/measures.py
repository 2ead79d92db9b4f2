"""What makes a pitch shift or a time stretch good, in numbers.

Each measure compares with what an ideal result would be: the same sound with every partial `ratio` times as high
and every moment at `1 / speed` of its time. README.md says why these were chosen.
"""

import librosa
import numpy as np
from scipy.signal import butter, fftconvolve, get_window, sosfiltfilt

FLOOR_DB = -60.0
EDGE_SECONDS = 0.5
STEP_SECONDS = 0.005


def decibels(x):
    return 10 * np.log10(np.maximum(x, 1e-30))


# Synthetic sound, of which the ideal result is known.


def frequency(x, rate, hz):
    """The frequency of the partial near `hz`: the phase advance between two long windowed projections."""
    size, lag = 2 * rate, rate // 40
    carrier = get_window("blackmanharris", size) * np.exp(-2j * np.pi * hz * np.arange(size) / rate)
    start = (len(x) - size - lag) // 2
    early, late = (np.dot(x[s : s + size], carrier) for s in (start, start + lag))
    turn = np.angle(late * np.conj(early) * np.exp(-2j * np.pi * hz * lag / rate))
    return hz + turn * rate / (2 * np.pi * lag)


def cents(x, rate, wanted):
    """The worst error of pitch over all partials."""
    return max(abs(1200 * np.log2(frequency(x, rate, hz) / hz)) for hz in wanted)


def impurity(x, rate, wanted):
    """What is left when steady partials are fitted to each half second, in dB below them (least squares)."""
    size = rate // 2
    time = np.arange(size) / rate
    angles = [2 * np.pi * frequency(x, rate, hz) * time for hz in wanted]
    basis = np.stack([f(a) for a in angles for f in (np.sin, np.cos)], 1)
    left = total = 0.0
    for start in range(size, len(x) - 2 * size, size):
        block = x[start : start + size].astype(float)
        fit = basis @ np.linalg.lstsq(basis, block, rcond=None)[0]
        left, total = left + np.sum((block - fit) ** 2), total + np.sum(fit**2)
    return decibels(left / total)


def pre_echo(x, rate, onsets, seconds=0.05):
    """The energy before sudden bursts out of silence, in dB of the bursts'. Bursts are found within 15 ms."""
    energy = np.cumsum(x.astype(float) ** 2)
    before = burst = 0.0
    for onset in onsets:
        at = int((onset - 0.015) * rate) + np.argmax(np.abs(x[int((onset - 0.015) * rate) :][: rate * 3 // 100]))
        lead, span = at - int(0.003 * rate), int(seconds * rate)
        before += energy[lead] - energy[lead - span]
        burst += energy[at + span] - energy[lead]
    return decibels(before / burst)


def crest(x, rate, seconds=0.025):
    """The mean ratio of peak to RMS in short frames, in dB: partials out of step with each other lower it."""
    size = round(seconds * rate)
    frames = x[: len(x) // size * size].reshape(-1, size).astype(float)
    power = np.mean(frames**2, 1)
    loud = power > np.max(power) * 1e-4
    return np.mean(decibels(np.max(frames[loud] ** 2, 1) / power[loud]))


# Music.


def band_levels(x, rate, times, centres):
    """Power of shape (times, bands) in triangular bands of a third of an octave, summed over channels."""
    size = 1 << round(np.log2(0.08 * rate))
    window = get_window("hann", size).astype(np.float32)
    hertz = np.arange(size // 2 + 1) * rate / size
    octaves = np.log2(np.maximum(hertz, 1e-9)[:, None] / centres)
    filters = np.maximum(1 - np.abs(octaves) * 3, 0).astype(np.float32) / np.sum(window**2)
    levels = np.zeros((len(times), len(centres)), np.float32)
    for channel in x:
        frames = np.lib.stride_tricks.sliding_window_view(np.pad(channel, (size // 2, size)), size)
        starts = np.clip(np.round(times * rate).astype(int), 0, len(channel))
        # In blocks that stay in the cache.
        for at in range(0, len(times), 64):
            spectra = np.fft.rfft(frames[starts[at : at + 64]] * window)
            levels[at : at + 64] += (spectra.real**2 + spectra.imag**2) @ filters
    return levels


def compare(result, original, rate, ratio, speed):
    """Distances in dB of the result's band levels from the ideal ones, and its delay in ms.

    `spectral`: RMS over time and bands, down to 60 dB below the loudest. `balance`: mean change of the level of a
    band over all time. Delays of up to 25 ms are found and taken out first.
    """
    top = 0.4 * rate / max(ratio, 1.0)
    bottom = 100.0 / min(ratio, 1.0)
    centres = bottom * 2 ** np.arange(0, np.log2(top / bottom), 1 / 6)
    seconds = min(result.shape[1], original.shape[1] / speed) / rate
    times = np.arange(EDGE_SECONDS, seconds - EDGE_SECONDS, STEP_SECONDS)
    ideal = band_levels(original, rate, times * speed, centres)
    got = band_levels(result, rate, times, centres * ratio)
    floor = decibels(ideal.max()) + FLOOR_DB
    ideal_db, got_db = (np.maximum(decibels(x), floor) for x in (ideal, got))
    best = None
    for lag in range(-5, 6):
        a, b = ideal_db[max(-lag, 0) : len(times) - max(lag, 0)], got_db[max(lag, 0) : len(times) + min(lag, 0)]
        heard = (a > floor) | (b > floor)
        distance = np.sqrt(np.mean((a - b)[heard] ** 2))
        if best is None or distance < best[0]:
            best = distance, lag
    loud = decibels(ideal.mean(0)) > floor
    balance = np.mean(np.abs(decibels(got.mean(0) / ideal.mean(0)))[loud])
    return {"spectral": best[0], "balance": balance, "delay_ms": best[1] * STEP_SECONDS * 1e3}


def onsets(x, rate, count=16):
    """The times of the strongest attacks, at least 0.2 s apart."""
    size = 1 << round(np.log2(0.02 * rate))
    strength = librosa.onset.onset_strength(y=x, sr=rate, hop_length=rate // 200, n_fft=size, n_mels=40)
    peaks = librosa.util.peak_pick(strength, pre_max=20, post_max=20, pre_avg=20, post_avg=20, delta=0.5, wait=40)
    times = peaks / 200
    inside = (times > EDGE_SECONDS + 0.1) & (times < len(x) / rate - EDGE_SECONDS - 0.1)
    strongest = sorted(zip(strength[peaks[inside]], times[inside]))[-count:]
    return np.array([time for _, time in strongest])


def attacks(x, rate, times):
    """How much louder the 10 ms after each attack are than the 20 ms before, in dB, where within 25 ms of the
    given time that is most; and where that is. On the first difference, so that low tones do not hide it."""
    energy = np.concatenate([[0.0], np.cumsum(np.diff(x.astype(float)) ** 2)])
    before, after, reach = int(0.020 * rate), int(0.010 * rate), int(0.025 * rate)
    rises, places = [], []
    for time in times:
        at = int(time * rate) + np.arange(-reach, reach, max(rate // 4000, 1))
        at = np.clip(at, before, len(energy) - after - 1)
        loud = (energy[at + after] - energy[at]) / after
        quiet = (energy[at] - energy[at - before]) / before
        rise = decibels((loud + 1e-12) / (quiet + 1e-12))
        rises.append(rise.max())
        places.append(at[rise.argmax()] / rate)
    return np.array(rises), np.array(places)


def width(x, rate, ratio=1.0):
    """The side signal's energy in dB of the middle's, in octave bands that are moved by `ratio`."""
    middle, side = x[0] + x[1], x[0] - x[1]
    levels = []
    for low in np.array([125, 250, 500, 1000, 2000, 4000]) * ratio:
        band = butter(2, (low, 2 * low), "bandpass", fs=rate, output="sos")
        powers = [np.mean(sosfiltfilt(band, y) ** 2) for y in (middle, side)]
        levels.append(np.clip(decibels(powers[1] / max(powers[0], 1e-20)), -30, 30))
    return np.array(levels)


def identity_snr(result, original, rate):
    """How far below the original what a neutral setting changes is, in dB, delays taken out."""
    frames = min(result.shape[1], original.shape[1])
    edge = int(EDGE_SECONDS * rate)
    a, b = original[:, edge : frames - edge], result[:, :frames]
    reach = int(0.05 * rate)
    match = fftconvolve(b[0], a[0][::-1], "valid")[edge - reach : edge + reach + 1]
    lag = int(np.argmax(match)) - reach
    moved = b[:, edge + lag :][:, : a.shape[1]]
    a = a[:, : moved.shape[1]].astype(float)
    return decibels(np.sum(a**2) / max(np.sum((moved - a) ** 2), 1e-30))


def on_music(result, original, rate, ratio, speed):
    """All measures of one result, by name; smaller is better."""
    mono, source = result.mean(0), original.mean(0)
    times = onsets(source, rate)
    values = compare(result, original, rate, ratio, speed)
    if len(times):
        rises, places = attacks(source, rate, times)
        got, found = attacks(mono, rate, places / speed)
        values["attack"] = np.mean(rises - got)
        values["timing_ms"] = 1e3 * np.mean(np.abs(found - places / speed))
    # Frames hold the same number of periods in both.
    values["crest"] = crest(source, rate) - crest(mono, rate, 0.025 / ratio)
    if len(original) == 2:
        values["width"] = np.mean(np.abs(width(result, rate, ratio) - width(original, rate)))
    values["frames"] = abs(result.shape[1] - round(original.shape[1] / speed))
    return values
