"""The settings of a command: typed, frozen, read once from defaults, a YAML file and `--set`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from taskdisc.discovery.scorers import SCORERS
from taskdisc.errors import SettingError, did_you_mean, shown
from taskdisc.files import absolute
from taskdisc.nesting import DEEPEST, check_nested
from taskdisc.taskness.features import resolved
from taskdisc.taskness.kernels import KERNELS, Measured, resolved_kernel
from taskdisc.taskness.protocol import Protocol, protocol_from

NamedProtocol = Annotated[Protocol, BeforeValidator(protocol_from)]
"""A protocol that may be given by its name, or as `{name: …, field: value}`."""

CLASSES = "classes"
"""Stands among `known` labelings for those of the image set's own classes."""


class Settings(BaseModel):
    """Base of all settings: unknown keys are errors, nothing changes after reading."""

    # A class named 3 is a name, though YAML reads a number.
    model_config = ConfigDict(
        extra="forbid", frozen=True, coerce_numbers_to_str=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _over_defaults(cls, values: Any) -> Any:
        """One setting of a group leaves the others of it as the defaults have them."""
        if not isinstance(values, dict):
            return values
        return {
            name: _over(cls.model_fields[name].default, value)
            if name in cls.model_fields and isinstance(value, dict)
            else value
            for name, value in values.items()
        }

    def left_by(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What these settings, as defaults, leave in force beside some that are given."""
        return self.model_dump(exclude_defaults=True)

    @classmethod
    def entries_of(cls, name: str) -> dict[str, Any]:
        """The default entries of a setting that has names of the user's, for one to be changed."""
        field = cls.model_fields.get(name)
        if field is None or not isinstance(field.default, dict):
            return {}
        return {name: {key: entry.model_dump() for key, entry in field.default.items()}}

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is int:
            raise ValueError("must be a whole number")
        return value


def _over(default: Any, given: dict[str, Any]) -> dict[str, Any]:
    """A group of settings that are given, over those of its default that they leave in force."""
    if isinstance(default, Settings):
        return _merged(default.left_by(given), given)
    if isinstance(default, Protocol) and "name" not in given:
        return {**asdict(default), **given}
    return given


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    both = {**below, **above}
    for name in set(below) & set(above):
        if isinstance(below[name], dict) and isinstance(above[name], dict):
            both[name] = _merged(below[name], above[name])
    return both


class ImagesSettings(Settings):
    """Which images are searched. With neither `per_class` nor `n_images`: 5 classes of 10."""

    source: str = "digits"  # a name in `taskdisc images`
    root: str | None = None  # where the images are, for sources that need it
    split: str = "train"
    download: bool = False  # fetch the source if it is not there yet
    # Side that images are read at [pixels], `own` for as large as they are there; the source's
    # usual. For what trains on images of any size; a search has 32.
    size: Annotated[int, Field(ge=1, le=1024)] | Literal["own"] | None = None
    target: str | None = None  # whose classes are drawn; the source's first by default
    class_a: str | None = None  # the class that comes first; drawn by default
    n_classes: int | None = Field(None, ge=1)  # class A and n - 1 others
    per_class: int | None = Field(None, ge=1)  # images of each class
    n_images: int | None = Field(None, ge=2)  # or: this many images of any class
    seed: int = Field(0, ge=0)  # of the draw; not the run's, so that runs can share images

    def left_by(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Of the defaults, without the draw by class where images are drawn by number."""
        left = super().left_by(given)
        if given.get("n_images") is not None:
            left = {k: v for k, v in left.items() if k not in ("class_a", "n_classes", "per_class")}
        return left

    @field_validator("root")
    @classmethod
    def _from_anywhere(cls, root: str | None) -> str | None:
        # A run that is resumed from another folder must find its images.
        return None if root is None else absolute("images.root", root)


class ConfirmSettings(Settings):
    """How the best labelings of a search are confirmed, and against what."""

    n_splits: int = Field(64, ge=2)  # fresh trainings per labeling
    n_random: int | None = Field(None, ge=20)  # random labelings; 300, or 20 · `tasks` if more
    random_splits: int = Field(10, ge=1)  # fresh trainings per random labeling


class AgreementSettings(Settings):
    """How agreement scores are measured: `taskdisc score --agreement`."""

    n_held_out: int = Field(500, ge=1)  # other images of the source, to predict
    classes: Literal["same", "all"] = "same"  # held out: those of the image set, if drawn by class
    n_pairs: int = Field(5, ge=1)  # of networks per labeling
    # Steps of training; 0: until the labels are known by heart, 100 for 50 images, for before
    # that networks agree because they call all images negative. See taskness/agreement.py.
    n_steps: int = Field(0, ge=0)
    n_random: int = Field(20, ge=0)  # random labelings beside, to see what chance looks like


class ClosedFormSettings(Settings):
    """The kernel ridge regression that scores without training, and that `swap` descends."""

    # Of KERNELS, FILE.npy, or several joined by +; `linear` where features are given.
    kernel: str = "tangent-fc1"
    features: str = "pixels"  # of linear and rbf: pixels, random, FILE.npy or torchvision:NAME
    ridge: float | None = Field(None, gt=0)  # the kernel's own by default
    rank: int = Field(0, ge=0)  # landmarks; 0: all pairs up to 5,000 images, else 500

    @model_validator(mode="before")
    @classmethod
    def _that_compares_features(cls, values: Any) -> Any:
        # The network's own kernels compare pixels alone.
        given = isinstance(values, dict) and values.get("features", "pixels") != "pixels"
        return {"kernel": "linear", **values} if given else values

    @field_validator("kernel")
    @classmethod
    def _known_kernel(cls, kernel: str) -> str:
        return resolved_kernel(kernel)

    @field_validator("features")
    @classmethod
    def _known_features(cls, features: str) -> str:
        return resolved(features)

    @model_validator(mode="after")
    def _compares_features(self) -> Self:
        if self.features != "pixels" and not {"linear", "rbf"} & set(self.kernel.split("+")):
            raise SettingError(
                "`closed_form.kernel` must hold linear or rbf where `closed_form.features` are "
                f"given, for no other compares them, got {self.kernel!r}."
            )
        return self

    @property
    def measured(self) -> Measured | None:
        """How this closed form agrees with trained taskness; None where nobody has measured it."""
        row = KERNELS.get(self.kernel)
        as_measured = self.features == "pixels" and self.ridge is None and not self.rank
        return row.measured if row and as_measured else None


class SearchSettings(Settings):
    """Everything that decides what a search finds. Jobs and device do not: they are options."""

    images: ImagesSettings = ImagesSettings()
    ratio: int = Field(4, ge=1)  # negatives to one positive
    budget: int = Field(400, ge=1)  # labelings scored
    batch: int = Field(30, ge=1)  # labelings asked at a time
    proposer: str = "swap"  # `swap`, `spectral`, `random` or any optimiser of nevergrad
    warm_start: int = Field(0, ge=0)  # local optima of the closed form that nevergrad starts from
    scorer: str = "closed-form"  # of SCORERS
    closed_form: ClosedFormSettings = ClosedFormSettings()
    train_share: float = Field(0.1, gt=0, le=1)  # two-stage: share of the budget to train on
    protocol: NamedProtocol = protocol_from("stratified")  # a name, or {name: …, field: value}
    tasks: int = Field(3, ge=1)  # labelings to confirm
    min_ablation: float = Field(0.8, ge=0, le=1)  # between the labelings that are confirmed
    known: tuple[str, ...] = ()  # stay away from: `classes`, runs, or files of labelings
    confirm: ConfirmSettings = ConfirmSettings()
    agreement: AgreementSettings = AgreementSettings()
    seed: int = Field(0, ge=0)

    @field_validator("known")
    @classmethod
    def _from_anywhere(cls, known: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(k if k == CLASSES else absolute("known", k) for k in known)

    @field_validator("scorer")
    @classmethod
    def _known_scorer(cls, scorer: str) -> str:
        if scorer not in SCORERS:
            raise SettingError(
                f"`scorer` must be a known one, got {scorer!r}; {did_you_mean(scorer, SCORERS)}"
            )
        return scorer

    @model_validator(mode="after")
    def _p_can_be_small(self) -> Self:
        if self.n_random < 20 * self.tasks:
            raise SettingError(
                "`confirm.n_random` must be at least 20 · `tasks`, for a single task among "
                f"{self.tasks} to be told from chance, got {self.n_random}."
            )
        return self

    @property
    def uses_closed_form(self) -> bool:
        """Whether anything in the search asks the closed form."""
        return (
            self.scorer != "trained" or self.proposer in ("swap", "spectral") or self.warm_start > 0
        )

    @property
    def n_trained(self) -> int:
        """Labelings that the search trains on, before confirmation."""
        share = {"closed-form": 0.0, "two-stage": self.train_share, "trained": 1.0}[self.scorer]
        return math.ceil(share * self.budget)

    @property
    def n_random(self) -> int:
        """Random labelings of the confirmation: enough to tell a single task from chance."""
        given = self.confirm.n_random
        return max(300, 20 * self.tasks) if given is None else given


S = TypeVar("S", bound=Settings)


def read_settings(
    kind: type[S], path: Path | None = None, changes: Sequence[str] = (), **options: Any
) -> S:
    """Settings of a kind: its defaults, under a YAML file, under `path=value` changes and options.

    Options that are None are left out.

    Raises:
        SettingError: no such file, no YAML, an unknown setting, or a value that breaks its rule.
    """
    values = read_yaml(path) if path else {}
    for change in changes:
        name = change.partition("=")[0].partition(".")[0]
        if path is None and name != change.partition("=")[0] and name not in values:
            values.update(kind.entries_of(name))
        _set(values, change)
    values.update({name: value for name, value in options.items() if value is not None})
    return settings_from(kind, values)


def settings_from(kind: type[S], values: Mapping[str, Any]) -> S:
    """Settings of a kind from nested values.

    Raises:
        SettingError: an unknown setting, or a value that breaks its rule.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise SettingError(_sentence(kind, error)) from None


MOST_BYTES = 1 << 18
"""Of a settings file; a large one of today has a few thousand."""

_MOST_PARTS = 20_000
"""Values in a settings file, each counted wherever an alias names it."""


class _RefusedError(yaml.YAMLError):
    """YAML that no settings may have: the parts of a sentence, and where it is."""

    def __init__(self, rule: str, got: str, cure: str, where: str = "") -> None:
        super().__init__(rule, got)
        self.rule, self.got, self.cure, self.where = rule, got, cure, where


class _Loader(yaml.SafeLoader):
    """Refuses a key that a mapping has twice, of which YAML's own loader takes the last, and
    numbers beyond 64 bits, which Python may not even write out."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Before anchors are merged (`<<`), whose keys may be given again.
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                if key.value in lines:
                    raise _RefusedError(
                        "must give every setting once",
                        f"`{shown(key.value)[1:-1]}` again",
                        "remove one of them",
                        f" (line {line}), after line {lines[key.value]}",
                    )
                lines[key.value] = line
        return node

    def construct_yaml_int(self, node: Any) -> int:
        value = super().construct_yaml_int(node)
        if not -(2**63) <= value < 2**63:
            raise _RefusedError(
                "must hold whole numbers of 64 bits",
                "one beyond them",
                "write a smaller one",
                f" (line {node.start_mark.line + 1})",
            )
        return value


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def _load(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        yaml.YAMLError: it is none, or one that no settings may have.
    """
    if len(text) > MOST_BYTES:
        raise _RefusedError(
            f"must have at most {MOST_BYTES:,} characters", f"{len(text):,}", "shorten it"
        )
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        check_nested(node, _parts, _MOST_PARTS)
        return loader.construct_document(node)
    except yaml.YAMLError:
        raise
    except RecursionError as error:
        raise _RefusedError(
            f"must be nested at most {DEEPEST} levels deep", "a deeper one", "flatten it"
        ) from error
    # Of a value that its tag does not fit (`!!int ''`), constructors raise anything.
    except Exception as error:
        raise yaml.YAMLError(str(error)) from error
    finally:
        loader.dispose()


def _parts(node: Any) -> list[Any]:
    """The nodes directly within a node of YAML."""
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; an empty file is an empty mapping."""
    try:
        with path.open("rb") as file:  # no more of it than is needed to refuse it
            content = file.read(4 * MOST_BYTES + 4)
        values = _load(content.decode("utf-8-sig", "ignore" if _is_cut(content) else "strict"))
    except _RefusedError as error:
        raise SettingError(
            f"the settings file {error.rule}, got {error.got} in '{path}'{error.where}; "
            f"{error.cure}."
        ) from error
    except IsADirectoryError as error:
        raise SettingError(
            f"the settings must be a YAML file, got the folder '{path}'; of a run they are "
            f"'{path / 'config.yaml'}'."
        ) from error
    except OSError as error:
        raise SettingError(
            f"the settings file must be readable, got '{path}' ({error.strerror})."
        ) from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: no UTF-8
        where = getattr(error, "problem_mark", None)
        place = f" (line {where.line + 1})" if where else ""
        raise SettingError(f"the settings file must be YAML, got '{path}'{place}.") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SettingError(f"the settings file must hold `setting: value` lines, got '{path}'.")
    return values


def _is_cut(content: bytes) -> bool:
    return len(content) > 4 * MOST_BYTES


def dump_settings(settings: Settings) -> str:
    """Settings as YAML that `read_settings` takes."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _set(values: dict[str, Any], change: str) -> None:
    """Apply one `path.to.setting=value` in place; the value is read as YAML."""
    path, equals, text = change.partition("=")
    if not equals or not path:
        raise SettingError(f"--set must be given as path=value, got {shown(change)}.")
    *parents, name = path.split(".")
    for parent in parents:
        inner = values.get(parent)
        if parent == "protocol" and isinstance(inner, str):
            # `protocol: source` becomes a mapping once one of its fields is set.
            inner = {"name": inner}
        if inner is not None and not isinstance(inner, dict):
            raise SettingError(
                f"--set {path} must name a setting within `{parent}`, which is given as "
                f"{shown(inner)}."
            )
        values[parent] = dict(inner or {})
        values = values[parent]
    try:
        values[name] = _load(text)
    except _RefusedError as error:
        raise SettingError(f"--set {path} {error.rule}, got {error.got}; {error.cure}.") from error
    except yaml.YAMLError as error:
        raise SettingError(
            f"--set {path} must be given a YAML value, got {shown(text)}."
        ) from error


def _sentence(kind: type[Settings], error: ValidationError) -> str:
    """The first thing wrong, as one sentence."""
    first = error.errors()[0]
    path = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        *parents, name = first["loc"]
        names = _field_names(kind, [str(parent) for parent in parents])
        within = "".join(f"{part}." for part in parents)
        return f"`{path}` is not a setting; {did_you_mean(str(name), names, within)}"
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, SettingError):
        return str(cause)
    if first["type"] == "missing":
        return f"`{path}` must be given, got nothing."
    if first["type"] == "literal_error":
        choices = first["ctx"]["expected"].replace("'", "").replace(" or ", ", ")
        return f"`{path}` must be one of {choices}, got {shown(first['input'])}."
    if first["type"] == "too_short":
        least, found = first["ctx"]["min_length"], first["ctx"]["actual_length"]
        entries = "entry" if least == 1 else "entries"
        return f"`{path}` must have at least {least} {entries}, got {found}."
    if first["type"] in ("model_type", "dict_type"):
        return f"`{path}` must be a mapping of settings, got {shown(first['input'])}."
    rule = first["msg"].removeprefix("Value error, ")
    rule = rule[0].lower() + rule[1:].split(",")[0]
    rule = rule.replace("input should be ", "must be ").replace("'", "`")
    return f"`{path}` {rule}, got {shown(first['input'])}."


def _field_names(kind: type[Settings], parents: Sequence[str]) -> list[str]:
    annotation: Any = kind
    for parent in parents:
        if isinstance(annotation, type) and issubclass(annotation, Settings):
            annotation = annotation.model_fields[parent].annotation
        else:  # a key of a mapping to settings
            annotation = get_args(annotation)[-1]
    return list(annotation.model_fields)
