# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
import torch

from kdps.checkpoint.rules import Rule, apply_rules
from kdps.errors import KdpsError

A, B = torch.arange(3), torch.ones(2)


def test_names_rows_and_drops():
    rules = [
        Rule(r"old\.(\w+)", r"new.\1", rows=(2, 0)),
        Rule(r"unused\..*", None),
    ]
    converted = apply_rules({"old.weight": A, "unused.bias": B}, rules, "model")
    assert {name: t.tolist() for name, t in converted.items()} == {"new.weight": [2, 0]}


def test_the_first_rule_that_matches_counts():
    rules = [Rule("a", "first"), Rule("a|b", "second")]
    assert apply_rules({"a": A, "b": B}, rules, "model").keys() == {"first", "second"}


def test_a_pattern_has_to_match_the_whole_name():
    with pytest.raises(KdpsError, match="model: .* unknown entry 'weights'"):
        apply_rules({"weights": A}, [Rule("weight", "w")], "model")


def test_a_rule_without_an_entry():
    with pytest.raises(KdpsError, match="model: .* no entry like 'bias'"):
        apply_rules({"weight": A}, [Rule("weight", "w"), Rule("bias", "b")], "model")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (3, "holds no weights but a int"),
        ({"weight": "text"}, "'weight' is no tensor but a str"),
        ({"weight": torch.tensor(1.0)}, "'weight' has 0 rows, not 2"),
    ],
)
def test_what_is_no_state_dict(state, message):
    with pytest.raises(KdpsError, match=message):
        apply_rules(state, [Rule("weight", "w", rows=(0, 1))], "model")
