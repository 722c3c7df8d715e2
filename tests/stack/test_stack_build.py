"""The build: what it asks Go for, that it goes on where it stopped, and what it says when it cannot."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from otel_concurrency.stack import go as go_command
from otel_concurrency.stack import pins
from otel_concurrency.stack.build import build
from otel_concurrency.stack.errors import StackError
from otel_concurrency.stack.paths import (
    MANIFEST,
    binary_path,
    build_key,
    cache_folder,
    missing_binaries,
    stack_folder,
)
from otel_concurrency.stack.pins import RECIPES
from otel_concurrency.stack.stack import STARTED
from tests.stack.fakes import install_go


@pytest.fixture
def go_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for Go on PATH; what it was asked is in this file."""
    folder = install_go(tmp_path / "fake-go", "1.26.0")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_GO_LOG", str(tmp_path / "go.log"))
    return tmp_path / "go.log"


def asked(log: Path) -> list[str]:
    """Return the subcommands that Go was asked for, without options and folders."""
    return [line.split()[0] + " " + line.split()[-1] for line in log.read_text(encoding="utf-8").splitlines()]


def test_each_program_is_built_from_its_module(tmp_path: Path, go_log: Path) -> None:
    """The collector through its builder, the others as their own main modules; then Go's caches go."""
    build(tmp_path / "stack", lambda line: None)
    assert asked(go_log) == [
        "version version",
        f"install go.opentelemetry.io/collector/cmd/builder@v{pins.COLLECTOR}",
        "build .",
        f"mod github.com/prometheus/prometheus@v{pins.PROMETHEUS_MODULE}",
        "build ./cmd/prometheus",
        f"mod github.com/prometheus/prometheus@v{pins.PROMETHEUS_MODULE}",
        "build ./cmd/promtool",
        f"mod github.com/jaegertracing/jaeger@v{pins.JAEGER_MODULE}",
        "build ./cmd/jaeger",
        f"mod github.com/grafana/loki/v3@v{pins.LOKI}",
        "mod -dropreplace=github.com/grafana/loki/pkg/push",
        "build ./cmd/loki",
    ]
    assert missing_binaries(tmp_path / "stack") == []
    assert not (tmp_path / "stack" / "work").exists()


def test_a_second_build_asks_for_nothing(tmp_path: Path, go_log: Path) -> None:
    """Not even for Go, which may be gone by then."""
    build(tmp_path / "stack", lambda line: None)
    go_log.unlink()
    build(tmp_path / "stack", lambda line: None)
    assert not go_log.exists()


def test_a_binary_comes_with_a_note_of_what_it_is(tmp_path: Path, go_log: Path) -> None:
    """Whoever finds the file in two years can tell."""
    build(tmp_path / "stack", lambda line: None)
    notes = [
        json.loads(
            (binary_path(recipe, tmp_path / "stack").parent / "build.json").read_text(encoding="utf-8")
        )
        for recipe in RECIPES
    ]
    assert [(note["name"], note["version"], note["go"]) for note in notes] == [
        ("otelcol", pins.COLLECTOR, "go1.26.0"),
        ("prometheus", pins.PROMETHEUS, "go1.26.0"),
        ("promtool", pins.PROMETHEUS, "go1.26.0"),
        ("jaeger", pins.JAEGER, "go1.26.0"),
        ("loki", pins.LOKI, "go1.26.0"),
    ]


def test_a_failed_build_names_the_program_and_goes_on_from_there(
    tmp_path: Path, go_log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is built stays built, Go's caches stay for the next try, and the compiler's words are shown."""
    monkeypatch.setenv("FAKE_GO", "./cmd/prometheus")
    with pytest.raises(StackError) as caught:
        build(tmp_path / "stack", lambda line: None)
    log = tmp_path / "stack" / "work" / "logs" / "prometheus.log"
    assert str(caught.value).startswith(
        f"prometheus: downloading and compiling: failed with status 1. The end of {log}:\n"
    )
    assert str(caught.value).endswith("\n    undefined: surprise")
    assert [recipe.name for recipe in missing_binaries(tmp_path / "stack")] == [
        "prometheus",
        "promtool",
        "jaeger",
        "loki",
    ]

    monkeypatch.delenv("FAKE_GO")
    go_log.unlink()
    build(tmp_path / "stack", lambda line: None)
    assert [line for line in asked(go_log) if line.startswith("build")] == [
        "build ./cmd/prometheus",
        "build ./cmd/promtool",
        "build ./cmd/jaeger",
        "build ./cmd/loki",
    ]
    assert missing_binaries(tmp_path / "stack") == []


def test_progress_names_every_program(tmp_path: Path, go_log: Path) -> None:
    """Ten silent minutes look like a hang."""
    told: list[str] = []
    build(tmp_path / "stack", told.append)
    numbered = [line for line in told if " of 5) with go1.26.0" in line]
    assert [line.split()[0] for line in numbered] == ["otelcol", "prometheus", "promtool", "jaeger", "loki"]


@pytest.mark.parametrize(
    ("version", "found"),
    [("1.19.8", r"found only .*/go \(go1\.19\.8\)"), (None, "found none on PATH or in /usr/local/go")],
)
def test_without_a_new_enough_go_it_says_which_one_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str | None, found: str
) -> None:
    """The message tells what was found, what is needed and where to get it."""
    folder = tmp_path / "empty" if version is None else install_go(tmp_path / "old-go", version)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("FAKE_GO_LOG", str(tmp_path / "go.log"))
    monkeypatch.setattr(go_command, "USUAL_GO", tmp_path / "nowhere")
    with pytest.raises(StackError, match=rf"Go 1\.26 or later is needed .*{found}.*Go project's downloads"):
        build(tmp_path / "stack", lambda line: None)


def test_an_edited_manifest_is_another_collector_and_the_same_jaeger(tmp_path: Path) -> None:
    """The key covers what decides the binary, and nothing else."""
    edited = tmp_path / "builder.yaml"
    edited.write_text(MANIFEST.read_text(encoding="utf-8") + "more: components\n", encoding="utf-8")
    changed = [recipe.name for recipe in RECIPES if build_key(recipe) != build_key(recipe, edited)]
    assert changed == ["otelcol"]


def test_a_comment_in_the_manifest_is_no_other_collector(tmp_path: Path) -> None:
    """Nobody waits minutes for a reworded sentence."""
    edited = tmp_path / "builder.yaml"
    text = MANIFEST.read_text(encoding="utf-8")
    edited.write_text("# Reworded.\n\n" + text.replace("v0.162.0\n", "v0.162.0  # why\n"), encoding="utf-8")
    assert build_key(RECIPES[0], edited) == build_key(RECIPES[0])


def test_what_up_does_not_start_is_not_built_for_it(tmp_path: Path, go_log: Path) -> None:
    """A user has no use for what judges rules."""
    build(tmp_path / "stack", lambda line: None, only=STARTED)
    assert [recipe.name for recipe in missing_binaries(tmp_path / "stack")] == ["promtool"]
    assert missing_binaries(tmp_path / "stack", only=STARTED) == []


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our variable first, then the XDG folder, then the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert stack_folder({"OTEL_CONCURRENCY_CACHE": str(tmp_path / "x")}) == tmp_path / "x" / "stack"
    assert cache_folder({"XDG_CACHE_HOME": str(tmp_path / "y")}) == tmp_path / "y" / "otel-concurrency"
    assert cache_folder({}) == tmp_path / ".cache" / "otel-concurrency"
