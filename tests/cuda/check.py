#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What can be known of the GPU's kernels without a GPU (make cuda-check).

    check.py NVCC SOURCE_DIRECTORY WORK_DIRECTORY [FLAG ...]     (flags of the compiler, e.g. where mpi.h is)

1. nvcc for sm_80, sm_90a and sm_100: warnings, spills, local memory and serialized warpgroup products are errors.
2. The machine code of sm_90a: attention uses tensor cores (warpgroup products, or ldmatrix) and cp.async; nothing loads or stores local
   memory.
3. Occupancy of each kernel on an H100, at the block size it is launched with.
4. Race proofs of the PTX by sentryward: barriers agree and no race in any schedule, for the sizes given below.
Lines are TAP; "# SKIP" where a tool cannot be installed or a kernel is beyond the prover.
"""
import concurrent.futures
import glob
import json
import os
import re
import subprocess
import sys
import tempfile

NVCC, SOURCE, WORK, *FLAGS = sys.argv[1:]
GENCODE = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in ("80", "90a", "100")]
BASE = ["-std=c++17", "-O3", "-D_GNU_SOURCE", f"-I{SOURCE}/src", f"-I{SOURCE}", *FLAGS]
STRICT = ["-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra,-Werror", "-Xptxas", "-v,-warn-spills,-warn-lmem-usage,-Werror"]
TOOLS = ["nvidia-cuda-cuobjdump", "nvidia-cuda-nvdisasm", "sentryward==0.1.1"]

# threads and dynamic shared memory of a launch, where they are not 256 and 0
LAUNCHES = {
    "flash_forward": (128, lambda d: 4 * 64 * d * 2), "flash_dq": (128, lambda d: 4 * 64 * d * 2),
    "flash_dkdv": (128, lambda d: (2 * 64 + 4 * 32) * d * 2 + 512), "flash_delta": (128, lambda d: 0),
    "hopper_forward": (256, lambda d: 1024 + (128 + 4 * 128) * d * 2),
    "hopper_": (256, lambda d: 1024 + (2 * 128 + 5 * 64) * d * 2 + 1024),
    "plain_": (128, lambda d: 0), "router_": (32, lambda d: 192 * 8), "same_ids": (32, lambda d: 0),
    "rmsnorm_dw": (64, lambda d: 0), "rmsnorm_backward": (512, lambda d: 4096 * 4), "add_rows": (1024, lambda d: 0),
    "rope_forward": (256, lambda d: 2048), "rope_backward": (256, lambda d: 2048 + 16384),
    "route_count": (512, lambda d: 192 * 4), "route_place": (512, lambda d: 16 * 192 * 4), "route_scan": (1024, lambda d: 0),
    "loss_end": (32, lambda d: 0), "unpermute_backward": (128, lambda d: 0),
}

# kernel (its mangled name contains this), grid, block, scalars by position; sizes are small, the proof is for all schedules of them
L, I, F = "u64", "u32", "f32"
SHARED = {"flash": 65536, "rope": 8192, "rmsnorm_backward": 512, "route_": 512, "router_f": 512}  # bytes of dynamic shared memory
BF = "I13__nv_bfloat16"
PROOFS = [
    ("rmsnorm", f"rmsnorm_forward_kernel{BF}Li8", [2, 1, 1], [128, 1, 1], {0: (L, 1024), 1: (F, 1e-5)}),
    ("rmsnorm", f"rmsnorm_backward_kernel{BF}Li8ELb0", [2, 1, 1], [128, 1, 1], {0: (L, 2), 1: (L, 1024), 2: (L, 1)}),
    ("rmsnorm", "rmsnorm_backward_kernelIfLi1ELb1", [2, 1, 1], [64, 1, 1], {0: (L, 5), 1: (L, 100), 2: (L, 3)}),
    ("rmsnorm", f"rmsnorm_dw_kernel{BF}", [2, 2, 1], [64, 1, 1], {0: (L, 40), 1: (L, 100)}),
    ("swiglu", f"swiglu_forward_kernel{BF}Li8", [1, 2, 1], [64, 1, 1], {0: (L, 512), 1: (L, 1024)}),
    ("swiglu", f"swiglu_backward_kernel{BF}Li8", [1, 2, 1], [64, 1, 1], {0: (L, 512), 1: (L, 1024)}),
    ("rope", f"rope_forward_kernel{BF}Li8", [2, 1, 1], [64, 1, 1], {0: (L, 7), 1: (I, 2), 2: (I, 64), 3: (I, 8), 4: (I, 4), 5: (F, 1e-5)}),
    ("rope", f"rope_backward_kernel{BF}Li8ELb0", [2, 1, 1], [64, 1, 1], {0: (L, 7), 1: (I, 2), 2: (I, 64), 3: (I, 8), 4: (I, 4)}),
    ("rope", f"rope_backward_kernel{BF}Li8ELb1", [2, 1, 1], [64, 1, 1], {0: (L, 7), 1: (I, 2), 2: (I, 64), 3: (I, 8), 4: (I, 4)}),
    ("elementwise", "add_rows_kernel", [2, 1, 1], [64, 1, 1], {0: (L, 20), 1: (L, 12)}),
    ("elementwise", f"cast_wide_kernelIf13", [2, 1, 1], [256, 1, 1], {0: (L, 1500)}),
    ("elementwise", f"add_kernelI13__nv_bfloat16S0_", [2, 1, 1], [256, 1, 1], {0: (L, 1501)}),
    ("elementwise", "square_kernelIfLi4ELb1", [2, 1, 1], [256, 1, 1], {0: (L, 9000)}),
    ("elementwise", "square_end_kernel", [1, 1, 1], [64, 1, 1], {0: (L, 100), 2: (I, 1)}),
    ("loss", "loss_forward_kernelILi4", [2, 1, 1], [64, 1, 1], {0: (L, 1000), 1: (I, 1)}),
    ("loss", "loss_end_kernel", [2, 1, 1], [32, 1, 1], {0: (L, 1000), 1: (I, 3)}),
    ("loss", "loss_backward_kernelIfLi4", [2, 1, 1], [64, 1, 1], {0: (L, 1000), 1: (I, 1), 2: (F, 0.5)}),
    ("router", "router_forward_kernel", [2, 1, 1], [32, 1, 1], {0: (I, 64), 1: (I, 2), 2: (F, 2.5), 3: (I, 0)}),
    ("router", "router_backward_kernel", [2, 1, 1], [32, 1, 1], {0: (I, 64), 1: (I, 2), 2: (F, 2.5)}),
    ("router", "route_count_kernel", [2, 1, 1], [64, 1, 1], {0: (L, 100), 1: (I, 64)}),
    ("router", "route_scan_kernel", [1, 1, 1], [64, 1, 1], {0: (L, 130)}),
    ("router", "route_place_kernel", [2, 1, 1], [64, 1, 1], {0: (L, 100), 1: (I, 64), 2: (I, 2), 3: (I, 6)}),
    ("permute", f"_Z22permute_forward_kernel{BF}Li8", [2, 1, 1], [64, 1, 1], {0: (L, 7), 1: (L, 512)}),
    ("permute", f"unpermute_backward_kernel{BF}Li8", [2, 1, 1], [64, 1, 1], {0: (L, 512), 1: (I, 2)}),
    ("attention", "hy3_flash_forward_kernelILi128", [2, 2, 1], [128, 1, 1], {6: (I, 2), 7: (I, 1), 8: (F, 0.1)}),
]

number = failed = skipped = 0


def report(good, text, skip=None):
    global number, failed, skipped
    number += 1
    failed += not good
    skipped += skip is not None
    print(f"{'ok' if good else 'not ok'} {number} - {text}" + (f" # SKIP {skip}" if skip else ""), flush=True)


def run(*command, **more):
    return subprocess.run(command, capture_output=True, text=True, check=False, **more)


def comment(text):
    print("".join(f"# {line}\n" for line in text.strip().splitlines()[-40:]), end="", flush=True)


def tools():
    """Directory of the installed tools, or None and why."""
    home = os.path.join(WORK, "tools")
    python = os.path.join(home, "bin", "python3")
    if not os.path.exists(python):
        made = run(sys.executable, "-m", "venv", home)
        if made.returncode:
            return None, "no virtual environment: " + (made.stderr or made.stdout).strip()[:100]
    got = run(python, "-m", "pip", "install", "-q", *TOOLS)
    if got.returncode:
        return None, "not to be installed: " + " ".join(TOOLS)
    return home, None


def compile_all():
    def one(path):
        name = os.path.basename(path)[:-3]
        return name, run(NVCC, *GENCODE, *BASE, *STRICT, "-c", path, "-o", f"{WORK}/{name}.o")

    text = {}
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, done in pool.map(one, sorted(glob.glob(f"{SOURCE}/cuda/*.cu"))):
            good = done.returncode == 0 and "Potential Performance Loss" not in done.stderr
            report(good, f"{name}.cu for sm_80, sm_90a, sm_100: no warning, spill or local memory")
            if not good:
                comment(done.stderr)
            text[name] = done.stderr
    return text


def check_code(home, why, names):
    objdump = next(iter(glob.glob(f"{home}/lib/*/site-packages/nvidia/*/bin/cuobjdump")), None) if home else None
    if not objdump:
        report(True, "machine code of sm_90a", why or "cuobjdump is missing")
        return
    environment = dict(os.environ, PATH=os.path.dirname(objdump) + ":" + os.environ["PATH"])
    for name in names:
        sass = run(objdump, "-sass", "-arch", "sm_90a", f"{WORK}/{name}.o", env=environment).stdout
        kernels = re.split(r"Function : ", sass)[1:]
        local = [k.split()[0] for k in kernels if re.search(r"\b(LDL|STL)\b", k)]
        report(not local, f"{name}: {len(kernels)} kernels without local memory in the code of sm_90a")
        comment("\n".join(local))
        for k in kernels:
            part = re.search(r"(flash|hopper)_(forward|dq|dkdv)", k.split()[0])
            if not part:
                continue
            wanted = ("HMMA.16816.F32.BF16", "LDSM", "LDGSTS") if part[1] == "flash" else ("HGMMA.64x", "LDGSTS")
            count = {i: len(re.findall(i, k)) for i in wanted}
            report(all(count.values()), f"{k.split()[0][:60]}: " + ", ".join(f"{v} {i}" for i, v in count.items()))


def occupancy(logs):
    program = f"{WORK}/occupancy"
    built = run("cc", "-O1", *FLAGS, f"{SOURCE}/tests/cuda/occupancy.c", "-o", program)
    if built.returncode:
        report(False, "occupancy.c compiles")
        comment(built.stderr)
        return
    worst = 100
    for name, log in logs.items():
        for found in re.finditer(r"Compiling entry function '(\S+)' for 'sm_90a'.*?Used (\d+) registers(?:.*?(\d+) bytes smem)?", log, re.S):
            kernel, registers, static = found[1], int(found[2]), 0
            line = found[0].splitlines()[-1]
            shared = re.search(r"(\d+) bytes smem", line)
            static = int(shared[1]) if shared else 0
            threads, dynamic = next((v for k, v in LAUNCHES.items() if k in kernel), (256, lambda d: 0))
            width = re.search(r"kernelILi(\d+)", kernel)
            total = static + dynamic(int(width[1]) if width else 0)
            answer = run(program, str(registers), str(total), str(threads)).stdout.split()
            blocks, percent = (int(x) for x in answer)
            worst = min(worst, percent if threads > 32 else 100)
            print(f"# {kernel[:70]:70} {registers:3} registers {total:6} B shared {threads:4} threads: {blocks:2} blocks an SM, {percent}%")
    report(worst >= 12, f"every kernel of more than a warp keeps an eighth of an H100's threads busy (least: {worst}%)")


def prove(home, why):
    prover = f"{home}/bin/sentryward" if home else None
    if not prover or not os.path.exists(prover):
        report(True, "race proofs", why or "sentryward is missing")
        return
    for name in sorted({p[0] for p in PROOFS}):
        made = run(NVCC, "-arch=sm_100", *BASE, "-ptx", f"{SOURCE}/cuda/{name}.cu", "-o", f"{WORK}/{name}.ptx")
        if made.returncode:
            report(False, f"PTX of {name}.cu")
            comment(made.stderr)
    for name, part, grid, block, scalars in PROOFS:
        with open(f"{WORK}/{name}.ptx", encoding="utf-8") as f:
            entry = next(e for e in re.findall(r"\.entry (\w+)\(", f.read()) if part in e)
        case = {"schema": "spverify.kernel-input/v1", "entry": entry,
                "launch": {"grid_dim": grid, "block_dim": block, "dynamic_shared_bytes": next((v for k, v in SHARED.items() if k in part), 0)},
                "arguments": [{"type": t, "value": v, "parameter": i} for i, (t, v) in scalars.items()]}
        with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
            json.dump(case, f)
            f.flush()
            out = run(prover, f"{WORK}/{name}.ptx", "--input", f.name, "--timeout", "60").stdout
        try:
            answer = json.loads(out)
        except json.JSONDecodeError:
            answer = {"result": "no answer", "diagnostics": []}
        result, codes = answer["result"], [d.get("code") for d in answer["diagnostics"]]
        text = f"{part}: {result} {' '.join(map(str, codes))}"
        finding = result in ("potential_race", "race", "not_wellsynced")
        report(not finding, text, None if finding or result == "race_free" else f"the prover does not understand it ({result})")


os.makedirs(WORK, exist_ok=True)
LOGS = compile_all()
HOME, WHY = tools()
check_code(HOME, WHY, LOGS)
occupancy(LOGS)
prove(HOME, WHY)
print(f"1..{number}")
print(f"{number - failed - skipped} passed, {failed} failed, {skipped} skipped")
sys.exit(failed != 0)
