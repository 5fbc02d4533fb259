"""Facts about a dataset that its splits do not record, for its dataset card."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from maskstream.shards.flag import OutputFlag

RAI = (
    "dataAnnotationAnalysis",
    "dataAnnotationPlatform",
    "dataAnnotationProtocol",
    "dataBiases",
    "dataCollection",
    "dataCollectionMissingData",
    "dataCollectionRawData",
    "dataCollectionTimeframe",
    "dataCollectionType",
    "dataImputationProtocol",
    "dataLimitations",
    "dataManipulationProtocol",
    "dataPreprocessingProtocol",
    "dataReleaseMaintenancePlan",
    "dataSocialImpact",
    "dataUseCases",
    "annotationsPerItem",
    "annotatorDemographics",
    "machineAnnotationTools",
    "personalSensitiveInformation",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """Facts about a dataset that its splits do not record."""

    name: Annotated[str, OutputFlag("Name of the data [default: name of the dataset].")] = ""
    description: Annotated[str, OutputFlag("Description in one sentence.")] = ""
    licenses: Annotated[Sequence[str], OutputFlag("License, by SPDX name or URL; repeatable.", "--license")] = ()
    creators: Annotated[Sequence[str], OutputFlag("Creator of the data; repeatable.", "--creator")] = ()
    url: Annotated[str, OutputFlag("Where the data are published.")] = ""
    cite: Annotated[str, OutputFlag("How to cite them.")] = ""
    published: Annotated[str, OutputFlag("Publication date, such as 2026-11-30.", metavar="DATE")] = ""
    rai: Annotated[
        Mapping[str, str],
        OutputFlag(
            "Field of Croissant's RAI vocabulary, such as dataBiases='few night scenes'; repeatable.",
            metavar="FIELD=TEXT",
        ),
    ] = field(default_factory=dict)
    license_by: Annotated[str, OutputFlag("Field with the license of each sample.", metavar="FIELD")] = ""

    def __post_init__(self) -> None:
        if strange := [name for name in self.rai if name not in RAI]:
            raise ValueError(
                f"{strange[0]!r} is not a field of Croissant's RAI vocabulary; choose from {', '.join(RAI)}"
            )
