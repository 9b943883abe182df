"""Make submillion/data/augmentation/synonyms.txt.gz from WordNet 3.0's own files.

    apt-get install wordnet-base && python -m scripts.build_synonyms /usr/share/wordnet

A line of the table is a part of speech and the words of one meaning. docs/decisions/010-synonyms.md says what is taken
and what is left out. The same files give the same bytes.
"""

from __future__ import annotations

import gzip
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from submillion.data.augmentation.synonyms import TABLE
from submillion.data.augmentation.words import NEGATIONS

_TARGET = Path(__file__).parent.parent / "submillion" / "data" / "augmentation" / TABLE
_FILES = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
_PARTS = {"1": "n", "2": "v", "3": "a", "4": "r", "5": "a"}  # of a sense key's number; 5 is a satellite adjective
_N_SENSES = 2
_HEADER = """\
# Words of one meaning, made from WordNet 3.0 by scripts/build_synonyms.py: a part of speech, then the words.
# A word that ends in * has irregular forms.
# WordNet 3.0 Copyright 2006 by Princeton University: see WORDNET-LICENSE.txt.
"""
# Two letters are abbreviations and chemical elements more often than words.
_USABLE = re.compile(r"[a-z]{3,}")
# A short verb that doubles its last letter (plan, planned); a noun in -s that has no plural, or is one.
_DOUBLES = re.compile(r"[^aeiou]*[aeiou][bdfgklmnprtvz]")
_PLURAL_LIKE = re.compile(r".*([^s]s|[^aeiou]o|men|people)")
# Function words. They have meanings in WordNet ("have": rich people), but not the one they are used in.
_STOP_WORDS = frozenset(
    "about above across after again against ago all almost along already also although always among and "
    "another any anybody anyone anything are around aside away back because been before behind being below "
    "beneath beside besides between beyond billion both but can could did does doing done down dozen during "
    "each eight either else enough even ever every everybody everyone everything except few fewer first five "
    "for four fri friday from further get gets getting got had has have having hence her here hers herself him "
    "himself his how however hundred indeed inside instead into its itself just last latter least less lest "
    "let like likely little lot many may maybe might million mine mon monday more moreover most much must "
    "myself near nearly nine off often once one ones only onto other others otherwise ought our ours ourselves "
    "out outside over own past per perhaps quite rather really same sat saturday second seldom seven several "
    "shall she should since six some somebody someone something sometimes somewhat soon still such sun sunday "
    "ten than that the their theirs them themselves then there thereby therefore these they third this those "
    "though thousand three through throughout thu thursday thus till together too toward towards trillion tue "
    "tuesday twice two under underneath unless unlike until unto upon use used very via was wed wednesday were "
    "what whatever when whenever where whereas wherever whether which whichever while who whoever whole whom "
    "whose why will with within would yes yet you your yours yourself".split()
)
# Insults that WordNet does not mark, "queer" for "curious" among them. Not all there are.
_INSULTS = frozenset(
    "adulteress bastard bitch cretin cunt fornicatress gipsy gypsy harlot hussy imbecile moron oriental queer savage "
    "slattern slut squaw strumpet tart trollop whore".split()
)

Synset = tuple[str, int]  # part of speech, offset in its file


def main(folder: Path) -> None:
    """Write the table from WordNet's folder of data.*, index.*, cntlist.rev and *.exc files."""
    n_tagged = _counts(folder / "cntlist.rev")
    senses = _senses(folder, n_tagged)
    groups: set[tuple[str, ...]] = set()
    for part, name in _FILES.items():
        irregular = {base for line in _lines(folder / f"{name}.exc") for base in line.split()[1:]}
        for offset, members in _synsets(folder / f"data.{name}"):
            group = _in_use(
                {word: senses[word][part, offset] for word in members if (part, offset) in senses.get(word, {})}
            )
            if len(group) > 1:
                groups.add((part, *(_marked(word, part, irregular) for word in group)))
    text = _HEADER + "".join(" ".join(group) + "\n" for group in sorted(groups))
    _TARGET.write_bytes(gzip.compress(text.encode("ascii"), compresslevel=9, mtime=0))


def _senses(folder: Path, n_tagged: dict[tuple[str, str, int], int]) -> dict[str, dict[Synset, int]]:
    """Each word's commonest senses, `_N_SENSES` at most, of the part of speech it is used in most, with their counts.

    Irregular forms that are also words (saw, found, left) have none: they are more often the form.
    """
    left_out = {line.split()[0] for name in _FILES.values() for line in _lines(folder / f"{name}.exc")}
    left_out |= _STOP_WORDS | _INSULTS | NEGATIONS
    ranked: defaultdict[str, list[tuple[int, int, int, Synset]]] = defaultdict(list)
    for rank, (part, name) in enumerate(_FILES.items()):
        for word, *fields in map(str.split, _lines(folder / f"index.{name}")):
            if _USABLE.fullmatch(word) and word not in left_out:
                for number, offset in enumerate(fields[-int(fields[1]) :], start=1):
                    count = n_tagged.get((word, part, number), 0)
                    ranked[word].append((-count, rank, number, (part, int(offset))))
    return {word: _commonest(senses) for word, senses in ranked.items()}


def _counts(file: Path) -> dict[tuple[str, str, int], int]:
    """How often each sense (word, part of speech, number) was met in WordNet's tagged texts; absent if never."""
    counts = {}
    for key, number, n_tagged in map(str.split, _lines(file)):
        word, _, rest = key.partition("%")
        counts[word, _PARTS[rest[0]], int(number)] = int(n_tagged)
    return counts


def _commonest(ranked: list[tuple[int, int, int, Synset]]) -> dict[Synset, int]:
    ordered = sorted(ranked)
    part = ordered[0][-1][0]
    same_part = [(synset, -count) for count, _, _, synset in ordered if synset[0] == part]
    return dict(same_part[:_N_SENSES])


def _in_use(counts: dict[str, int]) -> list[str]:
    """The words that were met in this meaning, sorted; all of them if none was. So "week" has no "hebdomad"."""
    met = sorted(word for word, count in counts.items() if count)
    return met or sorted(counts)


def _synsets(file: Path) -> Iterator[tuple[int, set[str]]]:
    """Each synset's offset and words: those in lower case, without slang, slurs and others with a usage mark."""
    for line in _lines(file):
        fields = line.partition(" | ")[0].split()
        n_words = int(fields[3], 16)
        words = [re.sub(r"\(\w+\)$", "", word) for word in fields[4 : 4 + 2 * n_words : 2]]
        pointers = fields[5 + 2 * n_words :]
        marked = {
            int(source[:2], 16) for mark, source in zip(pointers[::4], pointers[3::4], strict=False) if mark == ";u"
        }
        yield (
            int(fields[0]),
            {word for n, word in enumerate(words, 1) if _USABLE.fullmatch(word) and not {0, n} & marked},
        )


def _marked(word: str, part: str, irregular: set[str]) -> str:
    """The word, with * if its forms are not made by the rules of `inflected`."""
    odd = {"n": _PLURAL_LIKE, "v": _DOUBLES}.get(part)
    return f"{word}*" if word in irregular or (odd is not None and odd.fullmatch(word)) else word


def _lines(file: Path) -> Iterator[str]:
    """The lines of one of WordNet's files; those of its licence begin with blanks."""
    return (line for line in file.read_text("ascii").splitlines() if not line.startswith("  "))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
