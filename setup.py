"""What pyproject.toml cannot say: a C extension that may fail to build, and what else goes into a wheel.

Without a compiler, on PyPy and on free-threaded builds the pure twin serves
(`otel_concurrency/probes/pure.py`).
"""

from __future__ import annotations

import os
import platform
import sysconfig
from glob import glob

from setuptools import Extension, setup
from setuptools.command.build_py import build_py


class BuildWithNeighbours(build_py):
    """Puts into the package what `otel-concurrency` looks for there first: for `demo` and for `stack`."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for folder in ("examples/shop", "collector-config"):
                self.copy_tree(folder, f"{self.build_lib}/otel_concurrency/{folder}")


native_can_serve = (
    platform.python_implementation() == "CPython"
    and not sysconfig.get_config_var("Py_GIL_DISABLED")
    and os.environ.get("OTEL_CONCURRENCY_BUILD_NATIVE", "true").lower() != "false"
)
extension = Extension(
    "otel_concurrency.probes._native",
    sources=["otel_concurrency/probes/_native.c"],
    depends=glob("otel_concurrency/probes/native_source/*.h"),
    optional=True,
    extra_compile_args=[]
    if os.name == "nt"
    else ["-O2", "-fno-plt", "-std=c11", "-Wall", "-Wextra", "-Wno-unused-parameter"],
)
setup(ext_modules=[extension] if native_can_serve else [], cmdclass={"build_py": BuildWithNeighbours})
