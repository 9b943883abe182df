"""An exported folder, uploaded to the Hugging Face Hub by its own client.

The token is the client's affair: from the environment or the Hub's login. It is neither read nor kept here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from submillion import hub
from submillion.errors import ConfigError, ExportError
from submillion.export.manifest import FILE

if TYPE_CHECKING:
    from submillion.export.making import Export


def check_name(repo: str) -> None:
    """Raise a ConfigError if the Hub cannot have a repository of this name."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ConfigError(f"--push-to is {repo!r}, no name of a Hub repository (user/name): {error}") from None


def push(export: Export, repo: str, private: bool) -> str:
    """Upload the export's files to a model repository, which is made if it is not there; return its address.

    Other files of a repository that is there stay. ExportError says where the finished export lies, and why it was not
    uploaded; one reason is a public repository where a private one was asked for.
    """
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise _unsent(export, "there is no token: `hf auth login`, or set HF_TOKEN")
    name = f"{export.manifest.run} as {export.manifest.question.format}"
    try:
        with hub.without_bars():
            api = HfApi(library_name="submillion")
            url = api.create_repo(repo, private=private or None, exist_ok=True)
            if private and not api.repo_info(url.repo_id).private:
                raise _unsent(export, f"{url} is there and public, and --private was asked for: change it on the Hub")
            files = [*export.manifest.files, FILE]
            api.upload_folder(repo_id=url.repo_id, folder_path=export.folder, allow_patterns=files, commit_message=name)
            return str(url)
    except ExportError:
        raise
    except Exception as error:  # the client's errors share no class: HTTP, connection, offline mode, refused files
        raise _unsent(export, ": ".join(_reasons(error))) from None


def _reasons(error: BaseException | None) -> Iterator[str]:
    """What the error says, and those that it came from."""
    while error is not None:
        yield " ".join(str(error).split())[:300] or type(error).__name__
        error = error.__cause__


def _unsent(export: Export, reason: str) -> ExportError:
    return ExportError(
        f"the export is finished, in {export.folder}, but it was not uploaded: {reason}; the same command tries the "
        "upload again, without exporting again"
    )
