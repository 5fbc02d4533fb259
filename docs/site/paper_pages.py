"""The parts of docs/papers/ that are made: masks, commands, figures, and what differs from the authors' code.

    python docs/site/paper_pages.py       writes them anew, and the table of docs/papers/README.md

They come from the schemes of `masks.SCHEMES`, the docstrings of `RECIPES` and the table of docs/recipes.md. All else on
a page is written by hand.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from maskstream.pipelines.masks import SCHEMES, Scheme
from maskstream.train.recipes import RECIPES

DOCS = Path(__file__).parents[1]
BEGIN, END = "<!-- made by: python docs/site/paper_pages.py -->", "<!-- end of what is made -->"


@dataclass(frozen=True, kw_only=True, slots=True)
class Paper:
    """A paper: its name, its page, the kind of data, its schemes by name or title, and its recipes.

    data: the sample set of the last small recipe. first: commands that must have run before. commands: those of a paper
    without a recipe. picture: of a paper without a scheme.
    """

    name: str
    kind: str
    schemes: tuple[str, ...] = ()
    recipes: tuple[str, ...] = ()
    data: str = ""
    first: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    picture: str = ""

    @property
    def page(self) -> str:
        """The file in docs/papers/."""
        return f"{self.name.lower().replace(' ', '-')}.md"


EXTRAS = {"metaworld": "metaworld", "sample-mesh": "meshes", "sample-points": "points", "sample-trajectory": "walks"}
"""What a sample set needs beyond the package itself."""
VQ = "maskstream train vq-tiny --data data/shards/sample-image/train --out runs/vq-tiny"
PAPERS = (
    Paper(
        name="VideoMAE",
        kind="video",
        schemes=("tube",),
        recipes=("videomae-base", "videomae-small", "sparse-tiny", "videomae-tiny"),
        data="sample",
    ),
    Paper(
        name="MGMAE",
        kind="video",
        schemes=("motion-guided",),
        recipes=("mgmae-base", "mgmae-small", "mgmae-tiny"),
        data="sample",
    ),
    Paper(
        name="VideoMAE V2",
        kind="video",
        schemes=("videomae2",),
        recipes=("videomae2-small", "videomae2-tiny"),
        data="sample",
    ),
    Paper(
        name="MAE-ST", kind="video", schemes=("random", "frames"), recipes=("maest-large", "maest-tiny"), data="sample"
    ),
    Paper(
        name="V-JEPA 2",
        kind="video",
        schemes=("v-jepa",),
        recipes=("vjepa-large", "vjepa2-large", "vjepa21-large", "vjepa2-tiny", "vjepa21-tiny"),
        data="moving-fashion-mnist",
    ),
    Paper(
        name="SALT",
        kind="video",
        recipes=("salt-base", "salt-tiny"),
        picture="mask-v-jepa.webp",
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
        data="metaworld",
        first=("maskstream train vqframes-tiny --data data/shards/metaworld/train --out runs/vqframes-tiny",),
    ),
    Paper(
        name="Audio-MAE",
        kind="sound",
        schemes=("audio-mae", "audio-mae-strips"),
        recipes=("audiomae-base", "audiomae-tiny"),
        data="sample-audio",
    ),
    Paper(
        name="A-JEPA", kind="sound", schemes=("a-jepa",), recipes=("ajepa-base", "ajepa-tiny"), data="gm-notes-pitch"
    ),
    Paper(
        name="Channel-Attention Dense U-Net",
        kind="sound",
        recipes=("ca-dense-unet-tiny",),
        data="sample-audio",
        picture="target-complex-ratio.webp",
    ),
    Paper(
        name="AVSiam",
        kind="video and sound",
        schemes=("avsiam-audio", "avsiam-image"),
        recipes=("avsiam-base", "avsiam-tiny"),
        data="sample-audiovisual",
    ),
    Paper(
        name="DiffMAViL",
        kind="video and sound",
        schemes=("diffmavil",),
        recipes=("diffmavil-base", "diffmavil-tiny"),
        data="sample-audiovisual",
    ),
    Paper(name="MAE", kind="images", schemes=("mae",), recipes=("mae-base", "mae-tiny"), data="sample-image"),
    Paper(
        name="I-JEPA",
        kind="images",
        schemes=("i-jepa",),
        recipes=("ijepa-base", "ijepa-tiny"),
        data="fashion-mnist",
    ),
    Paper(
        name="LeJEPA",
        kind="images, video",
        recipes=("lejepa-base", "videolejepa-tiny", "lejepa-tiny"),
        data="fashion-mnist",
    ),
    Paper(
        name="CropMAE",
        kind="images, video",
        schemes=("cropmae",),
        recipes=("siammae-small", "siammae-tiny", "cropmae-small", "cropmae-tiny"),
        data="sample-image",
    ),
    Paper(
        name="DMAE",
        kind="images",
        schemes=("dmae",),
        recipes=("dmae-base", "dmae-tiny"),
        data="sample-image",
        first=("maskstream train mae-tiny --data data/shards/sample-image/train --out runs/mae-tiny",),
    ),
    Paper(
        name="MAGE",
        kind="images",
        schemes=("mage", "maskgit"),
        recipes=("vq-base", "vq-tiny", "mage-base", "mage-tiny"),
        data="sample-image",
        first=(VQ,),
    ),
    Paper(
        name="LMD", kind="images", schemes=("lmd",), recipes=("lmd-base", "lmd-tiny"), data="sample-image", first=(VQ,)
    ),
    Paper(
        name="NaViT",
        kind="images",
        recipes=("native-base", "native-tiny"),
        data="sample-image",
        picture="mask-mae.webp",
    ),
    Paper(
        name="Learning by Reconstruction",
        kind="images",
        picture="mask-complementary.webp",
        commands=("maskstream shards sample", "maskstream mask-score data/shards/sample/train"),
    ),
    Paper(
        name="Masked Spiking Transformer",
        kind="images",
        recipes=("spiking-mst-base", "spiking-mst-tiny"),
        data="fashion-mnist",
        picture="target-spikes.webp",
    ),
    Paper(
        name="M3AE",
        kind="images and text",
        schemes=("m3ae-image", "m3ae-text"),
        recipes=("vqa-tiny", "m3ae-base", "m3ae-tiny"),
        data="sample-image-text",
    ),
    Paper(
        name="OneRef",
        kind="images and text",
        schemes=("oneref", "oneref-text"),
        recipes=("oneref-refer-base", "oneref-refer-tiny", "oneref-base", "oneref-tiny"),
        data="scenes-referring",
    ),
    Paper(name="MedThink", kind="images and text", recipes=("medthink-base", "medthink-tiny"), data="scenes-counting"),
    Paper(
        name="GPT-4V on knowledge VQA",
        kind="images and text",
        picture="mask-mae.webp",
        commands=(
            "maskstream shards easy-vqa",
            "maskstream paper kbvqa data/shards/easy-vqa/val --known data/shards/easy-vqa/train",
        ),
    ),
    Paper(
        name="BERT", kind="text", schemes=("Replaced tokens",), recipes=("bert-base", "bert-tiny"), data="sample-text"
    ),
    Paper(
        name="MosaicBERT",
        kind="text",
        schemes=("mosaicbert",),
        recipes=("mosaicbert-base", "mosaicbert-tiny"),
        data="sample-text",
    ),
    Paper(
        name="RetroMAE",
        kind="text",
        schemes=("retromae",),
        recipes=("retromae-base", "retromae-tiny"),
        data="sample-text",
    ),
    Paper(
        name="Learning Better Masking",
        kind="text",
        schemes=("mrd", "ptw"),
        recipes=("ptw-base", "ptw-tiny", "mrd-base", "mrd-tiny"),
        data="sample-text",
    ),
    Paper(name="PMLM", kind="text", schemes=("pmlm",), recipes=("pmlm-base", "pmlm-tiny"), data="sample-text"),
    Paper(
        name="ModernBERT",
        kind="text",
        schemes=("mosaicbert",),
        recipes=("modernbert-base", "modernbert-base-long", "modernbert-tiny"),
        data="sample-text",
    ),
    Paper(name="MDLM", kind="text", schemes=("mdlm",), recipes=("mdlm-base", "mdlm-tiny"), data="sample-text"),
    Paper(
        name="Recursive ROAR",
        kind="text",
        schemes=("roar",),
        recipes=("roar-roberta-base", "roar-roberta-tiny", "roar-lstm-base", "roar-lstm-tiny"),
        commands=(
            "maskstream shards vader --set tokenizer=train:wordpiece:4096",
            "maskstream paper roar roar-lstm-tiny --data data/shards/vader/train --test data/shards/vader/val",
        ),
    ),
    Paper(
        name="FastDiT-3D",
        kind="points",
        schemes=("fastdit-3d",),
        recipes=("fastdit3d-small", "fastdit3d-tiny"),
        data="sample-points",
    ),
    Paper(name="Point-MAE", kind="points", recipes=("pointmae-small", "pointmae-tiny"), data="sample-points"),
    Paper(
        name="MeshMask",
        kind="meshes",
        schemes=("mesh-mask", "Nodes, some of them protected"),
        recipes=("meshmask-small", "meshmask-small-next", "meshmask-tiny-next", "meshmask-tiny"),
        data="sample-mesh",
    ),
    Paper(
        name="MPM",
        kind="motions",
        schemes=("mpm", "mpm-limbs"),
        recipes=("mpm", "mpm-lift", "mpm-lift-tiny", "mpm-tiny"),
        data="sample-pose",
    ),
    Paper(
        name="ImagineNav",
        kind="walks with depth",
        schemes=("rgb-depth",),
        recipes=("where2imagine-base", "where2imagine-tiny"),
        data="sample-trajectory",
    ),
)


def with_parts(text: str, paper: Paper) -> str:
    """The page of a paper, with what is made between its two marks; ValueError where a mark is missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{paper.page} has not both marks, {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{chr(10).join(_parts(paper))}\n{END}{after}"


def index() -> str:
    """The table of docs/papers/README.md."""
    rows = ["| paper | data | masks | recipes |", "| --- | --- | --- | --- |"]
    for paper in sorted(PAPERS, key=lambda paper: paper.name.lower()):
        masks = ", ".join(f"`{one}`" for one in paper.schemes if one == one.lower()) or "-"
        recipes = ", ".join(f"`{one}`" for one in paper.recipes) or "-"
        rows.append(f"| [{paper.name}]({paper.page}) | {paper.kind} | {masks} | {recipes} |")
    return "\n".join(rows)


def _parts(paper: Paper) -> Iterator[str]:
    schemes = [scheme for name in paper.schemes for scheme in SCHEMES if name in (scheme.name, scheme.title)]
    for scheme in schemes:
        yield from _of_scheme(scheme)
    if paper.picture:
        yield from (f'<img src="../pictures/{paper.picture}" alt="">', "")
    if files := sorted({_code(name) for name in paper.recipes}):
        yield from (f"Code: {', '.join(f'[{file}](../../{file})' for file in files)}", "")
    yield from ("## Commands", "", "```", *_commands(paper), "```", "")
    rows = [row for name in paper.recipes for row in _figures(name)]
    if rows:
        head = "| recipe | data | held-out figure | it reaches | the best of what needs no training |"
        yield from ("## What it reaches", "", head, "| --- | --- | --- | ---: | --- |", *rows, "")
        yield from ("[Recipes](../recipes.md) says how this is measured, and what to think of it.", "")
    if paper.recipes:
        yield from ("## Recipes, and what differs from the authors' code", "")
        yield from (line for name in paper.recipes for line in _of_recipe(name))


def _code(recipe: str) -> str:
    """The folder of a recipe's paper, or the paper's file in the folder of several."""
    *folder, file = RECIPES[recipe].__module__.split(".")[1:]
    return "/".join(folder if file == "recipe" else [*folder, f"{file}.py"])


def _of_scheme(scheme: Scheme) -> Iterator[str]:
    name = f", `--mask {scheme.name}`" if scheme.name else ""
    yield from (f'<img src="../pictures/{scheme.picture}" alt="">', "", f"`{scheme.call}`{name}: {scheme.note}", "")


def _commands(paper: Paper) -> Iterator[str]:
    if paper.commands:
        yield from paper.commands
        return
    recipe, shards = paper.recipes[-1], f"data/shards/{paper.data}"
    if extra := EXTRAS.get(paper.data):
        yield f"pip install '.[{extra}]'"
    yield f"maskstream shards {paper.data}"
    yield from paper.first
    yield f"maskstream train {recipe} --data {shards}/train --out runs/{recipe}"
    yield f"maskstream report runs/{recipe} --data {shards}/val"


def _figures(recipe: str) -> Iterator[str]:
    """The row of a recipe in docs/recipes.md, shorter."""
    for line in (DOCS / "recipes.md").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"| `{recipe}` |"):
            name, data, _, _, figure, median, baseline, _ = line.strip("| ").split(" | ")
            yield f"| {name} | {data} | {figure} | {median.split(' (')[0]} | {baseline} |"


def _of_recipe(name: str) -> Iterator[str]:
    """The docstring of a recipe, what differs as a list."""
    text = inspect.getdoc(RECIPES[name]) or ""
    first, *others = (re.sub(r"\s+", " ", part) for part in re.split(r"\n\n+", text))
    yield from (f"**`{name}`**: {first}", "")
    for part in others:
        if re.fullmatch(r"Differs from the authors' (code )?as `\w+` does\.", part):
            continue
        head, colon, points = part.partition(": ")
        if colon and head.startswith("Differs") and ";" in points:
            yield from (f"{head}:", "", *(f"- {point.rstrip('.')}" for point in points.split("; ")), "")
        else:
            yield from (part, "")


def main() -> None:
    """Writes all pages."""
    for paper in PAPERS:
        path = DOCS / "papers" / paper.page
        path.write_text(with_parts(path.read_text(encoding="utf-8"), paper), encoding="utf-8")
    path = DOCS / "papers/README.md"
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    path.write_text(f"{before}{begin}\n\n{index()}\n\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
