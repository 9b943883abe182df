"""Memory of `submillion predict` on files: it must not grow with them.

`python -m benchmarks.predict_memory [RUN TEXTS.parquet]` writes benchmarks/results/predict_memory.json. A tiny random
model labels 1,000,000 generated rows (CSV); the run, if one is given, 20,000 and 100,000 rows of the texts (Parquet,
repeated as needed). Each is a process of its own, with one thread: resident memory when it has imported all it needs,
and its peak. `SUBMILLION_ROWS` replaces the number 1,000,000. Only memory is measured: the machine
may be busy.
"""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.material import MINILM, WORDS
from benchmarks.results import keep


def main(arguments: list[str]) -> None:
    """Measure, print and write the results."""
    if arguments[:1] == ["--measure"]:
        print(json.dumps(measured(*arguments[1:])))
        return
    results = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        n_rows = int(os.environ.get("SUBMILLION_ROWS", "1000000"))
        run = tiny_run(folder)
        results[f"tiny random model, {n_rows:,} rows, CSV"] = in_a_process(
            run, short_texts(folder / "short.csv", n_rows)
        )
        if arguments:
            run, texts = map(Path, arguments)
            for n_rows in (20_000, 100_000):
                source = repeated(texts, n_rows, folder / f"{n_rows}.parquet")
                results[f"{run.name}, {n_rows:,} rows, Parquet"] = in_a_process(run, source)
    keep("predict_memory", results)
    for name, values in results.items():
        above = values["peak_mib"] - values["start_mib"]
        print(
            f"{name}: {above:,.0f} MiB above the start's {values['start_mib']:,.0f}, input {values['input_mib']:,.0f}"
        )


def in_a_process(run: Path, source: Path) -> dict[str, Any]:
    """Return what a fresh process measures."""
    command = [sys.executable, "-m", "benchmarks.predict_memory", "--measure", str(run), str(source)]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=one_thread).stdout)


def measured(run: str, source: str) -> dict[str, Any]:
    """Predict a file; return rows, its size, and resident memory at the start and at its highest, in MiB."""
    from submillion import prediction

    start_mib = resident_mib("VmRSS")
    output = Path(source).with_name(f"labels-{Path(source).name}")
    result = prediction.predict_file(run, source, output)
    return {
        "n_rows": result.n_rows,
        "input_mib": round(Path(source).stat().st_size / 2**20, 1),
        "start_mib": round(start_mib),
        "peak_mib": round(resident_mib("VmHWM")),
    }


def resident_mib(which: str) -> float:
    """Return this process' resident memory: VmRSS, now, or VmHWM, the highest so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) / 1024


def tiny_run(folder: Path) -> Path:
    """Train a random encoder of 2 layers of width 32, with MiniLM's tokenizer, for one step."""
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    from submillion import config
    from submillion.model import backbone
    from submillion.planning.architectures import files
    from submillion.training import workflow

    sizes = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
    with backbone.quiet():
        AutoModel.from_config(AutoConfig.for_model("bert", **sizes)).save_pretrained(folder / "encoder")
    AutoTokenizer.from_pretrained(files.folder(MINILM)).save_pretrained(folder / "encoder")
    rows = short_texts(folder / "rows.csv", 60)
    values = {"data.source": rows, "out": folder, "model.name": folder / "encoder", "train.steps": 1}
    return workflow.train(config.load(overrides=[f"{key}={value}" for key, value in values.items()])).path


def short_texts(path: Path, n_rows: int) -> Path:
    """Write rows of 4 to 16 words, whose label is the first word's."""
    rng = random.Random(0)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "label"])
        for number in range(n_rows):
            words = rng.choices(WORDS, k=rng.randint(4, 16))
            writer.writerow([f"row-{number}", f"{' '.join(words)} {number}", WORDS.index(words[0]) % 3])
    return path


def repeated(texts: Path, n_rows: int, path: Path) -> Path:
    """Write the rows again and again, up to n_rows."""
    table = pq.read_table(texts)
    pq.write_table(pa.concat_tables([table] * -(-n_rows // len(table))).slice(0, n_rows), path)
    return path


if __name__ == "__main__":
    main(sys.argv[1:])
