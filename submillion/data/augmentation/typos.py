"""One typing mistake in a word: a neighbouring key, two letters in the wrong order, or a letter left out.

Only letters inside a word of at least four characters change, as in Pruthi, Dhingra and Lipton (2019, ACL): people
seldom miss the first and the last. Keys are those of the American keyboard. Which words may change is left to `words`.
"""

from __future__ import annotations

from itertools import product
from random import Random

from submillion.data.augmentation.words import changeable

_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_ROW_SHIFTS = (0.0, 0.25, 0.75)  # how far each row of keys stands to the right, in keys
_SHORTEST = 4


def mistyped(word: str, rng: Random) -> str:
    """Return the word with one mistake, each of the three sorts as likely; the word itself if it is too short.

    It stays, too, where the mistake makes a word that carries too much: "nine" does not become "none".

    >>> [mistyped("market", Random(seed)) for seed in range(3, 7)]
    ['maeket', 'maroet', 'maret', 'mrket']
    """
    if len(word) < _SHORTEST:
        return word
    letters = {i for i in range(1, len(word) - 1) if word[i].isalpha()}
    swaps = [i for i in sorted(letters) if i + 1 in letters and word[i] != word[i + 1]]
    sorts: tuple[list[tuple[int, int, str]], ...] = (  # each: from, to, and what stands there instead
        [(i, i + 1, key) for i in sorted(letters) for key in _NEIGHBOURS.get(word[i], "")],
        [(i, i + 2, word[i + 1] + word[i]) for i in swaps],
        [(i, i + 1, "") for i in sorted(letters)],
    )
    possible = [found for found in sorts if found]
    if not possible:
        return word
    start, end, instead = rng.choice(rng.choice(possible))
    new = word[:start] + instead + word[end:]
    return new if changeable(new) is not None else word


def _neighbours() -> dict[str, str]:
    places = {
        key: (x + shift, y)
        for y, (keys, shift) in enumerate(zip(_KEYS, _ROW_SHIFTS, strict=True))
        for x, key in enumerate(keys)
    }
    found = dict.fromkeys(places, "")
    for (key, (x, y)), (other, (x_other, y_other)) in product(places.items(), repeat=2):
        if key != other and abs(x - x_other) <= 1 and abs(y - y_other) <= 1:
            found[key] += other
    return found


_NEIGHBOURS = _neighbours()
