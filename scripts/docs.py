"""The documentation as a site: `python -m scripts.docs` writes build/site/ with Zensical.

Owns what the site has and docs/ lacks: the README and the changelog as pages, the list of decisions, and the parts of
pages that come from the program itself (settings, models). Pages mark those with `<!-- generated: NAME -->`. Everything
else is copied unchanged; zensical.toml has the order of the pages.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from submillion import planning
from submillion.config import Config, load
from submillion.errors import BudgetError
from submillion.planning import architectures

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
STAGED = ROOT / "build" / "docs"
OUTSIDE = {  # what the site has and docs/ lacks, by its name there
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "submillion/data/augmentation/WORDNET-LICENSE.txt": "wordnet-license.txt",
}
_LINK = re.compile(r"\]\(((?!https?:)[^)\s]+)\)")
_MARK = re.compile(r"<!-- generated: (\w+) -->")
_CLASSES = 4


def main() -> None:
    """Fill build/docs and build the site; a warning, such as a link that leads nowhere, fails."""
    stage(STAGED)
    sys.exit(
        subprocess.run(
            [sys.executable, "-m", "zensical", "build", "--clean", "--strict"], cwd=ROOT, check=False
        ).returncode
    )


def stage(folder: Path) -> None:
    """Write every page of the site into a folder, which is made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(DOCS, folder)
    for name in OUTSIDE:
        shutil.copy(ROOT / name, folder / OUTSIDE[name])
    for page in folder.rglob("*.md"):
        text = _MARK.sub(lambda mark: "\n".join(GENERATED[mark[1]]()), page.read_text(encoding="utf-8"))
        page.write_text(_LINK.sub(lambda link: f"]({site_target(link[1])})", text), encoding="utf-8")


def site_target(target: str) -> str:
    """Return what a link in a page of the repository leads to on the site: `../README.md#speed` to `index.md#speed`."""
    path, mark, anchor = target.partition("#")
    name = path.lstrip("./")
    if name in OUTSIDE:
        return path.removesuffix(name).removeprefix("../") + OUTSIDE[name] + mark + anchor
    return "index.md" if target == "docs" else target.removeprefix("docs/")


def settings() -> Iterator[str]:
    """Yield the tables of all settings as Markdown, a section each."""
    schema = Config.model_json_schema()
    sections = {key: schema["$defs"][field["$ref"].rpartition("/")[2]] for key, field in _sections(schema)}
    yield from _settings_table(
        "The run", "", {key: f for key, f in schema["properties"].items() if key not in sections}
    )
    for key, section in sections.items():
        yield from _settings_table(f"`{key}`: {section['description']}", f"{key}.", section["properties"])


def _sections(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    return ((key, field) for key, field in schema["properties"].items() if "$ref" in field)


def _settings_table(title: str, prefix: str, fields: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield from ("", f"## {title}", "", "| key | default | meaning |", "|---|---|---|")
    for key, field in fields.items():
        default = yaml.safe_dump(field["default"], default_flow_style=True).removesuffix("\n").removesuffix("\n...")
        words = [str(word) for each in (field, *field.get("anyOf", [])) for word in each.get("enum", ())]
        choices = f" ({', '.join(f'`{word}`' for word in words)})" if words else ""
        yield f"| `{prefix}{key}` | `{default}` | {_cell(field['description'])}{choices} |"


def _cell(text: str) -> str:
    return re.sub(r"(?<!\w)\*(?!\w)", r"\\*", text).replace("|", "\\|").replace("<", "&lt;")


def models() -> Iterator[str]:
    """Yield the table of the checkpoints known offline: their sizes, and what 1,000,000 buys in each."""
    yield "| `model.name` | layers × width | parameters | all sites | query, key, value | all sites, bottleneck head |"
    yield "|---|---|---|---|---|---|"
    plans = [_plan(name) for name in architectures.known()]
    for plan in sorted(plans, key=lambda plan: plan.all_params):
        arch = plan.architecture
        size = f"{arch.n_layers} × {arch.width} | {plan.all_params / 1e6:,.0f} M"
        ranks = (
            _rank(arch.name),
            _rank(arch.name, "adapter.sites=qkv"),
            _rank(arch.name, "model.head=bottleneck"),
        )
        yield f"| `{arch.name}` | {size} | {' | '.join(ranks)} |"


def _plan(name: str, *wishes: str) -> planning.Plan:
    return planning.plan(
        load(overrides=[f"model.name={name}", "adapter.rank=1", "budget=1000000000", *wishes]), _CLASSES
    )


def _rank(name: str, *wishes: str) -> str:
    """The largest rank that fits, and what it trains in all; or what the least costs."""
    try:
        plan = planning.plan(load(overrides=[f"model.name={name}", *wishes]), _CLASSES)
    except BudgetError:
        return f"does not fit: rank 1 takes {_plan(name, *wishes).total:,}"
    return f"rank {max(plan.ranks.values())}: {plan.total:,}"


def decisions() -> Iterator[str]:
    """Yield a link to each decision, by number."""
    for page in sorted((DOCS / "decisions").glob("[0-9]*.md")):
        title = page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        yield f"- [{title}]({page.name})"


GENERATED: dict[str, Callable[[], Iterator[str]]] = {"settings": settings, "models": models, "decisions": decisions}


if __name__ == "__main__":
    main()
