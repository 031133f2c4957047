"""What a head is trained on: the slides of a cohort that have features and a label, and why others are left out."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from tilestream.errors import ConfigError
from tilestream.models.head import BagLevel, class_names
from tilestream.pipelines.cohort_open import open_cohort
from tilestream.pipelines.encoders import is_random
from tilestream.pipelines.train_bags import TileBags, mean_bags, region_bags
from tilestream.pipelines.train_folds import Fold, TooFewError, cross_validation, require_whole_groups, with_validation
from tilestream.pipelines.train_labels import LabelRow, Labels, Matched, Split, match_labels, read_labels
from tilestream.sinks.catalogue import read_catalogue, refresh
from tilestream.torch.bags import Bags

Ints: TypeAlias = npt.NDArray[np.int64]

NAMED = 5
"""Names that a message lists before it only counts."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingSet:
    """Slides with features and a label."""

    bags: Bags
    """The vectors, by number of the slide in the cohort."""
    slides: tuple[str, ...]
    """Path of each example in the cohort."""
    numbers: Ints
    """`(n,)` number of each example in the bags."""
    labels: Ints
    """`(n,)` class of each example."""
    classes: tuple[str, ...]
    """Name of each class."""
    groups: Ints
    """`(n,)` patient of each example."""
    splits: tuple[Split | None, ...]
    """Side on which the table puts each example; all None where it has no such column."""
    is_grouped: bool
    """Whether the table said which slides are of one patient."""
    left_out: Mapping[str, tuple[str, ...]]
    """Names of what is not trained on, by reason."""
    encoder: str
    """Name of the encoder."""
    level: BagLevel
    """What the vectors are of."""
    features: Mapping[str, Any]
    """Digest and recipe of the feature set."""
    contents: tuple[str, ...]
    """What the store of each example was made from."""
    notes: tuple[str, ...]
    """What a user should know."""

    def counts(self) -> dict[str, int]:
        """Return the number of examples of each class."""
        found = np.bincount(self.labels, minlength=len(self.classes))
        return {name: int(count) for name, count in zip(self.classes, found, strict=True)}


def training_set(
    root: Path, labels: Path, *, encoder: str | None, level: BagLevel, only_means: bool = False
) -> TrainingSet:
    """Return the slides of a folder that have features and a label.

    Parameters
    ----------
    root : Path
        What `tilestream embed` was given as `--out`.
    labels : Path
        Table of labels (see `read_labels`).
    encoder : str, optional
        Which features, where there are several sets.
    level : str
        Whether bags are of tiles or of regions.
    only_means : bool
        Whether the mean of a slide's tiles is all that is wanted of them.

    Returns
    -------
    TrainingSet
        Examples in the order of the cohort.

    Raises
    ------
    ConfigError
        When none is left, all are of one class, there is no or more than one set of features, or the table is wrong.
    """
    table = read_labels(labels)
    dataset, notes = opened_cohort(root, encoder)
    name = str(dataset.attrs["encoder"])
    features, content = feature_facts(root, dataset)
    keys = tuple(map(str, dataset["slide"].values))
    ids = tuple(map(str, dataset["id"].values)) if "id" in dataset.variables else ("",) * len(keys)
    matched = match_labels(table, keys, ids)
    bags = _bags(root, dataset, name, level, only_means=only_means)
    n_ok = dataset[f"{name}_n_ok"].values
    held = {number: row for number, row in matched.rows.items() if n_ok[number] and bags.size(number)}
    is_split = any(row.split for row in held.values())
    chosen = {number: row for number, row in held.items() if row.split or not is_split}
    left_out = {
        "no features": matched.featureless,
        "no label": matched.unlabelled,
        "no tile with a vector": tuple(keys[number] for number in matched.rows if number not in held),
        "no side in column `split`": tuple(keys[number] for number in held if number not in chosen),
    }
    _require_some(table, matched, chosen, keys)
    rows = list(chosen.values())
    classes = class_names([row.label for row in rows])
    _require_classes(table, rows, left_out)
    return TrainingSet(
        bags=bags,
        slides=tuple(keys[number] for number in chosen),
        numbers=np.array(list(chosen), np.int64),
        labels=np.array([classes.index(row.label) for row in rows], np.int64),
        classes=classes,
        groups=_groups(rows),
        splits=tuple(row.split for row in rows),
        is_grouped=table.is_grouped,
        left_out={reason: names for reason, names in left_out.items() if names},
        encoder=name,
        level=level,
        features=features,
        contents=tuple(content[keys[number]] for number in chosen),
        notes=(*notes, *random_notes(features), *table.notes),
    )


