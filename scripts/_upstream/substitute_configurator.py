"""A pytest plugin: upstream's tests of the SDK's configurator see ours under its name."""

from __future__ import annotations

import opentelemetry.sdk._configuration as configuration

from otel_concurrency.distro import ConcurrencyConfigurator

configuration._OTelSDKConfigurator = ConcurrencyConfigurator
