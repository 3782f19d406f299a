from pathlib import Path
from typing import Any

import pytest
import yaml

from taskdisc.config import (
    AgreementSettings,
    ConfirmSettings,
    ImagesSettings,
    NamedProtocol,
    SearchSettings,
    Settings,
    dump_settings,
    read_settings,
    settings_from,
)
from taskdisc.errors import SettingError
from taskdisc.taskness.protocol import PROTOCOLS, protocol_from

# Every field of a search at another value than its default.
EVERY: dict[str, Any] = {
    "images": {
        "source": "cifar100",
        "root": "/a folder/größe",
        "split": "test",
        "download": True,
        "size": "own",
        "target": "coarse",
        "class_a": "no",  # a word that YAML would take for false
        "n_classes": 3,
        "per_class": 7,
        "n_images": 40,
        "seed": 9,
    },
    "ratio": 1,
    "budget": 77,
    "batch": 8,
    "proposer": "random",
    "warm_start": 6,
    "scorer": "two-stage",
    "closed_form": {
        "kernel": "linear+rbf",
        "features": "random",
        "ridge": 2.5,
        "rank": 70,
    },
    "train_share": 0.3,
    "protocol": {
        "splits": "random",
        "n_splits": 3,
        "n_folds": 4,
        "common": False,
        "most_images": 60,
        "n_steps": 50,
        "lr": 1e-5,
    },
    "tasks": 2,
    "min_ablation": 0.25,
    "known": ["classes", "/a folder/größe/labels.csv"],
    "confirm": {"n_splits": 5, "n_random": 90, "random_splits": 2},
    "agreement": {
        "n_held_out": 30,
        "classes": "all",
        "n_pairs": 2,
        "n_steps": 40,
        "n_random": 3,
    },
    "seed": 5,
}


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "kind", [SearchSettings, ConfirmSettings, AgreementSettings, ImagesSettings]
)
def test_defaults_round_trip(kind: type[Settings], tmp_path: Path) -> None:
    path = write(tmp_path / "config.yaml", dump_settings(kind()))
    assert read_settings(kind, path) == kind()


def test_every_field_round_trips(tmp_path: Path) -> None:
    settings = settings_from(SearchSettings, EVERY)
    defaults = SearchSettings()
    # Whoever adds a setting adds it to EVERY.
    for part, default in (
        (settings, defaults),
        (settings.images, defaults.images),
        (settings.agreement, defaults.agreement),
        (settings.closed_form, defaults.closed_form),
        (settings.confirm, defaults.confirm),
    ):
        names = type(part).model_fields
        same = [name for name in names if getattr(part, name) == getattr(default, name)]
        assert same == []
    path = write(tmp_path / "config.yaml", dump_settings(settings))
    assert read_settings(SearchSettings, path) == settings
    assert read_settings(SearchSettings, path).model_dump(mode="json") == EVERY


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_round_trips(name: str, tmp_path: Path) -> None:
    settings = settings_from(SearchSettings, {"protocol": name})
    path = write(tmp_path / "config.yaml", dump_settings(settings))
    assert read_settings(SearchSettings, path).protocol == PROTOCOLS[name]


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        SearchSettings().budget = 3  # type: ignore[misc]


def test_later_sources_go_before_earlier_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "budget: 10\nratio: 1\nseed: 1\nimages: {n_images: 30}\n")
    settings = read_settings(
        SearchSettings,
        path,
        ["ratio=2", "seed=2", "images.per_class=4", "confirm.n_random=66", "seed=4"],
        seed=3,
        budget=None,
    )
    assert (settings.budget, settings.ratio, settings.seed) == (10, 2, 3)
    assert (settings.images.n_images, settings.images.per_class) == (30, 4)
    assert settings.confirm.n_random == 66


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("", ["protocol=source", "protocol.n_steps=20"]),
        ("protocol: source", ["protocol.n_steps=20"]),
        ("protocol: {name: source}", ["protocol.n_steps=20"]),
        ("protocol: {name: source, n_steps: 20}", []),
        ("", ["protocol.name=source", "protocol.n_steps=20"]),
        ("", ["protocol={name: source, n_steps: 20}"]),
    ],
)
def test_a_field_over_a_named_protocol(tmp_path: Path, text: str, changes: list[str]) -> None:
    path = write(tmp_path / "a.yaml", text)
    protocol = read_settings(SearchSettings, path, changes).protocol
    assert protocol.n_steps == 20
    assert protocol.splits == PROTOCOLS["source"].splits
    assert protocol.n_splits == PROTOCOLS["source"].n_splits


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "null\n", "\ufeffbudget: 400\n"])
def test_files_that_say_nothing_new(tmp_path: Path, text: str) -> None:
    assert read_settings(SearchSettings, write(tmp_path / "a.yaml", text)) == SearchSettings()


