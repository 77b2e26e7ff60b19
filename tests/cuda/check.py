#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks of the GPU kernels that need no GPU (make cuda-check).

    check.py NVCC SOURCE_DIRECTORY WORK_DIRECTORY [COMPILER_FLAG ...]

1. nvcc for sm_80, sm_90a and sm_100: warnings, spills, local memory and serialized warpgroup
   products are errors.
2. The machine code of sm_90a: attention uses tensor cores (warpgroup products, or ldmatrix) and
   cp.async; nothing loads or stores local memory.
3. Occupancy of each kernel on an H100, at the block size it is launched with.
4. Race proofs of the PTX by sentryward: barriers agree and no race in any schedule, for the sizes
   given below.
Output is TAP; "# SKIP" where a tool cannot be installed or the prover does not support a kernel.
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
STRICT = ["-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra,-Werror",
          "-Xptxas", "-v,-warn-spills,-warn-lmem-usage,-Werror"]
TOOLS = ["nvidia-cuda-cuobjdump", "nvidia-cuda-nvdisasm", "sentryward==0.1.1"]

# threads and dynamic shared memory (for a head size) of launches, where they are not 256 and 0
LAUNCHES = {
    "ampere_forward": (128, lambda d: 4 * 64 * d * 2),
    "ampere_dq": (128, lambda d: 4 * 64 * d * 2),
    "ampere_dkdv": (128, lambda d: (2 * 64 + 4 * 32) * d * 2 + 512),
    "flash_delta": (128, lambda d: 0),
    "hopper_forward": (256, lambda d: 1024 + (128 + 4 * 128) * d * 2),
    "hopper_": (256, lambda d: 1024 + (2 * 128 + 5 * 64) * d * 2 + 1024),
    "plain_": (128, lambda d: 0),
    "router_": (32, lambda d: 192 * 8),
    "same_ids": (32, lambda d: 0),
    "rmsnorm_dw": (64, lambda d: 0),
    "rmsnorm_backward": (512, lambda d: 4096 * 4),
    "add_rows": (1024, lambda d: 0),
    "rope_forward": (256, lambda d: 2048),
    "rope_backward": (256, lambda d: 2048 + 16384),
    "route_count": (512, lambda d: 192 * 4),
    "route_place": (512, lambda d: 16 * 192 * 4),
    "route_scan": (1024, lambda d: 0),
    "loss_end": (32, lambda d: 0),
    "unpermute_backward": (128, lambda d: 0),
}

