"""Put a slice on the hub: what would be uploaded is said first, and nothing goes that should not.

A slice without verification, or with a failed one, is refused unless asked for; so is every file that neither `slice` nor a later
command of langslice wrote. Uploading itself, its retries and deduplication, is huggingface_hub's own.
"""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from langslice.errors import PublishError
from langslice.options import listed, taking
from langslice.reporting.card import card_edited, name_in_card, outdated, write_card
from langslice.reporting.slice_folder import read_slice
from langslice.reporting.source_card import CARD
from langslice.slicing.options import PushOptions
from langslice.verification.file_names import LATER_FILES
from langslice.verification.record import read_whole_record

_OWN = (*LATER_FILES, "SOURCE_README*.md")
# What other programs leave in a folder, and nobody means to publish.
_NEVER = (".cache/*", ".git/*", "__pycache__/*", "*/__pycache__/*", ".DS_Store")
_WEIGHTS = (".safetensors", ".bin")
# From here on uploading file by file, resumable, is worth its many commits.
_LARGE_BYTES = 20 * 10**9


@dataclass(frozen=True)
class Upload:
    """What goes to the hub, and what a person should know before it does.

    files    name in the folder -> bytes
    licence  as the source's card states it; "" where it states none
    card     "new", "as langslice wrote it" or "as it was edited"
    notes    sentences
    """

    folder: Path
    repo_id: str
    files: Mapping[str, int]
    licence: str
    card: str
    notes: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return sum(self.files.values())


def plan_upload(
    folder: Path, repo_id: str, *, unproven: bool = False, include: Sequence[str] = (), leave_out: Sequence[str] = ()
) -> Upload:
    """Say what of a slice would be uploaded; nothing is written and nothing is sent.

    unproven   take a slice without verification, with a failed one, or changed since
    include    patterns of further files to upload
    leave_out  patterns of files to leave here
    Raises     PlanError when the folder is no slice; PublishError
    """
    _check_id(repo_id)
    head, plan = read_whole_record(folder)
    if not unproven:
        _check_proof(folder, head)
    files = _files(folder, head, include, leave_out)
    if not unproven:
        _check_unchanged(folder, head, files)
    report = read_slice(folder, head, plan)
    licence = ", ".join(str(value) for value in report.source.licence.values())
    notes = []
    if not licence:
        notes.append("the source's card states no licence; make sure that you may publish what is made of it")
    if report.source.licence_files:
        notes.append(f"licence files of the source that go along: {', '.join(report.source.licence_files)}")
    notes += [
        f"verification left out `{check.name}`: {check.detail}" for check in report.checks or () if check.passed is None
    ]
    card = (
        "new"
        if not (folder / CARD).exists()
        else "as it was edited"
        if card_edited(folder / CARD)
        else "as langslice wrote it"
    )
    return Upload(folder, repo_id, files, licence, card, tuple(notes))


@taking(PushOptions)
def push(folder: str | Path, repo_id: str, *, options: PushOptions, api: Any = None) -> str:
    """Put a slice on the hub; refused as `plan_upload` refuses it.

    folder   a slice
    repo_id  org/name
    options  see PushOptions
    api      a huggingface_hub.HfApi, for tests
    Returns  address of the repository or commit
    Raises   PlanError when the folder is no slice; PublishError
    """
    upload = plan_upload(
        Path(folder), repo_id, unproven=options.unproven, include=listed(options.include),
        leave_out=listed(options.leave_out),
    )  # fmt: skip
    return send(upload, options=options, api=api)


@taking(PushOptions)
def send(upload: Upload, *, options: PushOptions, api: Any = None) -> str:
    """Upload what was planned, and give its card the name that it has there.

    options  of which private, revision, token, create and message are read; a new branch is made where `create` says so
    api      a huggingface_hub.HfApi, for tests
    Returns  address of the repository or commit
    Raises   PublishError
    """
    private, revision, create = options.private, options.revision, options.create
    from huggingface_hub import HfApi

    hub = api if api is not None else HfApi(token=options.token)
    _ready_card(upload)
    names = sorted({*upload.files, CARD})
    text = options.message or f"Upload a slice of {upload.size_bytes:,} bytes made by langslice"
    patterns = [glob.escape(name) for name in names]
    try:
        if create:
            hub.create_repo(upload.repo_id, repo_type="model", private=private, exist_ok=True)
            if revision is not None:
                hub.create_branch(upload.repo_id, branch=revision, repo_type="model", exist_ok=True)
        if upload.size_bytes > _LARGE_BYTES and hasattr(hub, "upload_large_folder"):
            hub.upload_large_folder(
                upload.repo_id, str(upload.folder), repo_type="model", revision=revision, allow_patterns=patterns
            )
            return f"https://huggingface.co/{upload.repo_id}"
        done = hub.upload_folder(
            repo_id=upload.repo_id, folder_path=str(upload.folder), repo_type="model", revision=revision,
            allow_patterns=patterns, commit_message=text,
        )  # fmt: skip
    except Exception as error:
        raise _as_publish_error(upload.repo_id, error) from error
    return str(getattr(done, "commit_url", None) or f"https://huggingface.co/{upload.repo_id}")


