"""Write the generated parts of docs/papers/: masks, commands, results, and differences from the authors' code.

    python docs/site/paper_pages.py       rewrites them, and the table of docs/papers/README.md

The sources are `masks.SCHEMES`, the docstrings of `RECIPES`, the table in docs/recipes.md, and the datasets and
settings that benchmarks/recipes.py uses for that table. The rest of a page is written by hand.
"""

from __future__ import annotations

import inspect
import re
import runpy
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from maskstream.pipelines.masks import SCHEMES, Scheme
from maskstream.train.recipes import RECIPES, named_recipe

DOCS = Path(__file__).parents[1]
BENCHMARK = runpy.run_path(str(DOCS.parent / "benchmarks/recipes.py"))
"""Globals of the script that trains the tiny recipes."""
BEGIN, END = "<!-- generated: docs/site/paper_pages.py -->", "<!-- end of generated -->"


@dataclass(frozen=True, kw_only=True, slots=True)
class Paper:
    """A paper and its page.

    Attributes:
        name: Short name of the paper.
        kind: Kind of data.
        schemes: Masking schemes, by name or title.
        recipes: Names of its recipes; by default, the page's command trains the last one.
        first: Commands that must run before training.
        commands: Replacement for the default commands.
        picture: Image of a paper without a scheme.
        alt: Alternative text of `picture`.
    """

    name: str
    kind: str
    schemes: tuple[str, ...] = ()
    recipes: tuple[str, ...] = ()
    first: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    picture: str = ""
    alt: str = ""

    @property
    def page(self) -> str:
        """The file in docs/papers/."""
        return f"{self.name.lower().replace(' ', '-')}.md"


