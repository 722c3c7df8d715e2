"""Who this process is: one `service.instance.id`, the same for spans, log records and metrics.

Where the user has set none, it is the SDK's random UUID, a new one in each process. One that the user has set
stays as it is in the first process that starts with it; its children, forked or started as programs of their
own with the same environment, add who they are: `pod-1` becomes `pod-1-4711-9f3c2a`, process id and a random
part. The process id leads to the process; the random part keeps recycled workers apart when the system uses a
process id again, and processes that live in different process namespaces.

`process.pid` goes along in the resource: it costs nothing there, whatever is recorded.

Upstream overwrites a user's id with a UUID in forked children, and lets all others collide.
"""

from __future__ import annotations

import os
import secrets
import threading
import weakref
from typing import Any

from opentelemetry.sdk import resources
from opentelemetry.sdk.environment_variables import OTEL_EXPERIMENTAL_RESOURCE_DETECTORS
from opentelemetry.sdk.resources import (
    PROCESS_PARENT_PID,
    PROCESS_PID,
    SERVICE_INSTANCE_ID,
    ProcessResourceDetector,
    Resource,
    ResourceDetector,
    ServiceInstanceIdResourceDetector,
)

CLAIM = "_OTEL_PYTHON_CONCURRENCY_INSTANCE"
"""Variable in which the first process leaves its id and its process id, for its children to see."""

_OWN_DETECTORS = (ProcessResourceDetector, ServiceInstanceIdResourceDetector)


class Identity:
    """The identity of this process and, after each fork, of the child."""

    def __init__(self) -> None:
        self._given: weakref.WeakKeyDictionary[Any, str | None] = weakref.WeakKeyDictionary()
        self._foreign: list[ResourceDetector] = []
        self._begin(is_child=False)

    def _begin(self, *, is_child: bool) -> None:
        self._pid = os.getpid()
        self._qualifier = f"{self._pid}-{secrets.token_hex(3)}"
        self._inherited_uuid = resources._service_instance_id
        self._refreshed: Resource | None = None
        if is_child:
            resources._service_instance_id_lock = threading.Lock()  # another thread may have held it

    def _notice_fork(self) -> None:
        if self._pid != os.getpid():
            self._begin(is_child=True)

    def settle(self, *providers: Any) -> None:
        """Learn what the user has set, and qualify it where an ancestor has claimed it."""
        self._notice_fork()  # a child of a forkserver sets up its own providers
        if os.environ.get(OTEL_EXPERIMENTAL_RESOURCE_DETECTORS):
            self._foreign = [
                each
                for each in resources._build_resource_detectors()
                if each.is_process_dependent() and type(each) not in _OWN_DETECTORS
            ]
        for provider in providers:
            if provider not in self._given:
                given = self._given[provider] = self._user_given(provider, resources._service_instance_id)
                if given is not None and self._is_claimed(given):
                    provider._update_resource(Resource({SERVICE_INSTANCE_ID: f"{given}-{self._qualifier}"}))
                if PROCESS_PID not in _resource_of(provider):
                    provider._update_resource(Resource({PROCESS_PID: self._pid}))

    def renew(self, provider: Any) -> None:
        """Give a provider in a forked child, and its tracers or loggers, the child's identity."""
        self._notice_fork()
        if provider not in self._given:
            self._given[provider] = self._user_given(provider, self._inherited_uuid)
        given = self._given[provider]
        if given is None:
            attributes: dict[str, Any] = dict(ServiceInstanceIdResourceDetector().detect().attributes)
        else:
            attributes = {SERVICE_INSTANCE_ID: f"{given}-{self._qualifier}"}
        known = _resource_of(provider)
        if PROCESS_PID in known:
            attributes[PROCESS_PID] = self._pid
        if PROCESS_PARENT_PID in known:
            attributes[PROCESS_PARENT_PID] = os.getppid()
        renewed = Resource(attributes)
        provider._update_resource(self._detected().merge(renewed) if self._foreign else renewed)

    def _detected(self) -> Resource:
        """What detectors of others say about this process; asked once."""
        if self._refreshed is None:
            self._refreshed = resources.get_aggregated_resources(self._foreign, Resource.get_empty())
        return self._refreshed

    @staticmethod
    def _user_given(provider: Any, uuid: str | None) -> str | None:
        value = _resource_of(provider).get(SERVICE_INSTANCE_ID)
        return None if value is None or value == uuid else str(value)

    def _is_claimed(self, given: str) -> bool:
        """Whether an ancestor goes by this id; if none does, this process does from now on."""
        pid, _, claimed = os.environ.get(CLAIM, "").partition(" ")
        if claimed == given and pid != str(self._pid):
            return True
        os.environ[CLAIM] = f"{self._pid} {given}"
        return False


def _resource_of(provider: Any) -> Any:
    if hasattr(provider, "resource"):
        return provider.resource.attributes
    return provider._sdk_config.resource.attributes  # a meter provider
