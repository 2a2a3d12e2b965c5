# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
import torch

from kdps.checkpoint.rules import Rule, apply_rules, rules_explain
from kdps.errors import KdpsError

A, B = torch.arange(3), torch.ones(2)


def test_names_rows_and_drops():
    rules = [
        Rule(r"old\.(\w+)", r"new.\1", rows=(2, 0)),
        Rule(r"unused\..*", None, reason="not used"),
    ]
    converted = apply_rules({"old.weight": A, "unused.bias": B}, rules, "model")
    assert {name: t.tolist() for name, t in converted.weights.items()} == {"new.weight": [2, 0]}
    assert converted.dropped == {"unused.bias": "not used"}


def test_differences_of_rows():
    rule = Rule("a", "b", rows=(2, 1), minus=(0, 0))
    assert apply_rules({"a": A + 5}, [rule], "model").weights["b"].tolist() == [2, 1]


def test_new_tensors_share_nothing_with_the_old_ones():
    large = torch.zeros(100)
    state = {"a": large[:2], "b": large[:2]}
    weights = apply_rules(state, [Rule("a", "a"), Rule("b", "b", rows=(0, 1))], "model").weights
    large += 1
    assert not any(w.any() for w in weights.values())
    # What is saved of a view is all of its storage.
    assert all(w.untyped_storage().nbytes() == 8 for w in weights.values())


def test_two_names_of_one_tensor_become_one():
    rules = [Rule("a|b", "new")]
    assert apply_rules({"a": B, "b": B}, rules, "model").weights.keys() == {"new"}
    nan = torch.tensor([torch.nan])
    assert apply_rules({"a": nan}, rules, "model").weights["new"].isnan()
    with pytest.raises(KdpsError, match="model: 'b' and another entry for 'new' differ"):
        apply_rules({"a": B, "b": B + 1}, rules, "model")


def test_an_optional_rule_may_find_nothing():
    rules = [Rule("a", "b"), Rule("c", None, reason="rare", optional=True)]
    assert apply_rules({"a": A}, rules, "model").dropped == {}


def test_what_rules_explain():
    rules = [Rule("a", "b"), Rule("b", "c"), Rule(".*", None, reason="rare", optional=True)]
    assert rules_explain(dict.fromkeys("ab"), rules)
    assert not rules_explain(dict.fromkeys("a"), rules)
    # An optional rule, which may take anything, tells nothing.
    assert not rules_explain(dict.fromkeys("abd"), rules)


def test_the_first_rule_that_matches_counts():
    rules = [Rule("a", "first"), Rule("a|b", "second")]
    assert apply_rules({"a": A, "b": B}, rules, "model").weights.keys() == {"first", "second"}


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
        ({"weight": A}, "'weight' has 3 rows, not 2"),
    ],
)
def test_what_is_no_state_dict(state, message):
    with pytest.raises(KdpsError, match=message):
        apply_rules(state, [Rule("weight", "w", rows=(0, 1))], "model")


def test_rules_that_ask_for_dimensions_explain_no_others():
    rules = [Rule("a", "A", ndim=2)]
    assert rules_explain({"a": torch.zeros(1, 2)}, rules)
    assert not rules_explain({"a": torch.zeros(1, 2, 1, 1)}, rules)


def test_kernels_as_a_matrix():
    state = {"a": torch.arange(6.0).reshape(2, 3, 1, 1)}
    converted = apply_rules(state, [Rule("a", "A", ndim=4, as_matrix=True)], "x")
    assert torch.equal(converted.weights["A"], torch.arange(6.0).reshape(2, 3))
