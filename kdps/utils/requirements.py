# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Requirements that an installation may lack: Detectron2, which pip cannot resolve, and extras."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from kdps.errors import KdpsError

INSTALL_HELP = """\
kdps needs Detectron2, which is not installed in this Python. It is not on PyPI: please do not
`pip install detectron2`. From a clone of kdps, either of these installs it:
  python dev/install.py --source git     build it from GitHub (needs a C++ compiler)
  python dev/install.py --source pypi    its Python code from PyPI, without compiled operators
docs/install.md tells them apart."""


def require_detectron2() -> None:
    """Check that Detectron2 is there, without importing it (which takes seconds).

    Raises:
        ImportError: it is not installed; the message gives the two ways to get it.
    """
    spec = find_spec("detectron2")
    # A clone of Detectron2 in the working directory looks like a package without an origin.
    if spec is None or spec.origin is None:
        raise ImportError(INSTALL_HELP, name="detectron2")


def require_timm() -> ModuleType:
    """Import timm, an extra of kdps.

    Raises:
        KdpsError: it is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise KdpsError(
            "timm is not installed, from which ConvNeXt and Swin come: "
            "pip install timm, or kdps with its extra 'timm'"
        ) from error
    return timm


def require_pymilvus() -> ModuleType:
    """Import the client of Milvus, of the extra ``index``.

    Raises:
        KdpsError: it or the embedded Milvus Lite is not installed.
    """
    what = ("an index", "pymilvus[milvus-lite]", "index")
    # The client imports it only when it opens a file.
    _imported("milvus_lite", *what)
    return _imported("pymilvus", *what)


def require_faiss() -> ModuleType:
    """Import FAISS, of the extra ``index``.

    Raises:
        KdpsError: it is not installed.
    """
    return _imported("faiss", "an index in memory", "faiss-cpu", "index")


def require_av() -> ModuleType:
    """Import PyAV, of the extra ``video``.

    Raises:
        KdpsError: it is not installed.
    """
    return _imported("av", "reading videos", "av", "video")


def require_gradio() -> ModuleType:
    """Import Gradio, of the extra ``serve``.

    Raises:
        KdpsError: it is not installed.
    """
    return _imported("gradio", "the page", "gradio", "serve")


def require_onnx() -> ModuleType:
    """Import onnx, of the extra ``export``.

    Raises:
        KdpsError: it is not installed.
    """
    return _imported("onnx", "exporting", "onnx", "export")


def require_onnxruntime() -> ModuleType:
    """Import onnxruntime, of the extra ``export``.

    Raises:
        KdpsError: it is not installed.
    """
    return _imported("onnxruntime", "an ONNX file", "onnxruntime", "export")


def _imported(module: str, purpose: str, package: str, extra: str) -> ModuleType:
    try:
        return import_module(module)
    except ImportError as error:
        raise KdpsError(
            f"{purpose} needs {package}, which is not installed: pip install '{package}', or kdps "
            f"with its extra '{extra}'"
        ) from error
