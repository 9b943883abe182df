"""Changed texts: synonyms, deletion, swap, insertion, typing mistakes, case, punctuation, length; keyed.

`words`: which words may change, and a typing mistake in one · `synonyms`: the table that ships with the package, and
inflection · `changes`: the ways to change a text, the rates that robustness is measured at, and examples with their
copies. Which rows are changed, and when a copy is read, is left to others.
"""

from submillion.data.augmentation.changes import STRENGTHS, changed, copy_of, kinds_of, perturbed, with_copies
from submillion.data.augmentation.synonyms import synonyms

__all__ = ["STRENGTHS", "changed", "copy_of", "kinds_of", "perturbed", "synonyms", "with_copies"]
