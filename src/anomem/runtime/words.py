"""Meaning of folder names: class of images, part of a data set, or plain wrapper."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Literal

from anomem.errors import InputError
from anomem.runtime.masks import word_set, words_of
from anomem.types import ANOMALOUS, NORMAL

__all__ = ["check_no_defects", "class_of", "is_enumerated", "is_neutral", "mentions_defect", "split_of"]

_GOOD = word_set(
    "good goods normal normals ok okay oks pass passed healthy nominal intact undamaged flawless perfect "
    "faultless defectfree defectsfree faultfree nodefect nodefects nondefect nondefective withoutdefect "
    "withoutdefects nofault nofaults noanomaly noanomalies conforming accept accepted acceptable qualified inlier "
    "inliers compliant "
    "io inordnung gut gutteil gutteile fehlerfrei "  # German, French, Spanish and Portuguese, Italian, Dutch, Polish
    "bon bons bonne bonnes sain sains conforme conformes normaux "
    "bueno buenos buena buenas bom boa correcto correctos normales normais "
    "buono buoni buona buone conformi normale normali goed dobry dobre "
    "良品 良 正常 合格 合格品 正常品 정상 양품 норма нормальные годен годные"
)
_BAD = word_set(
    "bad bads ng nok ko notok notgood nogood nio defect defects defective defected anomaly anomalies anomalous "
    "abnormal abnormals faulty fault faults fail fails failed failure failures reject rejects rejected broken "
    "damage damaged damages scrap nonconforming notnormal withdefect withdefects scratch scratches scratched "
    "crack cracks cracked dent dents dented contamination contaminated unacceptable flaw flaws flawed blemish "
    "blemishes blemished stained deformed malformed chipped disqualified outlier outliers dirty diseased infected "
    "schlecht schlechte schlechtteil schlechtteile defekt defekte fehler fehlerhaft fehlerhafte ausschuss beschädigt "
    "beschaedigt kratzer riss risse "  # languages as above
    "mauvais mauvaise mauvaises rayure rayures fissure fissures défaut défauts defaut defauts défectueux defectueux "
    "défectueuse defectueuse rebut rebuts malo malos mala malas rechazado rechazados dañado dañados defecto defectos "
    "defectuoso defectuosos defeito defeitos defeituoso ruim "
    "difetto difetti difettoso difettosi scarto scarti fout defecten wadliwy wadliwe "
    "不良 不良品 不合格 不合格品 缺陷 异常 異常 瑕疵 불량 불량품 결함 брак дефект дефекты аномалия"
)
_QUALIFIERS = word_set(
    "image images img imgs photo photos pic pics picture pictures part parts sample samples piece pieces "
    "product products unit units item items surface surfaces frame frames crop crops data dataset set class "
    "classes folder only all any visible"
)
_SPLITS: dict[str, Literal["train", "test", "val"]] = {
    **dict.fromkeys(("train", "training", "trainval"), "train"),
    **dict.fromkeys(("test", "testing", "tests"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "validate"), "val"),
}
_BESIDE_SPLITS = word_set("image images img imgs set data dataset rgb folder")
_NEUTRAL = word_set("image images img imgs rgb data dataset photo photos jpegimages pictures")
_ENUMERATED = word_set(
    "lot batch cam camera part burst scene day week line series shift run video clip seq sequence session view "
    "pose sample piece unit serial frames group station"
)
_NOT = word_set(
    "no non not without zero nicht ohne kein keine pas sans sin não nao sem senza niet zonder nie bez не без"
)
_FREE = word_set("free frei libre libres")
_NEGATING = ("un", "im", "in", "non", "nicht", "não")
"""Prefixes that turn a word for normal images into one for anomalous images."""
_TOPICS = word_set(
    "detection detector detect inspection recognition classification segmentation database benchmark study project "
    "challenge"
)
_WORDS_OF_A_CLASS = 3


@lru_cache(maxsize=8192)
def class_of(name: str) -> int | None:
    """Return the label implied by a folder's name: 0 normal, 1 anomalous, None for other names.

    Examples
    --------
    >>> [class_of(name) for name in ("OK", "NG_parts", "sans défaut", "not ok", "cam2_ng", "good_side")]
    [0, 1, 0, 1, 1, None]
    """
    words = [word for word in words_of(name) if word not in _SPLITS and not word.isdecimal()]
    for left_out in (frozenset[str](), _QUALIFIERS, _QUALIFIERS | _ENUMERATED):
        label = _meaning([word for word in words if word not in left_out])
        if label is not None:
            return label
    return None


def _meaning(words: list[str]) -> int | None:
    """Return the label of words for a class, possibly negated; None for other words."""
    joined = "".join(words)
    if joined in _GOOD:
        return NORMAL
    if joined in _BAD or any(joined.removeprefix(prefix) in _GOOD for prefix in _NEGATING):
        return ANOMALOUS
    inner = words[1:] if words[:1] and words[0] in _NOT else words[:-1] if words[-1:] and words[-1] in _FREE else []
    negated = _meaning(inner) if inner else None
    return None if negated is None else NORMAL + ANOMALOUS - negated


@lru_cache(maxsize=8192)
def mentions_defect(name: str) -> bool:
    """Return True for a name with a word for anomalous images among others.

    Examples
    --------
    >>> [mentions_defect(name) for name in ("big_scratches", "good_or_bad", "no dents left", "defect_detection", "cat")]
    [True, True, False, False, False]
    """
    words, at = words_of(name), 0
    if _TOPICS & set(words):
        return False
    while at < len(words):
        # The longest class counts: "no defect" is one, although "defect" is another.
        parts = (words[at : at + n] for n in range(_WORDS_OF_A_CLASS, 0, -1))
        part, label = next(
            ((part, label) for part in parts if (label := _meaning(part)) is not None), (words[:1], None)
        )
        negated = bool((_NOT | _FREE) & set(words[max(at - 2, 0) : at]))
        if label is not None and (label == ANOMALOUS) != negated:
            return True
        at += len(part)
    return False


@lru_cache(maxsize=8192)
def split_of(name: str) -> Literal["train", "test", "val"] | None:
    """Return the part of a data set implied by a folder's name, alone or with a class.

    Examples
    --------
    >>> split_of("Training"), split_of("test_images"), split_of("train_good"), split_of("test_bench")
    ('train', 'test', 'train', None)
    """
    words = words_of(name)
    found = [_SPLITS[word] for word in words if word in _SPLITS]
    rest = [word for word in words if word not in _SPLITS and word not in _BESIDE_SPLITS and not word.isdecimal()]
    if len(found) != 1 or (rest and class_of(" ".join(rest)) is None):
        return None
    return found[0]


def is_neutral(name: str) -> bool:
    """Return True for a generic folder name such as ``images``."""
    return "".join(words_of(name)) in _NEUTRAL


def is_enumerated(name: str) -> bool:
    """Return True for an enumerated name, ``lot 3`` or ``cam-2``, which is not a class.

    Examples
    --------
    >>> is_enumerated("Lot_17"), is_enumerated("7"), is_enumerated("bolt 3")
    (True, False, False)
    """
    words = words_of(name)
    numbers = [word for word in words if word.isdecimal()]
    return bool(numbers) and any(word in _ENUMERATED for word in words) and len(words) - len(numbers) == 1


def check_no_defects(paths: Iterable[str | Path], root: str | Path) -> None:
    """Refuse normal images in a folder below `root` named for anomalous ones, or beside a folder of normal images.

    Raises
    ------
    InputError
        A folder is named for anomalous images, or lies beside one named for normal images.
    """
    below = [Path(path).relative_to(root).parts[:-1] for path in paths]
    good = [any(class_of(part) == NORMAL for part in parts) for parts in below]
    named = [p for p in below if any(class_of(part) == ANOMALOUS or mentions_defect(part) for part in p)]
    fix = "give the normal ones alone, by path or in a folder of their own"
    if named:
        raise InputError(f"{root}: {'/'.join(named[0])} holds anomalous images by its name; {fix}")
    if any(good) and not all(good):
        other = "/".join(below[good.index(False)]) or "images"
        raise InputError(f"{root}: {other} beside a folder named for normal images; {fix}")
