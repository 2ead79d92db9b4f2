"""Prints the answers of slt/reduction.slt, and how trustworthy maps are for the tests of loev-ops. Ran with Python 3.11, scikit-learn 1.9.1, numpy 2.4.6."""

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE, trustworthiness

# The table of the file: row i has ((i * 7) % 11, (i * 3) % 5, (i * i) % 13, i).
ROWS = np.array([[(i * 7) % 11, (i * 3) % 5, (i * i) % 13, i] for i in range(12)], dtype=float)
pca = PCA(3).fit(ROWS)
print("explained", [f"{share:.5g}" for share in pca.explained_variance_ratio_])
for i, row in enumerate(pca.transform(ROWS)[:4]):
    print(i, [f"{x:.5g}" for x in row])
wide = PCA(2).fit(ROWS[:3])
print("3 rows:", [f"{share:.5g}" for share in wide.explained_variance_ratio_])
for i, row in enumerate(wide.transform(ROWS[:3])):
    print(i, [f"{x:.5g}" for x in row])


def noise(i, j):
    return (np.sin(i * 12.9898 + j * 78.233) * 43758.5453) % 1.0


for rows in [300, 900]:
    i, j = np.arange(rows)[:, None], np.arange(20)[None]
    clouds = 3 * noise(i % 6 + 7000, j) + 2 * (noise(i, j) + noise(j, i) - 1)
    points = TSNE(init="pca", random_state=0).fit_transform(clouds.astype(np.float32))
    print(rows, "rows: trustworthiness", f"{trustworthiness(clouds, points, n_neighbors=10):.4f}")
