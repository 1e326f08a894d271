"""How long measurements take here, so that none is begun that does not end in time."""

from __future__ import annotations

import math

from tools.gpu_check.grid import IN_PROCESS, NULL, SENTENCES, Way

LEAST_S = 1.0
"""Of a measurement over HTTP: wrk counts whole seconds."""
_START_S = 0.5
"""For a load generator to start."""
_CAREFUL = 2.0
"""Long texts cost more than their tokens: with each other's, attention grows by the square."""


class Pace:
    """What is known of the speed of this machine.

    Args:
        sentence_tokens: tokens of a sentence, on average.
    """

    def __init__(self, sentence_tokens: float) -> None:
        self._sentence_tokens = sentence_tokens
        self._tokens_a_second: dict[tuple[str, int], float] = {}

    def learn(self, way: Way, rate: float) -> None:
        """Remember the fastest ``rate``, in texts a second, of such texts."""
        if way.way != NULL and rate > 0:
            key = way.precision, way.tokens
            found = rate * self._tokens(way.tokens)
            self._tokens_a_second[key] = max(found, self._tokens_a_second.get(key, 0.0))

    def once_s(self, way: Way) -> float:
        """Seconds for one run in this process, or for an answer on every connection; 0 if nothing is known.

        Of texts that were not measured yet, by their tokens.
        """
        if way.way == NULL:
            return 0.0
        own = self._tokens_a_second.get((way.precision, way.tokens))
        known = [own] if own else [each / _CAREFUL for each in self._tokens_a_second.values()]
        return way.at_once * self._tokens(way.tokens) / min(known) if known else 0.0

    def why_not(self, way: Way, seconds: float, left_s: float) -> str | None:
        """Why a measurement of ``seconds`` is left out when ``left_s`` are left; None if it is not."""
        once_s = self.once_s(way)
        over_http = way.way != IN_PROCESS
        length_s = max(LEAST_S, math.ceil(seconds)) if over_http else seconds
        if once_s > (length_s / 2 if over_http else max(LEAST_S, length_s)):
            what = "an answer on every connection" if over_http else "a run"
            return f"{what} takes {once_s:.1f} s here"
        # In this process there is a first pass that is not counted. Over HTTP, what is under way at the end
        # is answered while nothing is measured any more.
        needed_s = length_s + once_s + (_START_S if over_http else length_s + once_s)
        return "no time was left" if left_s < needed_s else None

    def _tokens(self, tokens: int) -> float:
        return self._sentence_tokens if tokens == SENTENCES else float(tokens)


def seconds_each(left_s: float, ways_left: int, most_s: float) -> float:
    """How long a measurement takes; half of the time is for starting, warming up and the last answers."""
    return min(most_s, max(0.4, left_s / ways_left / 2))
