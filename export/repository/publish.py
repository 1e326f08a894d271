"""Publish a model under the next version, or take one away; both in one exchange of the repository."""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from export.checkpoint import sha256
from export.errors import PublishError
from export.repository.exchange import replace_repository
from export.repository.inventory import (
    Published,
    content_damage,
    find_published,
    read_config,
    read_inventory,
    refuse_conflict,
    refuse_taken_aliases,
)
from export.repository.kept import (
    copy_model_folder,
    keep_version,
    kept_versions,
    previous_version,
    prune_versions,
    read_kept,
    remove_versions,
)
from export.repository.owned import owned_folders, refuse_foreign, wrote_tokenizer
from export.repository.pin import pin_version, unpin
from export.repository.versions import KEEP, keep_versions, versions
from export.repository.write import write_model
from export.spec import JOINED, PREFIX, TOKENIZER, ServedModel

_TRIAL = ".trial"


def publish_model(
    repository: Path, model: ServedModel, onnx_file: Path, tokenizer_file: Path, keep: int = KEEP
) -> ServedModel:
    """Publish a model; the one of the same name makes room, all others stay.

    Content that differs from what is published gets the next version number; the same content
    keeps its number, and so does a model whose files are missing or damaged, because nobody can
    have been served that version. The previous version stays beside the new one for a Triton
    that is loading at this moment: it has read the old numbers, and would not find its files.

    Args:
        repository: the folder that Triton reads; made if it does not exist.
        model: what to publish; its ``version`` is ignored.
        onnx_file: the encoder; hard-linked where possible, so replace it later, never write into it.
        tokenizer_file: the checkpoint's ``tokenizer.json``.
        keep: how many versions that it replaced are kept for `rollback_model`.

    Returns:
        The model with the version that it was given.

    Raises:
        ExportError: another model or another owner has its folders, or the repository could not
            be replaced; it is as it was.
    """

    def change(root: Path) -> ServedModel:
        refuse_conflict(root, model.name)
        models = read_inventory(root)
        refuse_foreign(root, model, models)
        present = next((other for other in models if other.name == model.name), None)
        tokenizer_version, version = _next_versions(root, model, present, onnx_file, tokenizer_file)
        numbers = kept_versions(repository, model.ensemble)
        if numbers and (present is None or version != present.version):
            version = max(version, numbers[-1] + 1)  # after a rollback, the next number is taken
            tokenizer_version = version if model.layout == JOINED else tokenizer_version
        new = replace(model, version=version)
        if keep and present is not None and present.version != version:
            _keep_if_whole(repository, present)
        write_model(new, onnx_file, tokenizer_file, root, tokenizer_version)
        for folder in (new.tokenizer, new.encoder, new.ensemble):
            last = tokenizer_version if folder == new.tokenizer else version
            keep_versions(root / folder, [v for v in versions(root / folder) if v <= last][-2:])
        old = present.folders if present else ()
        _drop(root, {*old, *owned_folders(root, new.ensemble)} - {new.ensemble, new.encoder})
        _require_whole(root, new)
        return new

    def replaced(new: ServedModel) -> None:
        unpin(repository, new.ensemble)
        prune_versions(repository, new.ensemble, new.version, keep)

    return replace_repository(repository, change, replaced)


def rollback_model(repository: Path, name: str, number: int | None = None) -> tuple[int, int]:
    """Publish a kept version again, under the number that it had; the present one is kept in its place.

    The version is pinned: `export.record.unchanged_export` leaves it alone. For a Triton that is loading at
    this moment there is no way to leave the files of the higher number, as it would serve those.

    Args:
        repository: the folder that Triton reads.
        name: public name of the model.
        number: of the version; None for the newest of those that are older than the published one.

    Returns:
        The numbers of the version that was published and of the one that is.

    Raises:
        ExportError: no model has this name, no such version is kept, it is damaged, another model has one of
            its folders or aliases by now, or the repository could not be replaced; it is as it was.
    """
    find_published(repository, name)  # a repository that is not there must not be made

    def change(root: Path) -> tuple[int, int]:
        refuse_conflict(root, name)
        present = find_published(root, name)
        source, old = read_kept(repository, present.ensemble, previous_version(repository, present, number))
        refuse_taken_aliases(root, old)
        _keep_if_whole(repository, present)
        others = {folder for model in read_inventory(root) if model.name != name for folder in model.folders}
        _drop(root, {*present.folders, *owned_folders(root, present.ensemble)})
        for folder in old.folders:
            if folder in others:
                continue  # a tokenizer that other models use, with the same content by its name
            if TOKENIZER.fullmatch(folder):
                shutil.rmtree(root / folder, ignore_errors=True)
            elif (root / folder).exists() or (root / folder).is_symlink():
                raise PublishError(
                    f"{folder} in the repository is not this exporter's; move it away to roll {name} back."
                )
            copy_model_folder(source / folder, root / folder)
        _require_whole(root, old)
        pin_version(repository, old.ensemble, old.version)
        return present.version, old.version

    return replace_repository(repository, change)


