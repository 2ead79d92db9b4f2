"""Prints the answers of statistics.slt (numpy 2.4.6, scipy 1.17.1, scikit-learn 1.9.1)."""

import numpy as np
from scipy.stats import entropy
from sklearn.linear_model import Ridge
from sklearn.metrics import average_precision_score, r2_score, roc_auc_score, silhouette_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

# The table `points`.
i = np.arange(80)
label = i % 3
noise = np.stack([(i * a + i * i * b) % 101 / 50.0 - 1.0 for a, b in [(37, 3), (11, 7), (53, 2), (29, 5)]], axis=1)
v = noise + 1.5 * np.stack([label == 0, label == 1, label == 2, label == 3], axis=1)
other = np.stack([v[:, 0] + v[:, 1], noise[:, 2], (i * 17 % 31) / 10.0], axis=1)
parameter = 2.0 * v[:, 0] - v[:, 3] + (i * 43 % 29) / 29.0
score, truth = v[:, 1], label == 1
spread = np.array([1.0, 2.0, 3.0, 4.0])


def show(name, value):
    print(name, *(f"{x:.5g}" for x in np.atleast_1d(value)))


show("vector_sum", v.sum(axis=0))
show("vector_avg", v.mean(axis=0))
show("vector_stddev", v.std(axis=0, ddof=1))
show("covariance_trace", np.trace(np.cov(v.T)))
show("far covariance_trace", np.trace(np.cov((v + 1e6).T)))
for c in range(3):
    show(f"label {c} covariance_trace", np.trace(np.cov(v[label == c].T)))
show("roc_auc", roc_auc_score(truth, score))
show("average_precision", average_precision_score(truth, score))
show("tied roc_auc", roc_auc_score(truth, np.trunc(score)))
show("tied average_precision", average_precision_score(truth, np.trunc(score)))
indicator = np.stack([label == 0, label == 1, label == 2], axis=1)
show("macro_roc_auc", roc_auc_score(indicator, v[:, :3], average="macro"))
show("macro_average_precision", average_precision_score(indicator, v[:, :3], average="macro"))
show("entropy", entropy(np.bincount(label), base=2))


def effective_rank(matrix):
    return np.exp(entropy(np.linalg.svd(matrix, compute_uv=False)))


show("effective_rank", effective_rank(v))
show("effective_rank far", effective_rank(v + 100.0))
show("effective_rank of other", effective_rank(other))
values = np.linalg.eigvalsh(np.cov(v.T))
show("participation_ratio", values.sum() ** 2 / (values**2).sum())


def cka(a, b):
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    norm = lambda x, y: np.linalg.norm(x.T @ y) ** 2
    return norm(a, b) / np.sqrt(norm(a, a) * norm(b, b))


show("linear_cka", cka(v, other))
show("linear_cka of one turned", cka(v, 3.0 * v[:, [1, 0, 3, 2]] * [1, -1, 1, -1] + 5.0))
show("silhouette", silhouette_score(v, label, metric="cosine"))
show("silhouette of i % 7", silhouette_score(v, i % 7, metric="cosine"))
for k in [1, 5]:
    near = NearestNeighbors(n_neighbors=k, metric="cosine").fit(v).kneighbors(return_distance=False)
    alike = label[near] == label[:, None]
    show(f"neighbour_purity {k}", alike.mean())
    show(f"recall_at_k {k}", alike.any(axis=1).mean())
    alike = (i % 7)[near] == (i % 7)[:, None]
    show(f"neighbour_purity of i % 7 {k}", alike.mean())
    show(f"recall_at_k of i % 7 {k}", alike.any(axis=1).mean())

# Folds differ, so these are bounds.
for name, target in [("parameter", parameter), ("unrelated", (i * 59 % 37) / 37.0)]:
    figures = []
    for alpha in [1e-3, 1e-2, 1e-1]:
        model = make_pipeline(StandardScaler(), Ridge(alpha=alpha * 64))
        for folds in [GroupKFold(5, shuffle=True, random_state=seed) for seed in range(20)]:
            found = cross_val_predict(model, v, target, groups=i // 4, cv=folds)
            figures.append(r2_score(target, found))
    show(f"equivariance_r2 of {name}, least and most", [min(figures), max(figures)])

rng = np.random.default_rng(1)
means = rng.choice(parameter, (20000, 80)).mean(axis=1)
show("bootstrap_ci mean and bounds", [parameter.mean(), *np.quantile(means, [0.025, 0.975])])
show("bootstrap_ci 0.5", np.quantile(means, [0.25, 0.75]))
