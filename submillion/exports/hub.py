"""Finished files, uploaded to the Hugging Face Hub by its own client: an export's, or a run's unchanged adapter.

The client takes the token from the environment or the Hub's login. It is neither read nor kept here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from submillion import hub, runs
from submillion.errors import ConfigError, ExportError, HubError, command
from submillion.exports.manifest import FILE
from submillion.runs import Run
from submillion.text import first_line

if TYPE_CHECKING:
    from submillion.exports.making import Written

_CARD = "README.md"


@dataclass(frozen=True)
class Upload:
    """Finished files of a folder, their name in messages, and the title of their commit."""

    folder: Path
    files: tuple[str, ...]
    noun: str
    title: str


def of_export(export: Written) -> Upload:
    """Return an export's files."""
    title = f"{export.manifest.run} as {export.manifest.question.format}"
    return Upload(export.folder, (*export.manifest.files, FILE), "export", title)


def of_adapter(run: Run) -> Upload:
    """Return the files of a run's adapter that training sealed, and its card.

    RunError if one has changed, ConfigError if others could not load them: their base model is on this machine.
    """
    run = runs.load(run.path)
    runs.verify(run)
    if run.config().adapter.method == "none":
        raise ConfigError("--format adapter: the run trained the whole model, and has no adapter; use --format merged")
    folder = run.path / "adapter"
    base = str(run.read_json("adapter/adapter_config.json").get("base_model_name_or_path"))
    if Path(base).is_absolute():
        raise ConfigError(
            f"--format adapter: it is loaded on top of {Path(base).name}, a folder on this machine, which others "
            "do not have (and its path would be published); --format merged holds the whole model"
        )
    if not (folder / _CARD).is_file():
        raise ConfigError(f"{folder} has no {_CARD}, the model card: `{command('report', run.path)}` writes it")
    sealed = (name.removeprefix("adapter/") for name in run.read_json("DONE")["files"] if name.startswith("adapter/"))
    return Upload(folder, (*sealed, _CARD), "adapter", f"{run.name}, the adapter")


def check(repo: str, private: bool) -> None:
    """Raise an error if nothing could be uploaded to a model repository, before there is anything to upload.

    ConfigError for a name that the Hub does not allow. HubError without a token, with one that may not write there, for
    a public repository if a private one is requested, and if the Hub is not reached.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import RepositoryNotFoundError

    _check_name(repo)
    if get_token() is None:
        raise _refusal(repo, "there is no token: `hf auth login`, or set HF_TOKEN")
    api = HfApi(library_name="submillion")
    try:
        with hub.quiet(), hub.impatient():
            account = api.whoami()
            name = repo if "/" in repo else f"{account['name']}/{repo}"
            try:
                is_public = api.repo_info(name).private is False
            except RepositoryNotFoundError:
                is_public = False
    except Exception as error:  # the client's errors share no class: HTTP, connection, offline mode
        raise _refusal(repo, _reason(error, repo)) from None
    if (why := _closed(account, name.partition("/")[0])) is not None:
        raise _refusal(repo, why)
    if private and is_public:
        raise _refusal(repo, _is_public(repo))


def push(upload: Upload, repo: str, private: bool) -> str:
    """Upload the files to a model repository, which is created if it is missing; return its address.

    Other files of an existing repository stay. ExportError says where the finished files are, and why they were not
    uploaded; one reason is a public repository if a private one was requested.
    """
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise _unsent(upload, "there is no token: `hf auth login`, or set HF_TOKEN")
    try:
        with hub.quiet(), hub.without_bars(), hub.impatient():
            api = HfApi(library_name="submillion")
            url = api.create_repo(repo, private=private or None, exist_ok=True)
            if private and not api.repo_info(url.repo_id).private:
                raise _unsent(upload, _is_public(str(url)))
            api.upload_folder(
                repo_id=url.repo_id,
                folder_path=upload.folder,
                allow_patterns=list(upload.files),
                commit_message=upload.title,
            )
            return str(url)
    except ExportError:
        raise
    except Exception as error:  # the client's errors share no class: HTTP, connection, offline mode, refused files
        raise _unsent(upload, _reason(error, repo)) from None


def _check_name(repo: str) -> None:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ConfigError(f"--push-to is {repo!r}, not the name of a Hub repository (user/name): {error}") from None


def _closed(account: dict[str, Any], owner: str) -> str | None:
    """Return why an account, as the Hub describes it, may not write to an owner's repositories; None if it may."""
    roles = {org["name"]: org.get("roleInOrg") for org in account.get("orgs", ())}
    if owner not in (account["name"], *roles):
        yours = ", ".join([account["name"], *roles])
        return f"the token is {account['name']}'s, who is not a member of {owner}: push to one of {yours}"
    if roles.get(owner) == "read":
        return f"{account['name']} may only read in {owner}: ask its administrator for write access"
    token = (account.get("auth") or {}).get("accessToken") or {}
    may_write = token.get("role") != "read"
    if token.get("role") == "fineGrained":
        may_write = '"repo.write"' in json.dumps(token.get("fineGrained"))
    tokens = f"{hub.endpoint()}/settings/tokens"
    return None if may_write else f"the token is read-only: make one with write access, on {tokens}"


def _is_public(repo: str) -> str:
    return f"{repo} exists and is public, but --private was given: change it on the Hub"


def _reason(error: Exception, repo: str) -> str:
    """Return what an error of the Hub's client means for an upload; for other errors, their own message."""
    return hub.explanation(error, repo, "model", is_upload=True) or first_line(error)[:300]


def _refusal(repo: str, reason: str) -> HubError:
    return HubError(f"--push-to is {repo}: {reason}; nothing was exported")


def _unsent(upload: Upload, reason: str) -> ExportError:
    return ExportError(
        f"the {upload.noun} is finished, in {upload.folder}, but it was not uploaded: {reason}; the same command "
        "retries only the upload"
    )
