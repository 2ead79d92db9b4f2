"""Prints the answers of slt/audio.slt. Ran with Python 3.11, numpy 2.4.6, scipy 1.17.1.

The loudness is that of ITU-R BS.1770-4 by its own tables of coefficients, for 48 kHz.
"""

import numpy as np
from scipy.signal import lfilter

RATE = 48000
SQUARE = np.tile(np.concatenate([np.full(24, 0.1), np.full(24, -0.1)]), 1000)
QUIET = np.concatenate([SQUARE, 0.01 * SQUARE])

SHELF = [1.53512485958697, -2.69169618940638, 1.19839281085285], [1, -1.69065929318241, 0.73248077421585]
HIGH_PASS = [1, -2, 1], [1, -1.99004745483398, 0.99007225036621]


def loudness(samples):
    filtered = lfilter(*HIGH_PASS, lfilter(*SHELF, samples))
    block, hop = int(0.4 * RATE), int(0.1 * RATE)
    powers = np.array([np.mean(filtered[i : i + block] ** 2) for i in range(0, len(filtered) - block + 1, hop)])
    lufs = lambda power: -0.691 + 10 * np.log10(power)
    gated = powers[lufs(powers) > -70]
    gated = gated[lufs(gated) > lufs(np.mean(gated)) - 10]
    return lufs(np.mean(gated))


print("loudness of a square wave of 1 kHz at -20 dB, 1 s; of it with 1 s at -60 dB")
print(f"{loudness(SQUARE):.5g} {loudness(QUIET):.5g}")

wave = np.tile([0.6, -0.2], 500)
print("peak, rms, dc, crest, zero crossings")
print(np.abs(wave).max(), f"{np.sqrt(np.mean(wave**2)):.5g} {wave.mean():.5g}", end=" ")
print(f"{0.6 / np.sqrt(np.mean(wave**2)):.5g}", np.mean(np.diff(np.signbit(wave))))
