"""What people who do not have Submillion write to use what it saved."""

from __future__ import annotations

STRANGER = """
import json, sys, warnings
import torch
from safetensors.torch import save_file
torch.set_num_threads(1)
warnings.filterwarnings("ignore", category=FutureWarning)
from peft import PeftModel
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging
logging.set_verbosity_error()
logging.disable_progress_bar()
warnings.filterwarnings("error", message="Found missing adapter keys")
texts, cases = json.loads(sys.stdin.read())
found, names = {}, {}
for folder, base, n_labels in cases:
    names[folder] = list(AutoConfig.from_pretrained(folder).id2label.values())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if base is None:
        model = AutoModelForSequenceClassification.from_pretrained(folder)
    else:
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=n_labels)
        model = PeftModel.from_pretrained(model, folder)
    with torch.no_grad():
        found[folder] = model.eval()(**tokenizer(texts, padding=True, return_tensors="pt")).logits
save_file(found, sys.argv[1])
print(json.dumps(names))
"""