def planned_folds(data: TrainingSet, *, folds: int, seed: int) -> tuple[Fold, ...]:
    """Return the trainings of a set: by its own split where it has one, else a cross-validation.

    Parameters
    ----------
    data : TrainingSet
        The examples.
    folds : int
        Parts of a cross-validation.
    seed : int
        What the parts follow from.

    Returns
    -------
    tuple of Fold
        One called `split`, or one a fold and `all`. Numbers are places among the examples.

    Raises
    ------
    ConfigError
        When there are too few patients of a class, or a split puts a patient on two sides.
    """
    try:
        if any(data.splits):
            return (_split_fold(data, seed),)
        return cross_validation(data.labels, data.groups, folds=folds, seed=seed)
    except TooFewError as error:
        raise _too_few(data, error, folds) from error


def opened_cohort(root: Path, encoder: str | None) -> tuple[xr.Dataset, tuple[str, ...]]:
    """Return the features of a folder, and what a user should know of them.

    Parameters
    ----------
    root : Path
        What `tilestream embed` was given as `--out`.
    encoder : str, optional
        Which features, where there are several sets.

    Returns
    -------
    dataset : Dataset
        As `ts.open_cohort` returns it.
    notes : tuple of str
        What it would warn of.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # they are among the notes
        dataset = open_cohort(root, encoder=encoder)
    return dataset, tuple(dataset.attrs.get("notes", ()))


def feature_facts(root: Path, dataset: xr.Dataset) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what the vectors of a cohort share, and what each of its stores was made from.

    Parameters
    ----------
    root : Path
        Folder of the stores.
    dataset : Dataset
        What `ts.open_cohort` returned.

    Returns
    -------
    features : dict
        `digest`, `encoder`, `outputs` and `recipe` of the feature set; JSON values.
    contents : dict
        Digest by the slide's path.
    """
    catalogue = refresh(root.absolute(), read_catalogue(root)).catalogue
    (digest,) = (one for one in catalogue.sets if one.startswith(dataset.attrs["features"]))
    one = catalogue.sets[digest]
    facts = {"digest": digest, "encoder": one.encoder, "outputs": len(one.outputs), "recipe": dict(one.recipe)}
    return facts, {record.key: record.content for record in catalogue.of_set(digest)}


