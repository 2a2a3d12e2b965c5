# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Packaging of kdps and of the methods under ``projects/``.

Detectron2 is required but deliberately not listed: it is not published on PyPI, so that pip would
install a stranger's package of that name. ``dev/install.py`` installs it from a pinned source, and
``import kdps`` says so when it is missing.
"""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent

# Milvus Lite 3 is in Python; earlier ones keep their files in another form.
INDEX = ["faiss-cpu>=1.9", "milvus-lite>=3.2", "pymilvus>=3.0"]
VIDEO = ["av>=14"]
SERVE = ["gradio>=6.31"]
EXPORT = ["onnx>=1.17", "onnxruntime>=1.20"]


def read_version(root: Path) -> str:
    """The version that ``kdps/__init__.py`` states; read as text, so that nothing is imported."""
    text = (root / "kdps" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, flags=re.MULTILINE)
    if found is None:
        raise RuntimeError("kdps/__init__.py states no __version__")
    return found.group(1)


def find_projects(root: Path) -> dict[str, str]:
    """Packages under ``projects/*/``, to be installed as ``kdps.projects.*``.

    As in Detectron2, a project is a folder ``projects/<Name>/`` with one Python package
    ``<package>/`` in it. Folders without ``__init__.py`` (configs, tests) are left out.

    Returns:
        name of each package, subpackages included, to its folder relative to ``root``.

    Raises:
        RuntimeError: two projects use the same package name.
    """
    folders: dict[str, str] = {}
    for project in sorted(path for path in (root / "projects").glob("*") if path.is_dir()):
        for package in find_packages(str(project), exclude=("tests", "tests.*")):
            name = f"kdps.projects.{package}"
            folder = (project / package.replace(".", "/")).relative_to(root).as_posix()
            if name in folders:
                raise RuntimeError(f"{folder} and {folders[name]} would both be {name}")
            folders[name] = folder
    return folders


if __name__ == "__main__":
    projects = find_projects(ROOT)
    setup(
        name="kdps",
        version=read_version(ROOT),
        description="Person search with knowledge distillation, on Detectron2",
        long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
        long_description_content_type="text/markdown",
        author="kdps contributors",
        license="Apache-2.0",
        license_files=["LICENSE"],
        keywords=["person search", "re-identification", "knowledge distillation", "detectron2"],
        classifiers=[
            "Development Status :: 3 - Alpha",
            "Intended Audience :: Science/Research",
            "Operating System :: POSIX :: Linux",
            "Programming Language :: Python :: 3",
            "Programming Language :: Python :: 3.10",
            "Programming Language :: Python :: 3.11",
            "Programming Language :: Python :: 3.12",
            "Topic :: Scientific/Engineering :: Image Recognition",
        ],
        python_requires=">=3.10,<3.13",
        packages=[*find_packages(str(ROOT), include=("kdps", "kdps.*")), *projects],
        package_dir=projects,
        package_data={
            "kdps": ["py.typed"],
            "kdps.report": ["templates/*"],
            "kdps.serve": ["templates/*"],
        },
        install_requires=[
            "torch>=2.11,<2.15",
            "torchvision>=0.26,<0.30",
            "jinja2",
            "numpy",
            "matplotlib",
            "opencv-python-headless",
            "pillow",
            "pycocotools",
            "pyyaml",
            "scipy>=1.15",
            "tabulate",
            "tensorboard",
            "tqdm",
        ],
        extras_require={
            # ConvNeXt and Swin.
            "timm": ["timm>=1.0.20"],
            # kdps gallery, and kdps search --index.
            "index": INDEX,
            # Videos among the footage.
            "video": VIDEO,
            # kdps serve.
            "serve": SERVE,
            # kdps export, and kdps detect with what it wrote.
            "export": EXPORT,
            "dev": [
                *INDEX,
                *VIDEO,
                *SERVE,
                *EXPORT,
                "hypothesis",
                "playwright",
                "pre-commit",
                "pytest",
                "pytest-xdist",
                "requests",
                "ruff",
                "scikit-learn",
                "timm>=1.0.20",
            ],
        },
        entry_points={"console_scripts": ["kdps = kdps.cli.main:main"]},
    )
