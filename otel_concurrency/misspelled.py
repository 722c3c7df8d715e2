"""Names that no setting of ours has: variables of the environment, options of a configuration file.

What is misspelled would do nothing, in silence. One warning names it, and what may have been meant.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Collection, Mapping
from typing import Any

from otel_concurrency.config import PREFIX, SETTINGS

_LIKE = 0.5  # how much of a name must be there for another one to be meant; `difflib` counts

_logger = logging.getLogger(__name__)


def warn_of_variables(environ: Mapping[str, str]) -> None:
    """Warn of each variable that begins as ours do and is none of them."""
    known = {setting.option.upper() for setting in SETTINGS}
    for variable in sorted(environ):
        name = variable.removeprefix(PREFIX)
        if name != variable and name not in known:
            nearest = _nearest(name, known)
            _logger.warning(
                "%s is no setting, and does nothing%s",
                variable,
                f"; did you mean {PREFIX}{nearest}?" if nearest else "",
            )


def known_options(instrumentor: str, options: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Return the options that an instrumentor of ours has, and warn of each other one.

    Args:
        instrumentor: Its name, as the configuration file has it.
        options: What the file gives it.
        known: The options that it has, besides `enabled`.
    """
    kept = {}
    for name, value in options.items():
        if name == "enabled" or name in known:
            kept[name] = value
        else:
            _logger.warning(
                "The configuration file gives %s an option that it has not, and that does nothing: %s; %s",
                instrumentor,
                name,
                f"it has {', '.join(sorted(known))}" if known else "it has none but enabled",
            )
    return kept


def _nearest(name: str, known: Collection[str]) -> str:
    return next(iter(difflib.get_close_matches(name, sorted(known), 1, _LIKE)), "")
