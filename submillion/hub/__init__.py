"""The Hugging Face Hub: a name is resolved to one repository at one commit, and its files are downloaded, watchable.

Owns every download, and how the Hub's client behaves meanwhile; `answers` has the sentences for what the Hub may answer
instead, also to an upload (`exports.hub`). What the files mean is left to the callers. The token belongs to the Hub's
client: it is neither read nor kept here.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from submillion.errors import HubError, SubmillionError
from submillion.hub.answers import SETTING, Kind, endpoint, explanation, is_connection, is_reset
from submillion.text import first_line

if TYPE_CHECKING:
    from huggingface_hub.hf_api import DatasetInfo, ModelInfo

_TRIES = 3  # for a file whose connection was reset; the client itself resumes after one that was closed
_SILENCE_S = 5  # of a storage, before the client retries; it does so five times
_MOST_TRIES = 2  # for an answer of the API whose connection is lost; a second passes between them
_COMMIT = re.compile(r"[0-9a-f]{40}")
_ID = "submillion-id"  # a file of the cache under a name that is not the id: it holds the id
_client_lock = threading.RLock()  # the client's verbosity, bars, hooks and timeout are the whole process's


@dataclass(frozen=True)
class File:
    """A file of a repository: its path there, bytes, and SHA-256 if the Hub knows it (large files)."""

    name: str
    size: int | None
    sha256: str | None


@dataclass(frozen=True)
class Repository:
    """A repository of the Hub at one commit.

    id: its name today, organisation/name, after a renaming too · commit: 40 hex digits · files: None if the answer
    comes from the local cache alone · note: why it does, if nobody asked for that.
    """

    kind: Kind
    id: str
    commit: str
    files: tuple[File, ...] | None
    note: str | None = None


@dataclass(frozen=True)
class Download:
    """How far a download is, in bytes."""

    repository: str
    done: int
    total: int


def is_commit(revision: str | None) -> bool:
    """Say whether a revision names one commit for good: 40 hex digits."""
    return revision is not None and _COMMIT.fullmatch(revision) is not None


def resolve(name: str, kind: Kind, revision: str | None = None) -> Repository:
    """Return the repository that a name, also a bare one, means now, at a branch, tag or commit; None is main.

    One request. Without a network, or if the Hub is failing, the local cache answers. HubError says what is in
    the way and what to type.
    """
    from huggingface_hub import HfApi, constants

    with _explained(name, kind, revision):
        try:
            info: Any = HfApi(library_name="submillion").repo_info(
                name,
                repo_type=kind,
                revision=revision,
                files_metadata=True,
                timeout=constants.HF_HUB_ETAG_TIMEOUT,  # 10 s; its client's default waits for ever
            )
        except Exception as error:
            known_id = _cached_id(name, kind)
            if not _is_passing(error):
                raise
            if (commit := _cached_commit(known_id, kind, revision)) is None:
                _refuse_unnamed_commit(known_id, kind, revision)
                raise
            return Repository(kind, known_id, commit, None, _cache_note(name, commit, error))
    repository = Repository(kind, info.id, info.sha, tuple(_files(info)))
    _remember(repository, name, revision)
    return repository


def cached(name: str, kind: Kind, commit: str) -> Path | None:
    """Return the folder of the local cache that holds files of a repository at a commit; None if there is none."""
    folder = _storage(name, kind) / "snapshots" / commit
    return folder if folder.is_dir() else None


def fetch(repository: Repository, names: Sequence[str], watch: Callable[[Download], object] | None = None) -> Path:
    """Return the folder of the local cache that holds these files at the repository's commit.

    Missing files are downloaded in order, each compared with the SHA-256 that the Hub has for it; a download resumes
    after a lost connection, and starts its file again after a reset one. `watch` None: the Hub's client draws its own
    bars; what `watch` raises is raised unchanged. HubError as in `resolve`.
    """
    known = {file.name: file for file in repository.files or ()}
    folder = _storage(repository.id, repository.kind) / "snapshots" / repository.commit
    missing = [name for name in names if not (folder / name).exists()]
    total = sum(known[name].size or 0 for name in missing if name in known)
    done = 0

    def show(n_bytes: int) -> None:
        if watch is not None and total:
            watch(Download(repository.id, min(n_bytes, total), total))

    show(0)
    explained = _explained(repository.id, repository.kind, repository.commit)
    with _carried(show) as show_inside, explained, quiet(), impatient():
        for name in missing:
            _download(repository, name, None if watch is None else _bar(done, show_inside))
            if name in known:
                _refuse_damaged(repository, folder / name, known[name])
            done += (folder / name).stat().st_size
            show_inside(done)  # for a file that the cache has under another commit, the client draws no bar
    return folder


class _WatcherError(BaseException):
    """What a watcher raised: not an Exception, which the Hub's client would take for its own failure."""


