"""What is trusted: no code of a file is run, a name is no path, and no secret is written or printed."""

from __future__ import annotations

import ast
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from submillion import config, runs
from submillion.data import cache
from submillion.errors import ConfigError, SubmillionError
from submillion.planning import architectures
from submillion.reports import write as write_report  # before tests without reports silence it
from submillion.runs import Run
from submillion.sweeps.sitting import sweep
from submillion.text import visible, without_secrets
from submillion.training import workflow
from tests.data import write_csv
from tests.malformed import assert_sentences, called, refused

PACKAGE = Path(__file__).parent.parent / "submillion"
FILES = sorted(PACKAGE.rglob("*.py"))
# Each can run code that a file holds, or reads files that can.
FORBIDDEN = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "marshal.loads", "marshal.load", "shelve.open"),
    *(
        "torch.load",
        "joblib.load",
        "dill.load",
        "cloudpickle.load",
        "pickle.load",
        "pickle.Unpickler",
        "pd.read_pickle",
    ),
    *("yaml.full_load", "yaml.unsafe_load", "yaml.load_all", "np.fromfile", "torch.hub.load", "torch.jit.load"),
    *("tarfile.TarFile.extractall", "shutil.unpack_archive", "importlib.util.spec_from_file_location"),
}
# The one pickle is made and read back in the same line, to see whether an error survives the way between processes.
ALLOWED = {("processes.py", "pickle.loads")}
LOADERS_OF_MODELS = ("from_pretrained",)


