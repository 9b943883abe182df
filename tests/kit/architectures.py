"""Configs of tiny stock models: one for each way in which families count, and some that are built to be counted.

{name: (model type, its sizes)}.
"""

from __future__ import annotations

import json

SHAPE = {"vocab_size": 53, "max_position_embeddings": 19}
BERT_LIKE = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24, **SHAPE}
MODERNBERT = {
    **BERT_LIKE,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "cls_token_id": 0,
    "sep_token_id": 2,
}
DEBERTA_V3 = {
    "position_biased_input": False,
    "relative_attention": True,
    "share_att_key": True,
    "type_vocab_size": 0,
    "norm_rel_ebd": "layer_norm",
    "pos_att_type": ["p2c", "c2p"],
    "max_relative_positions": -1,
}
CONFIGS = {
    "bert": ("bert", {**BERT_LIKE, "type_vocab_size": 2}),
    "roberta": ("roberta", {**BERT_LIKE, "type_vocab_size": 1}),
    "xlm-roberta": ("xlm-roberta", {**BERT_LIKE, "type_vocab_size": 1}),
    "electra": ("electra", {**BERT_LIKE, "type_vocab_size": 2, "embedding_size": 16}),
    "electra-narrow": ("electra", {**BERT_LIKE, "type_vocab_size": 2, "embedding_size": 6}),
    "camembert": ("camembert", {**BERT_LIKE, "type_vocab_size": 1}),
    "modernbert": ("modernbert", MODERNBERT),
    "deberta-v2": ("deberta-v2", {**BERT_LIKE, "position_buckets": 5, **DEBERTA_V3}),
    "albert": ("albert", {**BERT_LIKE, "type_vocab_size": 2, "embedding_size": 6}),
    "mpnet": ("mpnet", {**BERT_LIKE, "relative_attention_num_buckets": 32}),
    "distilbert": ("distilbert", {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 24, **SHAPE}),
}

BUILT = {
    "deberta": ("deberta", {**BERT_LIKE, "type_vocab_size": 0}),
    "deberta-v2 with types": ("deberta-v2", {**BERT_LIKE, **DEBERTA_V3, "position_buckets": 5, "type_vocab_size": 2}),
    "modernbert with biases": ("modernbert", {**MODERNBERT, "attention_bias": True, "norm_bias": True}),
    "albert of two groups": ("albert", {**BERT_LIKE, "embedding_size": 6, "num_hidden_groups": 2}),
    "nomic_bert": ("nomic_bert", BERT_LIKE),
    "rembert": ("rembert", {**BERT_LIKE, "input_embedding_size": 8, "output_embedding_size": 8}),
    "roberta-prelayernorm": ("roberta-prelayernorm", {**BERT_LIKE, "type_vocab_size": 1}),
    "xlm": ("xlm", {"vocab_size": 53, "emb_dim": 16, "n_layers": 3, "n_heads": 2, "max_position_embeddings": 19}),
}
REFUSES_LINEAR = ("electra", "electra-narrow", "distilbert", "deberta-v2")


def write(folder, model_type, values):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, **values}))
    return str(folder)