@pytest.mark.parametrize("number", ["1e-4", "0.0001", "1.0e-4"])
def test_learning_rates_as_people_write_them(tmp_path: Path, number: str) -> None:
    path = write(tmp_path / "a.yaml", f"protocol: {{lr: {number}}}")
    assert read_settings(SearchSettings, path).protocol.lr == 1e-4
    assert read_settings(SearchSettings, changes=[f"protocol.lr={number}"]).protocol.lr == 1e-4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["bugdet=3"], "`bugdet` is not a setting; did you mean 'budget'"),
        (
            ["images.per_clas=3"],
            "`images.per_clas` is not a setting; did you mean 'images.per_class'",
        ),
        (["confirm.n_rnd=30"], "`confirm.n_rnd` is not a setting; did you mean 'confirm.n_random'"),
        (["protocol.n_step=30"], "`protocol.n_step` .* did you mean 'n_steps'"),
        (["protocol=sourse"], "`protocol` .* did you mean 'source'"),
        (["budget=0"], "`budget` must be greater than or equal to 1, got 0"),
        (["ratio=-1"], "`ratio` must be greater than or equal to 1, got -1"),
        (["batch=0"], "`batch` must be"),
        (["tasks=0"], "`tasks` must be"),
        (["seed=-1"], "`seed` must be"),
        (["min_ablation=1.1"], "`min_ablation` must be less than or equal to 1, got 1.1"),
        (["min_ablation=.nan"], "`min_ablation` must be"),
        (["confirm.n_random=19"], "`confirm.n_random` must be greater than or equal to 20"),
        (["confirm.n_splits=1"], "`confirm.n_splits` must be"),
        (["budget=many"], "`budget` must be a valid integer.*'many'"),
        (["budget=1.5"], "`budget` must be a valid integer"),
        (["budget="], "`budget` must be a valid integer.*None"),
        (["budget=[1]"], "`budget` must be a valid integer"),
        (["scorer=magic"], "`scorer` must be a known one, got 'magic'; choose one of closed-form"),
        (["scorer=trainde"], "did you mean 'trained'"),
        (["images=digits"], "`images` must be"),
        (["kernel=rbf"], "`kernel` is not a setting"),
        (["closed_form=3"], "`closed_form` must be a mapping of settings, got 3"),
        (["closed_form.kernel=rfb"], "`closed_form.kernel` .* did you mean 'rbf'"),
        (["closed_form.kernel=linear+"], "`closed_form.kernel` must be a known kernel"),
        (["closed_form.kernal=rbf"], "`closed_form.kernal` .* did you mean 'closed_form.kernel'"),
        (["closed_form.features=randm"], "`closed_form.features` .* did you mean 'random'"),
        (["closed_form.ridge=0"], "`closed_form.ridge` must be greater than 0"),
        (["closed_form.ridge=.nan"], "`closed_form.ridge` must be"),
        (["closed_form.rank=-1"], "`closed_form.rank` must be"),
        (["train_share=0"], "`train_share` must be greater than 0"),
        (["train_share=1.5"], "`train_share` must be less than or equal to 1"),
        (["warm_start=-1"], "`warm_start` must be"),
        (["known=classes"], "`known` must be"),
        (
            ["tasks=16", "confirm.n_random=300"],
            "`confirm.n_random` must be at least 20 .*, got 300",
        ),
        (["protocol.most_images=-1"], "`protocol.most_images` must be at least 0"),
        (["protocol.most_images=4"], "`protocol.most_images` must be at least .*n_folds` = 5"),
        (["images.source.x=1"], "`images.source` must be a valid string"),
        (["protocol=3"], "`protocol` must be a name or a mapping"),
        (["protocol.lr=-1"], "`protocol.lr` must be above 0 and at most 1"),
        (["budget"], "--set must be given as path=value, got 'budget'"),
        (["=3"], "--set must be given as path=value"),
        (["budget=[1"], r"--set budget must be given a YAML value, got '\[1'"),
        (["budget=5", "budget.x=1"], "`budget"),
        (["confirm=[1]", "confirm.n_random=30"], "`confirm"),
        (["protocol.name=5"], "`protocol`"),
        (["seed=2001-99-99"], "--set seed must be given a YAML value|`seed` must be"),
        ([".x=1"], "is not a setting"),
        (["images.=1"], "is not a setting"),
    ],
)
def test_bad_changes(changes: list[str], words: str) -> None:
    with pytest.raises(SettingError, match=words) as caught:
        read_settings(SearchSettings, changes=changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("budget: [1\n", r"must be YAML, got .*a\.yaml' \(line 2\)"),
        ("- 1\n- 2\n", "must hold `setting: value` lines"),
        ("budget\n", "must hold `setting: value` lines"),
        ("budget: 5\nbugdet: 6\n", "did you mean 'budget'"),
        ("images: {sources: digits}\n", "did you mean 'images.source'"),
        ("1: 2\n", "1"),
        ("protocol: {1: 2}\n", "protocol"),
        ("protocol: {name: [source]}\n", "protocol"),
        ("seed: 2001-99-99\n", "a.yaml"),
        ("budget: !!python/object/apply:os.system ['false']\n", "must be YAML, got .*line 1"),
        ("\x00\n", "must be YAML"),
        ("images:\n\tsource: digits\n", r"must be YAML, got .*line 2"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, words: str) -> None:
    path = write(tmp_path / "a.yaml", text)
    with pytest.raises(SettingError, match=words) as caught:
        read_settings(SearchSettings, path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "ratio: 1\nseed: 2\nratio: 4\n",
            r"`ratio` again in '.*a\.yaml' \(line 3\), after line 1;",
        ),
        ("images:\n  seed: 1\n  split: test\n  seed: 1\n", r"`seed` again .*\(line 4\)"),
        ("images: {seed: 1, seed: 2}", r"`seed` again .*\(line 1\), after line 1"),
        ("confirm: {1: a}\nknown: [{1: a, '1': b}]", r"`1` again .*\(line 2\)"),
    ],
)
def test_a_setting_that_is_given_twice_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = write(tmp_path / "a.yaml", text)
    with pytest.raises(SettingError, match=words) as caught:
        read_settings(SearchSettings, path)
    assert "\n" not in str(caught.value)


