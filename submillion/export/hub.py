"""An exported folder, uploaded to the Hugging Face Hub by its own client.

The token is the client's affair: from the environment or the Hub's login. It is neither read nor kept here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from submillion.errors import ConfigError, ExportError

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

    A repository that is there keeps its visibility and its other files. ExportError says where the finished export
    lies, and why it was not uploaded.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    was_shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        if get_token() is None:
            raise ExportError(_unsent(export, "there is no token: `hf auth login`, or set HF_TOKEN"))
        api = HfApi(library_name="submillion")
        url = api.create_repo(repo, private=private or None, exist_ok=True)
        files = [*export.manifest.files, "manifest.json"]
        name = f"{export.manifest.run} as {export.manifest.question.format}"
        api.upload_folder(repo_id=url.repo_id, folder_path=export.folder, allow_patterns=files, commit_message=name)
        return str(url)
    except (OSError, RuntimeError, ValueError) as error:  # HTTP, connection, offline mode, refused files
        raise ExportError(_unsent(export, " ".join(str(error).split())[:300] or type(error).__name__)) from None
    finally:
        if was_shown:
            enable_progress_bars()


def _unsent(export: Export, reason: str) -> str:
    return (
        f"the export is finished, in {export.folder}, but it was not uploaded: {reason}. The same command tries the "
        "upload again, without exporting again"
    )
