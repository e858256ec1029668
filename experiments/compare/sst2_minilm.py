#!/usr/bin/env python3
"""LoRA on SST-2, graft against PyTorch and PEFT, from the same adapter file, batches and rates.

    sst2_minilm.py --graft PROGRAM --model FOLDER --data SST2_FOLDER --out FOLDER [option]...

Run by minilm.sh beside this file, which says what is needed. For every seed PEFT makes a new
adapter (LoRA on q and v, a linear head over the mean of the last states) and saves it; `graft train
--init` starts from that folder and logs each step's loss, rate and examples; PyTorch starts from it,
too, finds the rows of these examples in the same files, tokenizes them itself and takes the same
steps. There is no dropout. Then `graft export` hands graft's adapter back, and PEFT scores it.

FOLDER/sst2_minilm.json has every number of the tables that are printed. A seed that is done is not
run again. Rows of the data are read where they are; nothing of them is written.
"""
import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import peft
import torch
import transformers as hf

hf.logging.set_verbosity_error()
hf.logging.disable_progress_bar()
DECAY, CLIP, DEV_ROWS = 0.01, 1.0, 400


class MeanClassifier(torch.nn.Module):
    """What graft's linear head with mean pooling is."""

    def __init__(self, folder, classes=2):
        super().__init__()
        self.bert = hf.AutoModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False)
        self.classifier = torch.nn.Linear(self.bert.config.hidden_size, classes)

    def forward(self, input_ids, attention_mask):
        states = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[:, :, None].to(states.dtype)
        return self.classifier((states * mask).sum(1) / mask.sum(1))


class Rows:
    """graft's splits of SST-2, by the rule that experiments/data/task_folders.h states."""

    def __init__(self, folder):
        train = self.read(os.path.join(folder, "train.tsv"))
        dev = [row for row in train if self.share("dev", row) < 0.1]
        train = [row for row in train if self.share("dev", row) >= 0.1]
        key = lambda row: hashlib.md5((row[0] + "\x1f").encode()).hexdigest()
        self.train, self.dev = sorted(train, key=key), sorted(dev, key=key)
        self.test = self.read(os.path.join(folder, "dev.tsv"))

    @staticmethod
    def read(path):
        with open(path, encoding="utf-8", newline="\n") as file:
            lines = file.read().split("\n")[1:]
        rows = [line.rstrip("\r").split("\t") for line in lines if line]
        return [(text, int(label)) for text, label in rows]

    @staticmethod
    def share(split, row):
        digest = hashlib.md5(f"{split}\x1f{row[0]}\x1f".encode()).digest()
        return int.from_bytes(digest[:4], "big") / 4294967296


def without_dropout(model, out):
    """The same base in a folder of its own, with dropout off for both sides."""
    folder = os.path.join(out, "base")
    os.makedirs(folder, exist_ok=True)
    for name in os.listdir(model):
        link = os.path.join(folder, name)
        if name != "config.json" and not os.path.lexists(link):
            os.symlink(os.path.abspath(os.path.join(model, name)), link)
    with open(os.path.join(model, "config.json")) as file:
        config = json.load(file)
    config["hidden_dropout_prob"] = config["attention_probs_dropout_prob"] = 0.0
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(config, file, indent=2)
    return folder


def make_adapter(base, seed, folder, o):
    torch.manual_seed(seed)
    config = peft.LoraConfig(r=o.rank, lora_alpha=2 * o.rank, lora_dropout=0.0,
                             target_modules=["query", "value"], modules_to_save=["classifier"])
    peft.get_peft_model(MeanClassifier(base), config).save_pretrained(folder)


def run_graft(command, log):
    with open(log, "w") as file:
        if subprocess.run(command, stdout=file, stderr=subprocess.STDOUT).returncode:
            sys.exit(f"sst2_minilm.py: {' '.join(command)} failed:\n{open(log).read()}")


def train_graft(base, seed, folder, o):
    ours = os.path.join(folder, "ours")
    if not os.path.exists(os.path.join(ours, "run.json")):
        run_graft([o.graft, "train", "--model", base, "--task", o.data, "--out", ours,
                   "--init", os.path.join(folder, "init"), "--head", "linear", "--pool", "mean",
                   "--epochs", str(o.epochs), "--batch", str(o.batch), "--lr", str(o.lr),
                   "--decay", str(DECAY), "--clip", str(CLIP), "--seed", str(seed),
                   "--max-tokens", str(o.max_tokens), "--train-rows", str(o.rows),
                   "--dev-rows", str(DEV_ROWS), "--log", os.path.join(folder, "steps.jsonl")],
                  os.path.join(folder, "graft.log"))
    with open(os.path.join(folder, "steps.jsonl")) as file:
        steps = [json.loads(line) for line in file]
    with open(os.path.join(ours, "run.json")) as file:
        return steps, json.load(file)


def batch_of(rows, tokenizer, o):
    texts, labels = zip(*rows)
    batch = tokenizer(list(texts), padding=True, truncation=True, max_length=o.max_tokens,
                      return_tensors="pt")
    return dict(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]), torch.tensor(labels)


@torch.no_grad()
def accuracy(model, rows, tokenizer, o):
    right = 0
    for at in range(0, len(rows), 64):
        batch, labels = batch_of(rows[at:at + 64], tokenizer, o)
        right += (model(**batch).argmax(1) == labels).sum().item()
    return right / len(rows)


def adapted(base, folder, trainable):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return peft.PeftModel.from_pretrained(MeanClassifier(base), folder,
                                              is_trainable=trainable).eval()


