"""Why a plan is as it is: one sentence for each choice that the user did not spell out."""

from __future__ import annotations

from submillion.config import MAX_WINDOWS, Config
from submillion.planning import budget, costs
from submillion.planning.costs import Wishes
from submillion.planning.plans import Plan
from submillion.planning.targets import site_keys


def reasons(wishes: Wishes, plan: Plan) -> tuple[str, ...]:
    """Return the sentences, in the order rank, alpha, sites, head, method, prefix, long texts."""
    config = wishes.config
    if wishes.method == "none":
        lifted = f"method none trains every parameter: the budget of {config.budget:,} does not apply"
        return (lifted, *_of_long_texts(config))
    sentences = [*_of_rank(wishes, plan), *_of_alpha(config, plan), *_of_sites(wishes)]
    sentences += _of_head(wishes, plan)
    if wishes.method == "adalora":
        sentences.append("AdaLoRA trains its first rank before it prunes, so the first rank counts")
    if wishes.method == "ia3":
        sentences.append(
            "IA3 has no rank: it trains one vector per layer, over the inputs of ffn_out, elsewhere over the outputs"
        )
    return (*sentences, *_of_prefix(wishes, plan), *_of_long_texts(config))


def _of_rank(wishes: Wishes, plan: Plan) -> list[str]:
    if not plan.ranks:
        return []
    if wishes.config.adapter.rank is None:
        return [_of_largest(wishes, next(iter(plan.ranks.values())))]
    capped = {site: costs.rank_cap([t for t in plan.targets if t.site == site]) for site in plan.ranks}
    return [
        f"rank {rank} of {site}: beyond {capped[site]} the full matrix would have fewer parameters"
        for site, rank in plan.ranks.items()
        if rank > capped[site]
    ]


def _of_largest(wishes: Wishes, rank: int) -> str:
    if costs.is_capped(wishes, rank):
        return f"rank {rank}: not higher, since a full matrix would then have fewer parameters"
    more = rank + wishes.rank_unit
    needed = costs.total(wishes, more)
    return (
        f"rank {rank}: the largest that fits; {more} would need {needed:,}, {needed - wishes.config.budget:,} too many"
    )


def _of_alpha(config: Config, plan: Plan) -> list[str]:
    if config.adapter.alpha is not None or plan.alpha is None:
        return []
    if isinstance(plan.alpha, dict):
        return ["alpha: twice each site's rank"]
    return [f"alpha {plan.alpha:g}: twice the rank"]


def _of_sites(wishes: Wishes) -> list[str]:
    keys = site_keys(wishes.architecture, wishes.config.adapter.sites)
    covered = [key for key in keys if key not in wishes.sites]
    return [f"{key}: all its layers already belong to another site; each is adapted once" for key in covered]


def _of_head(wishes: Wishes, plan: Plan) -> list[str]:
    arch = wishes.architecture
    sentences = [f"head {plan.head}: {100 * plan.head_params / plan.total:.1f} % of the trainable parameters"]
    if budget.keeps_pooler(arch) and plan.head == "full":
        linear = budget.last_layer_params(arch, plan.n_classes)
        sentences[0] += f", with the pretrained pooler; head linear keeps the pooler frozen ({linear:,})"
    elif budget.keeps_pooler(arch):
        sentences[0] += ", on the pretrained pooler" + (
            ", frozen" if plan.head == "linear" else " and its low-rank change"
        )
    if plan.head == "bottleneck" and wishes.config.model.head_width is None:
        sentences.append(f"head_width {plan.head_width}: the default")
    return sentences


def _of_prefix(wishes: Wishes, plan: Plan) -> list[str]:
    n, prefix = costs.n_frozen_layers(wishes), wishes.config.model.prefix
    if n == 0 or prefix is False:
        return []
    if not plan.n_prefix_layers:
        own = "the checkpoint's own" if wishes.config.model.dropout is None else f"{wishes.config.model.dropout:g}"
        return [
            f"prefix: none, since model.dropout is {own} and also applies below layer {n}, the lowest adapted "
            "one; model.prefix true turns it off there and computes the frozen layers' output once"
        ]
    span = "layer 0" if n == 1 else f"layers 0 to {n - 1}"
    sentence = f"prefix: the output of {span}, frozen and without dropout, is computed once and reused"
    if prefix is None:
        return [f"{sentence}; for training rows only if they are read more than once"]
    return [sentence if wishes.config.model.dropout == 0 else f"{sentence}; dropout applies only to the layers above"]


def _of_long_texts(config: Config) -> list[str]:
    model = config.model
    match model.long_texts:
        case "cut":
            return []
        case "head-tail":
            return [
                f"head-tail: the first and last tokens of longer texts, {model.max_length} in all, cost as much as cut"
            ]
        case "windows":
            n = model.max_windows or MAX_WINDOWS
            return [
                f"windows: a text longer than {model.max_length} tokens costs up to {n} times as much as "
                "when cut; `submillion data check` counts what yours cost"
            ]
