"""What pages show of recordings, and the spec that `--modality` names."""

import numpy as np

from maskstream.modality import MaskField, Modality
from maskstream.pages.figures.card import Card, Curves, Facts
from maskstream.pages.figures.chart import Chart, Line
from maskstream.pages.figures.figures import MaskRow, mask_facts
from maskstream.pipelines.masks import MASKS

from .data import SensorBatch, SensorData
from .encode import SensorEncoder


class SensorFigures:
    """Of each sensor a curve; where the mask hides it, the curve is broken."""

    def about(self, batch: SensorBatch) -> tuple[str, dict[str, str]]:
        """What is shown."""
        return "Windows of recordings as the training loop receives them.", {"times": str(batch.values.shape[1])}

    def sample(self, batch: SensorBatch, i: int) -> Card:
        """The curves of a row, and its mask."""
        return self.compared(batch, batch, i)

    def compared(self, batch: SensorBatch, made: SensorBatch, i: int) -> Card:
        """The curves of a row as the encoder sees them, and as they are or as the model made them."""
        whole = made.values[i].double().numpy()
        facts: tuple[Facts, ...] = ()
        time, seen = np.arange(len(whole), dtype=np.float64), whole.copy()
        if batch.mask is not None:
            row = MaskRow.of(batch.mask, i)
            seen[row.masked.reshape(-1, whole.shape[1]).repeat(whole.size // len(row.masked), axis=0)] = np.nan
            facts = (Facts(items=mask_facts(row)),)
        curves = [
            Chart(lines=(Line(x=time, y=values[:, n]),), title=f"{name} of sensor {n}")
            for n in range(whole.shape[1])
            for name, values in (("all", whole), ("seen", seen))
        ]
        figure = Curves(items=tuple(curves), across=2, x_name="time")
        return Card(key=batch.key[i], words=f"{whole.shape[1]} sensors", facts=facts, figures=(figure,))


DATA = SensorData(mask=MASKS["random"]())
SENSORS = Modality(
    name="sensors",
    unit="window",
    units="windows",
    kinds=("array",),
    encoder=SensorEncoder,
    data=DATA,
    masks=(MaskField(grid=DATA.grids["sensors"]),),
    figures=lambda data, manifest: SensorFigures(),
)
