#!/usr/bin/env python3
"""PyTorch's side of against_pytorch.sh: the cell's steps in PyTorch eager, transformers and PEFT.

    pytorch_side.py CELL [--threads N] [--device cpu|cuda] [--compute f32|bf16] [--compile]

CELL is a folder that `bench_train prepare` wrote. Reads and answers lines as `bench_train run`.
In bf16 what is frozen is stored so, what trains is f32, and the forward pass is autocast.

What a user of these libraries gets who looks after speed: SDPA attention, foreach clipping, the
fused AdamW over what trains alone, gradients set to none; batches padded to their longest text.
Methods that PEFT has are made by get_peft_model and take the adapter's first values. It has no
Houlsby adapters, BitFit or full fine-tuning: these are the few lines of plain PyTorch below.
"""
import argparse
import contextlib
import importlib.metadata
import json
import os
import re
import sys
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
import transformers as hf

hf.logging.set_verbosity_error()
hf.logging.disable_progress_bar()
DECAY, CLIP = 0.01, 1.0
# Where a sub-layer's last matrix is, in the names of each family: attention's and the MLP's.
OUTPUTS = {"gpt2": ("attn.c_proj", "mlp.c_proj"), "llama": ("self_attn.o_proj", "mlp.down_proj"),
           "bert": ("attention.output.dense", "output.dense"),
           "esm": ("attention.output.dense", "output.dense")}


class Houlsby(torch.nn.Module):
    """A sub-layer's last matrix and the serial adapter behind it (Houlsby et al. 2019, 2.1)."""

    def __init__(self, inner, values, site):
        super().__init__()
        self.inner = inner
        take = lambda name: torch.nn.Parameter(values.pop(f"{site} {name}"))
        self.down, self.down_bias = take("down.weight"), take("down.bias")
        self.up, self.up_bias = take("up.weight"), take("up.bias")

    def forward(self, x):
        y = self.inner(x)
        u = torch.nn.functional.gelu(torch.nn.functional.linear(y, self.down, self.down_bias))
        return y + torch.nn.functional.linear(u, self.up, self.up_bias)


def is_norm(module):
    return isinstance(module, torch.nn.LayerNorm) or type(module).__name__.endswith("RMSNorm")


def add_houlsby(model, cell, folder):
    from safetensors.torch import load_file
    values = load_file(os.path.join(folder, "values", "adapter_model.safetensors"))
    stack = next(name.split()[0] for name in values if " attn " in name)
    blocks = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList))
    for i, block in enumerate(blocks):
        for part, path in zip(("attn", "mlp"), OUTPUTS[cell["family"]]):
            parent, _, name = path.rpartition(".")
            parent = block.get_submodule(parent)
            setattr(parent, name, Houlsby(getattr(parent, name), values, f"{stack} {i} {part}"))
    for module in model.modules():
        if is_norm(module):
            module.requires_grad_(True)
        if isinstance(module, Houlsby):
            for p in module.parameters(recurse=False):
                p.requires_grad_(True)
    left = [name for name in values if re.search(r" (down|up)\.", name)]
    assert not left, f"adapters that no module took: {left}"


def set_bitfit(model):
    blocks = next(name for name, m in model.named_modules() if isinstance(m, torch.nn.ModuleList))
    norms = {name for name, m in model.named_modules() if is_norm(m)}
    for name, p in model.named_parameters():
        module, _, last = name.rpartition(".")
        p.requires_grad_(last == "bias" and (name.startswith(blocks) or module in norms))


def with_peft(model, folder):
    """A new adapter as the folder says, with its values; from_pretrained trains no prompts."""
    import peft
    from safetensors.torch import load_file
    config = peft.PeftConfig.from_pretrained(folder)
    config.inference_mode = False
    model = peft.get_peft_model(model, config)
    values = load_file(os.path.join(folder, "adapter_model.safetensors"))
    unexpected = set(peft.set_peft_model_state_dict(model, values).unexpected_keys)
    unexpected.discard("prompt_embeddings")  # it puts a prompt's in their place all the same
    assert not unexpected, f"PEFT does not know {unexpected}"
    return model


