"""Prints those answers of queries.slt that are not plain from toy, from the same formulas. Ran with numpy 2.4.6."""

import numpy as np

N = 12
KEY = np.arange(N) % 3
STYLE = np.arange(N) % 2
BPM = 60 + 10 * np.arange(N)


def embeddings(space):
    rows = np.zeros((N, 4))
    for i in range(N):
        j = 4 if space == "invariant" and i == 10 else i
        if space == "pitch_shift":
            rows[i, j % 3], rows[i, 3] = 1, j / 100
        elif space == "time_stretch":
            rows[i, :2] = np.cos(j / 20), np.sin(j / 20)
        else:
            rows[i, j % 2], rows[i, 2] = 1, j / 100
    return rows


def cosines(a, b):
    return (a @ b.T) / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)[None, :]


for space in ["invariant", "pitch_shift", "time_stretch"]:
    e = embeddings(space)
    c = cosines(e, e)
    upper = np.triu_indices(N, 1)
    pairs, same_key, same_style = c[upper], (KEY[:, None] == KEY)[upper], (STYLE[:, None] == STYLE)[upper]
    norms = np.linalg.norm(e, axis=1)
    print(space)
    print("  collapse", pairs.mean(), pairs.std(ddof=1), pairs.min(), norms.min(), norms.max(), len(pairs))
    print("  label-similarity", pairs[same_key].mean(), pairs[~same_key].mean(), pairs[same_style].mean(), pairs[~same_style].mean())
    distance = (1 - c).sum(axis=1) / (N - 1)
    worst = sorted(range(N), key=lambda i: (-round(distance[i], 9), i))[:3]
    print("  outliers", [(f"c{i:02}", distance[i]) for i in worst])
    nearest = sorted(range(1, N), key=lambda i: (round(1 - c[0, i], 9), i))[:3]
    print("  nearest-of-a-clip", [(f"c{i:02}", 1 - c[0, i]) for i in nearest])
    first = [min((j for j in range(N) if j != i), key=lambda j: (round(1 - c[i, j], 7), j)) for i in range(N)]
    tempo = [abs(BPM[j] - BPM[i]) <= 0.04 * BPM[i] for i, j in enumerate(first)]
    print("  neighbours", np.mean(tempo), np.mean(KEY[first] == KEY))
    within = []
    for shift in (0.1, -0.1):
        segments = e.copy()
        segments[:, 0] += shift
        within.append(1 - np.diag(cosines(segments, e)))
    within = np.mean(within)
    print("  segments", within, 1 - pairs.mean(), within / (1 - pairs.mean()))
    test = range(8, 12)
    found = {i: sorted((j for j in test if j != i), key=lambda j: -c[i, j]) for i in test}
    times = {j: sum(j in found[i][:2] for i in test) for j in test}
    print("  hubs", times)
    first = [found[i][0] for i in test]
    same = lambda labels: np.mean([labels[i] == labels[j] for i, j in zip(test, first)])
    print("  nearest-alike", same(KEY), same(STYLE))
    if space == "pitch_shift":
        wrong = [(c[i, j], f"c{i:02}", f"c{j:02}") for i in range(N) for j in range(i + 1, N) if KEY[i] != KEY[j]]
        print("  hard-negatives", sorted(wrong, key=lambda w: (-w[0], w[1:]))[:10])

step = np.arange(1, 11)
seconds = 64 / (60 + step)
print("throughput", seconds.sum(), 640 / seconds.sum(), seconds[5:].sum() / 2 / seconds.sum())