USUAL = ("bf16", "crops follow", "mask strips follow", "no key bias", "no weight decay", "other random numbers")
"""Prefixes of differences that docs/papers/README.md lists once for all recipes."""
EXTRAS = {"metaworld": "metaworld", "sample-mesh": "meshes", "sample-points": "points", "sample-trajectory": "walks"}
"""Extras that sample sets require."""
VQ = "maskstream train vq-tiny --data data/shards/sample-image/train --out runs/vq-tiny"
PAPERS = (
    Paper(
        name="VideoMAE",
        kind="video",
        schemes=("tube",),
        recipes=("videomae-base", "videomae-small", "sparse-tiny", "videomae-tiny"),
    ),
    Paper(
        name="MGMAE",
        kind="video",
        schemes=("motion-guided",),
        recipes=("mgmae-base", "mgmae-small", "mgmae-tiny"),
    ),
    Paper(
        name="VideoMAE V2",
        kind="video",
        schemes=("videomae2",),
        recipes=("videomae2-small", "videomae2-tiny"),
    ),
    Paper(name="MAE-ST", kind="video", schemes=("random", "frames"), recipes=("maest-large", "maest-tiny")),
    Paper(
        name="V-JEPA 2",
        kind="video",
        schemes=("v-jepa",),
        recipes=("vjepa-large", "vjepa2-large", "vjepa21-large", "vjepa2-tiny", "vjepa21-tiny"),
        commands=(
            "maskstream shards sample",
            "maskstream train vjepa2-tiny --data data/shards/sample/train --out runs/vjepa2-tiny",
            "maskstream report runs/vjepa2-tiny --data data/shards/sample/val",
            "maskstream shards moving-fashion-mnist",
            "maskstream train vjepa21-tiny --data data/shards/moving-fashion-mnist/train --out runs/vjepa21-tiny",
            "maskstream report runs/vjepa21-tiny --data data/shards/moving-fashion-mnist/val",
        ),
    ),
    Paper(
        name="SALT",
        kind="video",
        recipes=("salt-base", "salt-tiny"),
        picture="mask-v-jepa.webp",
        alt="A clip under two V-JEPA masks",
        commands=(
            "maskstream shards moving-fashion-mnist",
            "maskstream train videomae-tiny --data data/shards/moving-fashion-mnist/train --out runs/videomae-tiny",
            "maskstream targets runs/videomae-tiny data/shards/moving-fashion-mnist/train --recipe salt-tiny --cycle 2 "
            "--out runs/targets",
            "maskstream train salt-tiny --data data/shards/moving-fashion-mnist/train --out runs/salt-tiny "
            "--set teacher=runs/videomae-tiny --set data.targets=runs/targets",
            "maskstream report runs/salt-tiny --data data/shards/moving-fashion-mnist/val",
        ),
    ),
    Paper(
        name="MaskViT",
        kind="video",
        schemes=("maskvit",),
        recipes=("vqframes-tiny", "maskvit-base", "maskvit-tiny"),
        first=("maskstream train vqframes-tiny --data data/shards/metaworld/train --out runs/vqframes-tiny",),
    ),
    Paper(
        name="Audio-MAE",
        kind="audio",
        schemes=("audio-mae", "audio-mae-strips"),
        recipes=("audiomae-base", "audiomae-tiny"),
    ),
    Paper(name="A-JEPA", kind="audio", schemes=("a-jepa",), recipes=("ajepa-base", "ajepa-tiny")),
    Paper(
        name="Channel-Attention Dense U-Net",
        kind="audio",
        recipes=("ca-dense-unet-tiny",),
        picture="target-complex-ratio.webp",
        alt="Speech in a crowd, magnitude of the ideal ratio, their product, clean speech",
    ),
    Paper(
        name="AVSiam",
        kind="video with audio",
        schemes=("avsiam-audio", "avsiam-image"),
        recipes=("avsiam-base", "avsiam-tiny"),
    ),
    Paper(
        name="DiffMAViL",
        kind="video with audio",
        schemes=("diffmavil",),
        recipes=("diffmavil-base", "diffmavil-tiny"),
    ),
    Paper(name="MAE", kind="images", schemes=("mae",), recipes=("mae-base", "mae-tiny")),
    Paper(
        name="I-JEPA",
        kind="images",
        schemes=("i-jepa",),
        recipes=("ijepa-base", "ijepa-tiny"),
    ),
    Paper(
        name="LeJEPA",
        kind="images, video",
        recipes=("lejepa-base", "videolejepa-tiny", "lejepa-tiny"),
    ),
    Paper(
        name="CropMAE",
        kind="images, video",
        schemes=("cropmae",),
        recipes=("siammae-small", "siammae-tiny", "cropmae-small", "cropmae-tiny"),
    ),
    Paper(
        name="DMAE",
        kind="images",
        schemes=("dmae",),
        recipes=("dmae-base", "dmae-tiny"),
        first=("maskstream train mae-tiny --data data/shards/sample-image/train --out runs/mae-tiny",),
    ),
    Paper(
        name="MAGE",
        kind="images",
        schemes=("mage", "maskgit"),
        recipes=("vq-base", "vq-tiny", "mage-base", "mage-tiny"),
        first=(VQ,),
    ),
    Paper(name="LMD", kind="images", schemes=("lmd",), recipes=("lmd-base", "lmd-tiny"), first=(VQ,)),
    Paper(
        name="NaViT",
        kind="images",
        recipes=("native-base", "native-tiny"),
        picture="mask-mae.webp",
        alt="An image and its visible patches",
    ),
    Paper(
        name="Learning by Reconstruction",
        kind="images",
        picture="mask-complementary.webp",
        alt="An image under two complementary masks",
        commands=("maskstream shards sample", "maskstream mask-score data/shards/sample/train"),
    ),
    Paper(
        name="Masked Spiking Transformer",
        kind="images",
        recipes=("spiking-mst-base", "spiking-mst-tiny"),
        picture="target-spikes.webp",
        alt="Spikes of a few neurons over time",
    ),
    Paper(
        name="M3AE",
        kind="images with text",
        schemes=("m3ae-image", "m3ae-text"),
        recipes=("vqa-tiny", "m3ae-base", "m3ae-tiny"),
    ),
    Paper(
        name="OneRef",
        kind="images with text",
        schemes=("oneref", "oneref-text"),
        recipes=("oneref-refer-base", "oneref-refer-tiny", "oneref-base", "oneref-tiny"),
    ),
    Paper(name="MedThink", kind="images with text", recipes=("medthink-base", "medthink-tiny")),
    Paper(
        name="GPT-4V on knowledge VQA",
        kind="images with text",
        picture="mask-mae.webp",
        alt="An image and its visible patches",
        commands=(
            "maskstream shards easy-vqa",
            "maskstream paper kbvqa data/shards/easy-vqa/val --known data/shards/easy-vqa/train",
        ),
    ),
    Paper(name="BERT", kind="text", schemes=("Replaced tokens",), recipes=("bert-base", "bert-tiny")),
    Paper(
        name="MosaicBERT",
        kind="text",
        schemes=("mosaicbert",),
        recipes=("mosaicbert-base", "mosaicbert-tiny"),
    ),
    Paper(
        name="RetroMAE",
        kind="text",
        schemes=("retromae",),
        recipes=("retromae-base", "retromae-tiny"),
    ),
    Paper(
        name="Learning Better Masking",
        kind="text",
        schemes=("mrd", "ptw"),
        recipes=("ptw-base", "ptw-tiny", "mrd-base", "mrd-tiny"),
    ),
    Paper(name="PMLM", kind="text", schemes=("pmlm",), recipes=("pmlm-base", "pmlm-tiny")),
    Paper(
        name="ModernBERT",
        kind="text",
        schemes=("mosaicbert",),
        recipes=("modernbert-base", "modernbert-base-long", "modernbert-tiny"),
    ),
    Paper(name="MDLM", kind="text", schemes=("mdlm",), recipes=("mdlm-base", "mdlm-tiny")),
    Paper(
        name="Recursive ROAR",
        kind="text",
        schemes=("roar",),
        recipes=("roar-roberta-base", "roar-roberta-tiny", "roar-lstm-base", "roar-lstm-tiny"),
        commands=(
            "maskstream shards vader --set tokenizer=train:wordpiece:4096",
            "maskstream paper roar roar-lstm-tiny --data data/shards/vader/train --test data/shards/vader/val "
            "--step 20 --steps 100 --set data.length=24 --samples 1024 --points 5",
        ),
    ),
    Paper(
        name="FastDiT-3D",
        kind="point clouds",
        schemes=("fastdit-3d",),
        recipes=("fastdit3d-small", "fastdit3d-tiny"),
    ),
    Paper(name="Point-MAE", kind="point clouds", recipes=("pointmae-small", "pointmae-tiny")),
    Paper(
        name="MeshMask",
        kind="meshes",
        schemes=("mesh-mask", "Nodes, some of them protected"),
        recipes=("meshmask-small", "meshmask-small-next", "meshmask-tiny-next", "meshmask-tiny"),
    ),
    Paper(
        name="MPM",
        kind="poses",
        schemes=("mpm", "mpm-limbs"),
        recipes=("mpm", "mpm-lift", "mpm-lift-tiny", "mpm-tiny"),
    ),
    Paper(
        name="ImagineNav",
        kind="trajectories with depth",
        schemes=("rgb-depth",),
        recipes=("where2imagine-base", "where2imagine-tiny"),
    ),
)


