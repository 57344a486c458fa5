"""The options table: read from fabricated configs of every form, and from the real ones."""

from pathlib import Path

import pytest

from fss.config.options_table import BEGIN, END, main, options_table, replace_block
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
    assert table.index("`shot`") < table.index("`data.size`") < table.index("Of `eval.py`") < table.index("`ckpt`")


def test_bad_configs_are_named(conf: Path, tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="holds no config"):
        options_table(tmp_path)
    (conf / "data/big.yaml").write_text("- a\n")
    with pytest.raises(ReportError, match=r"big\.yaml must hold a mapping"):
        options_table(conf)
    (conf / "data/big.yaml").write_text("a: [1\n")
    with pytest.raises(ReportError, match=r"big\.yaml is no readable YAML"):
        options_table(conf)


def test_write_then_check(conf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"# Title\n\n{BEGIN}\nold\n{END}\n\nTail é\n", encoding="utf-8")
    where = ["--conf", str(conf)]
    assert main([*where, "--check", str(readme)]) == 1
    assert "--write" in capsys.readouterr().err
    assert main([*where, "--write", str(readme)]) == 0
    text = readme.read_text(encoding="utf-8")
    assert text == f"# Title\n\n{BEGIN}\n{options_table(conf)}{END}\n\nTail é\n"
    assert main([*where, "--check", str(readme)]) == 0
    before = readme.stat().st_mtime_ns
    assert main([*where, "--write", str(readme)]) == 0
    assert readme.stat().st_mtime_ns == before
    (conf / "eval.yaml").write_text("ckpt: ??? # other words\n")
    assert main([*where, "--check", str(readme)]) == 1
    readme.write_text("no markers")
    assert main([*where, "--write", str(readme)]) == 2
    assert readme.read_text() == "no markers"
    assert main([*where, "--check", str(tmp_path / "none.md")]) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["README.md", "conf"]


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}\n{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_markers_must_be_a_pair(text: str) -> None:
    with pytest.raises(ReportError, match="expected one line"):
        replace_block(text, "x\n")


def test_the_real_configs() -> None:
    train, evaluation = options_table(CONF).split("Of `eval.py`")
    found = rows(train)
    for group in ("data", "backbone", "method", "finetune", "recipe"):
        assert "(default)" in found[f"{group}="][0]
    assert found["fold"][0] == "`0`"
    assert rows(evaluation)["ckpt"][0] == "required"
    assert len(found) > 40