def test_a_value_on_the_command_line_gives_a_setting_once() -> None:
    with pytest.raises(
        SettingError, match=r"--set images must give .* once, got `seed` again; remove one"
    ):
        read_settings(SearchSettings, changes=["images={seed: 1, seed: 2}"])
    assert read_settings(SearchSettings, changes=["seed=1", "seed=2"]).seed == 2


def test_a_group_over_another_one_may_change_its_settings(tmp_path: Path) -> None:
    text = "confirm: {<<: {n_splits: 3, n_random: 70}, n_splits: 9}"
    confirm = read_settings(SearchSettings, write(tmp_path / "a.yaml", text)).confirm
    assert (confirm.n_splits, confirm.n_random) == (9, 70)


def test_a_file_that_would_run_code_does_not(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    path = write(tmp_path / "a.yaml", f"!!python/object/apply:pathlib.Path.touch ['{mark}']")
    with pytest.raises(SettingError, match="must be YAML"):
        read_settings(SearchSettings, path)
    assert not mark.exists()


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"must be readable, got .*none\.yaml.*No such file"):
        read_settings(SearchSettings, tmp_path / "none.yaml")
    with pytest.raises(SettingError, match=r"must be a YAML file, got the folder .*config\.yaml"):
        read_settings(SearchSettings, tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"source: \xff\n")
    with pytest.raises(SettingError, match="must be YAML"):
        read_settings(SearchSettings, tmp_path / "latin.yaml")


@pytest.mark.parametrize(
    ("changes", "kernel", "features"),
    [
        ([], "tangent-fc1", "pixels"),
        (["closed_form.features=pixels"], "tangent-fc1", "pixels"),
        (["closed_form.features=random"], "linear", "random"),
        (["closed_form.features=random", "closed_form.kernel=rbf"], "rbf", "random"),
        (["closed_form.kernel=rbf", "closed_form.features=random"], "rbf", "random"),
    ],
)
def test_features_without_a_kernel_choose_linear(
    changes: list[str], kernel: str, features: str
) -> None:
    closed_form = read_settings(SearchSettings, changes=changes).closed_form
    assert (closed_form.kernel, closed_form.features) == (kernel, features)
    # What is written down says so too, and reads back the same.
    again = settings_from(SearchSettings, {"closed_form": closed_form.model_dump()})
    assert again.closed_form == closed_form


