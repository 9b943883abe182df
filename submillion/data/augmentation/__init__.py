"""Changed texts: synonyms, deletion, swap, insertion, typing mistakes, case, punctuation, length; keyed.

`words`: which words may change · `synonyms`: the table that ships with the package, and inflection · `typos`: one
mistake in a word · `changes`: the ways to change a text, and the rates that robustness is measured at · `copies`:
examples and their copies, keyed by (seed, example, copy). Which rows are changed, and when a copy is read, is the
affair of others.
"""

from submillion.data.augmentation.changes import STRENGTHS, changed
from submillion.data.augmentation.copies import copy_of, kinds_of, perturbed, with_copies
from submillion.data.augmentation.synonyms import synonyms

__all__ = ["STRENGTHS", "changed", "copy_of", "kinds_of", "perturbed", "synonyms", "with_copies"]
