# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Detectron2's Python code from PyPI, for machines that cannot reach GitHub.

Detectron2 is not on PyPI, but the wheel of another project (LabGym) carries its Python files with
the import prefix renamed. This module takes those files only, undoes the renaming and checks the
result against the digest of facebookresearch/detectron2@b7ff946 (2024-01-26, Apache-2.0). The
compiled operators (``detectron2._C``) are not in it; kdps does without them.

The wheel is for the local installation. Do not publish it: the name is not ours.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

VERSION = "0.6+py.b7ff946"
CARRIER = "labgym==3.1.2"
CARRIER_SHA256 = "a2900cff8a3fb508e1975f19b5f9abd9f261966db87b0c332697fb4138c1cb2b"
# SHA-256 of the lines "<sha256 of the file>  <name>\n", sorted by name.
TREE_SHA256 = "a2eaa5c16a6baa35be2af9efbfd4a440de4119a6945adf3eb220b43b6f71f51a"

_FOLDER = "LabGym/"
_TIMESTAMP = (2024, 1, 26, 0, 0, 0)  # the commit's day; a fixed date keeps the wheel reproducible


class UnexpectedContentError(ValueError):
    """A downloaded file is not the one that was examined when this module was written."""


def tree_digest(files: Mapping[str, bytes]) -> str:
    """SHA-256 over the names and contents of ``files``."""
    lines = (f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_detectron2(carrier: Path) -> dict[str, bytes]:
    """Detectron2's files, as in its own repository, from the carrier wheel.

    Args:
        carrier: the wheel of ``CARRIER``.

    Returns:
        name inside the wheel to be built (``detectron2/...``) to content.

    Raises:
        UnexpectedContentError: the wheel or what is in it differs from the pinned one.
    """
    if hashlib.sha256(carrier.read_bytes()).hexdigest() != CARRIER_SHA256:
        raise UnexpectedContentError(f"{carrier.name} is not the pinned file of {CARRIER}")
    with zipfile.ZipFile(carrier) as archive:
        files = {
            name.removeprefix(_FOLDER): archive.read(name).replace(
                b"LabGym.detectron2", b"detectron2"
            )
            for name in archive.namelist()
            if name.startswith(f"{_FOLDER}detectron2/") and not name.endswith("/")
        }
    if tree_digest(files) != TREE_SHA256:
        raise UnexpectedContentError(f"{carrier.name} does not carry Detectron2 as expected")
    return files


def write_wheel(
    files: Mapping[str, bytes], requirements: Iterable[str], licence: str, folder: Path
) -> Path:
    """Write a wheel named ``detectron2`` that pip can install.

    Args:
        files: name in the wheel to content.
        requirements: what the package needs, as in requirement files.
        licence: text of the licence, which has to travel with the files.
        folder: where to write the wheel.

    Returns:
        path of the wheel.
    """
    info = f"detectron2-{VERSION}.dist-info"
    metadata = [
        "Metadata-Version: 2.4",
        "Name: detectron2",
        f"Version: {VERSION}",
        "Summary: Detectron2 without its compiled operators",
        "Home-page: https://github.com/facebookresearch/detectron2",
        "Author: FAIR",
        "License-Expression: Apache-2.0",
        "License-File: LICENSE",
        "Requires-Python: >=3.7",
        *(f"Requires-Dist: {requirement}" for requirement in requirements),
    ]
    wheel = ["Wheel-Version: 1.0", "Generator: kdps", "Root-Is-Purelib: true", "Tag: py3-none-any"]
    members = dict(files)
    members[f"{info}/METADATA"] = "\n".join([*metadata, ""]).encode()
    members[f"{info}/WHEEL"] = "\n".join([*wheel, ""]).encode()
    members[f"{info}/licenses/LICENSE"] = licence.encode()
    members[f"{info}/RECORD"] = _record(members, f"{info}/RECORD")
    path = folder / f"detectron2-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            entry = zipfile.ZipInfo(name, _TIMESTAMP)
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return path


def _record(members: Mapping[str, bytes], own_name: str) -> bytes:
    lines = []
    for name, content in members.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(content)}\n")
    return "".join([*lines, f"{own_name},,\n"]).encode()
