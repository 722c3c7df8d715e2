"""The versions of the stack, each once.

`docker-compose.yml` and `collector-config/builder.yaml` repeat them because neither can read Python; a test
compares all three.
"""

from __future__ import annotations

from dataclasses import dataclass, field

COLLECTOR = "0.162.0"

# Jaeger's v2 tags have no /v2 in the module path, which the Go command refuses. Its releases carried a v1
# tag on the same commit up to this one, and that tag the module proxy serves.
JAEGER = "2.13.0"
JAEGER_MODULE = "1.76.0"

# Prometheus 3.x is published as the Go module v0.3xx.
PROMETHEUS = "3.15.0"
PROMETHEUS_MODULE = "0.315.0"

LOKI = "3.7.8"

# Only in docker-compose.yml. The tests run Debian's packages of these two.
REDIS = "7.0.15"
POSTGRES = "15.14"

# Only in docker-compose.yml: it is no Go module that could be built.
GRAFANA = "12.3.0"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What one program is built from.

    Attributes:
        name: The binary's name.
        version: The version it calls itself, and its image tag.
        module: Go module that holds it; for the collector, the module of the builder.
        module_version: The tag of that module, without the `v`.
        package: Package to compile, relative to the module; empty where the builder writes it.
        tags: Go build tags.
        ldflags: Linker flags; `-s -w` leaves out symbols and debug information, which halves the file.
        dropped: Modules that its go.mod replaces by a folder of the repository, which the module proxy leaves
            out; the release that its go.mod requires takes the place.
    """

    name: str
    version: str
    module: str
    module_version: str
    package: str = ""
    tags: str = ""
    ldflags: str = "-s -w"
    dropped: tuple[str, ...] = field(default=(), repr=False)  # the build key adds it where there is one


RECIPES = (
    Recipe("otelcol", COLLECTOR, "go.opentelemetry.io/collector/cmd/builder", COLLECTOR),
    Recipe(
        "prometheus",
        PROMETHEUS,
        "github.com/prometheus/prometheus",
        PROMETHEUS_MODULE,
        package="./cmd/prometheus",
        # Service discovery of two dozen clouds is most of the compile time, and we discover nothing.
        tags="netgo,remove_all_sd",
        ldflags=f"-s -w -X github.com/prometheus/common/version.Version={PROMETHEUS}",
    ),
    # Judges rules and configuration; `up` does not start it.
    Recipe(
        "promtool",
        PROMETHEUS,
        "github.com/prometheus/prometheus",
        PROMETHEUS_MODULE,
        package="./cmd/promtool",
        tags="netgo,remove_all_sd",
        ldflags=f"-s -w -X github.com/prometheus/common/version.Version={PROMETHEUS}",
    ),
    Recipe(
        "jaeger",
        JAEGER,
        "github.com/jaegertracing/jaeger",
        JAEGER_MODULE,
        package="./cmd/jaeger",
        ldflags=f"-s -w -X github.com/jaegertracing/jaeger/internal/version.latestVersion=v{JAEGER}",
    ),
    Recipe(
        "loki",
        LOKI,
        "github.com/grafana/loki/v3",
        LOKI,
        package="./cmd/loki",
        tags="netgo",
        ldflags=f"-s -w -X github.com/grafana/loki/v3/pkg/util/build.Version={LOKI}",
        dropped=("github.com/grafana/loki/pkg/push",),
    ),
)
