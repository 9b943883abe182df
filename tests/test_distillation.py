"""Laws of distillation: the loss, the teachers that may teach, their logits, and the runs that they taught."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from submillion import config, data, planning, runs
from submillion.cli.progress import View
from submillion.config import Config, DistillationConfig
from submillion.data import Example, Splits, augmentation
from submillion.data.long_texts import Reading
from submillion.errors import ConfigError, DataError, RunError
from submillion.model import batching, precisions
from submillion.model.batching import order
from submillion.model.classifier import Classifier
from submillion.runs import EvalRecord, Run, StepRecord
from submillion.training import distillation, evaluation, losses, workers, workflow
from submillion.training.workflow import Phase
from tests.data import write_csv

CPU: distillation.Place = (torch.device("cpu"), "fp32")
NO_REPORT: Callable[[int], object] = lambda _: None  # noqa: E731
GENERATOR = torch.Generator().manual_seed(0)
LOGITS, TEACHER, OTHER = (3 * torch.randn(20, 4, generator=GENERATOR) for _ in range(3))
LABEL_IDS = torch.arange(20) % 4
COMMON = ["train.batch_size=8", "train.evaluate_every=6", "train.precision=fp32", "data.test=0.2"]
TEACHER_YAML = """
name: teacher
model: {{name: {encoder}, max_length: 40}}
adapter: {{method: none}}
train: {{steps: 8, batch_size: 8, learning_rate: 0.001, precision: fp32}}
{more}
"""


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("rows") / "rows.csv", 90)


@pytest.fixture(scope="module")
def base(rows: Path, encoders: dict[str, Path]) -> list[str]:
    """The overrides of a small student, without its out folder and its teacher."""
    return [*COMMON, f"model.name={encoders['bert']}", f"data.source={rows}", "train.steps=12"]


@pytest.fixture(scope="module")
def teacher(base: list[str], encoders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A fully fine-tuned encoder of another architecture, trained on the students' rows."""
    out = tmp_path_factory.mktemp("teachers")
    own = [f"model.name={encoders['roberta']}", "adapter.method=none", "model.max_length=40"]
    return workflow.train(settings_of(base, out, *own, "train.learning_rate=1e-3"))