def random_notes(features: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a user should know of vectors that random weights made.

    Parameters
    ----------
    features : Mapping
        `encoder` and `recipe`, as `feature_facts` returns them.

    Returns
    -------
    tuple of str
        Nothing where the weights of the encoder came from a file, or where it has none.
    """
    contract = (features["recipe"].get("stage") or {}).get("contract") or {}
    if not is_random(contract.get("weights")):
        return ()
    return (f"weights of `{features['encoder']}` were random ({contract['weights']}): what is learned has no meaning",)


def _bags(root: Path, dataset: xr.Dataset, encoder: str, level: BagLevel, *, only_means: bool) -> Bags:
    if level == "region":
        return region_bags(root, dataset, encoder)
    bags = TileBags(dataset=dataset, encoder=encoder)
    return mean_bags(bags) if only_means else bags


def _groups(rows: Sequence[LabelRow]) -> Ints:
    """Return the patient of each row; one without is alone."""
    names = [("patient", row.group) if row.group else ("line", str(row.line)) for row in rows]
    place = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([place[name] for name in names], np.int64)


def _require_some(table: Labels, matched: Matched, chosen: Mapping[int, LabelRow], keys: Sequence[str]) -> None:
    if chosen:
        return
    if matched.rows:
        got = f"{len(matched.rows)} slides, none with a tile that has a vector"
        raise ConfigError.of(f"labels `{table.path}`", got=got, expected="slides with features", do="Embed them again.")
    raise ConfigError.of(
        f"labels `{table.path}`",
        got=f"{len(table.rows)} rows, such as `{table.rows[0].name}`, none with a label for a slide that has features",
        expected=f"slides such as `{keys[0]}`",
        do="Correct the column that names the slides.",
    )


def _require_classes(table: Labels, rows: Sequence[LabelRow], left_out: Mapping[str, Sequence[str]]) -> None:
    counts = Counter(row.label for row in rows)
    if len(counts) > 1:
        if len(counts) <= max(2, len(rows) // 2):
            return
        raise ConfigError.of(
            f"labels `{table.path}`",
            got=f"{len(counts)} different labels for {len(rows)} slides",
            expected="classes of several slides each",
            do="Give classes; numbers that are measured cannot be learned here.",
        )
    missing = "; ".join(f"{reason}: {listed(names)}" for reason, names in left_out.items() if names)
    raise ConfigError.of(
        f"labels `{table.path}`",
        got=f"one class, `{rows[0].label}`, for all {len(rows)} slides"
        + (f" (left out: {missing})" if missing else ""),
        expected="two or more classes",
        do="Add slides of another class.",
    )


def _split_fold(data: TrainingSet, seed: int) -> Fold:
    side = np.array([one or "" for one in data.splits])
    train, val, test = (np.flatnonzero(side == name) for name in ("train", "val", "test"))
    twice = require_whole_groups([train, val, test], data.groups)
    if len(twice):
        slides = [data.slides[n] for n in np.flatnonzero(data.groups == twice[0])]
        raise ConfigError.of(
            "column `split`",
            got=f"{len(twice)} patients on two sides, the first with the slides {listed(slides)}",
            expected="all slides of a patient on one side",
            do="Correct the split: a head would be tested on patients that it has seen.",
        )
    for name, part in (("train", train), ("test", test), *((("val", val),) if len(val) else ())):
        lacking = [one for number, one in enumerate(data.classes) if number not in data.labels[part]]
        if lacking:
            raise ConfigError.of(
                f"`{name}` of column `split`",
                got=f"{len(part)} slides, none of {listed(lacking)}",
                expected="slides of each class",
                do="Correct the split, or leave the column out for a cross-validation.",
            )
    if not len(val):
        train, val = with_validation(train, data.labels, data.groups, seed=seed)
    return Fold(name="split", train=train, val=val, test=test)


def _too_few(data: TrainingSet, error: TooFewError, folds: int) -> ConfigError:
    name = data.classes[error.number]
    noun = "patients" if data.is_grouped else "slides"
    most = min(len(np.unique(data.groups[data.labels == number])) for number in range(len(data.classes)))
    got = f"{error.have} {noun}" if error.have else f"{noun} of several classes that cannot be spread"
    do = f"Take `--folds {most}` or fewer, or add" if 3 <= most < folds else "Add"
    return ConfigError.of(
        f"class `{name}`",
        got=f"{got}; all: {', '.join(f'{one} {count}' for one, count in data.counts().items())} slides",
        expected=f"at least {error.parts} {noun}, one for each part",
        do=f"{do} slides of that class.",
    )


def listed(names: Sequence[str], most: int = NAMED) -> str:
    """Return names for a message: a few, and how many more."""
    shown = ", ".join(f"`{name}`" for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
