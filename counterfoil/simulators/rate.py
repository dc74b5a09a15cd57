"""A limit on calls in a fixed window of time, as gateways have it, and the headers that tell a caller of it.

Time is handed in. What a refused call is answered is not known here.
"""

from dataclasses import dataclass


@dataclass
class Window:
    """So many calls in so many seconds; when the present window ends, and how many calls are left in it."""

    calls: int
    seconds: float
    ends: float = 0.0
    left: int = 0

    @classmethod
    def of(cls, limit: tuple[int, float] | None) -> "Window | None":
        """A window for a limit as the options give it; None without one."""
        return cls(*limit) if limit else None

    def take(self, now: float) -> bool:
        """Whether one more call may be made at `now` (epoch seconds); counts it."""
        if now >= self.ends:
            self.ends, self.left = now + self.seconds, self.calls
        self.left -= 1
        return self.left >= 0

    def headers(self, now: float) -> dict[str, str]:
        """RateLimit-Limit, -Remaining and -Reset (seconds until the window ends)."""
        return {
            "RateLimit-Limit": str(self.calls),
            "RateLimit-Remaining": str(max(0, self.left)),
            "RateLimit-Reset": f"{max(0.0, self.ends - now):.0f}",
        }
