"""Catalogue of known image sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["CATALOG", "Catalogued", "Role", "Task"]

Task = Literal["defects", "one-vs-rest", "out-of-distribution", "presentation-attacks", "disease", "video"]
Role = Literal["development", "report", "none"]


@dataclass(frozen=True, kw_only=True)
class Catalogued:
    """Catalogue entry of an image set.

    Parameters
    ----------
    title : str
        Name given by its provider.
    tasks : tuple of str
        Tasks of the protocols that use the set.
    reader : str
        ``module:function`` in `anomem.data.official`.
    source : str
        Place to request the set.
    licence : str
        Licence stated by the provider; only the provider's text is binding.
    folders : tuple of str
        Possible names of a copy: a folder, or with ``.zip`` a file.
    categories : tuple of str
        Parts that can be opened separately; empty for none.
    variants : tuple of str
        Splits or labellings, the default first; empty if there is only one.
    normal, anomalous : tuple of str
        Normal classes, or else all anomalous classes; both empty if any class may be normal.
    role : {"development", "report", "none"}
        "development" if defaults of anomem were chosen on the set, "report" if it is used for reporting only.
    roles : mapping
        Roles of single categories.
    download : str
        Dataset class in torchvision that can download the set; empty if it must be requested.
    """

    title: str
    tasks: tuple[Task, ...]
    reader: str
    source: str
    licence: str
    folders: tuple[str, ...]
    categories: tuple[str, ...] = ()
    variants: tuple[str, ...] = ("",)
    normal: tuple[str, ...] = ()
    anomalous: tuple[str, ...] = ()
    role: Role = "none"
    roles: Mapping[str, Role] = field(default_factory=dict)
    download: str = ""

    @property
    def ask(self) -> str:
        """Clause that names the provider and the place to request the set."""
        return f"{self.title} can be asked for at {self.source}"

    def role_of(self, category: str | None) -> Role:
        """Return the role of a category, or of the whole set."""
        return self.roles.get(category or "", self.role)


_MVTEC = "https://www.mvtec.com/company/research/datasets"
_NC_SA = "CC BY-NC-SA 4.0: not for commercial use"

CATALOG: dict[str, Catalogued] = {
    "cifar10": Catalogued(
        title="CIFAR-10",
        tasks=("one-vs-rest", "out-of-distribution"),
        reader="arrays:read_cifar",
        source="https://www.cs.toronto.edu/~kriz/cifar.html",
        licence="none stated; its authors ask for citation",
        folders=("cifar10", "cifar-10", "cifar-10-batches-bin", "cifar-10-batches-py"),
        role="report",
        download="CIFAR10",
    ),
    "cifar100": Catalogued(
        title="CIFAR-100",
        tasks=("one-vs-rest", "out-of-distribution"),
        reader="arrays:read_cifar",
        source="https://www.cs.toronto.edu/~kriz/cifar.html",
        licence="none stated; its authors ask for citation",
        folders=("cifar100", "cifar-100", "cifar-100-binary", "cifar-100-python", "cifar100_small"),
        variants=("fine", "coarse"),
        role="development",
        download="CIFAR100",
    ),
    "mnist": Catalogued(
        title="MNIST",
        tasks=("one-vs-rest",),
        reader="arrays:read_mnist",
        source="http://yann.lecun.com/exdb/mnist/",
        licence="none stated on the provider's page",
        folders=("mnist", "MNIST", "mnist_small"),
        role="report",
        download="MNIST",
    ),
    "fashion_mnist": Catalogued(
        title="Fashion-MNIST",
        tasks=("one-vs-rest",),
        reader="arrays:read_mnist",
        source="https://github.com/zalandoresearch/fashion-mnist",
        licence="MIT",
        folders=("fashion_mnist", "fashion-mnist", "FashionMNIST"),
        download="FashionMNIST",
    ),
    "svhn": Catalogued(
        title="SVHN, cropped digits",
        tasks=("one-vs-rest", "out-of-distribution"),
        reader="arrays:read_svhn",
        source="http://ufldl.stanford.edu/housenumbers/",
        licence="not for commercial use",
        folders=("svhn", "SVHN"),
        download="SVHN",
    ),
    "lsun": Catalogued(
        title="LSUN scenes",
        tasks=("out-of-distribution",),
        reader="folders:read_lsun",
        source="https://www.yf.io/p/lsun",
        licence="none stated on the provider's page",
        folders=("lsun", "LSUN"),
    ),
    "cub200": Catalogued(
        title="CUB-200-2011",
        tasks=("one-vs-rest",),
        reader="lists:read_cub",
        source="https://www.vision.caltech.edu/datasets/cub_200_2011/",
        licence="not for commercial use; the photographs belong to their makers",
        folders=("cub200", "CUB_200_2011"),
    ),
    "wmca": Catalogued(
        title="WMCA",
        tasks=("presentation-attacks",),
        reader="lists:read_wmca",
        source="https://www.idiap.ch/dataset/wmca",
        licence="for research, after signing the agreement of the Idiap Research Institute",
        folders=("wmca", "WMCA"),
        variants=(
            *("grandtest", "LOO_prints", "LOO_replay", "LOO_papermask", "LOO_flexiblemask"),
            *("LOO_rigidmask", "LOO_fakehead", "LOO_glasses"),
        ),
        normal=("bonafide",),
    ),
    "mvtec_ad": Catalogued(
        title="MVTec AD",
        tasks=("defects",),
        reader="mvtec:read",
        source=f"{_MVTEC}/mvtec-ad",
        licence=_NC_SA,
        folders=("mvtec_ad", "mvtec_anomaly_detection", "mvtec"),
        categories=(
            *("bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut"),
            *("pill", "screw", "tile", "toothbrush", "transistor", "wood", "zipper"),
        ),
        normal=("good",),
        variants=("", "native"),
        roles={"toothbrush": "development", "pill": "development", "bottle": "report", "screw": "report"},
    ),
    "mvtec_ad_2": Catalogued(
        title="MVTec AD 2",
        tasks=("defects",),
        reader="mvtec:read",
        source=f"{_MVTEC}/mvtec-ad-2",
        licence=_NC_SA,
        folders=("mvtec_ad_2",),
        categories=("can", "fabric", "fruit_jelly", "rice", "sheet_metal", "vial", "wallplugs", "walnuts"),
        variants=("public", "private", "private_mixed"),
        normal=("good",),
    ),
    "mvtec_loco": Catalogued(
        title="MVTec LOCO AD",
        tasks=("defects",),
        reader="mvtec:read",
        source=f"{_MVTEC}/mvtec-loco",
        licence=_NC_SA,
        folders=("mvtec_loco", "mvtec_loco_anomaly_detection"),
        categories=("breakfast_box", "juice_bottle", "pushpins", "screw_bag", "splicing_connectors"),
        normal=("good",),
    ),
    "mvtec_3d": Catalogued(
        title="MVTec 3D-AD",
        tasks=("defects",),
        reader="mvtec:read",
        source=f"{_MVTEC}/mvtec-3d-ad",
        licence=_NC_SA,
        folders=("mvtec_3d", "mvtec_3d_anomaly_detection"),
        categories=(
            *("bagel", "cable_gland", "carrot", "cookie", "dowel"),
            *("foam", "peach", "potato", "rope", "tire"),
        ),
        normal=("good",),
    ),
    "btad": Catalogued(
        title="BTAD (beanTech)",
        tasks=("defects",),
        reader="mvtec:read",
        source="https://avires.dimi.uniud.it/papers/btad/btad.zip",
        licence=_NC_SA,
        folders=("btad", "BTech_Dataset_transformed"),
        categories=("01", "02", "03"),
        normal=("ok",),
    ),
    "visa": Catalogued(
        title="VisA",
        tasks=("defects",),
        reader="lists:read_visa",
        source="https://github.com/amazon-science/spot-diff",
        licence="CC BY 4.0",
        folders=("visa", "VisA_20220922", "VisA", "VisA_pytorch", "1cls"),
        categories=(
            *("candle", "capsules", "cashew", "chewinggum", "fryum", "macaroni1"),
            *("macaroni2", "pcb1", "pcb2", "pcb3", "pcb4", "pipe_fryum"),
        ),
        variants=("1cls", "2cls_fewshot", "2cls_highshot", "native"),
        normal=("good",),
        roles={"capsules": "report"},
    ),
    "ksdd2": Catalogued(
        title="KolektorSDD2",
        tasks=("defects",),
        reader="pairs:read_ksdd2",
        source="https://www.vicos.si/resources/kolektorsdd2/",
        licence=_NC_SA,
        folders=("ksdd2", "KolektorSDD2", "KSDD2"),
        normal=("good",),
    ),
    "magnetic_tile": Catalogued(
        title="Magnetic tile defects",
        tasks=("defects",),
        reader="pairs:read_magnetic_tile",
        source="https://github.com/abin24/Magnetic-tile-defect-datasets.",
        licence="none stated; its authors ask for citation",
        folders=("magnetic_tile", "Magnetic-tile-defect-datasets."),
        normal=("good",),
        role="development",
    ),
    "aitex_tiles": Catalogued(
        title="AITEX fabrics, tiles of 256 px",
        tasks=("defects",),
        reader="tiles:read_aitex",
        source="https://www.aitex.es/afid/",
        licence="none stated; its authors ask for citation",
        folders=("aitex_tiles",),
        normal=("good",),
        role="development",
    ),
    "fabric_stain": Catalogued(
        title="Fabric stains",
        tasks=("defects",),
        reader="tiles:read_fabric_stain",
        source="https://github.com/PerceptiLabs/fabric_stain",
        licence="none stated",
        folders=("fabric_stain",),
        normal=("good",),
        role="development",
    ),
    "octid": Catalogued(
        title="OCTID",
        tasks=("disease",),
        reader="folders:read_octid",
        source="https://borealisdata.ca/dataverse/OCTID",
        licence="as stated there",
        folders=("octid", "OCTID"),
        normal=("NORMAL",),
    ),
    "kermany": Catalogued(
        title="Retinal OCT of Kermany et al.",
        tasks=("disease",),
        reader="folders:read_kermany",
        source="https://data.mendeley.com/datasets/rscbjbr9sj",
        licence="CC BY 4.0",
        folders=("kermany", "OCT2017"),
        normal=("NORMAL",),
    ),
    "pneumonia_mnist": Catalogued(
        title="PneumoniaMNIST",
        tasks=("disease",),
        reader="arrays:read_medmnist",
        source="https://medmnist.com",
        licence="CC BY 4.0",
        folders=("pneumonia_mnist", "medmnist"),
        normal=("normal",),
        role="development",
    ),
    "spark": Catalogued(
        title="SPARK",
        tasks=("one-vs-rest",),
        reader="lists:read_spark",
        source="https://cvi2.uni.lu/spark-2021-dataset/",
        licence="as agreed with the University of Luxembourg",
        folders=("spark", "SPARK"),
        variants=("full", "cropped"),
        anomalous=("Debris", "debris"),
    ),
    "shanghaitech": Catalogued(
        title="ShanghaiTech Campus",
        tasks=("video",),
        reader="frames:read_shanghaitech",
        source="https://sviplab.github.io/dataset/campus_dataset.html",
        licence="as stated there",
        folders=("shanghaitech", "ShanghaiTech"),
        categories=tuple(f"{scene:02d}" for scene in range(1, 14)),
        variants=("all", "every_fifth"),
        normal=("normal",),
    ),
}
"""Every image set by name."""
