# SPDX-License-Identifier: Apache-2.0
"""Reads what hy3 writes with the Python libraries and compares. Writes TAP; a check whose library
is absent is skipped.

HY3_SOURCE, HY3_BUILD and MPIEXEC say where the sources, the programs and the launcher are."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

SOURCE = pathlib.Path(os.environ.get("HY3_SOURCE") or pathlib.Path(__file__).resolve().parents[2])
BUILD = pathlib.Path(os.environ.get("HY3_BUILD") or SOURCE / "build-tests")
MPIEXEC = os.environ.get("MPIEXEC") or "mpiexec"
QUICK = SOURCE / "etc" / "quickstart"
SAMPLES = 40


class Skip(Exception):
    """The reason why a check cannot be made here."""


def need(name):
    try:
        return __import__(name)
    except Exception as error:  # a library that is there but broken counts as absent
        raise Skip(
            f"{name} cannot be imported: {type(error).__name__}: {str(error).splitlines()[0][:80]}"
        )


def program(name, *arguments, ranks=1):
    found = next((p for p in (BUILD / name, BUILD / "src" / name) if p.exists()), None)
    assert found, f"no program {name} in {BUILD}"
    command = [MPIEXEC, "-n", str(ranks), str(found), *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL
    )
    assert (
        done.returncode == 0
    ), f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-800:]}"


class Run:
    """A small model, trained on the first conversations of the quick start; made at first use."""

    def __init__(self, directory):
        self.directory = directory
        self.data = directory / "train.jsonl"
        lines = (QUICK / "conversations.jsonl").read_text(encoding="utf-8").splitlines()[:SAMPLES]
        self.rows = [json.loads(line) for line in lines]
        self.data.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self.made = {}

    def once(self, name, make):
        if name not in self.made:
            self.made[name] = make(self.directory / name)
        return self.made[name]

    def sft(self, model, output, *keys, ranks=1):
        config = self.directory / "run.cfg"
        config.write_text(
            f'train_data_file = "{self.data}";\nmax_seq_length = 512;\n'
            'bf16 = false;\nzero_stage = 0;\n'
            'lr_scheduler_type = "constant";\nplot_loss = false;\n'
        )
        program(
            "hy3_sft",
            config,
            f"model_name_or_path={model}",
            f"output_dir={output}",
            f"cache_dir={self.directory / 'cache'}",
            *keys,
            ranks=ranks,
        )
        return [json.loads(line) for line in (output / "train_log.jsonl").read_text().splitlines()]

    def initial(self):
        def make(path):
            program(
                "hy3_init",
                "--shape",
                QUICK / "shape.json",
                "--tokenizer",
                QUICK / "tokenizer",
                "--output_dir",
                path,
                "--seed",
                5,
            )
            return path

        return self.once("initial", make)

    def trained(self):
        def make(path):
            log = self.sft(
                self.initial(),
                path,
                "per_device_train_batch_size=4",
                "max_steps=15",
                "learning_rate=3e-3",
                ranks=2,
            )
            assert log[-1]["loss"] < log[0]["loss"] - 1, "the loss has not fallen"
            return path

        return self.once("trained", make)

    def tokens(self):
        self.trained()
        found = sorted((self.directory / "cache").rglob("*.h5"))
        assert len(found) == 1, f"token files: {found}"
        return found[0]


def render(tokenizer, row):
    return tokenizer.apply_chat_template(
        row["messages"],
        tools=row.get("tools"),
        tokenize=False,
        is_training=True,
        reasoning_effort=row.get("reasoning_effort"),
    )


def labelled(ids, assistant, eos):
    """1 from behind an assistant token up to and including the next eos."""
    mask, inside = [], False
    for token in ids:
        mask.append(int(inside))
        inside = (inside or token == assistant) and token != eos
    return mask


def h5py_reads_the_token_file(run):
    h5py, numpy = need("h5py"), need("numpy")
    with h5py.File(run.tokens(), "r") as file:
        tokens, mask, offsets = file["tokens"], file["label_mask"], file["offsets"][:]
        assert (tokens.dtype, mask.dtype, offsets.dtype) == (
            numpy.uint32,
            numpy.uint8,
            numpy.uint64,
        )
        assert (
            len(offsets) == SAMPLES + 1
            and offsets[0] == 0
            and offsets[-1] == len(tokens) == len(mask)
        )
        assert (numpy.diff(offsets.astype(numpy.int64)) > 0).all()
        assert list(file["source_line"][:]) == list(range(1, SAMPLES + 1))
        assert set(numpy.unique(mask[:])) == {0, 1}
        assert int(file.attrs["max_seq_length"]) == 512 and "template" in file.attrs


def tokenizers_gives_the_same_ids(run):
    h5py, tokenizers = need("h5py"), need("tokenizers")
    library = tokenizers.Tokenizer.from_file(str(run.trained() / "tokenizer.json"))
    with h5py.File(run.tokens(), "r") as file:
        tokens, offsets = file["tokens"][:], file["offsets"][:]
    for i in range(SAMPLES):
        ids = tokens[int(offsets[i]) : int(offsets[i + 1])].tolist()
        text = library.decode(ids, skip_special_tokens=False)
        assert library.encode(text, add_special_tokens=False).ids == ids, f"sample {i}: {text!r}"
        assert run.rows[i]["messages"][-1]["content"] in text


def transformers_renders_and_labels_the_same(run):
    h5py, transformers = need("h5py"), need("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(run.trained())
    assistant, eos = (
        tokenizer.convert_tokens_to_ids(t) for t in ("<｜hy_Assistant｜>", "<｜hy_eos｜>")
    )
    with h5py.File(run.tokens(), "r") as file:
        tokens, mask, offsets = file["tokens"][:], file["label_mask"][:], file["offsets"][:]
    for i, row in enumerate(run.rows):
        ids = tokenizer(render(tokenizer, row), add_special_tokens=False)["input_ids"]
        part = slice(int(offsets[i]), int(offsets[i + 1]))
        assert tokens[part].tolist() == ids, f"sample {i}: ids"
        assert mask[part].tolist() == labelled(ids, assistant, eos), f"sample {i}: labels"


def load_model(torch, transformers, directory):
    if "hy_v3" not in transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES:
        raise Skip(f"transformers {transformers.__version__} does not know hy_v3")
    torch.set_num_threads(1)
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    wrong = {k: v for k, v in report.items() if v}
    assert not wrong, f"loading: {wrong}"
    return model


def mean_loss(torch, transformers, run, model, directory):
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    assistant, eos = (
        tokenizer.convert_tokens_to_ids(t) for t in ("<｜hy_Assistant｜>", "<｜hy_eos｜>")
    )
    total, count = 0.0, 0
    for row in run.rows:
        ids = tokenizer(render(tokenizer, row), add_special_tokens=False)["input_ids"]
        labels = [t if m else -100 for t, m in zip(ids, labelled(ids, assistant, eos))]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
        total += torch.nn.functional.cross_entropy(
            logits, torch.tensor(labels[1:]), ignore_index=-100, reduction="sum"
        ).item()
        count += sum(label != -100 for label in labels[1:])
    return total / count


def transformers_loads_the_weights_and_finds_the_logged_loss(run):
    torch, transformers = need("torch"), need("transformers")
    log = run.sft(
        run.trained(),
        run.directory / "still",
        "learning_rate=0",
        "max_steps=1",
        f"per_device_train_batch_size={SAMPLES}",
    )
    for directory in (
        run.trained(),
        run.directory / "still",
    ):  # learning_rate 0: the same weights, written again
        model = load_model(torch, transformers, directory)
        loss = mean_loss(torch, transformers, run, model, directory)
        print(f"# {directory.name}: transformers {loss:.7f}, train_log {log[0]['loss']:.7f}")
        assert (
            abs(loss - log[0]["loss"]) < 2e-5
        ), f"{directory.name}: {loss} against {log[0]['loss']}"


def peft_loads_the_adapter_and_finds_the_logged_loss(run):
    torch, transformers, peft = need("torch"), need("transformers"), need("peft")
    whole = f"per_device_train_batch_size={SAMPLES}"
    for target in ("q_proj,o_proj", "all"):
        adapter, still = run.directory / f"adapter-{target}", run.directory / f"still-{target}"
        run.sft(
            run.initial(),
            adapter,
            "finetuning_type=lora",
            f"lora_target={target}",
            "lora_rank=4",
            "max_steps=8",
            "learning_rate=1e-2",
            whole,
            ranks=2,
        )
        log = run.sft(
            run.initial(),
            still,
            "finetuning_type=lora",
            f"adapter_name_or_path={adapter}",
            "lora_dropout=0",
            "learning_rate=0",
            "max_steps=1",
            whole,
        )
        base = load_model(torch, transformers, run.initial())
        plain = mean_loss(torch, transformers, run, base, run.initial())
        model = peft.PeftModel.from_pretrained(base, adapter)
        loss = mean_loss(torch, transformers, run, model.eval(), run.initial())
        print(
            f"# {target}: peft {loss:.7f}, train_log {log[0]['loss']:.7f}, "
            f"without the adapter {plain:.7f}"
        )
        assert abs(loss - log[0]["loss"]) < 2e-5, f"{target}: {loss} against {log[0]['loss']}"
        assert abs(loss - plain) > 0.05, f"{target}: the adapter changes nothing"


def transformers_loads_the_merged_model_as_peft_merges_it(run):
    torch, transformers, peft = need("torch"), need("transformers"), need("peft")
    adapter, merged = run.directory / "adapter-all", run.directory / "merged"
    program(
        "hy3_merge",
        "--base_model_path",
        run.initial(),
        "--adapter_model_path",
        adapter,
        "--output_path",
        merged,
        "--save_dtype",
        "fp32",
        ranks=2,
    )
    ours = load_model(torch, transformers, merged)
    model = peft.PeftModel.from_pretrained(load_model(torch, transformers, run.initial()), adapter)
    theirs = model.merge_and_unload()
    worst = max(
        (a - b).abs().max().item()
        for a, b in zip(ours.state_dict().values(), theirs.state_dict().values())
    )
    losses = [mean_loss(torch, transformers, run, m, run.initial()) for m in (ours, theirs)]
    print(f"# merged: largest difference {worst:.2e}, losses {losses[0]:.7f} and {losses[1]:.7f}")
    assert worst < 2e-7 and abs(losses[0] - losses[1]) < 2e-6


def router_weights(directory):
    """By layer, whatever the layout of names."""
    safetensors, found = need("safetensors"), {}
    for path in directory.glob("*.safetensors"):
        with safetensors.safe_open(str(path), framework="pt") as file:
            for name in file.keys():
                if name.endswith("gate.weight") and "gate_proj" not in name:
                    found[name.split(".mlp.")[0]] = file.get_tensor(name)
    return found


def transformers_saves_router_weights_that_stay_as_they_are(run):
    """transformers 5.24 and later keep them in fp32 in a bf16 model."""
    torch, transformers = need("torch"), need("transformers")
    saved, adapter = run.directory / "saved", run.directory / "saved-adapter"
    model = transformers.AutoModelForCausalLM.from_pretrained(run.trained(), dtype=torch.bfloat16)
    model.save_pretrained(saved)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(run.trained() / name, saved)
    gates = router_weights(saved)
    if any(gate.dtype != torch.float32 for gate in gates.values()):
        raise Skip(f"transformers {transformers.__version__} keeps no fp32 router weights")
    program("hy3_check", saved)
    frozen = ["finetuning_type=lora", "lora_target=q_proj,v_proj", "max_steps=3", "save_steps=2"]
    run.sft(saved, adapter, "bf16=true", *frozen, ranks=2)
    made = [run.directory / f"saved-{name}" for name in ("merged", "outer", "full", "exported")]
    program("hy3_merge", "--base_model_path", saved, "--adapter_model_path", adapter,
            "--output_path", made[0], ranks=2)
    program("hy3_convert", "--to", "outer", "--input_dir", saved, "--output_dir", made[1])
    run.sft(saved, made[2], "bf16=true", "finetuning_type=attention", "max_steps=3", "save_steps=2")
    program("hy3_export", made[2] / "checkpoint-2", made[3])
    for directory in made:
        program("hy3_check", directory)
        ours = router_weights(directory)
        assert len(ours) == len(gates), f"{directory.name}: {sorted(ours)}"
        for name, gate in gates.items():
            assert torch.equal(ours[name], gate), f"{directory.name}: {name}"


def safetensors_opens_every_file(run):
    safetensors = need("safetensors")
    opened = 0
    outer = run.directory / "outer"
    program(
        "hy3_convert",
        "--to",
        "outer",
        "--input_dir",
        SOURCE / "tests" / "golden" / "a" / "inner",
        "--output_dir",
        outer,
        "--keep-residue",
    )
    run.trained()
    for path in sorted(run.directory.rglob("*.safetensors")):
        with safetensors.safe_open(str(path), framework="numpy") as file:
            opened += len(list(file.keys()))
    assert opened > 100, f"{opened} tensors"


def main():
    checks = [
        h5py_reads_the_token_file,
        tokenizers_gives_the_same_ids,
        transformers_renders_and_labels_the_same,
        transformers_loads_the_weights_and_finds_the_logged_loss,
        peft_loads_the_adapter_and_finds_the_logged_loss,
        transformers_loads_the_merged_model_as_peft_merges_it,
        transformers_saves_router_weights_that_stay_as_they_are,
        safetensors_opens_every_file,
    ]
    failed = 0
    print(f"1..{len(checks)}")
    with tempfile.TemporaryDirectory(prefix="hy3-outside-") as directory:
        run = Run(pathlib.Path(directory))
        for number, check in enumerate(checks, 1):
            name = check.__name__.replace("_", " ")
            try:
                check(run)
                print(f"ok {number} - {name}", flush=True)
            except Skip as reason:
                print(f"ok {number} - {name} # SKIP {reason}", flush=True)
            except Exception as error:
                failed += 1
                print(f"# {type(error).__name__}: {error}".replace("\n", "\n# "))
                print(f"not ok {number} - {name}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
