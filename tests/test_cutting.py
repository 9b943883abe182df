"""Laws of cutting long texts before they are tokenised: the tokens are those of tokenising all and cutting then."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from submillion.data import Example, cutting
from submillion.data.long_texts import Reading
from submillion.model.batching import tokenize
from tests.tiny import FAMILIES, WORDS, make_tokenizer

# Words, white space, marks, ligatures, combining marks, scripts without blanks, joined emoji, tokens that are added.
PARTS = (
    *WORDS,
    *("it's", "can't've", "don'", "re-use", "3.14", "1,000,000", "a" * 130, "!" * 7, "ﬁne", "Ⅻ", "Straße", "ΣΟΦΟΣ"),
    *(
        "e\u0301\u0323",
        "a" + "\u0301" * 20,
        "नमस्ते",
        "สวัสดีน้ำ",
        "我们今天去看电影",
        "。",
        "、",
        "ガ",
        "か\u3099",
        "한국어",
        "ᄒ\u1161\u11ab",
    ),
    *(
        "👩‍👩‍👧‍👦",
        "🇩🇪🇫🇷",
        "👍🏽",
        "\u200b",
        "\ufeff",
        "\x00",
        "\ufffd",
        "<mask>",
        "[MASK]",
        "<s>",
        "[SEP]",
        "<ma",
        "sk>",
    ),
)
BLANKS = (" ", " ", " ", "", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000", " " * 40)


def text_of(seed: int, n_parts: int) -> str:
    rng = random.Random(seed)
    kinds = rng.sample(PARTS, rng.randint(1, len(PARTS)))
    blanks = rng.sample(BLANKS, rng.randint(1, len(BLANKS)))
    return "".join(rng.choice(kinds) + rng.choice(blanks) for _ in range(n_parts))


def trained(model: Any, trainer: Any, normalizer: Any, splitter: Any) -> PreTrainedTokenizerFast:
    """A tokenizer that has merges, or a lattice, of its own."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder = normalizer, splitter, decoders.Metaspace()
    tokenizer.train_from_iterator([text_of(seed, 60) for seed in range(20)], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        "<s> $A </s>", "<s> $A </s> </s> $B </s>", [("<s>", 0), ("</s>", 1)]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    fast.add_tokens([AddedToken("<mask>", lstrip=True), AddedToken("good bad", normalized=True)])
    return fast


SPECIALS = ["<s>", "</s>", "<unk>"]
NFKC = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
OTHERS: dict[str, Callable[[], Any]] = {
    "byte-level BPE": lambda: trained(
        models.BPE(),
        trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIALS, show_progress=False),
        None,
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ),
    "Unigram": lambda: trained(
        models.Unigram(),
        trainers.UnigramTrainer(vocab_size=300, special_tokens=SPECIALS, unk_token="<unk>", show_progress=False),
        NFKC,
        pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]),
    ),
    "Unigram over the whole text": lambda: trained(
        models.Unigram(),
        trainers.UnigramTrainer(vocab_size=300, special_tokens=SPECIALS, unk_token="<unk>", show_progress=False),
        NFKC,
        pre_tokenizers.Metaspace(split=False),
    ),
}
TOKENIZERS: dict[str, Callable[[], Any]] = {
    family: lambda f=family: make_tokenizer(f) for family in FAMILIES if family not in ("deberta-v2", "albert")
} | OTHERS


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts of some thousand characters are long here."""
    monkeypatch.setattr(cutting, "_SHORTEST", 40)
    monkeypatch.setattr(cutting, "_CHARACTERS_PER_TOKEN", 3)
    monkeypatch.setattr(cutting, "_PART", 100)


def tokens(example: Example, tokenizer: Any, reading: Reading) -> tuple[list[int], list[int], int]:
    split = tokenize([example], tokenizer, (), reading, keep=False)
    return split.tokens.tolist(), split.token_types.tolist(), split.n_truncated


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("max_length", [17, 40])
def test_the_tokens_are_those_of_the_whole_text(name: str, max_length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = TOKENIZERS[name]()
    singles = [Example("", text_of(seed, 10 + seed), None) for seed in range(30)]
    # Short: what is cut off of a pair is kept by the tokenizer in all combinations.
    rows = [*singles, *(replace(one, text_pair=text_of(1000 + i, i) or "a") for i, one in enumerate(singles))]
    reading = Reading(max_length)
    found = [tokens(row, tokenizer, reading) for row in rows]
    monkeypatch.setattr(cutting, "cut", lambda text, *_: text)
    assert not [row for row, made in zip(rows, found, strict=True) if made != tokens(row, tokenizer, reading)]


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("kind", ["head-tail", "windows"])
def test_ends_and_windows_are_those_of_the_whole_text(name: str, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, reading = TOKENIZERS[name](), Reading(17, kind, max_windows=3)
    examples = [Example("", text_of(seed, 1 + 3 * (seed % 12)), None) for seed in range(30)]
    found = [tokens(example, tokenizer, reading) for example in examples]
    monkeypatch.setattr(cutting, "cut", lambda text, *_: text)
    monkeypatch.setattr(cutting, "ends", lambda text, *_: (text, text))
    assert found == [tokens(example, tokenizer, reading) for example in examples]
    assert 0 < sum(n_truncated for _, _, n_truncated in found) < 30


@pytest.mark.parametrize("name", TOKENIZERS)
def test_of_a_long_text_both_ends_are_read_and_nothing_between(name: str) -> None:
    tokenizer = TOKENIZERS[name]().backend_tokenizer
    text = "the good film the bad book " * 200
    first, last = cutting.ends(text, tokenizer, 4, 12)
    is_whole = "whole" in name or " " in "".join(t.content for t in tokenizer.get_added_tokens_decoder().values())
    assert (len(first) + len(last) < 800) != is_whole
    ids, first_ids, last_ids = (tokenizer.encode(each, add_special_tokens=False).ids for each in (text, first, last))
    assert (first_ids[:4], last_ids[-12:]) == (ids[:4], ids[-12:])


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_long_text_is_cut_where_pieces_end_and_counted_in_parts(name: str) -> None:
    tokenizer = TOKENIZERS[name]().backend_tokenizer
    text = "the good film, the bad book. " * 200
    assert (len(cutting.cut(text, tokenizer, 16)) < 400) == ("whole" not in name)
    for each in (text, *(text_of(seed, 200) for seed in range(20))):
        assert cutting.count(each, tokenizer) == len(tokenizer.encode(each, add_special_tokens=False))


def test_a_text_without_an_end_of_a_piece_is_taken_whole() -> None:
    tokenizer = make_tokenizer("xlm-roberta").backend_tokenizer
    assert cutting.cut("a" * 5000, tokenizer, 16) == "a" * 5000
    spread = "a" * 1000 + " the film" * 1000
    assert 1000 < len(cutting.cut(spread, tokenizer, 1010)) < len(spread)
