"""The faults, room by room: the line as it is, the line with the fault, the test files that must find it.

A line is looked for in the whole package and must be there once, so that a file may move without a change here.
"""

from __future__ import annotations

from typing import NamedTuple


class Fault(NamedTuple):
    """One line of the package made wrong; `tests` are names of files in tests/, without `test_` and `.py`."""

    tests: str
    old: str
    new: str


FAULTS = (
    # config
    Fault(
        "config",
        'NOT_HASHED = ("name", "out", "tracking", "device")',
        'NOT_HASHED = ("name", "out", "tracking", "device", "budget")',
    ),
    # planning
    Fault("budget", "return low_rank + target.d_out", "return low_rank"),
    Fault("budget", "return target.d_in if target.feed_forward else target.d_out", "return target.d_out"),
    Fault(
        "budget",
        '(dense_bias(arch) if head == "linear" and keeps_pooler(arch) else 0)',
        "0",
    ),
    Fault(
        "budget",
        "return sum(target.d_out if target.n_biases is None else target.n_biases for target in targets)",
        "return sum(target.d_out for target in targets[1:])",
    ),
    Fault(
        "planning",
        "if drafted.slack is None or drafted.slack >= 0:",
        "if drafted.slack is None or drafted.slack >= -1:",
    ),
    Fault(
        "planning", 'return everything[-n:] if layers.startswith("top") else everything[:n]', "return everything[:n]"
    ),
    # judging
    Fault("metrics", "centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)", "centre = share"),
    Fault(
        "metrics",
        "inverse = _inverse_temperature(loss_of(logits[~held_out], predictions.label_ids[~held_out]))",
        "inverse = _inverse_temperature(loss_of(logits, predictions.label_ids))",
    ),
    Fault("comparison", "factors = np.arange(len(p_values), 0, -1)", "factors = np.arange(1, len(p_values) + 1)"),
    Fault(
        "comparison",
        "return own / n_seeds, max(of_seeds(setting).variance - own, 0.0) / n_seeds",
        "return own / n_seeds, of_seeds(setting).variance / n_seeds",
    ),
    Fault(
        "racing", "threshold = math.log(len(RUNGS) * max(1, n_trials - 1) / LEVEL)", "threshold = math.log(1 / LEVEL)"
    ),
    Fault("shift", "ratios = probs / priors", "ratios = probs"),
    # data
    Fault(
        "splitting",
        "for key in sorted(groups, key=lambda key: hashlib.sha256(_sealed((str(seed), part, key))).digest()):",
        "for key in sorted(groups, key=lambda key: hashlib.sha256(_sealed((part, key))).digest()):",
    ),
    Fault("checking", 'return " ".join(text.casefold().split())', 'return " ".join(text.split())'),
    Fault(
        "reading tables",
        "if each[1].fault or len(cells) == len(names):",
        "if each[1].fault or len(cells) >= len(names):",
    ),
    Fault(
        "hub_data",
        "columns[name] = [None if i is None or i < 0 else class_names[i] for i in columns[name]]",
        "columns[name] = [None if i is None else class_names[i] for i in columns[name]]",
    ),
    # runs: sealing
    Fault(
        "runs",
        'patterns = ("adapter/**/*", "*.json", "config.yaml", "metrics.jsonl", "*.npy", "predictions-*.parquet")',
        'patterns = ("adapter/**/*", "*.json", "config.yaml", "metrics.jsonl", "*.npy")',
    ),
    Fault("malformed_runs", "elif sha256(path) != expected:", "elif path.stat().st_size == 0:"),
    # model: adapters, heads, the packed pass, the prefix
    Fault("adapters", "nn.init.eye_(dense.weight)", "nn.init.zeros_(dense.weight)"),
    Fault(
        "adapters reload",
        "state[up] = torch.cat([state[up], -getattr(layer, INITIAL_B)], dim=1)",
        "state[up] = torch.cat([state[up], getattr(layer, INITIAL_B)], dim=1)",
    ),
    Fault(
        "packed",
        "downs[0].new_zeros(part.linear.out_features, 0) if part.up is None else part.up * (part.scaling * factor)",
        "downs[0].new_zeros(part.linear.out_features, 0) if part.up is None else part.up * part.scaling",
    ),
    Fault(
        "packed",
        "drelative[:, :n_queries, : group.width] += summed",
        "drelative[:, :n_queries, : group.width] = summed",
    ),
    Fault("packed classifier", 'unsort=there(np.argsort(order, kind="stable")),', "unsort=there(order),"),
    Fault(
        "native",
        "if weight is not None and (weight.version != version or not _is_same(weight.matrix, matrix)):",
        "if weight is not None and not _is_same(weight.matrix, matrix):",
    ),
    Fault(
        "prefix",
        'own = {**layer.sites, "attention_norm": layer.attention_norm, "ffn_norm": layer.ffn_norm}',
        'own = {"attention_norm": layer.attention_norm, "ffn_norm": layer.ffn_norm}',
    ),
    Fault(
        "batching",
        'rng = np.random.default_rng(seed_for("order", train.seed, epoch))',
        'rng = np.random.default_rng(seed_for("order", train.seed))',
    ),
    # training: the loop, resuming
    Fault(
        "optimizers",
        'return parameter.ndim > 1 and not {"ia3_l", "lora_E"} & set(name.split("."))',
        "return parameter.ndim > 1",
    ),
    Fault(
        "losses distillation",
        "scale = temperature**2 if settings.scaled else 1.0",
        "scale = temperature if settings.scaled else 1.0",
    ),
    Fault(
        "resume",
        'restore_optimizer(self.steps.optimizer, parts.get("optimizer", {}))',
        "restore_optimizer(self.steps.optimizer, {})",
    ),
    Fault(
        "resume workflow",
        "if record.step > (evaluated_step if isinstance(record, EvalRecord) else step):",
        "if record.step > step + 1:",
    ),
    # prediction
    Fault(
        "prediction",
        "found[number] = probs[:, [classifier.labels.index(label) for label in self.labels]]",
        "found[number] = probs",
    ),
    Fault(
        "prediction",
        "return content if path.stem.endswith(cache.key_of(content)) else None",
        "return content",
    ),
    # export
    Fault(
        "export",
        "return file.is_file() and sha256(file) == expected",
        "return file.is_file()",
    ),
    # reports
    Fault(
        "reports",
        "environment = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)",
        "environment = Environment(autoescape=False, undefined=StrictUndefined, keep_trailing_newline=True)",
    ),
    # sweeps
    Fault(
        "sweeps",
        'fixed = ranking.ranked[0][0] if study.fix == "best" else ranking.recommended',
        "fixed = ranking.ranked[0][0]",
    ),
    # hub
    Fault(
        "hub",
        "return is_connection(error) or status == 429 or status >= 500",
        "return is_connection(error) or status == 429",
    ),
    # serving
    Fault(
        "malformed_http",
        'if origin is None or origin == public or origin.partition("://")[2] == request.headers.get("host"):',
        'if origin is None or origin == public or origin.endswith("1"):',
    ),
    Fault(
        "malformed_http",
        "return hmac.compare_digest(shown.encode(), token.encode())",
        "return bool(shown) and token.startswith(shown)",
    ),
    Fault("serving", "if n_bytes > MAX_BODY_BYTES:", "if n_bytes < 0:"),
    Fault(
        "service_sharing",
        "added = torch.bmm(torch.bmm(rows, down.transpose(1, 2)), up)",
        "added = torch.bmm(torch.bmm(rows, down[:1].transpose(1, 2).expand(len(rows), -1, -1)), up)",
    ),
)
