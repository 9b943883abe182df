"""Changed copies of training texts: synonyms, deletion, swap, insertion.

`words`: which words may change · `synonyms`: the table that ships with the package, and inflection ·
`changes`: the four ways to change a text · `copies`: examples and their copies, keyed by (seed, example,
copy). Which rows are copied, and when a copy is read, is the affair of the workflow.
"""

from submillion.augmentation.changes import changed
from submillion.augmentation.copies import copy_of, with_copies
from submillion.augmentation.synonyms import synonyms

__all__ = ["changed", "copy_of", "synonyms", "with_copies"]
