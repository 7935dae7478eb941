"""`--drain-delay`: after an order to stop, health checks fail first; draining begins after the delay. Pure.

Arbiter, plain server and embedded server follow the same rule, each with timers of its own.
"""

from __future__ import annotations

from enum import Enum

NOTICE = "Draining in %g s: until then, health checks say 503 and requests are served"
"""The log line for WITHDRAW, to be filled with the delay in seconds."""


class StopStep(Enum):
    """What an order to stop leads to."""

    WITHDRAW = "withdraw"
    """Serve on for the delay while health checks say 503; give the order once more when it is over."""
    DRAIN = "drain"
    """Begin to drain now."""


class DrainDelay:
    """Decides what each order to stop leads to; one for each process that is told to stop.

    The first order withdraws if there is a delay and clients are served. The next order drains: either the
    delay is over, or the operator does not want to wait for it.
    """

    def __init__(self) -> None:
        self.withdrawn = False
        """Whether an order to stop has come."""

    def __repr__(self) -> str:
        return f"<DrainDelay {'withdrawn' if self.withdrawn else 'serving'}>"

    def stop(self, seconds: float, *, serving: bool) -> StopStep:
        """Take an order to stop.

        Args:
            seconds: the setting `drain_delay` as it is now; 0 for none.
            serving: whether there are clients that the delay could be for.
        """
        first, self.withdrawn = not self.withdrawn, True
        return StopStep.WITHDRAW if first and seconds and serving else StopStep.DRAIN
