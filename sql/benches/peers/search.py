#!/usr/bin/env python3
"""Nearest neighbours: loev and its peers in turns, on the same vectors.

    search.py [--threads N] [--rounds N] [--only NAME...] [--small] [--program PROGRAM] [--json OUT]

Four questions: the ten nearest by cosine to one vector among 100,000 of 512 values, the same among 1,000,000 of 128
values, the ten nearest among 100,000 of 512 values to each of 10,000, and 19 of 20 of the ten nearest among 100,000 of
128 values to each of as many others. Vectors are normal numbers with a fixed seed, those of the last question in
clusters, written as Parquet once. Each round asks every side once, in an order that is shuffled; of the rounds' ratios
`loev / side` the median counts, with quartiles. PROGRAM is the bench `peers-search`, which cargo is asked for when it is
not given. See README.md.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
K = 10
RECALL = 0.95


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", nargs="*", default=["scan-512", "scan-128", "join", "recall"])
    parser.add_argument("--small", action="store_true", help="a tenth of the rows, to try the script")
    parser.add_argument("--program")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


OPTIONS = arguments()
# Before NumPy and faiss start their threads.
for name in ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LANCE_CPU_THREADS", "RAYON_NUM_THREADS"]:
    os.environ[name] = str(OPTIONS.threads)

import duckdb  # noqa: E402
import faiss  # noqa: E402
import lancedb  # noqa: E402
import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.parquet  # noqa: E402


class Ours:
    """The program `peers-search` (main.rs), which answers one job at a time."""

    def __init__(self):
        cargo = "cargo bench --quiet --locked -p loev-sql --bench peers-search --".split()
        command = [*([OPTIONS.program] if OPTIONS.program else cargo), str(OPTIONS.threads)]
        self.process = subprocess.Popen(command, cwd=REPOSITORY, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, job, **fields):
        print(json.dumps({"do": job, **fields}), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the program `peers-search` stopped; see its message above")
        answer = json.loads(line)
        if "error" in answer:
            raise SystemExit(answer["error"])
        return answer


def literal(vector):
    return "[" + ", ".join(repr(float(value)) for value in vector) + "]"


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Data:
    """Vectors in every side's hands. What a side does once for all queries is not timed."""

    def __init__(self, name, rows, dim, folder, ours):
        self.name, self.dim = name, dim
        rng = np.random.default_rng(7)
        self.vectors = rng.standard_normal((rows, dim), dtype=np.float32)
        self.queries = rng.standard_normal((10_000, dim), dtype=np.float32)
        self.path = folder / f"{name}.parquet"
        self.table = self.to_table(self.vectors)
        pyarrow.parquet.write_table(self.table, self.path, compression="zstd")
        self.units = unit(self.vectors)
        self.index = faiss.IndexFlatIP(dim)
        self.index.add(self.units)
        self.duck = duckdb.connect(config={"threads": OPTIONS.threads})
        cast = f"select id, embedding::float[{dim}] as embedding from"
        self.duck.execute(f"create table vectors as {cast} '{self.path}'")
        self.duck.execute(f"create view file as {cast} '{self.path}'")
        self.lance = lancedb.connect(folder / f"{name}.lance").create_table("vectors", self.table)
        self.ours = ours
        ours.ask("open", table=name, path=str(self.path))

    def to_table(self, vectors):
        values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), self.dim)
        return pa.table({"id": pa.array(np.arange(len(vectors))), "embedding": values})

    def scans(self, query):
        text, row = literal(query), unit(query[None])
        ours = "select id from {} order by cosine_distance(embedding, {}) limit {}"
        duck = f"select id from {{}} order by array_cosine_distance(embedding, {text}::float[{self.dim}]) limit {K}"

        def numpy():
            scores = self.units @ row[0]
            best = np.argpartition(-scores, K)[:K]
            return best[np.argsort(-scores[best])]

        return {
            "loev": lambda: self.ours.ask("sql", sql=ours.format(f"{self.name}_memory", text, K)),
            "loev, Parquet": lambda: self.ours.ask("sql", sql=ours.format(self.name, text, K)),
            "reading memory": lambda: self.ours.ask("read", table=self.name),
            "DuckDB": lambda: self.duck.execute(duck.format("vectors")).fetchnumpy()["id"],
            "DuckDB, Parquet": lambda: self.duck.execute(duck.format("file")).fetchnumpy()["id"],
            "LanceDB": lambda: self.lance.search(query).distance_type("cosine").limit(K).to_arrow()["id"].to_numpy(),
            "faiss": lambda: self.index.search(row, K)[1][0],
            "NumPy": numpy,
        }

    def joins(self):
        folder = self.path.parent
        pyarrow.parquet.write_table(self.to_table(self.queries), folder / "queries.parquet")
        self.ours.ask("open", table="queries", path=str(folder / "queries.parquet"))
        rows = unit(self.queries)

        def numpy():
            found = []
            for start in range(0, len(rows), 1000):
                scores = rows[start:start + 1000] @ self.units.T
                best = np.argpartition(-scores, K, axis=1)[:, :K]
                order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1)
                found.append(np.take_along_axis(best, order, axis=1))
            return np.concatenate(found).ravel()

        sql = f"select neighbour_id from knn_join(queries_memory, {self.name}_memory, {K})"
        return {
            "loev": lambda: self.ours.ask("sql", sql=sql),
            "faiss": lambda: self.index.search(rows, K)[1].ravel(),
            "NumPy": numpy,
        }