def remove_model(repository: Path, name: str) -> Published:
    """Take a model out of the repository, with its kept versions, and its tokenizer if no other uses it.

    Returns:
        What was removed.

    Raises:
        ExportError: no model has this name, or the repository could not be replaced; it is as
            it was.
    """
    read_inventory(repository)  # a repository that is not there must not be made

    def change(root: Path) -> Published:
        model = find_published(root, name)
        _drop(root, {*model.folders, *owned_folders(root, model.ensemble)})
        return model

    return replace_repository(
        repository, change, lambda removed: remove_versions(repository, removed.ensemble)
    )


def _keep_if_whole(repository: Path, model: Published) -> None:
    """Keep the published version, unless it is damaged: nobody wants that back."""
    if not any(content_damage(repository, model)):
        keep_version(repository, model)


def _next_versions(
    root: Path, model: ServedModel, present: Published | None, onnx_file: Path, tokenizer_file: Path
) -> tuple[int, int]:
    """Numbers for the tokenizer's and the model's folders: write the present ones again, then compare."""
    whole = present is not None and not any(content_damage(root, present))
    # What is not whole counts for nothing but its folder: in a fresh clone that is 1, without weights.
    version = present.version if present and whole else max(versions(root / model.encoder), default=1)
    tokenizer_version = max(versions(root / model.tokenizer), default=1)
    trial, again = root / _TRIAL, replace(model, version=version)
    write_model(again, onnx_file, tokenizer_file, trial, tokenizer_version)
    other_tokens = not _same(trial / again.tokenizer, root / again.tokenizer)
    other_model = (
        other_tokens
        or not _same(trial / again.encoder, root / again.encoder)
        or not _same_entry(trial / again.ensemble, root / again.ensemble)
    )
    shutil.rmtree(trial)
    next_version = version + (other_model and whole)
    if model.layout == JOINED:  # the tokenizer lies in the model's own folder
        return next_version, next_version
    tokens = root / model.tokenizer / str(tokenizer_version) / "tokenizer.json"
    whole_tokens = tokens.is_file() and sha256(tokens) == model.tokenizer_sha256
    return tokenizer_version + (other_tokens and whole_tokens), next_version


def _require_whole(root: Path, model: ServedModel | Published) -> None:
    """What is about to be published must be what was asked for, however it came about."""
    found = next((other for other in read_inventory(root) if other.name == model.name), None)
    damage = [f"{model.ensemble} is not there."] if found is None else list(content_damage(root, found))
    if damage:
        raise PublishError(f"the repository was not changed, as {model.name} would be damaged: {damage[0]}")


def _same(new: Path, old: Path) -> bool:
    """Whether the old folder holds the new one's files, byte for byte."""
    return all(
        (old / file.relative_to(new)).is_file()
        and filecmp.cmp(file, old / file.relative_to(new), shallow=False)
        for file in new.rglob("*")
        if file.is_file()
    )


def _same_entry(new: Path, old: Path) -> bool:
    """Whether two ensembles are equal apart from the date."""
    configs = [read_config(new), read_config(old)]
    for config in configs:
        if config is not None:
            del config.parameters[f"{PREFIX}created_at"]
    return configs[0] == configs[1]


def _drop(root: Path, folders: Iterable[str]) -> None:
    """Remove folders, then the tokenizers that no model uses; what a model uses always stays."""
    removed = {folder for folder in folders if not TOKENIZER.fullmatch(folder)}
    used = {step for model in read_inventory(root) if model.ensemble not in removed for step in model.folders}
    rest = (path.parent for path in root.glob("*/config.pbtxt") if path.parent.name not in removed)
    # A configuration that cannot be read may use any of them.
    if all(read_config(folder) is not None for folder in rest):
        removed |= {
            path.name for path in root.iterdir() if TOKENIZER.fullmatch(path.name) and wrote_tokenizer(path)
        }
    for name in removed - used - {""}:
        shutil.rmtree(root / name, ignore_errors=True)
