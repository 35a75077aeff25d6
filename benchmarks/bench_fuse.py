"""Fusing a checkpoint of the size of RepVGG-B3, and what fusing gains at inference: python benchmarks/bench_fuse.py [results.json] [--net B3]

The checkpoint (float32, safetensors) is made in a temporary folder. Seconds and peak memory are those of a process that reads it, recognises and
fuses every block, correctly rounded, certifies each, and writes the result; memory is the peak of its resident pages, those of the mapped file
included, beyond what the imports need. Then RepVGG-A0 with its branches against the same network fused, images of 224x224, in turns.
"""

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import measure
from npreparam.checkpoints import save
from npreparam.models import repvgg_net, repvgg_spec

ROOT = Path(__file__).parents[1]
FUSE = """
import json, resource, sys, time
from npreparam.checkpoints import certify, fold, load, recognise, save

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

imported, begin, phases = peak(), time.perf_counter(), {}
def phase(name):
    phases[name] = time.perf_counter() - begin - sum(phases.values())

tensors = load(sys.argv[1])
found = recognise(tensors, "repvgg")
phase("read, s")
result = {name: tensors[name] for name in found.passed_through}
ways = set()
for block in found.blocks:
    folded = fold(block, tensors)
    result |= {block.fused + ".weight": folded.weight, block.fused + ".bias": folded.bias}
    ways.add(folded.rounding)
phase("fuse, s")
for block in found.blocks:
    assert certify(block, tensors, *(result[f"{block.fused}.{part}"] for part in ("weight", "bias"))).held
phase("certify, s")
save(sys.argv[2], result)
phase("write, s")
print(json.dumps(phases | {"total, s": sum(phases.values()), "memory, bytes": peak() - imported, "blocks": len(found.blocks),
                           "rounding": ", ".join(ways)}))
"""


def checkpoint(name, path):
    """A checkpoint of that network's shapes, with random numbers."""
    rng, tensors = np.random.default_rng(0), {}

    def norm(prefix, channels):
        return {f"{prefix}.{part}": rng.random(channels, np.float32) + np.float32(0.5) for part in ("weight", "bias", "running_mean", "running_var")}

    for i, layer in enumerate(repvgg_spec(name).layers()):
        prefix = f"blocks.{i}"
        for branch, kernel in (("rbr_dense", 3), ("rbr_1x1", 1)):
            shape = (layer.outputs, layer.inputs // layer.groups, kernel, kernel)
            tensors[f"{prefix}.{branch}.conv.weight"] = rng.random(shape, np.float32) - np.float32(0.5)
            tensors |= norm(f"{prefix}.{branch}.bn", layer.outputs)
        if layer.inputs == layer.outputs and layer.stride == 1:
            tensors |= norm(f"{prefix}.rbr_identity", layer.outputs)
    save(path, tensors)


def fusing(name):
    """Seconds of each phase, and memory as a multiple of the checkpoint's size."""
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder, "branches.safetensors"), Path(folder, "fused.safetensors")
        maker = multiprocessing.get_context("spawn").Process(target=checkpoint, args=(name, source))
        maker.start(), maker.join()  # by itself, since a process inherits the peak of the one that starts it
        ran = subprocess.run([sys.executable, "-c", FUSE, source, out], capture_output=True, text=True, check=True, cwd=ROOT)
        record, size = json.loads(ran.stdout), source.stat().st_size
    return {"network": f"RepVGG-{name}", "parameters": repvgg_spec(name).parameters(deploy=False), "checkpoint, bytes": size, **record,
            "memory, multiples of the checkpoint": record["memory, bytes"] / size}


def inference(batches=(1, 8)):
    """Milliseconds of RepVGG-A0 with its branches and fused, float32, 224x224."""
    rng = np.random.default_rng(0)
    network = repvgg_net("A0", rng=rng)
    fused = network.fuse()
    rows = []
    for batch in batches:
        x = rng.standard_normal((batch, 3, 224, 224)).astype(np.float32)
        branches, one = measure.duel(lambda x=x: network(x), lambda x=x: fused(x))
        rows.append({"batch": batch, "branches, ms": 1e3 * branches, "fused, ms": 1e3 * one, "ratio": branches / one})
    return rows


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("results", nargs="?", default="fuse-results.json")
    parser.add_argument("--net", default="B3")
    arguments = parser.parse_args()
    measure.clean_environment()
    record = {"machine": measure.machine(), "fusing": fusing(arguments.net), "inference of RepVGG-A0": inference()}
    print(json.dumps(record, indent=2))
    measure.save(record, arguments.results)


if __name__ == "__main__":
    main()
