"""Weights of other libraries, in and out: folders in Hugging Face's layout.

model, variables = pretrained.load("gpt2")  # a folder
logits = pretrained.logits(model, variables, {"input_ids": ids, "attention_mask": mask})
pretrained.save("mine", model, variables, tokenizer)
"""

from research.pretrained.huggingface import labels, load, logits, read_model, save  # noqa: F401