def _called(file: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call of a file, by its dotted name."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_no_loader_can_run_what_a_file_holds() -> None:
    calls = [(file, name, call) for file in FILES for name, call in _called(file)]
    for file, name, call in calls:
        line = f"{file.relative_to(PACKAGE)}, line {call.lineno}"
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert name not in FORBIDDEN, f"{line}: {name}"
        assert name != "pickle.loads" or (file.name, name) in ALLOWED, f"{line}: {name}"
        assert not name.endswith((".extractall", ".extract")), f"{line}: {name} may write anywhere"
        assert given.get("allow_pickle", "False") == "False", line
        assert given.get("trust_remote_code", "False") == "False", line
        assert given.get("weights_only", "True") == "True", line
        assert given.get("shell", "False") == "False", f"{line}: a shell reads what it is given"
        assert name != "yaml.load" or given["Loader"] == "_UniqueKeyLoader", line
        if name.startswith("Auto") and name.endswith(".from_pretrained"):
            assert given["trust_remote_code"] == "False", f"{line}: it would ask at the terminal"
        if name.startswith("AutoModel") and name.endswith(".from_pretrained"):
            assert given["use_safetensors"] == "True", f"{line}: it would read a pickle"


class Trap:
    """A pickle of it makes a folder when it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable, tuple]:
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[bytes]:
    """A pickle that must never be read."""
    yield pickle.dumps(Trap(tmp_path / "trapped"))
    assert not (tmp_path / "trapped").exists(), "a pickle was read, and its code was run"


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("rows") / "rows.csv", 60)


def settings_of(encoder: Path, rows: Path, out: Path) -> list[str]:
    sets = {"model.name": encoder, "data.source": rows, "out": out, "model.max_length": 32}
    sets |= {"train.steps": 2, "train.precision": "fp32"}
    return [f"{key}={value}" for key, value in sets.items()]


@pytest.fixture(scope="module")
def trained(encoders: dict[str, Path], rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("trained")
    return workflow.train(config.load(overrides=settings_of(encoders["bert"], rows, out)))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors", "tf_model.h5", "flax_model.msgpack"])
def test_an_encoder_of_pickled_weights_is_refused_with_the_way_out(
    encoders: dict[str, Path], rows: Path, tmp_path: Path, trap: bytes, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = tmp_path / "encoder"
    shutil.copytree(encoders["bert"], encoder)
    (encoder / "model.safetensors").unlink()
    (encoder / name).write_bytes(trap)
    sets = [word for text in settings_of(encoder, rows, tmp_path / "runs") for word in ("--set", text)]
    sentences = refused(capsys, "train", "--json", *sets, named=(str(encoder),))
    assert name == "model.safetensors" or "save_pretrained" in sentences


PLACES = ("adapter_model.bin", "training_args.bin", "optimizer.pt", "pytorch_model.bin", "tokenizer.pkl", "model.pkl")


@pytest.mark.parametrize("name", PLACES)
def test_a_pickle_in_an_adapter_is_never_read(
    trained: Run, rows: Path, tmp_path: Path, trap: bytes, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither beside the weights, nor in their place, whether it is sealed or not."""
    for in_place, sealed in ((False, False), (False, True), (True, False), (True, True)):
        run = Run(tmp_path / f"run-{int(in_place)}000000{int(sealed)}")
        shutil.copytree(trained.path, run.path)
        (run.path / "adapter" / name).write_bytes(trap)
        if in_place:
            (run.path / "adapter" / "adapter_model.safetensors").unlink()
        if sealed:
            run.mark_done()
        output = tmp_path / "labels.csv"
        code, _, err = called(capsys, "predict", run.path, "--input", rows, "--output", output)
        assert code == (0 if sealed and not in_place else 1), err
        output.unlink(missing_ok=True)


@pytest.mark.parametrize("name", ["last.safetensors", "best-0000001.safetensors", "last.pt", "optimizer.bin"])
def test_a_pickle_among_checkpoints_is_never_read(
    trained: Run, tmp_path: Path, trap: bytes, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path / trained.name)
    shutil.copytree(trained.path, run.path)
    (run.path / "DONE").unlink()
    (run.path / "checkpoints").mkdir(exist_ok=True)
    (run.path / "checkpoints" / name).write_bytes(trap)
    code, _, err = called(capsys, "train", "--config", run.path / "config.yaml", "--out", tmp_path, "--json")
    if name == "last.safetensors":
        assert_sentences(err, name)
    assert code == (1 if name == "last.safetensors" else 0), err


def test_pickles_in_the_cache_are_never_read(tmp_path: Path, trap: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUBMILLION_CACHE", str(tmp_path / "cache"))
    with cache.filling("tokens", "0" * 32) as folder:
        np.save(folder / "tokens.npy", np.array([Trap(tmp_path / "trapped")], dtype=object), allow_pickle=True)
    found = cache.find("tokens", "0" * 32)
    assert found is not None
    with pytest.raises(ValueError, match="allow_pickle"):
        np.load(found / "tokens.npy")  # as `batching` and `distillation` do


CODE = "open(__file__ + '.ran', 'w').close()\nfrom transformers import BertModel as OwnModel, BertConfig as OwnConfig\n"


@pytest.mark.parametrize(
    ("file", "key"),
    [("config.json", "AutoModel"), ("config.json", "AutoConfig"), ("tokenizer_config.json", "AutoTokenizer")],
)
def test_a_models_own_code_is_not_run_and_nobody_is_asked(
    encoders: dict[str, Path],
    rows: Path,
    tmp_path: Path,
    file: str,
    key: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # whoever asks hears yes
    encoder = tmp_path / "encoder"
    shutil.copytree(encoders["bert"], encoder)
    (encoder / "own.py").write_text(CODE)
    table = json.loads((encoder / file).read_text())
    named = ["own.OwnTokenizer", "own.OwnTokenizer"] if key == "AutoTokenizer" else "own.OwnModel"
    table |= {"auto_map": {key: named}}
    if key == "AutoTokenizer":
        table |= {"tokenizer_class": "OwnTokenizer"}
    (encoder / file).write_text(json.dumps(table))
    sets = [word for text in settings_of(encoder, rows, tmp_path / "runs") for word in ("--set", text)]
    refused(capsys, "train", "--json", *sets, named=(str(encoder), "code"))
    assert not list(tmp_path.rglob("*.ran"))


@pytest.mark.parametrize(
    "name", ["../up", "a/b", "/etc", "..", ".", "a\\..\\b", "a\nb", "~", "", "a b", "ａ", "-x", "C:x"]
)
def test_a_name_is_no_path(name: str, tmp_path: Path) -> None:
    for values in ({"name": name}, {"name": name, "out": str(tmp_path)}):
        with pytest.raises(ConfigError) as error:
            config.validate(values)
        assert_sentences(str(error.value), "name")


@pytest.mark.parametrize("name", ["../default", "/etc/passwd", "default.yaml", "..", "", "default\0"])
def test_a_recipe_is_one_that_ships(name: str) -> None:
    with pytest.raises(ConfigError) as error:
        config.load(recipe=name)
    assert_sentences(str(error.value), "no recipe")


def test_labels_and_ids_that_look_like_paths_stay_text(
    encoders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Reports, exports and predictions of such labels write where they were told to and nowhere else."""
    labels = ["../../up", "/etc/passwd", "a\0b", "\x1b[31mred", "<script>", "=cmd|' /C calc'!A0"]
    lines = [f'../../{i},the text {i} of {i % 6},"{labels[i % 6]}"' for i in range(60)]
    rows = tmp_path / "in" / "rows.csv"
    rows.parent.mkdir()
    rows.write_text("\n".join(["id,text,label", *lines]) + "\n")
    run = workflow.train(config.load(overrides=settings_of(encoders["bert"], rows, tmp_path / "in" / "runs")))
    write_report(run)
    output = tmp_path / "in" / "labels.csv"
    assert called(capsys, "predict", run.path, "--input", rows, "--output", output)[0] == 0
    exported = tmp_path / "in" / "exported"
    assert called(capsys, "export", run.path, "--format", "merged", "--output", exported)[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert "<script>" not in (run.path / "report.html").read_text().replace("<script>\n", "")


SECRET = "Geheim-1234567890"
SECRETS = {
    **dict.fromkeys(("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD"), SECRET),
    **dict.fromkeys(("AWS_SECRET_ACCESS_KEY", "SUBMILLION_TOKEN", "RAY_AUTH_TOKEN", "OPENAI_API_KEY"), SECRET),
    **dict.fromkeys(("HTTPS_PROXY", "http_proxy"), f"http://me:{SECRET}@127.0.0.1:9"),
}


def holding(folder: Path) -> list[Path]:
    """The files below a folder that hold the secret."""
    return [path for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


@pytest.mark.slow
def test_no_secret_is_written_or_printed(
    encoders: dict[str, Path],
    rows: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Of the environment, of the command's own words, of a storage's URL: a run, its report, a study, its trackers."""
    from tests.kit.studies import BASE, write_study

    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    storage = f"sqlite:///{tmp_path}/study.sqlite3?password={SECRET}"
    words = ["submillion", "sweep", "study.yaml", "--storage", f"postgresql+psycopg://me:{SECRET}@host/db", storage]
    monkeypatch.setattr(sys, "argv", [*words, f"--token={SECRET}", "hf_" + SECRET.replace("-", "")])
    sets = [*settings_of(encoders["bert"], rows, tmp_path / "runs"), "tracking=[tensorboard, wandb, mlflow]"]
    run = workflow.train(config.load(overrides=sets))
    write_report(run)
    table = {**BASE, "model.name": str(encoders["bert"]), "data.source": str(rows), "out": str(tmp_path / "runs")}
    sweep(write_study(tmp_path, table, factors=[{"key": "adapter.rank", "values": [1, 2]}]))
    assert (tmp_path / "runs" / "tracking" / "wandb").is_dir()
    assert holding(tmp_path) == []
    assert "***" in (run.path / "environment.json").read_text()
    assert SECRET not in "".join(capfd.readouterr())


COMMANDS = {
    "a storage": [
        "sweep",
        "quick",
        "--set",
        "data.source=ROWS",
        "--storage",
        f"postgresql://me:{SECRET}@127.0.0.1:1/x",
    ],
    "a storage of no kind": ["sweep", "quick", "--set", "data.source=ROWS", "--storage", f"nosql://me:{SECRET}@x/y"],
    "a source": ["train", "--data", f"https://me:{SECRET}@127.0.0.1/rows.csv"],
    "a source's token": ["train", "--data", f"https://127.0.0.1/rows.csv?token={SECRET}"],
    "rows to predict": ["predict", "RUN", "--input", f"https://me:{SECRET}@127.0.0.1/x.csv", "--output", "o.csv"],
    "an output": ["predict", "RUN", "--input", "ROWS", "--output", f"s3://me:{SECRET}@bucket/o.csv"],
    "a config": ["train", "--config", f"https://me:{SECRET}@127.0.0.1/c.yaml"],
    "an out": ["train", "--data", "ROWS", "--out", f"s3://me:{SECRET}@bucket/runs"],
    "a model": ["train", "--data", "ROWS", "--set", f"model.name=https://me:{SECRET}@127.0.0.1/model"],
    "a teacher": ["train", "--data", "ROWS", "--set", f"distillation.teacher=https://me:{SECRET}@127.0.0.1/run"],
    "a run": ["predict", f"https://me:{SECRET}@127.0.0.1/run", "--input", "ROWS", "--output", "o.csv"],
    "a wrong word": ["train", "--set", f"hub.token={SECRET}"],
}


@pytest.mark.parametrize("case", COMMANDS)
def test_a_secret_in_a_wrong_command_is_not_repeated(
    case: str,
    trained: Run,
    rows: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [{"RUN": str(trained.path), "ROWS": str(rows)}.get(word, word) for word in COMMANDS[case]]
    words = [word.replace("=ROWS", f"={rows}") for word in words]
    assert SECRET not in refused(capsys, *words)
    assert holding(tmp_path) == []
    assert SECRET not in "".join(map(str, called(capsys, "-v", *words)))


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://me:{SECRET}@host/db",
        f"mysql+driver://me:pa/ss@{SECRET}@host/db",
        f"https://{SECRET}@hub.example/x",
        f"https:/me:{SECRET}@hub.example/x",
        f"https://x/y?a=b&access_token={SECRET}&c=d",
        f"https://x/y?X-Amz-Signature={SECRET}",
        f"hf_{SECRET.replace('-', '')}",
        f"said {SECRET} and {SECRET}",
    ],
)
def test_secrets_are_masked_wherever_they_stand(text: str) -> None:
    shown = without_secrets(text, {"X_TOKEN": SECRET})
    assert SECRET not in shown
    assert "***" in shown
    assert without_secrets(shown, {"X_TOKEN": SECRET}) == shown
    assert SECRET not in str(SubmillionError(text)) or "said" in text or "Signature" in text


@pytest.mark.parametrize(
    "text", ["a plain sentence", "http://127.0.0.1:8000/page", "me@example.org", "/a/b:c", "é\tü\nß"]
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert visible(without_secrets(text, {"KEY": "short", "TOKENS": "a plain sentence"})) == text


def test_a_real_process_refuses_in_its_own_words(tmp_path: Path) -> None:
    """In a process of its own, with bytes in its arguments that are not UTF-8, and stdout for the result alone."""
    (tmp_path / "bad.yaml").write_text("a: &a [*a]")
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "PYTHONPATH": str(PACKAGE.parent)}
    for words in ([b"config", b"--config", b"bad.yaml", b"--json"], [b"train", b"--data", b"\xff\xfe.csv", b"--json"]):
        command = [sys.executable, "-m", "submillion", *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (1, b"")
        assert_sentences(done.stderr.decode())
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


def test_weights_are_those_of_the_folder_and_names_those_that_ship() -> None:
    """A bare name is looked for among known checkpoints, never as a file elsewhere."""
    with pytest.raises(ConfigError):
        architectures.load("../../etc/passwd")
    assert architectures.files.at_hand("roberta-base") is None
    with pytest.raises(SubmillionError):
        runs.load("/etc")
