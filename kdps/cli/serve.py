# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""``kdps serve``: a page on which an index is searched."""

from __future__ import annotations

import argparse
import logging
import sys

from kdps.cli.model_source import add_model_arguments, add_score_argument, inference_config
from kdps.cli.parsers import add_command
from kdps.errors import KdpsError
from kdps.search.indexed import open_searcher
from kdps.serve.address import LOOPBACK, bind, is_loopback, url_host
from kdps.serve.desk import SearchDesk
from kdps.utils.requirements import require_gradio

logger = logging.getLogger(__name__)

_EXAMPLE = """example:
  kdps serve --config-file configs/PRW/seqnet_R_50_C4.yaml --weights model_best.pth \\
      --index footage.db

docs/footage.md says who can reach the page and what it keeps."""
_PORT = 7860
_MAX_UPLOAD = 20.0


def add_parser(commands: argparse._SubParsersAction, summary: str) -> None:
    """Add the subcommand ``serve``."""
    parser = add_command(
        commands,
        "serve",
        summary,
        _EXAMPLE,
        "Serve a page on which a scene is chosen or uploaded, a person in it is clicked, and the "
        "index that `kdps gallery build` has made is searched for persons alike.",
    )
    add_model_arguments(parser)
    parser.add_argument(
        "--index",
        required=True,
        metavar="WHERE",
        help="index to search in: a local file (.db) or the address of a Milvus server",
    )
    parser.add_argument(
        "--host",
        default=LOOPBACK,
        metavar="ADDRESS",
        help=f"address to serve at (default: {LOOPBACK}, which only this machine can reach)",
    )
    parser.add_argument(
        "--port", type=int, default=_PORT, metavar="N", help=f"default: {_PORT}; 0 is any free one"
    )
    parser.add_argument(
        "--max-upload",
        type=float,
        default=_MAX_UPLOAD,
        metavar="MB",
        help=f"the largest image that is taken (default: {_MAX_UPLOAD:g})",
    )
    add_score_argument(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Serve until interrupted.

    Raises:
        KdpsError: an option, the config or the index is at fault, or Gradio is not installed.
    """
    cfg = inference_config(args)
    if not 0 < args.max_upload <= 1000:
        raise KdpsError(f"--max-upload: must be above 0 and at most 1000, not {args.max_upload:g}")
    require_gradio()
    from kdps.serve.server import make_server

    with bind(args.host, args.port) as sock, open_searcher(cfg, args.index) as searcher:
        desk = SearchDesk(searcher, int(args.max_upload * 1e6))
        if not is_loopback(args.host):
            logger.warning(
                "--host: everyone who can reach %s can search and see the footage", args.host
            )
        address = f"http://{url_host(args.host)}:{sock.getsockname()[1]}"
        sys.stdout.write(f"Serving {len(desk)} persons at {address} (Ctrl+C ends)\n")
        sys.stdout.flush()
        make_server(desk, args.host).run(sockets=[sock])