@pytest.fixture(scope="module")
def adapted_teacher(base: list[str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    return workflow.train(settings_of(base, tmp_path_factory.mktemp("teachers"), "train.seed=3"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("SUBMILLION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def settings_of(base: list[str], out: Path, *more: str) -> Config:
    return config.load(overrides=[*base, f"out={out}", *more])


def taught_by(*teachers: object) -> str:
    return f"distillation.teacher=[{', '.join(map(str, teachers))}]"


def recipe_of(folder: Path, encoder: Path, more: str = "", name: str = "teacher.yaml") -> Path:
    (folder / name).write_text(TEACHER_YAML.format(encoder=encoder, more=more))
    return folder / name


def copy_of(run: Run, folder: Path) -> Run:
    shutil.copytree(run.path, folder / run.name)
    return Run(folder / run.name)


def losses_of(run: Run) -> list[float]:
    return [record.loss for record in run.records() if isinstance(record, StepRecord)]


def soft(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    return torch.softmax(logits.double() / temperature, dim=-1)


def settings(alpha: float = 0.3, temperature: float = 2.0, scaled: bool = True) -> DistillationConfig:
    return DistillationConfig(alpha=alpha, temperature=temperature, scaled=scaled)


def loss_and_gradient(how: DistillationConfig, teacher_logits: torch.Tensor) -> tuple[float, torch.Tensor]:
    """The distilled loss of `LOGITS` and its gradient by them, float64."""
    logits = LOGITS.double().requires_grad_()
    supervised = losses.supervised(logits, LABEL_IDS, 0.0, None)
    loss = losses.distilled(supervised, logits, teacher_logits.double(), how)
    loss.backward()
    assert logits.grad is not None
    return loss.item(), logits.grad


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("temperature", "scaled"), [(1.0, True), (2.0, True), (2.0, False), (0.5, False)])
def test_the_loss_and_its_gradient_equal_those_written_out(alpha: float, temperature: float, scaled: bool) -> None:
    loss, gradient = loss_and_gradient(settings(alpha, temperature, scaled), TEACHER)
    p, q = soft(TEACHER, temperature), soft(LOGITS, temperature)
    factor = temperature**2 if scaled else 1.0
    divergence = factor * float((p * (p / q).log()).sum())
    supervised = float(functional.cross_entropy(LOGITS.double(), LABEL_IDS, reduction="sum"))
    assert loss == pytest.approx(alpha * supervised + (1 - alpha) * divergence, rel=1e-9)
    hard = soft(LOGITS, 1.0) - functional.one_hot(LABEL_IDS, 4)
    expected = alpha * hard + (1 - alpha) * factor / temperature * (q - p)
    torch.testing.assert_close(gradient, expected)


def test_at_high_temperature_the_scaled_gradient_is_the_difference_of_centred_logits() -> None:
    # Hinton, Vinyals and Dean 2015, equation 4, times T squared.
    _, gradient = loss_and_gradient(settings(0.0, 1e4), TEACHER)
    centred = [(logits - logits.mean(dim=1, keepdim=True)).double() for logits in (LOGITS, TEACHER)]
    torch.testing.assert_close(gradient, (centred[0] - centred[1]) / 4, atol=1e-3, rtol=0)


def test_without_a_teacher_s_share_the_loss_is_the_labels_to_the_bit() -> None:
    supervised = losses.supervised(LOGITS, LABEL_IDS, 0.1, torch.tensor([1.0, 2.0, 0.5, 1.0]))
    assert torch.equal(losses.distilled(supervised, LOGITS, TEACHER, settings(alpha=1.0)), supervised)


def test_a_batch_is_the_sum_of_its_parts() -> None:
    def loss(part: slice) -> torch.Tensor:
        supervised = losses.supervised(LOGITS[part], LABEL_IDS[part], 0.1, None)
        return losses.distilled(supervised, LOGITS[part], TEACHER[part], settings())

    parts = [loss(slice(start, start + 7)) for start in range(0, 20, 7)]
    torch.testing.assert_close(loss(slice(None)), torch.stack(parts).sum())


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_several_teachers_have_the_mean_of_their_probabilities_and_gradients(temperature: float) -> None:
    mean = torch.from_numpy(distillation.mean_logits([TEACHER.numpy(), OTHER.numpy()], temperature))
    expected = (soft(TEACHER, temperature) + soft(OTHER, temperature)) / 2
    torch.testing.assert_close(soft(mean, temperature), expected, atol=1e-6, rtol=1e-5)
    how = settings(0.0, temperature)
    gradients = [loss_and_gradient(how, logits)[1] for logits in (TEACHER, OTHER, mean)]
    torch.testing.assert_close(gradients[2], (gradients[0] + gradients[1]) / 2, atol=1e-5, rtol=1e-5)


def test_a_mean_of_certain_teachers_stays_finite() -> None:
    certain = np.array([[1e4, 0.0], [0.0, 1e4]], dtype=np.float32)
    assert np.isfinite(distillation.mean_logits([certain, certain[::-1].copy()], 1.0)).all()


def examples_of(rows: Path, n: int = 30) -> list[Example]:
    return data.read_rows(rows, config.load().data)[:n]


def logits_of(run: Run, examples: list[Example], place: distillation.Place = CPU) -> tuple[np.ndarray, str]:
    return distillation.logits(run, examples, run.labels(), place, NO_REPORT)


@pytest.mark.parametrize("kind", ["teacher", "adapted_teacher"])
def test_kept_logits_are_those_of_the_classifier(
    kind: str, rows: Path, place: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, examples = request.getfixturevalue(kind), examples_of(rows)
    computed, note = logits_of(run, examples)
    assert note == "computed"
    classifier = Classifier.load(run, "cpu", "fp32")
    split = batching.tokenize(examples[::-1], classifier.tokenizer, classifier.labels, Reading.of(run.config().model))
    fresh = evaluation.logits(classifier, split, 7)[::-1]
    np.testing.assert_allclose(computed, fresh, atol=1e-5)
    assert computed.dtype == np.float32
    monkeypatch.setattr(evaluation, "logits", lambda *_: pytest.fail("computed again"))
    found, note = logits_of(run, examples)
    assert note == "found"
    assert np.array_equal(found, computed)


@pytest.mark.parametrize("measured", ["fp32", "bf16"])
def test_the_teacher_of_an_int8_student_is_in_what_is_faster_of_the_others(
    measured: str, teacher: Run, rows: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precisions, "choose_precision", lambda *_: (measured, "as measured"))
    load, taken = Classifier.load, list[str | None]()
    monkeypatch.setattr(Classifier, "load", lambda run, device, own: (taken.append(own), load(run, device, own))[1])
    usual, _ = logits_of(teacher, examples_of(rows))
    found, _ = distillation.logits(teacher, examples_of(rows), teacher.labels(), (CPU[0], "int8"), NO_REPORT)
    assert taken == ["fp32", measured]
    np.testing.assert_allclose(found, usual, atol=0.1)


def test_progress_counts_every_row_once(teacher: Run, rows: Path, place: Path) -> None:
    seen: list[int] = []
    distillation.logits(teacher, examples_of(rows), teacher.labels(), CPU, seen.append)
    assert seen == sorted(set(seen))
    assert seen[-1] == 30


def test_columns_follow_the_labels_that_are_asked_for(teacher: Run, rows: Path, place: Path) -> None:
    usual, _ = logits_of(teacher, examples_of(rows))
    turned = (teacher.labels()[1], teacher.labels()[2], teacher.labels()[0])
    other, note = distillation.logits(teacher, examples_of(rows), turned, CPU, NO_REPORT)
    assert note == "found"
    assert np.array_equal(other, usual[:, [1, 2, 0]])


def n_kept(place: Path) -> int:
    return len(list((place / "teacher-logits").iterdir()))


def test_another_text_order_precision_batch_or_number_of_threads_is_computed_anew(
    teacher: Run, rows: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = examples_of(rows)
    logits_of(teacher, examples)
    for number, changed in enumerate((examples[::-1], examples[:-1], [replace(examples[0], text="a"), *examples[1:]])):
        assert logits_of(teacher, changed)[1] == "computed"
        assert n_kept(place) == 2 + number
    assert logits_of(teacher, examples, (CPU[0], "bf16"))[1] == "computed"
    with workers.threads(2):
        assert logits_of(teacher, examples)[1] == "computed"
    monkeypatch.setattr(order, "EVALUATION_TOKENS", 100)
    assert logits_of(teacher, examples)[1] == "computed"
    assert n_kept(place) == 7
    renamed = [replace(example, id=f"x{example.id}", label=None) for example in examples]
    assert logits_of(teacher, renamed)[1] == "found"  # ids and labels decide no logit


@pytest.mark.parametrize("kind", ["teacher", "adapted_teacher"])
def test_other_weights_or_another_length_are_another_teacher(
    kind: str, rows: Path, place: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    run = request.getfixturevalue(kind)
    examples = [*examples_of(rows), Example("long", "the team " * 40, None)]
    before, _ = logits_of(run, examples)
    other = copy_of(run, tmp_path)
    assert distillation.identity(other) == distillation.identity(run)
    assert logits_of(other, examples)[1] == "found"
    (weights,) = (other.path / "adapter").glob("*model.safetensors")
    content = bytearray(weights.read_bytes())
    content[-2] ^= 1  # in the last number
    weights.write_bytes(bytes(content))
    other.mark_done()
    assert distillation.identity(other) != distillation.identity(run)
    assert logits_of(other, examples)[1] == "computed"
    shorter = copy_of(run, tmp_path / "shorter")
    text = (shorter.path / "config.yaml").read_text()
    length = run.config().model.max_length
    (shorter.path / "config.yaml").write_text(text.replace(f"max_length: {length}", "max_length: 16"))
    shorter.mark_done()
    assert distillation.identity(shorter) != distillation.identity(run)
    cut, note = logits_of(shorter, examples)
    assert note == "computed"
    assert not np.allclose(cut[-1], before[-1])


@pytest.mark.parametrize(
    "damage", [lambda file: file.write_bytes(b"other"), lambda file: file.unlink()], ids=["changed", "removed"]
)
def test_damaged_logits_are_computed_again(
    damage: Callable[[Path], object], teacher: Run, rows: Path, place: Path
) -> None:
    before, _ = logits_of(teacher, examples_of(rows))
    (file,) = place.glob("teacher-logits/*/logits.npy")
    damage(file)
    again, note = logits_of(teacher, examples_of(rows))
    assert note == "computed"
    assert np.array_equal(again, before)
    assert logits_of(teacher, examples_of(rows))[1] == "found"


def test_where_logits_cannot_be_kept_they_are_the_same_and_a_note_says_so(
    teacher: Run, rows: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, _ = logits_of(teacher, examples_of(rows))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SUBMILLION_CACHE", str(tmp_path / "file"))
    again, note = logits_of(teacher, examples_of(rows))
    assert note.startswith("computed, and not kept for other runs: ")
    assert np.array_equal(again, before)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["distillation.temperature=1.0", "distillation.scaled=false"],
        ["model.prefix=true", "adapter.layers=top:1"],
        ["augmentation.kind=swap", "augmentation.copies=2"],
        ["augmentation.kind=swap", "augmentation.copies=2", "augmentation.placement=rotating"],
    ],
    ids=["plain", "unscaled", "prefix", "copies beside", "rotating copies"],
)
def test_each_row_meets_its_own_teacher_logits(
    overrides: list[str], base: list[str], teacher: Run, adapted_teacher: Run, tmp_path: Path
) -> None:
    # One step per epoch, and a student that does not move: each step's loss can be computed from outside.
    still = ["train.learning_rate=1e-12", "model.dropout=0", "train.batch_size=500", "train.steps=4"]
    teachers = ["distillation.alpha=0", taught_by(teacher.path, adapted_teacher.path)]
    student = settings_of(base, tmp_path, *still, *teachers, *overrides)
    run, splits = workflow.train(student), data.read(student.data)
    how, blocks = student.distillation, [splits.train]
    if student.augmentation.kind is not None:
        made = augmentation.with_copies(splits.train, student.augmentation, student.train.seed)
        n = len(splits.train)
        blocks = [made[i * n : (i + 1) * n] for i in range(3)]
        blocks = blocks if student.augmentation.placement == "rotating" else [made]
    first = Classifier.build(student, planning.plan(student, 3), splits.labels, 4, "fp32", CPU[0]).eval()
    factor = how.temperature**2 if how.scaled else 1.0
    expected = []
    for block in blocks:
        split = batching.tokenize(block, first.tokenizer, splits.labels, Reading.of(student.model))
        q = soft(torch.from_numpy(evaluation.logits(first, split, 32)), how.temperature)
        each = [soft(torch.from_numpy(logits_of(run, block)[0]), how.temperature) for run in (teacher, adapted_teacher)]
        p = torch.stack(each).mean(dim=0)
        expected.append(factor * float((p * (p / q).log()).sum()) / len(block))
    assert losses_of(run) == pytest.approx([expected[i % len(blocks)] for i in range(4)], rel=1e-4)


def test_alpha_1_is_training_without_a_teacher_to_the_bit(base: list[str], teacher: Run, tmp_path: Path) -> None:
    extra = ["train.label_smoothing=0.1", "train.class_weights=balanced"]
    plain = workflow.train(settings_of(base, tmp_path, *extra))
    taught = workflow.train(settings_of(base, tmp_path, *extra, taught_by(teacher.path), "distillation.alpha=1"))
    half = workflow.train(settings_of(base, tmp_path, *extra, taught_by(teacher.path)))
    for file in ("predictions-test.parquet", "predictions-validation.parquet", "adapter/adapter_model.safetensors"):
        assert (plain.path / file).read_bytes() == (taught.path / file).read_bytes()
        assert (plain.path / file).read_bytes() != (half.path / file).read_bytes()
    assert losses_of(plain) == losses_of(taught)


def test_at_alpha_0_the_labels_weigh_nothing(base: list[str], teacher: Run, tmp_path: Path) -> None:
    taught = [taught_by(teacher.path), "distillation.alpha=0"]
    one = workflow.train(settings_of(base, tmp_path, *taught))
    other = workflow.train(settings_of(base, tmp_path, *taught, "train.label_smoothing=0.5"))
    assert one.path != other.path
    assert losses_of(one) == losses_of(other)


def test_a_student_comes_nearer_to_its_teacher(base: list[str], teacher: Run, tmp_path: Path) -> None:
    more = ["distillation.alpha=0", "train.steps=60", "train.learning_rate=3e-3", "adapter.method=none"]
    found = losses_of(workflow.train(settings_of(base, tmp_path, taught_by(teacher.path), *more)))
    assert np.mean(found[-10:]) < 0.5 * np.mean(found[:5])


def test_the_validation_loss_is_that_of_the_labels(base: list[str], teacher: Run, tmp_path: Path) -> None:
    run = workflow.train(settings_of(base, tmp_path, taught_by(teacher.path), "distillation.alpha=0"))
    for record in run.records():
        if isinstance(record, EvalRecord):
            assert record.loss == record.scores["log_loss"].value


def test_the_run_says_who_taught_it(base: list[str], teacher: Run, adapted_teacher: Run, tmp_path: Path) -> None:
    run = workflow.train(settings_of(base, tmp_path, taught_by(teacher.path, adapted_teacher.path)))
    found = run.read_json("teachers.json")
    assert [entry["run"] for entry in found] == [teacher.name, adapted_teacher.name]
    assert [entry["identity"] for entry in found] == list(map(distillation.identity, (teacher, adapted_teacher)))
    assert found[0]["validation_accuracy"] == vars(teacher.scores()["validation"]["accuracy"])
    (run.path / "teachers.json").write_text("[]")
    with pytest.raises(RunError, match=r"teachers\.json is not what training wrote"):
        runs.verify(run)
    plain = workflow.train(settings_of(base, tmp_path))
    assert not (plain.path / "teachers.json").exists()


def test_the_hash_follows_the_teacher_and_not_its_path(
    base: list[str], teacher: Run, adapted_teacher: Run, tmp_path: Path
) -> None:
    copied = copy_of(teacher, tmp_path)
    ways = [str(teacher.path), str(copied.path), copied.name, f"'{copied.name[-8:]}'"]  # a hash may be all digits
    paths = {workflow.train(settings_of(base, tmp_path, taught_by(way))).path for way in ways}
    assert len(paths) == 1
    others = [[adapted_teacher.path], [teacher.path, adapted_teacher.path]]
    found = [workflow.train(settings_of(base, tmp_path, taught_by(*names))).path for names in others]
    assert len({*paths, *found}) == 3
    plain = settings_of(base, tmp_path)
    assert distillation.identified(plain, []) is plain  # runs without a teacher keep their names


def test_a_recipe_is_trained_once_on_the_student_s_splits(
    base: list[str], encoders: dict[str, Path], tmp_path: Path
) -> None:
    recipe = recipe_of(tmp_path, encoders["roberta"], "data: {source: elsewhere.csv, validation: 0.5}")
    student = settings_of(base, tmp_path / "runs", taught_by(recipe))
    seen: list[StepRecord | EvalRecord | Phase] = []
    run = workflow.train(student, lambda record: bool(seen.append(record)))
    (teacher,) = [other for other in runs.list_runs(tmp_path / "runs") if other.name.startswith("teacher-")]
    assert teacher.config().data == student.data
    assert teacher.read_json("plan.json")["budget"] is None
    assert teacher.read_json("data.json")["fingerprint"] == run.read_json("data.json")["fingerprint"]
    assert sum(record.kind == "step" for record in seen) == 8 + 12
    assert "test" not in teacher.scores(), "the student's reading of these rows is the only one"
    phases = [record for record in seen if isinstance(record, Phase) and record.n_total]
    n_rows = run.read_json("data.json")["rows"]["train"]
    assert (phases[0].n_total, phases[0].n_done, phases[-1].n_done) == (n_rows, 0, n_rows)
    seen.clear()
    again = workflow.train(
        settings_of(base, tmp_path / "runs", taught_by(recipe), "train.seed=5"),
        lambda record: bool(seen.append(record)),
    )
    assert sum(record.kind == "step" for record in seen) == 12
    assert again.read_json("teachers.json") == run.read_json("teachers.json")
    assert workflow.train(settings_of(base, tmp_path / "runs", taught_by(teacher.name))).path == run.path


def test_pausing_a_recipe_s_training_returns_its_run_and_the_same_call_goes_on(
    base: list[str], encoders: dict[str, Path], tmp_path: Path
) -> None:
    recipe = recipe_of(tmp_path, encoders["roberta"])
    whole = workflow.train(settings_of(base, tmp_path / "whole", taught_by(recipe)))
    student = settings_of(base, tmp_path / "paused", taught_by(recipe))
    paused = workflow.train(student, lambda record: record.kind == "step" and record.step == 5)
    assert paused.name.startswith("teacher-")
    assert [run.state for run in runs.list_runs(tmp_path / "paused")] == ["interrupted"]
    paused = workflow.train(student, lambda record: record.kind == "step" and record.step == 9)
    assert paused.name == whole.name
    assert paused.state == "interrupted"
    run = workflow.train(student)
    assert run.name == whole.name
    for file in ("predictions-test.parquet", "scores.json"):
        assert (run.path / file).read_bytes() == (whole.path / file).read_bytes()


def test_the_view_does_not_mix_a_teacher_s_loss_with_the_student_s() -> None:
    with View() as view:
        for loss in (5.0, 1.0):
            view(Phase("training", n_steps=10))
            view(StepRecord(1, 0.1, loss, 1e-3, 100, 0.5))
        assert view.smooth_loss == 1.0
        assert view.tokens == 100


@pytest.mark.parametrize("cycle", [["a.yaml"], ["a.yaml", "b.yaml"]])
def test_a_recipe_that_teaches_itself_is_refused(
    cycle: list[str], base: list[str], encoders: dict[str, Path], tmp_path: Path
) -> None:
    for name, follower in zip(cycle, cycle[1:] + cycle[:1], strict=True):
        recipe_of(tmp_path, encoders["bert"], f"distillation: {{teacher: {tmp_path / follower}}}", name)
    with pytest.raises(ConfigError, match=r"a recipe cannot teach itself \(.*a\.yaml → .*a\.yaml\)"):
        workflow.train(settings_of(base, tmp_path / "runs", taught_by(tmp_path / "a.yaml")))
    assert runs.list_runs(tmp_path / "runs") == []


def test_all_teachers_that_cannot_be_used_are_named_together(
    base: list[str], teacher: Run, encoders: dict[str, Path], tmp_path: Path
) -> None:
    half = workflow.train(settings_of(base, tmp_path), lambda record: record.kind == "step")
    edited, cut = copy_of(teacher, tmp_path / "edited"), copy_of(teacher, tmp_path / "cut")
    (edited.path / "labels.json").write_text('["sport", "money", "art"]')
    (cut.path / "adapter" / "model.safetensors").unlink()
    recipe = recipe_of(tmp_path, encoders["bert"], "distillation: {teacher: nobody}")
    broken = recipe_of(tmp_path, encoders["bert"], "budjet: 3", "broken.yaml")
    names = ["study-e-techer", half.path, edited.path, cut.path, recipe, broken, tmp_path / "none.yaml"]
    with pytest.raises(ConfigError) as caught:
        workflow.train(settings_of(base, tmp_path, taught_by(*names)))
    expected = [
        "no run 'study-e-techer'",
        "is not finished",
        "labels.json is not what training wrote",
        "model.safetensors is missing",
        "distillation.teacher nobody: no run 'nobody'",
        "unknown key budjet: did you mean 'budget'?",
        "none.yaml: no such file",
    ]
    assert len(caught.value.problems) == len(expected)
    for problem, part, name in zip(caught.value.problems, expected, names, strict=True):
        assert problem.startswith(f"distillation.teacher {name}: ")
        assert part in problem
    assert (
        "A recipe or a config file (.yaml) may be named too: did you mean the recipe 'study-e-teacher'?"
        in (caught.value.problems[0])
    )


def test_a_teacher_whose_encoder_changed_is_refused(base: list[str], encoders: dict[str, Path], tmp_path: Path) -> None:
    encoder = tmp_path / "encoder"
    shutil.copytree(encoders["bert"], encoder)
    run = workflow.train(settings_of(base, tmp_path / "runs", f"model.name={encoder}", "train.steps=2"))
    shutil.copy(encoders["electra"] / "model.safetensors", encoder / "model.safetensors")
    with pytest.raises(ConfigError, match="does not hold the weights"):
        workflow.train(settings_of(base, tmp_path / "runs", taught_by(run.path)))


def with_labels(splits: Splits, *labels: str) -> Splits:
    return replace(splits, labels=labels)


def test_labels_must_be_the_same_in_any_order(base: list[str], teacher: Run, tmp_path: Path) -> None:
    student = settings_of(base, tmp_path, taught_by(teacher.path))
    splits = data.read(student.data)
    assert distillation.check([teacher], student, with_labels(splits, *splits.labels[::-1])) == ()
    with pytest.raises(DataError, match="it lacks 'film', 'war'; it has 'art', 'sport', which the rows do not have"):
        distillation.check([teacher], student, with_labels(splits, "film", "money", "war"))
    with pytest.raises(DataError, match="it has 'art', which"):
        distillation.check([teacher], student, with_labels(splits, "money", "sport"))
    with pytest.raises(DataError, match="2 problems"):
        distillation.check([teacher, teacher], student, with_labels(splits, "money", "sport"))


def test_a_teacher_of_single_texts_does_not_teach_pairs(base: list[str], teacher: Run, tmp_path: Path) -> None:
    pairs = settings_of(base, tmp_path, taught_by(teacher.path), "data.text_pair=id")
    with pytest.raises(DataError, match=r"reads single texts, but data\.text_pair makes pairs"):
        workflow.train(pairs)


def test_a_teacher_that_saw_held_out_rows_is_refused(base: list[str], teacher: Run, tmp_path: Path) -> None:
    for seed in (1, 2):
        with pytest.raises(DataError, match=r"was trained on \d+ validation rows and \d+ test rows of this run"):
            workflow.train(settings_of(base, tmp_path, taught_by(teacher.path), f"data.seed={seed}"))
    assert runs.list_runs(tmp_path) == []


def test_other_rows_are_no_leak_and_rows_that_are_gone_are_a_doubt(
    base: list[str], teacher: Run, rows: Path, tmp_path: Path
) -> None:
    strangers = write_csv(tmp_path / "strangers.csv", 60, seed=9)
    other = settings_of(base, tmp_path, taught_by(teacher.path), f"data.source={strangers}")
    assert distillation.check([teacher], other, data.read(other.data)) == ()
    moved = copy_of(teacher, tmp_path)
    text = (moved.path / "config.yaml").read_text()
    (moved.path / "config.yaml").write_text(text.replace(str(rows), str(tmp_path / "gone.csv")))
    moved.mark_done()
    doubted = settings_of(base, tmp_path, taught_by(moved.path), "data.seed=1")
    found = workflow.train(doubted).read_json("data.json")["warnings"]
    assert any("held out different rows" in warning for warning in found)


def test_fewer_training_rows_with_the_same_held_out_ones_are_no_leak(
    base: list[str], teacher: Run, tmp_path: Path
) -> None:
    student = settings_of(base, tmp_path, taught_by(teacher.path))
    splits = data.read(student.data)
    fewer = replace(splits, train=splits.train[:20], fingerprint="another")
    assert distillation.check([teacher], student, fewer) == ()
    leaking = replace(fewer, test=splits.train[20:24], test_fingerprint="another")
    with pytest.raises(DataError, match="was trained on 4 test rows of this run"):
        distillation.check([teacher], student, leaking)


def test_the_shipped_study_names_its_teacher(tmp_path: Path) -> None:
    (teacher,) = distillation.asked(config.load(recipe="study-e", overrides=[f"out={tmp_path}", "data.source=x.csv"]))
    assert isinstance(teacher, Config)
    assert (teacher.name, teacher.adapter.method, teacher.data.source) == ("study-e-teacher", "none", "x.csv")
    assert teacher.out == str(tmp_path)
