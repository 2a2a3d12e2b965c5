# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Identities of PRW's training set as public implementations number them, and as kdps does."""

from __future__ import annotations

import torch

# Rows of the public lookup tables of PRW, whose training set has 483 persons.
PUBLIC_ROWS = 482
# The numbers of these persons in PRW, in the order of kdps.
NUMBERS = (*range(1, 479), *range(480, 484), 932)


def renumber_prw_table(table: torch.Tensor, first: int = 1) -> torch.Tensor:
    """A public lookup table of PRW with a row for every identity of its training set.

    The public code takes PRW's own numbers for rows, and sends persons beyond its table to the
    queue. Here the identities are numbered from 0. Persons without a row there start with an empty
    one.

    Args:
        table: (482, D) public table.
        first: the number whose row is the first one: 1 in SeqNet and COAT, 0 in NAE.

    Returns:
        (483, D) table of kdps.
    """
    rows = [number - first for number in NUMBERS if number - first < len(table)]
    # Those beyond the table have the highest numbers.
    return torch.cat([table[rows], table.new_zeros(len(NUMBERS) - len(rows), table.shape[1])])
