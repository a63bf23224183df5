"""Parts of trees of weights."""

import pytest

from uhrjax import subtree

TREE = {"a": {"b": {"c": 1, "d": 2}, "e": 3}, "f": 4}


def test_split_and_merge_undo_each_other():
    left, taken = subtree.split(TREE, ("a/b/c", "f"))
    assert left == {"a": {"b": {"d": 2}, "e": 3}}
    assert taken == {"a": {"b": {"c": 1}}, "f": 4}
    assert subtree.merge(left, taken) == TREE == subtree.merge(taken, left)


def test_put_makes_what_is_missing_and_leaves_the_tree_alone():
    assert subtree.put(TREE, "a/x/y", 5)["a"]["x"] == {"y": 5}
    assert subtree.put(TREE, "", 6) == 6
    assert "x" not in TREE["a"]


@pytest.mark.parametrize("path", ["z", "a/z", "f/z"])
def test_absent_path_is_named(path):
    with pytest.raises(KeyError, match=path):
        subtree.take(TREE, path)


def test_a_subtree_that_does_not_exist_cannot_be_frozen():
    with pytest.raises(KeyError, match="encoder"):
        subtree.split(TREE, ("encoder",))
