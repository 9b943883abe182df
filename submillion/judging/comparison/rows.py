"""How many rows it takes to see a difference of so many points, by the paired test of accuracy or scaled log loss.

`conclusion` asks for two existing runs, with their own variances; before anything is trained, `rows_for_points` answers
from assumptions, each with its source. Seeds are another source of chance, which no number of rows lowers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from submillion.errors import ConfigError
from submillion.judging.metrics import Z_95
from submillion.text import plural, shown

Z_POWER = 0.8416212335729143  # the normal distribution's 80 % point
POINTS = (0.25, 0.5, 1.0, 2.0)
ACCURACY = 0.9
# What follows are the medians and quartiles of 72 pairs of fine-tuned MiniLM on five data sets, whose settings are far
# apart (benchmarks/rows.py). Two pairs on AG News that were near each other had 0.2 discordant rows for each error, and
# took 7 and 10 times fewer rows by log loss; 28 pairs of linear models had 0.45, and took 2.7 times fewer.
DISCORDANT_FOR_EACH_ERROR = 0.72
FEWER_BY_LOG_LOSS, FEWER_AT_LEAST, FEWER_AT_MOST = 1.44, 0.85, 2.34
# If errors differ by a share of themselves, scaled log loss differs by so much of that share.
OF_PROPORTION = 0.58


def rows_needed(difference: float, discordance: float) -> int | None:
    """Return the rows with which the exact test would find the difference with a chance of 0.8; None if it is 0.

    The normal approximation of McNemar's test (Connor 1987, Biometrics 43). difference: of accuracies, a share ·
    discordance: the share of discordant rows, which is at least the difference; of means over seeds the mean square of
    a row's difference.

    >>> rows_needed(0.01, 0.05)
    3923
    """
    if difference == 0:
        return None
    discordance = max(discordance, abs(difference))
    spread = Z_95 * math.sqrt(discordance) + Z_POWER * math.sqrt(max(discordance - difference**2, 0.0))
    return math.ceil((spread / difference) ** 2)


@dataclass(frozen=True)
class RowsForPoints:
    """The rows that tell two runs apart whose accuracies differ by so many points, with a chance of 0.8 at level 0.05.

    discordance: the share of rows that one of the two has right and the other wrong · by_accuracy: with the exact
    paired test · by_log_loss, at_least, at_most: with the paired test of the log loss after temperature scaling, by the
    measured ratio and by its range.
    """

    points: float
    discordance: float
    by_accuracy: int
    by_log_loss: int
    at_least: int
    at_most: int


def rows_for_points(
    points: Sequence[float] | float = POINTS, accuracy: float = ACCURACY, discordance: float | None = None
) -> tuple[RowsForPoints, ...]:
    """Return how many validation rows a question of so many points of accuracy takes, before anything is trained.

    points: true differences of two runs, in points · accuracy: about what runs reach, above 0 and below 1 ·
    discordance: the share of rows that one of two runs has right and the other wrong; None takes 0.72 for each wrong
    row of a run, or the difference if that is more. ConfigError lists everything that is impossible.

    >>> [row.by_accuracy for row in rows_for_points((0.5, 1.0), accuracy=0.914, discordance=0.05)]
    [15696, 3923]
    """
    points = [points] if isinstance(points, int | float) else points
    _refuse(points, accuracy, discordance)
    usual = DISCORDANT_FOR_EACH_ERROR * (1 - accuracy)
    return tuple(
        _of_points(difference, max(usual, difference / 100) if discordance is None else discordance)
        for difference in points
    )


def _of_points(points: float, discordance: float) -> RowsForPoints:
    by_accuracy = rows_needed(points / 100, discordance)
    assert by_accuracy is not None, "points are above 0"
    ratios = (FEWER_BY_LOG_LOSS, FEWER_AT_MOST, FEWER_AT_LEAST)
    return RowsForPoints(points, discordance, by_accuracy, *(math.ceil(by_accuracy / ratio) for ratio in ratios))


def _refuse(points: Sequence[float], accuracy: float, discordance: float | None) -> None:
    numbers = [*points, accuracy, *([] if discordance is None else [discordance])]
    if not_numbers := [each for each in numbers if isinstance(each, bool) or not isinstance(each, int | float)]:
        raise ConfigError(f"{', '.join(map(shown, not_numbers))}: points, accuracy and discordance must be numbers")
    problems = [
        f"--points (points) is {each:g}: give a difference above 0 and below 100, in points of accuracy, such as 0.5"
        for each in points
        if not 0 < each < 100
    ]
    if not points:
        problems.append("--points (points) is empty: give at least one difference, such as 0.5")
    if not 0 < accuracy < 1:
        problems.append(f"--accuracy (accuracy) is {accuracy:g}: give a share above 0 and below 1, such as 0.9")
    if discordance is not None and not 0 < discordance <= 1:
        problems.append(
            f"--discordance (discordance) is {discordance:g}: give a share of rows above 0 and up to 1, such as 0.05"
        )
    if not problems and discordance is not None:
        most = 2 * (1 - accuracy) + max(points) / 100
        if discordance > min(most, 1.0):
            problems.append(
                f"--discordance (discordance) is {discordance:g}: two runs of accuracy {accuracy:g} are both "
                f"wrong on too few rows for that; give at most {min(most, 1.0):.4g}"
            )
        problems += [
            f"--points (points) is {each:g} and --discordance (discordance) {discordance:g}: runs that differ by "
            f"{each:g} {plural(each, 'point')} decide at least {each:g} % of rows differently; give a discordance of "
            f"{each / 100:g} or more"
            for each in points
            if each / 100 > discordance
        ]
    if problems:
        raise ConfigError(*problems)