@contextmanager
def _carried(show: Callable[[int], object]) -> Iterator[Callable[[int], None]]:
    """Yield a caller of `show` for the Hub's client; what `show` raises leaves the block unchanged."""

    def carrying(n_bytes: int) -> None:
        try:
            show(n_bytes)
        except Exception as error:
            raise _WatcherError from error

    try:
        yield carrying
    except _WatcherError as carrier:
        raise cast("Exception", carrier.__cause__) from None


def ask_for(repository: Repository, name: str) -> None:
    """Ask for a file and download nothing; HubError says why it is unavailable, such as a gated one."""
    with _explained(repository.id, repository.kind, repository.commit), quiet(), impatient():
        _ask_for(repository, name)


def _ask_for(repository: Repository, name: str) -> None:
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(repository.id, name, repo_type=repository.kind, revision=repository.commit)
    get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT)


def _download(repository: Repository, name: str, bar: type | None) -> None:
    from huggingface_hub import hf_hub_download

    where: Any = {"repo_type": repository.kind, "revision": repository.commit}
    # Its download would ask the same with a minute's patience, and wait out a 429 or 503 five times.
    _ask_for(repository, name)
    for n_left in reversed(range(_TRIES)):
        try:
            hf_hub_download(repository.id, name, **where, library_name="submillion", tqdm_class=cast("Any", bar))
            return
        except Exception as error:
            if n_left == 0 or not is_reset(error):
                raise


def _refuse_damaged(repository: Repository, path: Path, file: File) -> None:
    """Remove a file that is not what the Hub has, and say so; its client compares sizes alone."""
    if file.sha256 is None:
        return
    if (digest := sha256(path)) != file.sha256:
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise HubError(
            f"{SETTING[repository.kind][0]} is {repository.id}: {file.name} arrived with SHA-256 {digest}, and the "
            f"Hub says {file.sha256}: start again; if it persists, a proxy or mirror is changing files ({endpoint()})"
        )


def sha256(file: Path) -> str:
    """Return a file's SHA-256, as hex digits."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _bar(before: int, show: Callable[[int], None]) -> type:
    """Return a class of progress bars for the Hub's client, of one file after `before` bytes of others."""

    class Bar:
        def __init__(self, *_: object, initial: int = 0, **__: object) -> None:
            self.done = before + initial

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def update(self, n: float | None = 1) -> None:
            self.done += int(n or 0)
            show(self.done)

        def close(self) -> None:
            pass

        def set_postfix_str(self, *_: object, **__: object) -> None:
            pass

    return Bar


def _files(info: ModelInfo | DatasetInfo) -> Iterator[File]:
    for sibling in info.siblings or ():
        large = sibling.lfs
        yield File(sibling.rfilename, sibling.size, None if large is None else large.sha256)


def _storage(name: str, kind: Kind) -> Path:
    """The folder of the Hub's cache for a repository: refs/<revision> → commit, snapshots/<commit>/<file>.

    This layout is documented, and shared with transformers and datasets.
    """
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser() / f"{kind}s--{name.replace('/', '--')}"


def _cached_commit(name: str, kind: Kind, revision: str | None) -> str | None:
    """Return the commit that a revision meant when last asked for, if something of it is cached."""
    storage = _storage(name, kind)
    commit = revision
    if not is_commit(revision):
        reference = storage / "refs" / (revision or "main")
        try:
            commit = reference.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError, ValueError):
            return None
    return commit if is_commit(commit) and (storage / "snapshots" / str(commit)).is_dir() else None


