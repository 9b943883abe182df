"""From a budget and wishes to a `Plan`: which layers get an adapter, of which rank, and what trains in all.

`targets` finds the layers that the wishes name, `costs` counts them at any rank, `drafts` makes the
`Plan` of `plans`, `reasons` explains it, `alternatives` shows what else the budget would buy, `fitting`
refuses what does not fit, `wording` says it all as values and in words. Counting itself is in `budget`; building
and checking the model in `adapters`.
"""

from submillion.planning.alternatives import Alternative, alternatives
from submillion.planning.costs import resolve
from submillion.planning.drafts import draft
from submillion.planning.fitting import fitting_rank, overrun, plan
from submillion.planning.plans import Part, Plan, from_json, parts, to_json
from submillion.planning.wording import encoder_words, overrun_values, slack_words, total_words, values, wish_words

__all__ = [
    "Alternative",
    "Part",
    "Plan",
    "alternatives",
    "draft",
    "encoder_words",
    "fitting_rank",
    "from_json",
    "overrun",
    "overrun_values",
    "parts",
    "plan",
    "resolve",
    "slack_words",
    "to_json",
    "total_words",
    "values",
    "wish_words",
]