def train_torch(base, folder, steps, rows, tokenizer, o):
    """Returns each step's loss, and the test accuracy at the epoch that dev chose."""
    model = adapted(base, os.path.join(folder, "init"), True)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW([
        dict(params=[p for p in trained if p.ndim > 1], weight_decay=DECAY),
        dict(params=[p for p in trained if p.ndim == 1], weight_decay=0.0)], eps=1e-8)
    losses, best, test = [], -1, 0
    for i, step in enumerate(steps):
        batch, labels = batch_of([rows.train[id] for id in step["examples"]], tokenizer, o)
        loss = torch.nn.functional.cross_entropy(model(**batch), labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, CLIP)
        for group in optimizer.param_groups:
            group["lr"] = step["rate"]
        optimizer.step()
        losses.append(loss.item())
        if i + 1 == len(steps) or steps[i + 1]["epoch"] != step["epoch"]:
            dev = accuracy(model, rows.dev[:DEV_ROWS], tokenizer, o)
            if dev > best:
                best, test = dev, accuracy(model, rows.test, tokenizer, o)
    return losses, best, test


def run_seed(base, seed, rows, tokenizer, o):
    folder = os.path.join(o.out, f"seed-{seed}")
    done = os.path.join(folder, "result.json")
    if os.path.exists(done):
        with open(done) as file:
            return json.load(file)
    os.makedirs(folder, exist_ok=True)
    if not os.path.exists(os.path.join(folder, "init", "adapter_config.json")):
        make_adapter(base, seed, os.path.join(folder, "init"), o)
    steps, record = train_graft(base, seed, folder, o)
    begun = time.time()
    losses, dev, test = train_torch(base, folder, steps, rows, tokenizer, o)
    seconds = time.time() - begun
    handed = os.path.join(folder, "handed-back")
    if not os.path.exists(os.path.join(handed, "adapter_config.json")):
        run_graft([o.graft, "export", os.path.join(folder, "ours", "adapter"), "--out", handed],
                  os.path.join(folder, "export.log"))
    back = accuracy(adapted(base, handed, False), rows.test, tokenizer, o)
    differences = [abs(a - step["loss"]) for a, step in zip(losses, steps)]
    result = dict(seed=seed, steps=len(steps), largest=max(differences),
                  mean=sum(differences) / len(differences), first=differences[0],
                  graft=dict(dev=record["dev"][record["best_epoch"]], test=record["test"],
                             seconds=record["seconds"]),
                  pytorch=dict(dev=dev, test=test, seconds=seconds),
                  graft_in_peft=dict(test=back), differences=differences,
                  losses=dict(graft=[s["loss"] for s in steps], pytorch=losses))
    with open(done + ".new", "w") as file:
        json.dump(result, file)
    os.replace(done + ".new", done)
    return result


def show(results, o):
    steps = sum(r["steps"] for r in results)
    print(f"\nSST-2, {o.rows} rows x {o.epochs}, batch {o.batch}, at most {o.max_tokens} tokens, "
          f"LoRA r={o.rank} on q and v, no dropout")
    print("seed  steps  |loss difference|: first    mean     largest   test accuracy: graft  "
          "PyTorch  graft's adapter in PEFT")
    for r in results:
        print(f"{r['seed']:>4}  {r['steps']:>5}  {r['first']:>26.1e} {r['mean']:>8.1e} "
              f"{r['largest']:>10.1e}  {r['graft']['test']:>20.4f}  {r['pytorch']['test']:>7.4f}  "
              f"{r['graft_in_peft']['test']:>23.4f}")
    mean = lambda side: sum(r[side]["test"] for r in results) / len(results)
    print(f"mean{'':>67}{mean('graft'):.4f}  {mean('pytorch'):>7.4f}  {mean('graft_in_peft'):>23.4f}")
    largest = max(r["largest"] for r in results)
    print(f"largest difference of a loss over {steps} steps: {largest:.1e}"
          f" ({'within' if largest <= 1e-4 else 'BEYOND'} 1e-4)")
    with open(os.path.join(o.out, "sst2_minilm.json"), "w") as file:
        json.dump(dict(settings={k: v for k, v in vars(o).items() if k not in ("graft", "out")},
                       versions=dict(torch=torch.__version__, transformers=hf.__version__,
                                     peft=peft.__version__),
                       largest=largest, seeds=results), file, indent=1)
    return largest <= 1e-4


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("graft", "model", "data", "out"):
        parser.add_argument(f"--{name}", required=True)
    for name, value in (("seeds", 5), ("rows", 3200), ("batch", 16), ("epochs", 1), ("rank", 8),
                        ("max-tokens", 64), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--lr", type=float, default=1e-3)
    o = parser.parse_args()
    torch.set_num_threads(o.threads)
    os.makedirs(o.out, exist_ok=True)
    base = without_dropout(o.model, o.out)
    rows, tokenizer = Rows(o.data), hf.AutoTokenizer.from_pretrained(o.model)
    results = []
    for seed in range(1, o.seeds + 1):
        results.append(run_seed(base, seed, rows, tokenizer, o))
        r = results[-1]
        print(f"seed {seed}: losses within {r['largest']:.1e}; graft {r['graft']['seconds']:.0f} s, "
              f"PyTorch {r['pytorch']['seconds']:.0f} s", flush=True)
    sys.exit(0 if show(results, o) else 1)


if __name__ == "__main__":
    main()