def build(cell, folder):
    auto = hf.AutoModelForCausalLM if cell["language"] else hf.AutoModelForSequenceClassification
    model = auto.from_pretrained(cell["model"], dtype=torch.float32, attn_implementation="sdpa")
    if cell["peft"]:
        model = with_peft(model, os.path.join(folder, "peft"))
    elif cell["method"] != "full":
        model.requires_grad_(False)
        add_houlsby(model, cell, folder) if cell["method"] == "houlsby" else set_bitfit(model)
    if not cell["language"]:  # the head trains whole, BERT's matrix for pooling with it
        for name, p in model.named_parameters():
            if re.search(r"\b(classifier|score|pooler)\b", name) and "original_module" not in name:
                p.requires_grad_(True)
    return model.train()


def placed(model, o):
    """On the device; what is frozen in half precision, where that is asked for."""
    for p in model.parameters():
        if o.compute == "bf16" and not p.requires_grad:
            p.data = p.data.to(torch.bfloat16)
    return model.to(o.device)


def padded(batch, cell, pad):
    rows = [torch.tensor(row) for row in batch["token"]]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
    if cell["language"]:
        assert len({len(row) for row in rows}) == 1
        labels = ids.clone()
        labels[:, 0] = -100  # no row of ours tells the first; a prompt's last row would, in PEFT
        return dict(input_ids=ids, labels=labels)
    lengths = torch.tensor([len(row) for row in rows])
    mask = (torch.arange(ids.shape[1])[None] < lengths[:, None]).long()
    return dict(input_ids=ids, attention_mask=mask, labels=torch.tensor(batch["label"]))


class Trainer:
    def __init__(self, folder, o):
        with open(os.path.join(folder, "cell.json")) as file:
            self.cell = json.load(file)
        self.model = placed(build(self.cell, folder), o)
        pad = self.model.config.pad_token_id or 0
        with open(os.path.join(folder, "batches.json")) as file:
            self.batches = [{name: x.to(o.device) for name, x in padded(b, self.cell, pad).items()}
                            for b in json.load(file)]
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW([
            dict(params=[p for p in self.trained if p.ndim > 1], weight_decay=DECAY),
            dict(params=[p for p in self.trained if p.ndim == 1], weight_decay=0.0)],
            lr=self.cell["rate"], eps=1e-8, fused=True)
        self.more = dict(use_cache=False) if self.cell["language"] else {}
        self.called = torch.compile(self.model) if o.compile else self.model
        half = o.compute == "bf16"
        self.computing = lambda: (torch.autocast(o.device, torch.bfloat16) if half else
                                  contextlib.nullcontext())

    def step(self, i):
        with self.computing():
            loss = self.called(**self.batches[i % len(self.batches)], **self.more).loss
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.trained, CLIP, foreach=True)
        self.optimizer.step()
        return loss.item(), norm.item()

    def steps(self, first, count):
        begun = time.perf_counter()
        losses, norms = zip(*(self.step(i) for i in range(first, first + count)))
        return dict(loss=losses, norm=norms, seconds=time.perf_counter() - begun)


class Products:
    def __init__(self, o, n=4096):
        self.n, self.wait = n, torch.cuda.synchronize if o.device == "cuda" else lambda: None
        dtype = torch.bfloat16 if o.compute == "bf16" else torch.float32
        self.a, self.b, self.c = (torch.rand(n, n).to(o.device, dtype) for _ in range(3))

    def __call__(self):
        self.wait()
        begun = time.perf_counter()
        torch.mm(self.a, self.b.t(), out=self.c)
        self.wait()
        return 2 * self.n**3 / (time.perf_counter() - begun) / 1e9


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("cell")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--compute", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--compile", action="store_true")
    o = parser.parse_args()
    torch.set_num_threads(o.threads)
    trainer = Trainer(o.cell, o)
    say = lambda **line: print(json.dumps(line), flush=True)
    first = trainer.steps(0, 1)
    reached = [p for p in trainer.trained if p.grad is not None]  # not ESM's head for contacts
    say(**first, trainable=sum(p.numel() for p in reached),
        versions=dict(torch=torch.__version__, transformers=hf.__version__,
                      peft=importlib.metadata.version("peft"),
                      capability=torch.backends.cpu.get_cpu_capability(),
                      **(dict(device=torch.cuda.get_device_name()) if o.device == "cuda" else {})))
    products = None
    for line in sys.stdin:
        if line.strip() == "products":
            if products is None:
                products = Products(o)
                begun = time.perf_counter()
                while time.perf_counter() - begun < 0.5:  # until its clock has risen, as ours
                    products()
            say(mm=products())
        elif line.strip() == "memory":
            say(peak=torch.cuda.max_memory_allocated())
        else:
            say(**trainer.steps(*map(int, line.split()[1:])))


if __name__ == "__main__":
    main()