class Clusters:
    """Two tables of vectors of 128 values: about 200 centres in 16 dimensions, turned into 128, and a little noise."""

    def __init__(self, rows, folder, ours):
        rng = np.random.default_rng(8)
        centres = rng.standard_normal((200, 16), dtype=np.float32)
        turn = rng.standard_normal((16, 128), dtype=np.float32)

        def table(name):
            latent = centres[rng.integers(200, size=rows)] + 0.6 * rng.standard_normal((rows, 16), dtype=np.float32)
            vectors = latent @ turn + 0.2 * rng.standard_normal((rows, 128), dtype=np.float32)
            values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 128)
            path = folder / f"{name}.parquet"
            pyarrow.parquet.write_table(pa.table({"id": pa.array(np.arange(rows)), "embedding": values}), path)
            ours.ask("open", table=name, path=str(path))
            return unit(vectors)

        self.queries, self.items, self.ours = table("askers"), table("asked"), ours

    def cells(self):
        """faiss's index, with as many cells as loev makes of 100,000 rows."""
        cells = int(2 ** round(np.log2(1.6 * len(self.items) ** 0.5)))
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(128), 128, cells, faiss.METRIC_INNER_PRODUCT)
        index.train(self.items)
        index.add(self.items)
        return index

    def tune(self, index):
        """The least nprobe, by doubling and bisecting, that finds enough for 256 queries."""
        sample = self.queries[np.random.default_rng(9).choice(len(self.queries), 256, replace=False)]
        flat = faiss.IndexFlatIP(128)
        flat.add(self.items)
        exact = flat.search(sample, K)[1]

        def enough(probes):
            index.nprobe = probes
            return shared(exact, index.search(sample, K)[1]) >= RECALL

        high = 1
        while high < index.nlist and not enough(high):
            high *= 2
        low = high // 2
        while high - low > 1:
            low, high = (low, middle) if enough(middle := (low + high) // 2) else (middle, high)
        index.nprobe = high
        return index

    def sides(self):
        sql = f"select neighbour_id from knn_join(askers_memory, asked_memory, {K}{{}})"
        made = self.tune(self.cells())
        print(f"faiss looks into {made.nprobe} of {made.nlist} cells")
        return {
            "loev": lambda: self.ours.ask("sql", sql=sql.format(f", recall => {RECALL}")),
            "loev, exact": lambda: self.ours.ask("sql", sql=sql.format("")),
            "faiss, IVF": lambda: self.tune(self.cells()).search(self.queries, K)[1].ravel(),
            "faiss, IVF made": lambda: made.search(self.queries, K)[1].ravel(),
        }


def shared(exact, found):
    """The share of neighbours that two answers have in common, of rows of K."""
    pairs = zip(np.reshape(exact, (-1, K)), np.reshape(found, (-1, K)))
    return np.mean([len(np.intersect1d(a, b)) / K for a, b in pairs])


def timed(side):
    start = time.perf_counter()
    answer = side()
    seconds = time.perf_counter() - start
    if isinstance(answer, dict):
        return answer["seconds"], answer.get("ids")
    return seconds, list(answer)


def measure(question, sides_of_round, reference="loev", agreement=0.999):
    """Rounds of one question; the table's lines."""
    seconds, shares, shuffled = {}, {}, random.Random(7)
    for index in range(OPTIONS.rounds + 1):
        sides = list(sides_of_round(index).items())
        shuffled.shuffle(sides)
        answers = {}
        for name, side in sides:
            spent, answers[name] = timed(side)
            # The first round warms up.
            if index:
                seconds.setdefault(name, []).append(spent)
        expected = answers[reference]
        for name, found in answers.items():
            if found is not None and (share := shared(expected, found)) < agreement:
                raise SystemExit(f"{question}: {name} and {reference} have {share} of the neighbours in common")
            shares[name] = share if found is not None else None
    lines = []
    for name, all_rounds in seconds.items():
        ratios = [ours / theirs for ours, theirs in zip(seconds["loev"], all_rounds)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        lines.append({"question": question, "side": name, "milliseconds": 1e3 * statistics.median(all_rounds),
                      "loev / side": middle, "quartiles": [low, high], "shared": shares[name]})
    return lines


def main():
    faiss.omp_set_num_threads(OPTIONS.threads)
    scale = 10 if OPTIONS.small else 1
    ours, lines = Ours(), []
    with tempfile.TemporaryDirectory() as folder:
        for dim, rows in [(512, 100_000), (128, 1_000_000)]:
            wanted = [f"scan-{dim}"] + (["join"] if dim == 512 else [])
            if not set(wanted) & set(OPTIONS.only):
                continue
            data = Data(f"vectors_{dim}", rows // scale, dim, Path(folder), ours)
            if f"scan-{dim}" in OPTIONS.only:
                lines += measure(f"scan-{dim}", lambda index: data.scans(data.queries[index]))
            if "join" in wanted and "join" in OPTIONS.only:
                sides = data.joins()
                lines += measure("join", lambda _: sides)
        if "recall" in OPTIONS.only:
            sides = Clusters(100_000 // scale, Path(folder), ours).sides()
            # What is measured on 256 rows is known to about 0.01.
            lines += measure("recall", lambda _: sides, "loev, exact", RECALL - 0.02)
    for line in lines:
        low, high = line["quartiles"]
        shared_part = "" if line["shared"] is None else f"   shared {line['shared']:.3f}"
        print(f"{line['question']:9} {line['side']:16} {line['milliseconds']:10.1f} ms   "
              f"loev / side {line['loev / side']:6.2f} ({low:.2f} to {high:.2f}){shared_part}")
    if OPTIONS.json:
        OPTIONS.json.write_text(json.dumps(lines, indent=1))


if __name__ == "__main__":
    main()