# file, kernel (its mangled name contains this), grid, block, scalars; sizes are small, a proof
# holds for all schedules of them. Scalars go by the position of the parameter, or, where the
# offsets of pointers follow, by their offset in the struct that is the only parameter.
L, I, F = "u64", "u32", "f32"
BF = "I13__nv_bfloat16"
ROPE = {0: (L, 7), 8: (I, 2), 12: (I, 64), 16: (I, 8), 20: (I, 4), 24: (F, 1e-5)}
ROPE_POINTERS = range(32, 104, 8)
PROOFS = [
    ("rmsnorm", f"rmsnorm_forward_kernel{BF}Li8", [2, 1, 1], [128, 1, 1],
     {0: (L, 1024), 1: (F, 1e-5)}),
    ("rmsnorm", f"rmsnorm_backward_kernel{BF}Li8ELb0", [2, 1, 1], [128, 1, 1],
     {0: (L, 2), 1: (L, 1024), 2: (L, 1)}),
    ("rmsnorm", "rmsnorm_backward_kernelIfLi1ELb1", [2, 1, 1], [64, 1, 1],
     {0: (L, 5), 1: (L, 100), 2: (L, 3)}),
    ("rmsnorm", f"rmsnorm_dw_kernel{BF}", [2, 2, 1], [64, 1, 1], {0: (L, 40), 1: (L, 100)}),
    ("swiglu", f"swiglu_forward_kernel{BF}Li8", [1, 2, 1], [64, 1, 1], {0: (L, 512), 1: (L, 1024)}),
    ("swiglu", f"swiglu_backward_kernel{BF}Li8", [1, 2, 1], [64, 1, 1],
     {0: (L, 512), 1: (L, 1024)}),
    ("rope", f"rope_forward_kernel{BF}Li8", [2, 1, 1], [64, 1, 1], ROPE, ROPE_POINTERS),
    ("rope", f"rope_backward_kernel{BF}Li8ELb0", [2, 1, 1], [64, 1, 1], ROPE, ROPE_POINTERS),
    ("rope", f"rope_backward_kernel{BF}Li8ELb1", [2, 1, 1], [64, 1, 1], ROPE, ROPE_POINTERS),
    ("elementwise", "add_rows_kernel", [2, 1, 1], [64, 1, 1], {0: (L, 20), 1: (L, 12)}),
    ("elementwise", "cast_kernelIf13__nv_bfloat16Lb1", [2, 1, 1], [256, 1, 1], {0: (L, 1500)}),
    ("elementwise", "add_kernelI13__nv_bfloat16S0_Lb0", [2, 1, 1], [256, 1, 1], {0: (L, 1501)}),
    ("elementwise", "square_kernelIfLi4ELb1", [2, 1, 1], [256, 1, 1], {0: (L, 9000)}),
    ("elementwise", "square_end_kernel", [1, 1, 1], [64, 1, 1], {0: (L, 100), 2: (I, 1)}),
    ("loss", "loss_forward_kernelILi4", [2, 1, 1], [64, 1, 1], {0: (L, 1000), 1: (I, 1)}),
    ("loss", "loss_end_kernel", [2, 1, 1], [32, 1, 1], {0: (L, 1000), 1: (I, 3)}),
    ("loss", "loss_backward_kernelIfLi4", [2, 1, 1], [64, 1, 1],
     {0: (L, 1000), 1: (I, 1), 2: (F, 0.5)}),
    ("router", "router_forward_kernel", [2, 1, 1], [32, 1, 1],
     {0: (I, 64), 1: (I, 2), 2: (F, 2.5), 3: (I, 0)}),
    ("router", "router_backward_kernel", [2, 1, 1], [32, 1, 1],
     {0: (I, 64), 1: (I, 2), 2: (F, 2.5)}),
    ("router", "route_count_kernel", [2, 1, 1], [64, 1, 1],
     {0: (L, 100), 1: (I, 64), 2: (I, 2), 3: (I, 1), 4: (I, 1)}),
    ("router", "route_scan_kernel", [1, 1, 1], [64, 1, 1], {0: (L, 130)}),
    ("router", "route_place_kernel", [2, 1, 1], [64, 1, 1],
     {0: (L, 100), 1: (I, 64), 2: (I, 2), 3: (I, 1), 4: (I, 1), 5: (I, 6)}),
    ("permute", f"_Z22permute_forward_kernel{BF}Li8", [2, 1, 1], [64, 1, 1],
     {0: (L, 7), 1: (L, 512)}),
    ("permute", f"unpermute_backward_kernel{BF}Li8", [2, 1, 1], [64, 1, 1],
     {0: (L, 512), 1: (I, 2)}),
    ("attention", "hy3_ampere_forward_kernelILi128", [2, 2, 1], [128, 1, 1],
     {0: (I, 2), 4: (I, 1), 12: (F, 0.1)}, range(16, 112, 8)),
]
# bytes of dynamic shared memory of a proof
SHARED = {"ampere": 65536, "rope": 8192, "rmsnorm_backward": 512, "route_": 512, "router_f": 512}

number = failed = skipped = 0


def report(good, text, skip=None):
    global number, failed, skipped
    number += 1
    failed += not good
    skipped += skip is not None
    verdict = "ok" if good else "not ok"
    print(f"{verdict} {number} - {text}" + (f" # SKIP {skip}" if skip else ""), flush=True)


def run(*command, **more):
    return subprocess.run(command, capture_output=True, text=True, check=False, **more)


def comment(text):
    print("".join(f"# {line}\n" for line in text.strip().splitlines()[-40:]), end="", flush=True)


def tools():
    """The directory of the installed tools; or None, and why."""
    home = os.path.join(WORK, "tools")
    python = os.path.join(home, "bin", "python3")
    if not os.path.exists(python):
        made = run(sys.executable, "-m", "venv", home)
        if made.returncode:
            return None, "no virtual environment: " + (made.stderr or made.stdout).strip()[:100]
    got = run(python, "-m", "pip", "install", "-q", *TOOLS)
    if got.returncode:
        return None, "cannot be installed: " + " ".join(TOOLS)
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
    found = glob.glob(f"{home}/lib/*/site-packages/nvidia/*/bin/cuobjdump")
    objdump = found[0] if home and found else None
    if not objdump:
        report(True, "machine code of sm_90a", why or "cuobjdump is missing")
        return
    path = os.path.dirname(objdump) + ":" + os.environ["PATH"]
    for name in names:
        sass = run(objdump, "-sass", "-arch", "sm_90a", f"{WORK}/{name}.o",
                   env=dict(os.environ, PATH=path)).stdout
        kernels = re.split(r"Function : ", sass)[1:]
        local = [k.split()[0] for k in kernels if re.search(r"\b(LDL|STL)\b", k)]
        report(not local, f"{name}: {len(kernels)} kernels without local memory, sm_90a")
        comment("\n".join(local))
        for k in kernels:
            part = re.search(r"(ampere|hopper)_(forward|dq|dkdv)", k.split()[0])
            if not part:
                continue
            wanted = {"ampere": ("HMMA.16816.F32.BF16", "LDSM", "LDGSTS"),
                      "hopper": ("HGMMA.64x", "LDGSTS")}[part[1]]
            count = {i: len(re.findall(i, k)) for i in wanted}
            report(all(count.values()),
                   f"{k.split()[0][:60]}: " + ", ".join(f"{v} {i}" for i, v in count.items()))