@pytest.mark.parametrize(("tasks", "n_random"), [(1, 300), (15, 300), (16, 320), (100, 2000)])
def test_random_labelings_grow_with_the_tasks(tasks: int, n_random: int) -> None:
    settings = settings_from(SearchSettings, {"tasks": tasks})
    assert settings.n_random == n_random
    assert settings.confirm.n_random is None
    given = settings_from(SearchSettings, {"tasks": tasks, "confirm": {"n_random": 20 * tasks}})
    assert given.n_random == 20 * tasks


@pytest.mark.parametrize(
    ("changes", "uses"),
    [
        ({}, True),
        ({"proposer": "random"}, True),
        ({"proposer": "random", "scorer": "two-stage"}, True),
        ({"proposer": "random", "scorer": "trained"}, False),
        ({"proposer": "swap", "scorer": "trained"}, True),
        ({"proposer": "TwoPointsDE", "scorer": "trained"}, False),
        ({"proposer": "TwoPointsDE", "scorer": "trained", "warm_start": 1}, True),
    ],
)
def test_what_asks_the_closed_form(changes: dict[str, Any], uses: bool) -> None:
    assert settings_from(SearchSettings, changes).uses_closed_form == uses


def test_files_of_labelings_and_features_are_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    closed_form = {"kernel": "linear+k.npy", "features": "f.npy"}
    settings = settings_from(
        SearchSettings, {"known": ["classes", "a.csv"], "closed_form": closed_form}
    )
    assert settings.known == ("classes", str(tmp_path / "a.csv"))
    assert settings.closed_form.kernel == f"linear+{tmp_path / 'k.npy'}"
    assert settings.closed_form.features == str(tmp_path / "f.npy")


def test_only_what_was_measured_is_said_to_be() -> None:
    for changes, measured in (
        ({}, True),
        ({"kernel": "linear"}, True),
        ({"features": "random"}, False),
        ({"ridge": 3.0}, False),
        ({"rank": 50}, False),
        ({"kernel": "linear+rbf"}, False),
    ):
        closed_form = settings_from(SearchSettings, {"closed_form": changes}).closed_form
        assert (closed_form.measured is not None) == measured


def test_reading_does_not_change_what_it_is_given() -> None:
    values = {"images": {"seed": 1}, "protocol": {"name": "source"}}
    settings_from(SearchSettings, values)
    assert values == {"images": {"seed": 1}, "protocol": {"name": "source"}}


def test_one_setting_of_a_group_leaves_the_others() -> None:
    class Grouped(Settings):
        images: ImagesSettings = ImagesSettings(n_classes=4, per_class=20)
        protocol: NamedProtocol = protocol_from({"name": "stratified", "most_images": 0})
        search: SearchSettings = SearchSettings.model_validate(
            {"tasks": 1, "confirm": {"n_splits": 20, "n_random": 60}}
        )

    given = settings_from(
        Grouped,
        {
            "images": {"per_class": 5},
            "protocol": {"n_splits": 3},
            "search": {"ratio": 9, "confirm": {"n_splits": 5}},
        },
    )
    assert (given.images.n_classes, given.images.per_class) == (4, 5)
    assert (given.protocol.n_splits, given.protocol.most_images) == (3, 0)
    assert (given.search.tasks, given.search.ratio) == (1, 9)
    assert (given.search.confirm.n_splits, given.search.confirm.n_random) == (5, 60)
    assert settings_from(Grouped, {"protocol": "source"}).protocol == protocol_from("source")
    assert settings_from(Grouped, {"protocol": {"name": "stratified"}}).protocol.most_images == 200
    by_number = settings_from(Grouped, {"images": {"n_images": 50}}).images
    assert (by_number.n_images, by_number.n_classes, by_number.per_class) == (50, None, None)
    # What was written is read as it stands, with nothing of the defaults in between.
    none = settings_from(Grouped, {"images": {"n_classes": None, "per_class": None}})
    assert settings_from(Grouped, yaml.safe_load(dump_settings(none))) == none