def _refuse_unnamed_commit(name: str, kind: Kind, revision: str | None) -> None:
    """Raise a HubError for a branch or a tag that was never asked for, if a commit of the repository is cached."""
    folders = (_storage(name, kind) / "snapshots").glob("*")
    commits = [folder.name for folder in sorted(folders, key=os.path.getmtime) if is_commit(folder.name)]
    if commits and not is_commit(revision):
        setting, key = SETTING[kind]
        raise HubError(
            f"{setting} is {name}: the Hub was not reached, so the commit of {revision or 'main'} "
            f"is unknown; commit {commits[-1][:12]} is in the cache: give --set {key}={commits[-1]}"
        )


def _cached_id(name: str, kind: Kind) -> str:
    """Return the id that a bare or old name had when last asked for; the name itself if none is noted."""
    try:
        return (_storage(name, kind) / _ID).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return name


def _remember(repository: Repository, name: str, revision: str | None) -> None:
    """Note what a name, a branch or a tag means now, for use without a network; OS errors are ignored."""
    with suppress(OSError):
        if name != repository.id:
            folder = _storage(name, repository.kind)
            (folder / "snapshots").mkdir(parents=True, exist_ok=True)  # without one, the client calls it corrupted
            _replace(folder / _ID, repository.id)
        if not is_commit(revision):
            reference = _storage(repository.id, repository.kind) / "refs" / (revision or "main")
            reference.parent.mkdir(parents=True, exist_ok=True)
            _replace(reference, repository.commit)


def _replace(file: Path, text: str) -> None:
    temporary = file.with_name(f"{file.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, file)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the Hub's client from writing next to our own bar: warnings of retries, hints about tokens."""
    from huggingface_hub.utils import logging

    with _client_lock:
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a disk that may be too small, which is reported when it is
                yield
        finally:
            logging.set_verbosity(verbosity)


@contextmanager
def without_bars() -> Iterator[None]:
    """Keep the Hub's client from drawing its own bars."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    with _client_lock:
        was_shown = not are_progress_bars_disabled()
        disable_progress_bars()
        try:
            yield
        finally:
            if was_shown:
                enable_progress_bars()


@contextmanager
def impatient() -> Iterator[None]:
    """Make the Hub's client raise when it would silently retry for half a minute.

    That is after 429 or 5xx, and if a connection was lost twice before the API had answered. A silent storage is asked
    again after 5 s, unless $HF_HUB_DOWNLOAD_TIMEOUT says otherwise. The whole process shares the client, so another
    thread's block waits for the end of this one.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session, hf_raise_for_status

    n_requests: Counter[str] = Counter()

    def count(request: Any) -> None:
        n_requests[str(request.url)] += request.url.path.startswith("/api/")
        if n_requests[str(request.url)] > _MOST_TRIES:
            raise ConnectionError("the connection was lost before it answered")

    def refuse(response: Any) -> None:
        if response.status_code == 429 or response.status_code >= 500:
            response.read()
            hf_raise_for_status(response)

    with _client_lock:
        client, usual = get_session(), constants.HF_HUB_DOWNLOAD_TIMEOUT
        hooks = client.event_hooks
        client.event_hooks = {"request": [*hooks["request"], count], "response": [*hooks["response"], refuse]}
        if "HF_HUB_DOWNLOAD_TIMEOUT" not in os.environ:
            constants.HF_HUB_DOWNLOAD_TIMEOUT = _SILENCE_S
        try:
            yield
        finally:
            client.event_hooks, constants.HF_HUB_DOWNLOAD_TIMEOUT = hooks, usual


@contextmanager
def _explained(name: str, kind: Kind, revision: str | None) -> Iterator[None]:
    """Turn what the Hub's client raises into one HubError."""
    try:
        yield
    except SubmillionError:
        raise
    except Exception as error:  # HTTP, connection, offline mode, names, disks: these share no class
        why = explanation(error, name, kind, revision) or f"the Hub did not give it: {first_line(error)[:300]}"
        raise HubError(f"{SETTING[kind][0]} is {name}: {why}") from None


def _is_passing(error: BaseException) -> bool:
    """Say whether the Hub may answer another time, so a cached copy will do."""
    status = getattr(getattr(error, "response", None), "status_code", 0)
    return is_connection(error) or status == 429 or status >= 500


def _cache_note(name: str, commit: str, error: BaseException) -> str | None:
    from huggingface_hub.errors import OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return None
    return f"{name}: the Hub did not answer; using the copy in its cache, commit {commit[:12]}"
