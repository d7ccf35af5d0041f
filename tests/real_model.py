#!/usr/bin/env python3
"""Writes real_model.json: for each position of a text the best 32 log-probabilities of
SmolLM2-135M-Instruct (GGUF Q4_1, dequantised to float32 by transformers).

Needs torch 2.8.0, transformers 4.57.1, gguf; argument: the folder with the GGUF file. Its output
is checked in.
"""
import json, pathlib, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

TEXT = """A lighthouse is a tower that shows a light to guide ships at night. Before electric lamps the keeper had to
trim the wick of an oil lamp every few hours and wind up the clockwork that turned the lens, so the work never really
stopped. In 1822 a French engineer built a lens of many thin rings of glass, each bending the light a little more than
the one inside it, and with it the same lamp could be seen twice as far away. Keepers also kept a log: the wind, the sea,
the ships that passed, and how much oil was burned. When the weather was bad a family could be cut off for weeks, and
supplies had to last. Today most lights run by themselves. A sensor turns them on at dusk, a second lamp takes over when
the first one fails, and a message goes to an office on land. People still visit the towers, climb the narrow stairs,
and look out over the water, where the beam once reached 20 miles."""
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"

folder = sys.argv[1]
tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=FILE)
model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=FILE, dtype=torch.float32).eval()
ids = tokenizer(TEXT)["input_ids"][:200]
with torch.no_grad():
    rows = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)
top = []
for row in rows[:-1]:
    values, indices = row.topk(32)
    top.append([[int(i), float(f"{v:.8g}")] for v, i in zip(values, indices)])
out = pathlib.Path(__file__).with_suffix(".json")
out.write_text(json.dumps(dict(file=FILE, ids=ids, top=top), separators=(",", ":")) + "\n")
print(len(ids), "ids")