def occupancy(logs):
    program = f"{WORK}/occupancy"
    built = run("cc", "-O1", *FLAGS, f"{SOURCE}/tests/cuda/occupancy.c", "-o", program)
    if built.returncode:
        report(False, "occupancy.c compiles")
        comment(built.stderr)
        return
    worst = 100
    entry = r"Compiling entry function '(\S+)' for 'sm_90a'.*?Used (\d+) registers([^\n]*)"
    for log in logs.values():
        for found in re.finditer(entry, log, re.S):
            kernel, registers = found[1], int(found[2])
            shared = re.search(r"(\d+) bytes smem", found[3])
            threads, dynamic = next((v for k, v in LAUNCHES.items() if k in kernel),
                                    (256, lambda d: 0))
            width = re.search(r"kernelILi(\d+)", kernel)
            total = (int(shared[1]) if shared else 0) + dynamic(int(width[1]) if width else 0)
            answer = run(program, str(registers), str(total), str(threads)).stdout.split()
            blocks, percent = (int(x) for x in answer)
            worst = min(worst, percent if threads > 32 else 100)
            print(f"# {kernel[:70]:70} {registers:3} registers {total:6} B shared "
                  f"{threads:4} threads: {blocks:2} blocks an SM, {percent}%")
    report(worst >= 12, "occupancy on an H100 of every kernel of more than a warp is at least 12% "
                        f"(lowest: {worst}%)")


def prove(home, why):
    prover = f"{home}/bin/sentryward" if home else None
    if not prover or not os.path.exists(prover):
        report(True, "race proofs", why or "sentryward is missing")
        return
    for name in sorted({p[0] for p in PROOFS}):
        made = run(NVCC, "-arch=sm_100", *BASE, "-ptx", f"{SOURCE}/cuda/{name}.cu",
                   "-o", f"{WORK}/{name}.ptx")
        if made.returncode:
            report(False, f"PTX of {name}.cu")
            comment(made.stderr)
    for name, part, grid, block, scalars, *pointers in PROOFS:
        with open(f"{WORK}/{name}.ptx", encoding="utf-8") as f:
            entry = next(e for e in re.findall(r"\.entry (\w+)\(", f.read()) if part in e)
        shared = next((v for k, v in SHARED.items() if k in part), 0)
        case = {"schema": "spverify.kernel-input/v1", "entry": entry,
                "launch": {"grid_dim": grid, "block_dim": block, "dynamic_shared_bytes": shared},
                "arguments": [{"type": t, "value": v}
                              | ({"parameter": 0, "offset": i} if pointers else {"parameter": i})
                              for i, (t, v) in scalars.items()],
                "declarations": [{"type": "pointer", "parameter": 0, "offset": i}
                                 for offsets in pointers for i in offsets]}
        with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
            json.dump(case, f)
            f.flush()
            out = run(prover, f"{WORK}/{name}.ptx", "--input", f.name, "--timeout", "60").stdout
        try:
            answer = json.loads(out)
        except json.JSONDecodeError:
            answer = {"result": "no answer", "diagnostics": []}
        result, codes = answer["result"], [d.get("code") for d in answer["diagnostics"]]
        finding = result in ("potential_race", "race", "not_wellsynced")
        report(not finding, f"{part}: {result} {' '.join(map(str, codes))}",
               None if finding or result == "race_free" else f"beyond the prover ({result})")


os.makedirs(WORK, exist_ok=True)
LOGS = compile_all()
HOME, WHY = tools()
check_code(HOME, WHY, LOGS)
occupancy(LOGS)
prove(HOME, WHY)
print(f"1..{number}")
print(f"{number - failed - skipped} passed, {failed} failed, {skipped} skipped")
sys.exit(failed != 0)
