"""Ways in and out of what is not ours."""

from __future__ import annotations

import pickle
import sys
from typing import Any

import pytest

from otel_concurrency.hooks.patch import Patch


class Base:
    def greet(self) -> str:
        return "hello"


class Derived(Base):
    pass


@pytest.fixture(autouse=True)
def _classes_as_they_were() -> Any:
    greet = vars(Base)["greet"]
    yield
    assert vars(Base)["greet"] is greet
    assert "greet" not in vars(Derived)


def louder(original: Any) -> tuple[Any, Any]:
    state = {"active": True}

    def greet(self: Any) -> str:
        said: str = original(self)
        return said.upper() if state["active"] else said

    return greet, lambda: state.update(active=False)


def test_a_patch_replaces_and_puts_back() -> None:
    patch = Patch(Base, "greet", louder)
    patch.install()
    assert Derived().greet() == "HELLO"
    assert repr(patch) == "<Patch Base.greet [installed]>"
    assert patch.remove()
    assert Base().greet() == "hello"
    assert repr(patch) == "<Patch Base.greet [removed]>"


def test_installing_twice_patches_once() -> None:
    patch = Patch(Base, "greet", louder)
    patch.install()
    once = vars(Base)["greet"]
    patch.install()
    assert vars(Base)["greet"] is once
    assert patch.remove()
    assert patch.remove()


def test_an_inherited_attribute_is_inherited_again() -> None:
    patch = Patch(Derived, "greet", louder)
    patch.install()
    assert (Derived().greet(), Base().greet()) == ("HELLO", "hello")
    patch.remove()


def test_a_later_patch_survives_our_removal(caplog: pytest.LogCaptureFixture) -> None:
    """Theirs goes on as it was; ours stays beneath it, does what the original does, and says so."""
    caplog.set_level("INFO", "otel_concurrency.hooks.patch")
    original = vars(Base)["greet"]
    patch = Patch(Base, "greet", louder)
    patch.install()
    ours = vars(Base)["greet"]

    def theirs(self: Any) -> str:
        return f"<{ours(self)}>"

    Base.greet = theirs  # type: ignore[method-assign]
    try:
        assert repr(patch) == "<Patch Base.greet [patched over]>"
        assert Base().greet() == "<HELLO>"
        assert not patch.remove()
        assert vars(Base)["greet"] is theirs
        assert Base().greet() == "<hello>"
    finally:
        Base.greet = original  # type: ignore[method-assign]
    assert [record.getMessage() for record in caplog.records] == [
        "Base.greet was patched again after us; that patch stays, and ours beneath it is silent"
    ]


def test_a_replacement_that_somebody_kept_is_silent_after_removal() -> None:
    patch = Patch(Base, "greet", louder)
    patch.install()
    kept = Base().greet
    assert kept() == "HELLO"
    patch.remove()
    assert kept() == "hello"


def plain() -> str:
    return "hello"


@pytest.mark.parametrize(
    ("owner", "name"), [(Base, "greet"), (Derived, "greet"), (sys.modules[__name__], "plain")]
)
def test_a_replacement_can_be_pickled_by_name_as_the_original(owner: Any, name: str) -> None:
    """A work item, a target or an initializer may be what we replaced, in a process pool's or a `spawn`."""
    patch = Patch(owner, name, louder)
    patch.install()
    try:
        ours = getattr(owner, name)
        assert pickle.loads(pickle.dumps(ours)) is ours
    finally:
        patch.remove()


def test_what_cannot_be_patched_says_so_and_changes_nothing() -> None:
    with pytest.raises(AttributeError):
        Patch(Base, "leave", louder).install()
    with pytest.raises(TypeError):
        Patch(dict, "get", louder).install()


def test_an_absent_attribute_is_added_and_absent_again() -> None:
    def make(original: Any) -> tuple[Any, Any]:
        return lambda self: f"instead of {original}", lambda: None

    with pytest.raises(AttributeError):
        Patch(Base, "part", make).install()
    patch = Patch(Base, "part", make, absent="nothing")
    patch.install()
    assert Base().part() == "instead of nothing"  # type: ignore[attr-defined]
    assert patch.remove()
    assert not hasattr(Base, "part")
