"""One way to log: structlog, with the standard library's loggers (uvicorn, aiokafka, Faust) through the same pipe.

Set up once a process by `gateways.roles` and the supervisor. A line says when, how bad, which role and what; JSON where a machine
reads it, plain text where a person does. Never logs secrets: settings keep them in types that do not print.
"""

import logging
import sys
from typing import Final

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from gateways.settings import Settings

_NOISY: Final = (
    "aiokafka",
    "kafka",
    "faust",
    "mode",
    "httpx",
    "httpcore",
    "websockets",
    "yoyo",
    "asyncio",
    "uvicorn.access",
    "uvicorn.error",  # which tells of its starts and stops; ours do
)


def set_up(role: str, settings: Settings) -> None:
    """From here on every logger of this process writes one line an event to stderr."""
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        _role(role),
        structlog.processors.TimeStamper(fmt="iso" if as_json else "%H:%M:%S.%f", utc=as_json),
        structlog.processors.StackInfoRenderer(),
    ]
    # Plain tracebacks: the pretty ones print local variables, secrets among them.
    last: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if as_json
        else [
            _drop_role,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                pad_event_to=0,
                pad_level=False,
                exception_formatter=structlog.dev.plain_traceback,
            ),
        ]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def _role(role: str) -> Processor:
    def add(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event["role"] = role
        return event

    return add


def _drop_role(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """The console shows the role once, in the supervisor's margin."""
    event.pop("role", None)
    return event
