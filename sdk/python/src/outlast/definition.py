"""`@run`: a function as the body of a workflow that a worker executes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from . import vendors
from .claim import Claim, current_claim
from .errors import OutlastError
from .steps import run_headers

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Workflow:
    """A body and what it is called. It can still be called as the plain function that it is."""

    name: str
    version: str
    queue: str
    body: Callable[..., Any]
    is_async: bool
    takes_input: bool

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.body(*args, **kwargs)


class _Run:
    """`run` itself: the decorator, and what a body may ask about its run."""

    @overload
    def __call__(self, body: Callable[..., Any], /) -> Workflow: ...
    @overload
    def __call__(
        self, body: None = None, /, *, name: str | None = None, version: str = "1", queue: str = "default"
    ) -> Callable[[Callable[..., Any]], Workflow]: ...
    def __call__(
        self,
        body: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        version: str = "1",
        queue: str = "default",
    ) -> Any:
        """Marks a function as a workflow's body. It takes the run's input, or nothing; it returns JSON."""

        def mark(body: Callable[..., Any]) -> Workflow:
            parameters = list(inspect.signature(body).parameters.values())
            if sum(p.default is p.empty and p.kind is not p.VAR_POSITIONAL for p in parameters) > 1:
                raise TypeError(f"{body.__name__}: the body of a run takes one argument, the run's input, or none")
            asynchronous = inspect.iscoroutinefunction(body)
            return Workflow(name or body.__name__, version, queue, body, asynchronous, bool(parameters))

        return mark if body is None else mark(body)

    @property
    def id(self) -> str:
        """The id of the run that this code belongs to."""
        return self._claim().run

    @property
    def epoch(self) -> int | None:
        """The claim's number, never used before: a fence for what this run writes elsewhere. None in a program."""
        return self._claim().epoch

    @property
    def workflow(self) -> str:
        """The workflow's name."""
        return self._claim().workflow

    @property
    def version(self) -> str:
        """The version that the run is pinned to."""
        return self._claim().version

    def headers(self) -> dict[str, str]:
        """The headers that make a call of the gateway a step of this run."""
        return run_headers(self._claim())

    def openai(self, **options: Any) -> Any:
        """`openai.OpenAI`, pointed at the gateway: every call is a recorded step of this run."""
        return vendors.openai_client("OpenAI", self._claim(), self.headers(), options)

    def async_openai(self, **options: Any) -> Any:
        """`openai.AsyncOpenAI`, likewise."""
        return vendors.openai_client("AsyncOpenAI", self._claim(), self.headers(), options)

    def anthropic(self, **options: Any) -> Any:
        """`anthropic.Anthropic`, likewise."""
        return vendors.anthropic_client("Anthropic", self._claim(), self.headers(), options)

    def async_anthropic(self, **options: Any) -> Any:
        """`anthropic.AsyncAnthropic`, likewise."""
        return vendors.anthropic_client("AsyncAnthropic", self._claim(), self.headers(), options)

    def _claim(self) -> Claim:
        claim = current_claim.get(None)
        if claim is None:
            raise OutlastError("there is no run here: this belongs in a body that a Worker executes")
        return claim


run = _Run()
