"""Configs of tiny stock models, one for each way in which families count: {name: (model type, its sizes)}."""

from __future__ import annotations

import json

SHAPE = {"vocab_size": 53, "max_position_embeddings": 19}
BERT_LIKE = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24, **SHAPE}
CONFIGS = {
    "bert": ("bert", {**BERT_LIKE, "type_vocab_size": 2}),
    "roberta": ("roberta", {**BERT_LIKE, "type_vocab_size": 1}),
    "xlm-roberta": ("xlm-roberta", {**BERT_LIKE, "type_vocab_size": 1}),
    "electra": ("electra", {**BERT_LIKE, "type_vocab_size": 2, "embedding_size": 16}),
    "electra-narrow": ("electra", {**BERT_LIKE, "type_vocab_size": 2, "embedding_size": 6}),
    "mpnet": ("mpnet", {**BERT_LIKE, "relative_attention_num_buckets": 7}),
    "distilbert": ("distilbert", {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 24, **SHAPE}),
}


def write(folder, model_type, values):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, **values}))
    return str(folder)
