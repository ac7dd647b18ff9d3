"""Train in FP8 without Trainer: python examples/train_plain.py MODEL TEXT RUN. The records and the model go to RUN."""

import sys

import torch

import octoscale

model_name, text, run = sys.argv[1:]
torch.manual_seed(0)
loaded = octoscale.load(model_name, torch.float32)  # float32 master weights
model = loaded.model.train()
print(octoscale.convert(model, octoscale.Recipe.amax()).summary())
length = min(256, model.config.max_position_embeddings)
windows = octoscale.token_windows(octoscale.read_text(text), loaded.encode, window=length)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, eps=1e-5)

with octoscale.record(model, run, every=10):  # each forward pass is a step; histograms on every tenth
    for step, batch in enumerate(windows[torch.randperm(len(windows))].split(4)):
        with torch.autocast(model.device.type, torch.bfloat16):
            loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step}: loss {loss.item():.4f}")

model.save_pretrained(f"{run}/model")  # high-precision weights, under the names they came with