def _ready_card(upload: Upload) -> None:
    """Write a card where there is none, and name the repository in one that nobody has edited."""
    card = upload.folder / CARD
    head, plan = read_whole_record(upload.folder)
    report = read_slice(upload.folder, head, plan)
    if not card.exists() or outdated(card, report):
        write_card(upload.folder, report)
    if not card_edited(card):
        name_in_card(card, upload.repo_id)


def _check_id(repo_id: str) -> None:
    from huggingface_hub import utils
    from huggingface_hub.errors import HFValidationError

    try:
        utils.validate_repo_id(repo_id)  # type: ignore[attr-defined]
    except HFValidationError as error:
        first = str(error).splitlines()[0]
        raise PublishError(
            f"{repo_id!r} is no name for a repository: {first}", hint="it looks like org/name"
        ) from error
    if repo_id.count("/") != 1:
        raise PublishError(f"{repo_id!r} does not say whose repository it is", hint="it looks like org/name")


def _check_proof(folder: Path, head: Mapping[str, Any]) -> None:
    verification = head.get("proof")
    if verification is None:
        raise PublishError(
            f"{folder} was never compared with its source: it was sliced with --no-verify",
            hint="slice again without --no-verify, or pass --unverified",
        )
    if verification.get("passed") is not True:
        failed = [str(check.get("name")) for check in verification.get("checks", []) if check.get("passed") is False]
        raise PublishError(
            f"verification of {folder} failed: {', '.join(failed) or 'it says so'}",
            hint="`langslice verify` shows the differences; --unverified publishes it all the same",
        )


def _files(folder: Path, head: Mapping[str, Any], include: Sequence[str], leave_out: Sequence[str]) -> dict[str, int]:
    """Files to upload. Raises PublishError for one that nobody vouches for, one that is gone, and links."""
    written = dict(head.get("files") or {})
    found: dict[str, int] = {}
    unknown: list[str] = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not (path.is_file() or path.is_symlink()) or any(
            fnmatch(name, pattern) for pattern in (*_NEVER, *leave_out)
        ):
            continue
        if path.is_symlink():
            raise PublishError(f"{name} in {folder} is a link", hint="put the file itself there, or pass --leave-out")
        if name in written or any(fnmatch(name, pattern) for pattern in (*_OWN, *include)):
            found[name] = path.stat().st_size
        else:
            unknown.append(name)
    if unknown:
        lines = "\n".join(f"  {name}" for name in unknown[:10])
        more = f"\n  and {len(unknown) - 10} more" if len(unknown) > 10 else ""
        raise PublishError(
            f"{len(unknown)} files in {folder} were not written by langslice; nothing was uploaded\n{lines}{more}",
            hint=f"pass --include '{unknown[0]}' to upload it, or --leave-out '{unknown[0]}' to leave it here",
        )
    missing = [name for name in written if not (folder / name).exists()]
    if missing:
        raise PublishError(
            f"{missing[0]} is missing from {folder}"
            + (f", with {len(missing) - 1} others" if len(missing) > 1 else ""),
            hint="slice again",
        )
    return found


def _check_unchanged(folder: Path, head: Mapping[str, Any], files: Mapping[str, int]) -> None:
    """Refuse weights of another size than was verified, unless training after the slice explains them."""
    if head.get("healed") is not None:
        return
    written = dict(head.get("files") or {})
    for name, size in files.items():
        if name.endswith(_WEIGHTS) and name in written and size != written[name]:
            raise PublishError(
                f"{name} in {folder} is not the file that was verified\n  {written[name]:,} bytes then, {size:,} now",
                hint="slice again, or pass --unverified",
            )


def _as_publish_error(repo_id: str, error: Exception) -> Exception:
    """What the hub or the network says, as one message with a hint; errors that are none of theirs stay as they are."""
    from huggingface_hub import errors

    first = next(iter(str(error).strip().splitlines()), type(error).__name__)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return PublishError(
            f"cannot upload to {repo_id}: the hub is switched off\n  {first}", hint="unset HF_HUB_OFFLINE"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return PublishError(
            f"cannot upload to {repo_id}: there is no such repository, or the token may not see it\n  {first}",
            hint="leave --no-create away, or log in with `hf auth login`",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return PublishError(
            f"cannot upload to {repo_id}: it has no such branch\n  {first}", hint="leave --no-create away"
        )
    if isinstance(error, errors.HfHubHTTPError | errors.LocalTokenNotFoundError):
        return PublishError(
            f"cannot upload to {repo_id}: the hub refused\n  {first}",
            hint="log in with `hf auth login`, with a token that may write to it, or pass --token",
        )
    if isinstance(error, OSError) or _is_of_the_network(error):
        return PublishError(
            f"cannot upload to {repo_id}: the hub cannot be reached\n  {first}",
            hint="check the network, then push again",
        )
    return error


def _is_of_the_network(error: Exception) -> bool:
    """Whether an error comes from the HTTP client below huggingface_hub: requests, httpx or httpx2, by its version."""
    return type(error).__module__.startswith(("httpx", "httpcore", "requests", "urllib3"))