def with_parts(text: str, paper: Paper) -> str:
    """Return a page with its generated part between the two marks; raise ValueError if a mark is missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{paper.page} must contain both marks, {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{chr(10).join(_parts(paper))}\n{END}{after}"


def index() -> str:
    """The table of docs/papers/README.md."""
    rows = ["| paper | data | recipes |", "|---|---|---|"]
    for paper in sorted(PAPERS, key=lambda paper: paper.name.lower()):
        recipes = ", ".join(f"`{one}`" for one in paper.recipes) or "-"
        rows.append(f"| [{paper.name}]({paper.page}) | {paper.kind} | {recipes} |")
    return "\n".join(rows)


def _parts(paper: Paper) -> Iterator[str]:
    schemes = [scheme for name in paper.schemes for scheme in SCHEMES if name in (scheme.name, scheme.title)]
    for scheme in schemes:
        yield from _of_scheme(scheme)
    if paper.picture:
        yield from (f'<img src="../pictures/{paper.picture}" alt="{paper.alt}">', "")
    code = {file for name in paper.recipes for file in _code(name)}
    if files := sorted(code, key=lambda file: (file.startswith("train/nn"), file)):
        yield from (f"Code: {', '.join(f'[{file}](../../{file})' for file in files)}", "")
    yield from ("## Train" if paper.recipes else "## Run", "", "```", *map(_fold, _commands(paper)), "```", "")
    rows = [row for name in paper.recipes for row in _figures(name)]
    if rows:
        head = "| recipe | [result](../recipes.md) | training-free baseline | metric | data | CPU time |"
        yield from ("## Results", "", head, "|---|---:|---|---|---|---:|", *rows, "")
    if paper.recipes:
        yield from ("## Recipes", "")
        yield from (line for name in paper.recipes for line in _of_recipe(name))


def _code(recipe: str) -> set[str]:
    """The folder of a recipe's paper, or the paper's file in the folder of several, and the file of a shared model."""
    *folder, file = RECIPES[recipe].__module__.split(".")[1:]
    code = "/".join(folder if file == "recipe" else [*folder, f"{file}.py"])
    model = "/".join(type(RECIPES[recipe]().model).__module__.split(".")[1:]) + ".py"
    return {code} if model.startswith(code) else {code, model}


def _of_scheme(scheme: Scheme) -> Iterator[str]:
    yield from (f'<img src="../pictures/{scheme.picture}" alt="{scheme.title}">', "")
    yield from (f"`{scheme.call}`" + (f", [`--mask {scheme.name}`](../masks.md)" if scheme.name else ""), "")


def _commands(paper: Paper) -> Iterator[str]:
    if paper.commands:
        yield from paper.commands
        return
    recipe = paper.recipes[-1]
    data = BENCHMARK["sample_set"](named_recipe(recipe))
    settings = "".join(f" --set {shlex.quote(setting)}" for setting in BENCHMARK["SETTINGS"].get(recipe, ()))
    if extra := EXTRAS.get(data):
        yield f"pip install '.[{extra}]'"
    yield f"maskstream shards {data}"
    yield from paper.first
    yield f"maskstream train {recipe} --data data/shards/{data}/train --out runs/{recipe}{settings}"
    yield f"maskstream report runs/{recipe} --data data/shards/{data}/val"


def _fold(command: str) -> str:
    """Break a command before options so that its lines have at most 88 characters."""
    lines = [""]
    for part in re.split(r" (?=--)", command):
        if lines[-1] and len(lines[-1]) + len(part) > 85:
            lines.append("   ")
        lines[-1] += f" {part}" if lines[-1] else part
    return " \\\n".join(lines)


def _figures(recipe: str) -> Iterator[str]:
    """The results of a recipe, from its row in docs/recipes.md."""
    for line in (DOCS / "recipes.md").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"| `{recipe}` |"):
            name, data, _, seconds, metric, median, baseline, _ = line.strip("| ").split(" | ")
            time = f"{seconds} s" if int(seconds) < 90 else f"{round(int(seconds) / 60)} min"
            yield f"| {name} | {median.split(' (')[0]} | {baseline} | {metric} | {data} | {time} |"


def _of_recipe(name: str) -> Iterator[str]:
    """Yield the first paragraph of a recipe's docstring and its differences from the authors' code, except common ones.

    `maskstream recipes NAME` prints all of it. A recipe that only scales down another has no entry.
    """
    text = inspect.getdoc(RECIPES[name]) or ""
    if text.startswith("Scaled down"):
        return
    first, *others = (re.sub(r"\s+", " ", part) for part in re.split(r"\n\n+", text))
    first = re.sub(r" \([A-Z][^();]*, \d{4}[^();]*\)", "", first, count=1)  # the page itself cites the paper
    yield from (f"**`{name}`**: {first}", "")
    for part in others:
        head, _, listed = part.partition(": ")
        points = [point.rstrip(".") for point in listed.split("; ") if not point.startswith(USUAL)]
        if head.startswith("Differences") and points:
            yield from (f"{head}:", "", *(f"- {point}" for point in points), "")


def main() -> None:
    """Write all pages."""
    for paper in PAPERS:
        path = DOCS / "papers" / paper.page
        path.write_text(with_parts(path.read_text(encoding="utf-8"), paper), encoding="utf-8")
    path = DOCS / "papers/README.md"
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    path.write_text(f"{before}{begin}\n\n{index()}\n\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
