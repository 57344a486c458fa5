"""The options table: read from fabricated configs of every form, and from the real ones."""

from pathlib import Path

import pytest
import yaml

from fss.config.options_table import options_table
from fss.results import ReportError

CONF = Path(__file__).parents[2] / "conf"

FILES = {
    "config.yaml": """# Head comment.
defaults:
  - _self_
  - data: big
  - optional debug: null
  - override hydra/launcher: basic

# how many
# there are
shot: 1
fold: 0 # 0 to 3 | never "4 # 5"
text: "a # b" # said in quotes
nothing: # may be set
path: ${oc.env:HOME}/x # a <place>
hydra:
  run:
    dir: x # not a setting
""",
    "eval.yaml": "ckpt: ??? # checkpoint\n",
    "data/_base.yaml": "size: 100 # side\nlist: [1, 2] # flow list\nname: x\n",
    "data/big.yaml": """# The big one.
defaults:
  - _base
  - _self_
source:
  _target_: a.b.C
  root: ${data.size}
  depth: 3 # levels
items: # block list
  - a
  - b
""",
    "data/small.yaml": "defaults: [_base, _self_]\n\nsize: 10\nonly: true # here\n",
    "debug/fast.yaml": "# @package _global_\n# Quick look.\nshot: 9 # hidden\n",
    "deep/nested/x.yaml": "# @package other.place\nkey: 1 # in a package\n",
}


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "conf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "conf"


def rows(table: str) -> dict[str, tuple[str, ...]]:
    lines = [line[2:-2].split(" | ") for line in table.splitlines() if line.startswith("| `")]
    assert len({line[0] for line in lines}) == len(lines)
    return {line[0].strip("`"): tuple(line[1:]) for line in lines}


def test_every_form_of_setting(conf: Path) -> None:
    found = rows(options_table(conf))
    assert found == {
        "data=": ("`big` (default): The big one.<br>`small`",),
        "debug=": ("`fast`: Quick look.",),
        "deep/nested=": ("`x`",),
        "shot": ("`1`", "how many there are"),
        "fold": ("`0`", '0 to 3 \\| never "4 # 5"'),
        "text": ("`a # b`", "said in quotes"),
        "nothing": ("`null`", "may be set"),
        "path": ("`${oc.env:HOME}/x`", "a &lt;place>"),
        "data.size": ("`100` (small: `10`)", "side"),
        "data.list": ("`[1, 2]`", "flow list"),
        "data.source.depth": ("big: `3`", "levels"),
        "data.items": ("big: `[a, b]`", "block list"),
        "data.only": ("small: `true`", "here"),
        "other.place.key": ("`1`", "in a package"),
        "ckpt": ("required", "checkpoint"),
    }


def test_groups_come_in_the_order_of_the_defaults(conf: Path) -> None:
    table = options_table(conf)
    assert table.index("`data=`") < table.index("`debug=`") < table.index("`deep/nested=`")
    titles = ["## Groups", "`data=`", "## Options of a run", "`shot`", "## Options of data", "`data.size`"]
    titles += ["## Options of deep/nested", "`other.place.key`", "## Options of eval.py", "`ckpt`"]
    assert sorted(titles, key=table.index) == titles
    assert "Options of debug" not in table, "a file of the package _global_ has no settings of its own"


def test_bad_configs_are_named(conf: Path, tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="holds no config"):
        options_table(tmp_path)
    (conf / "data/big.yaml").write_text("- a\n")
    with pytest.raises(ReportError, match=r"big\.yaml must hold a mapping"):
        options_table(conf)
    (conf / "data/big.yaml").write_text("a: [1\n")
    with pytest.raises(ReportError, match=r"big\.yaml is no readable YAML"):
        options_table(conf)


def test_choices_with_other_words_for_a_key_are_told_apart(conf: Path) -> None:
    (conf / "data/small.yaml").write_text("defaults: [_base, _self_]\n\nsize: 10 # another side\n")
    (conf / "data/third.yaml").write_text("defaults: [_base, _self_]\n\nsize: 10 # another side\n")
    found = rows(options_table(conf))["data.size"]
    assert found == ("`100` (small, third: `10`)", "big: side<br>small, third: another side")


def settings(node: object, prefix: str = "") -> set[str]:
    """Return the dotted keys of a YAML file that a user may set."""
    if not isinstance(node, dict) or not node:
        return {prefix}
    own = {k: v for k, v in node.items() if k not in ("defaults", "hydra") and not k.startswith("_")}
    return {key for name, value in own.items() for key in settings(value, f"{prefix}.{name}".lstrip("."))}


def test_the_table_is_complete_for_the_real_configs() -> None:
    table = options_table(CONF)
    train, evaluation = table.split("## Options of eval.py")
    known = rows(train)
    groups = {path.parent.relative_to(CONF).as_posix() for path in CONF.glob("*/**/*.yaml")}
    assert {f"{group}=" for group in groups} <= known.keys()
    for group in ("data", "backbone", "method", "finetune", "recipe"):
        assert "(default)" in known[f"{group}="][0]
    for path in CONF.glob("*/**/*.yaml"):
        group, text = path.parent.relative_to(CONF).as_posix(), path.read_text()
        if not path.stem.startswith("_"):
            assert f"`{path.stem}`" in known[f"{group}="][0]
        if "# @package _global_" in text:
            continue
        wired = {f"{group}.{key}" for key in settings(yaml.safe_load(text)) if key.split(".")[-1] in ("name", "shot")}
        wired |= {f"{group}.{key}" for key in settings(yaml.safe_load(text)) if key.startswith("source.")}
        own = {f"{group}.{key}" for key in settings(yaml.safe_load(text))} - wired - {f"{group}.", "trainer.max_epochs"}
        assert own <= known.keys(), f"{path} has settings that the reference does not show"
    assert settings(yaml.safe_load((CONF / "config.yaml").read_text())) <= known.keys()
    assert known["fold"][0] == "`0`"
    assert settings(yaml.safe_load((CONF / "eval.yaml").read_text())) <= rows(evaluation).keys()
    assert rows(evaluation)["ckpt"][0] == "required"
    assert len(known) > 100


def test_a_key_that_means_different_things_says_so() -> None:
    meaning = rows(options_table(CONF).split("## Options of eval.py")[0])["finetune.train_s"][1]
    assert "svf_residual: train S too" in meaning
    assert "svf_rotated: train S; false keeps the turned backbone frozen" in meaning
