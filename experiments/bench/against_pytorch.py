#!/usr/bin/env python3
"""Runs cells of bench_train and pytorch_side.py in turns and compares; see against_pytorch.sh.

For each cell both programs are started, one after the other, each alone until its first step is
done; then they take a step each in turn, the other one waiting for its next line. Their losses and
gradient norms must agree at every step, or the cell is void and the exit status 1. On a device, where
a turn is of many steps and there are hundreds, they must at each of the first 20; roundings that
differ grow with every step, so that of later ones a turn's mean loss must.
"""
import argparse
import json
import math
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
WITHIN = {"f32": (1e-4, 1e-2), "bf16": (1e-2, 0.1)}  # loss and norm, relative, at every step
FIRST, LATER = 20, 2e-2  # on a device: so many steps; later a turn's mean loss, relative or of 1
TURN, PRODUCTS = 0.5, 3


class Side:
    """A program that answers lines; `start` is the seconds until its first step was done."""

    def __init__(self, command, env):
        begun = time.monotonic()
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, bufsize=1, env=env)
        self.first = self.answer()
        self.start = time.monotonic() - begun

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"against_pytorch: {shlex.join(self.process.args)} ended: "
                     f"{self.process.wait()}")
        # JSON has no NaN: our side says null.
        return {key: [math.nan if x is None else x for x in value] if isinstance(value, list)
                else value for key, value in json.loads(line).items()}

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.answer()

    def peak(self, o):
        """Of the host's memory, or what the program itself had on the device."""
        if o.device != "cpu":
            return self.ask("memory")["peak"]
        with open(f"/proc/{self.process.pid}/status") as file:
            return 1024 * int(next(line for line in file if line.startswith("VmHWM")).split()[1])

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def spread(values):
    values = list(values)
    if len(values) == 1:
        return dict(low=values[0], median=values[0], high=values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return dict(low=low, median=median, high=high)


def show(s, digits=3):
    return f"{s['median']:.{digits}f} ({s['low']:.{digits}f} to {s['high']:.{digits}f})"


def largest(of):
    of = list(of)
    return next((d for d in of if d != d), max(of))  # max alone would pass over a NaN


def differences(a, b):
    """The largest relative ones of the losses and of the gradients' norms; NaN if one is that."""
    return tuple(largest(abs(x - y) / abs(y) for x, y in zip(a[key], b[key], strict=True))
                 for key in ("loss", "norm"))


def agree(a, b, o):
    within = WITHIN[o.compute]
    return all(d <= w for d, w in zip(differences(a, b), within))  # false for what is no number


def first_steps(side):
    return {key: side[key][:FIRST] for key in ("loss", "norm")}


def agree_on_average(a, b):
    numbers = [x for side in (a, b) for key in ("loss", "norm") for x in side[key]]
    mean = [statistics.fmean(side["loss"]) for side in (a, b)]
    return all(map(math.isfinite, numbers)) and abs(mean[0] - mean[1]) <= LATER * max(mean[1], 1)


def commands(folder, o):
    where = ["--device", o.device, "--compute", o.compute]
    return dict(graft=[o.bench_train, "run", folder, *where],
                pytorch=[sys.executable, os.path.join(HERE, "pytorch_side.py"), folder,
                         "--threads", str(o.threads), *where, *["--compile"] * o.compile])


def environment(o):
    env = dict(os.environ, OMP_NUM_THREADS=str(o.threads), PYTHONWARNINGS="ignore")
    env.pop("OPENBLAS_CORETYPE", None)
    return env


def said(side):
    return (f"{side['seconds']:.3f} s, loss {side['loss'][-1]:.6f}, "
            f"gradient {side['norm'][-1]:.5g}")


def turn_length(sides):
    """How many steps take the slower side half a second, by its best of three; one where more."""
    best = {name: side.ask("steps 1 1")["seconds"] for name, side in sides.items()}
    for _ in range(2 if max(best.values()) < TURN else 0):
        for name, side in sides.items():
            best[name] = min(best[name], side.ask("steps 1 1")["seconds"])
    return max(1, round(TURN / max(best.values())))


def take_turns(sides, o):
    """Turns of a step each, or of so many that the slower side takes half a second."""
    same = True
    if o.device != "cpu":  # both have met every batch, and graphs or compiled code are made
        before = {n: first_steps(s.ask(f"steps 1 {3 * o.batches}")) for n, s in sides.items()}
        same = agree(before["graft"], before["pytorch"], o)
        loss, norm = differences(before["graft"], before["pytorch"])
        print(f"first {min(FIRST, 3 * o.batches)} steps: losses within {loss:.1e}, norms within {norm:.1e}"
              f"{'' if same else '  DISAGREE'}", flush=True)
    each = turn_length(sides)
    turns = []
    for i in range(o.steps):
        order = ("graft", "pytorch") if i % 2 else ("pytorch", "graft")
        turn = {name: sides[name].ask(f"steps {2 + i * each} {each}") for name in order}
        for side in turn.values():
            side["seconds"] /= each
        a, b = turn["graft"], turn["pytorch"]
        alike = agree(a, b, o) if o.device == "cpu" else same and agree_on_average(a, b)
        turn.update(ratio=a["seconds"] / b["seconds"], agree=alike)
        turns.append(turn)
        print(f"turn {i + 1:>2} of {each}: graft {said(a)}; pytorch {said(b)}; ratio "
              f"{turn['ratio']:.3f}{'' if turn['agree'] else '  DISAGREE'}", flush=True)
    return turns


def plain_products(sides):
    rounds = [{**sides["graft"].ask("products"), **sides["pytorch"].ask("products")}
              for _ in range(PRODUCTS)]
    out = {key: statistics.median(r[key] for r in rounds) for key in ("ours", "blas", "mm")}
    return dict(out, core=rounds[0]["core"])


def starts(folder, o):
    """Further starts, each alone; the first has the files still to be read."""
    seconds = dict(graft=[], pytorch=[])
    for _ in range(o.starts - 1):
        for name, command in commands(folder, o).items():
            side = Side(command, environment(o))
            seconds[name].append(side.start)
            side.close()
    return seconds


def run_cell(workload, method, o):
    texts = [x for name in ("sst2", "tokenizer") if vars(o)[name]
             for x in (f"--{name}", vars(o)[name])]
    made = subprocess.run([o.bench_train, "prepare", workload, method, "--out", o.work, "--batches",
                           str(o.batches), *texts], stdout=subprocess.PIPE, text=True)
    if made.returncode:
        sys.exit(1)
    folder = made.stdout.strip()
    with open(os.path.join(folder, "cell.json")) as file:
        cell = json.load(file)
    print(f"\n{workload}, {method}: {cell['about']}; {cell['spec']}", flush=True)
    more = starts(folder, o)
    sides = {name: Side(command, environment(o)) for name, command in commands(folder, o).items()}
    first = {name: side.first for name, side in sides.items()}
    turns = take_turns(sides, o)
    memory = {name: side.peak(o) for name, side in sides.items()}
    products = plain_products(sides)
    for side in sides.values():
        side.close()
    start = {name: more[name] + [sides[name].start] for name in sides}
    alike = (agree(first["graft"], first["pytorch"], o) and all(t["agree"] for t in turns) and
             first["graft"]["trainable"] == first["pytorch"]["trainable"])
    return dict(workload=workload, method=method, spec=cell["spec"], about=cell["about"],
                threads=o.threads, device=o.device, compute=o.compute, compiled=o.compile,
                valid=alike,
                trainable={name: f["trainable"] for name, f in first.items()},
                versions=dict(first["pytorch"]["versions"], kernels=first["graft"]["kernels"]),
                processor=processor(), first=first, turns=turns,
                ratio=spread(t["ratio"] for t in turns),
                seconds={n: spread(t[n]["seconds"] for t in turns) for n in sides},
                products=products, memory=memory, start=start)


def processor():
    with open("/proc/cpuinfo") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return dict(name=names[0] if names else platform.processor(), cores=os.cpu_count())


def report(c):
    p, m = c["products"], c["memory"]
    start = {name: statistics.median(s) for name, s in c["start"].items()}
    loss, norm = map(largest, zip(*(differences(t["graft"], t["pytorch"]) for t in c["turns"])))
    steps = sum(len(t["graft"]["loss"]) for t in c["turns"])
    print(f"time     {show(c['ratio'])} of PyTorch's; {show(c['seconds']['graft'])} s and "
          f"{show(c['seconds']['pytorch'])} s")
    print(f"memory   {m['graft'] / m['pytorch']:.3f} of PyTorch's: {m['graft'] / 1e6:.0f} and "
          f"{m['pytorch'] / 1e6:.0f} MB at most")
    print(f"start    {start['graft'] / start['pytorch']:.3f} of PyTorch's: {start['graft']:.2f} "
          f"and {start['pytorch']:.2f} s until the first step was done, median of "
          f"{len(c['start']['graft'])}")
    blas = "OpenBLAS" if c["device"] == "cpu" else "cuBLAS"
    print(f"products of 4096^3, GFLOP/s: ours {p['ours']:.0f}, {blas} {p['blas']:.0f} "
          f"({p['core']}), PyTorch {p['mm']:.0f}, which is {p['mm'] / p['blas']:.2f} of {blas}'s")
    print(f"largest difference over {steps} steps: loss {loss:.1e}, gradient's norm {norm:.1e}; "
          f"numbers that train: {c['trainable']['graft']} and {c['trainable']['pytorch']}")
    if not c["valid"]:
        print("VOID: the two sides did not do the same work")


def table(cells):
    print("\n| workload | method | time, ours / PyTorch's | quartiles | memory | start | product, "
          "PyTorch's / BLAS's |\n|---|---|---|---|---|---|---|")
    for c in cells:
        r, m = c["ratio"], c["memory"]
        start = {name: statistics.median(s) for name, s in c["start"].items()}
        print(f"| {c['workload']} | {c['method']} | {r['median']:.3f}" +
              ("" if c["valid"] else " VOID") + f" | {r['low']:.3f} to {r['high']:.3f} | "
              f"{m['graft'] / m['pytorch']:.2f} | {start['graft'] / start['pytorch']:.3f} | "
              f"{c['products']['mm'] / c['products']['blas']:.2f} |")


def keep(cell, path):
    """Adds a cell to the file, in the place of an earlier run of it; returns all cells."""
    cells = []
    if os.path.exists(path):
        with open(path) as file:
            cells = json.load(file)["cells"]
    on = dict(device="cpu", compute="f32", compiled=False)  # where an older file does not say
    same = lambda c: (all(c[k] == cell[k] for k in ("workload", "method", "threads")) and
                      all(c.get(k, v) == cell[k] for k, v in on.items()))
    at = next((i for i, c in enumerate(cells) if same(c)), len(cells))
    cells[at:at + 1] = [cell]
    with open(path + ".new", "w") as file:
        json.dump(dict(cells=cells), file, indent=1)
    os.replace(path + ".new", path)
    return cells


def chosen(o):
    listed = subprocess.run([o.bench_train, "list", "--device", o.device],
                            stdout=subprocess.PIPE, text=True, check=True)
    all_cells = [tuple(line.split()) for line in listed.stdout.splitlines()]
    if o.workloads and o.methods:  # bench_train says of a cell that there is not why
        return [(w, m) for w in o.workloads.split(",") for m in o.methods.split(",")]
    some = [(w, m) for w, m in all_cells
            if w in (o.workloads or w).split(",") and m in (o.methods or m).split(",")]
    if not some:
        sys.exit(f"against_pytorch: no cell of --workloads '{o.workloads}', --methods "
                 f"'{o.methods}' is for device {o.device}; `bench_train list` has them all")
    return some


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench-train", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--work", required=True)
    for name in ("workloads", "methods", "sst2", "tokenizer"):
        parser.add_argument(f"--{name}", default="")
    for name, value in (("steps", 20), ("starts", 1), ("threads", os.cpu_count()), ("batches", 40)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--compute", choices=tuple(WITHIN), default="f32")
    parser.add_argument("--compile", action="store_true")
    o = parser.parse_args()
    os.makedirs(o.out, exist_ok=True)
    results = os.path.join(o.out, "against_pytorch.json")
    cells, run = [], []
    for workload, method in chosen(o):
        run.append(run_cell(workload, method, o))
        report(run[-1])
        cells = keep(run[-1], results)
    table(cells)
    sys.exit(0 if all(c["valid"] for c in run) else 1)


if __name__ == "__main__":
    main()
