from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from adapters.data.clean.duplicates import near_duplicates_between
from adapters.data.content import content_digest
from adapters.data.funnel import FunnelRow
from adapters.data.prepare import PreparedData, prepare_data
from adapters.data.read import read_examples
from adapters.data.settings import load_data_settings
from adapters.data.source import DataSource
from adapters.data.write import write_prepared
from adapters.errors import DataError

CITIES = ["Paris", "Berlin", "Rome", "Madrid", "Vienna", "Oslo", "Lisbon", "Athens", "Dublin", "Prague"]
VERBS = ["visit", "describe", "paint", "leave", "forget", "remember", "photograph", "miss"]


def notes(number: int = 40) -> list[dict[str, Any]]:
    """Rows that differ in all that matters; the label is one of four."""
    return [
        {
            "prompt": f"{VERBS[n % 8]} {CITIES[n % 10]} and {CITIES[n // 7 % 10]}, {VERBS[n // 3 % 8]} {n * 7919}",
            "completion": f"answer {n}",
            "label": n % 4,
        }
        for n in range(number)
    ]


def row_of(prepared: PreparedData, step: str) -> FunnelRow:
    row = prepared.funnel.row(step)
    assert row is not None
    return row


def twins(row: FunnelRow) -> list[str]:
    """Where the examples stand that those removed repeat."""
    return [str(finding.twin.origin) for finding in row.removed_findings if finding.twin]


def silent(_text: str) -> None:
    """Nobody is told."""


def prepare(*paths: Path | str, **changes: Any) -> PreparedData:
    sources = [path if isinstance(path, DataSource) else DataSource.parse(str(path)) for path in paths]
    return prepare_data(sources, load_data_settings(**changes), progress=silent)


def test_the_funnel_counts_every_step_in_order(write):
    rows = [*notes(), notes()[3], {"prompt": "x" * 500, "completion": "y", "label": 1}]
    prepared = prepare(write("a.jsonl", rows), max_characters=400)
    assert [row.step for row in prepared.funnel.rows] == [
        "read", "labels", "text", "personal data", "length", "exact duplicates", "near-duplicates", "outliers",
        "split", "leak check",
    ]  # fmt: skip
    assert row_of(prepared, "read").after == 42
    assert row_of(prepared, "length").removed == 1
    exact = row_of(prepared, "exact duplicates")
    assert (exact.before, exact.removed, exact.after) == (41, 1, 40)
    assert twins(exact) == ["a.jsonl:4"]
    assert dict(row_of(prepared, "split").counts) == {"train": 36, "validation": 4, "test": 0}
    for before, after in zip(prepared.funnel.rows, prepared.funnel.rows[1:], strict=False):
        assert before.after == after.before
    assert (len(prepared.train), len(prepared.validation), len(prepared.test)) == (36, 4, 0)
    assert json.dumps(prepared.funnel.to_dicts())


SWITCHES: dict[str, dict[str, Any]] = {
    "text": {"clean_unicode": False, "clean_html": False, "clean_whitespace": False},
    "personal data": {"personal": "off"},
    "length": {"length_filter": False},
    "exact duplicates": {"exact_duplicates": False},
    "near-duplicates": {"near_duplicates": "off"},
    "outliers": {"outliers": False},
    "leak check": {"leak_check": False},
}


@pytest.mark.parametrize("step", SWITCHES)
def test_each_step_can_be_switched_off(write, step):
    path = write("a.jsonl", notes())
    assert prepare(path).funnel.row(step) is not None
    assert prepare(path, **SWITCHES[step]).funnel.row(step) is None


def test_the_same_data_and_seed_give_the_same_fingerprint(write):
    path = write("a.jsonl", notes())
    moved = write("b.jsonl", notes())
    assert prepare(path).fingerprint == prepare(moved).fingerprint
    assert prepare(path).fingerprint != prepare(path, seed=1).fingerprint
    assert prepare(path).fingerprint != prepare(path, validation_share=0.2).fingerprint


def test_files_of_validation_and_test_are_taken_as_they_are(write):
    held = notes(60)[50:]
    prepared = prepare(
        write("a.jsonl", notes(40)),
        validation_file=[str(write("v.jsonl", [*held, held[0]]))],
        test_file=[str(write("t.jsonl", held[:2]))],
        test_share=0.5,
    )
    assert [len(part) for part in prepared.splits.values()] == [40, 11, 2]
    assert any(
        "validation examples that (nearly) repeat a test example: 3" in text for text in prepared.warnings
    )


def test_held_out_examples_are_cleaned_like_the_others(write):
    held = [{"prompt": "<b>mail</b> bob@example.com please", "completion": "<b>ok</b>"}]
    prepared = prepare(
        write("a.jsonl", notes()), validation_file=[str(write("v.jsonl", held))], personal="redact"
    )
    assert prepared.validation[0].parts() == ("mail [MAIL] please", "ok")


def test_a_training_example_that_is_held_out_as_well_leaves_the_training_data(write):
    rows = notes()
    prepared = prepare(write("a.jsonl", rows), validation_file=[str(write("v.jsonl", rows[:3]))])
    assert len(prepared.train) == 37
    assert len(prepared.validation) == 3
    leak = row_of(prepared, "leak check")
    assert (leak.before, leak.after, dict(leak.counts)) == (43, 40, {"validation": 3, "test": 0})
    assert set(twins(leak)) == {"v.jsonl:1", "v.jsonl:2", "v.jsonl:3"}
    kept = prepare(
        write("a.jsonl", rows), validation_file=[str(write("v.jsonl", rows[:3]))], leak_check=False
    )
    assert len(kept.train) == 40


def test_nothing_but_leaks_is_an_error(write):
    rows = notes()
    with pytest.raises(
        DataError, match=r"^a\.jsonl:1: every training example repeats .*v\.jsonl:1.*--no-leak-check"
    ):
        prepare(write("a.jsonl", rows), validation_file=[str(write("v.jsonl", rows))])


def test_a_folder_that_is_split_is_not_split_again(write):
    folder = write("set/train.jsonl", notes(30)).parent
    write("set/test.jsonl", notes(50)[40:])
    prepared = prepare(folder, validation_share=0.1, test_share=0.5)
    assert [len(part) for part in prepared.splits.values()] == [27, 3, 10]


def test_a_saved_data_set_of_hugging_face_is_prepared(tmp_path):
    rows = datasets.Dataset.from_list(notes(20))
    datasets.DatasetDict({"train": rows}).save_to_disk(tmp_path / "set")
    assert len(prepare(tmp_path / "set").train) == 18


def test_each_task_is_held_out_in_its_share_unless_it_brings_its_own(write):
    first, second = write("a.jsonl", notes(40)), write("b.jsonl", notes(90)[50:])
    prepared = prepare(f"x={first}", f"y={second}:2", validation_share=0.2)
    assert {task: sum(e.task == task for e in prepared.validation) for task in "xy"} == {"x": 8, "y": 8}
    own = write("v.jsonl", notes(120)[100:])
    prepared = prepare(f"x={first}", f"y={second}", validation_share=0.2, validation_file=[f"x={own}"])
    assert {task: sum(e.task == task for e in prepared.validation) for task in "xy"} == {"x": 20, "y": 8}
    assert {task: sum(e.task == task for e in prepared.train) for task in "xy"} == {"x": 40, "y": 32}
    prepared = prepare(f"x={first}", f"y={second}", validation_share=0.2, validation_file=[str(own)])
    assert [len(part) for part in prepared.splits.values()] == [80, 20, 0]


def test_labels_are_renamed_and_one_class_alone_is_refused(write):
    rows = [{**row, "label": "hoch" if row["label"] else "niedrig"} for row in notes()]
    path = write("a.jsonl", rows)
    prepared = prepare(path, label_map=["hoch=5,niedrig=0"])
    assert {example.label for example in prepared.train} == {"5", "0"}
    with pytest.raises(
        DataError, match=r"^a\.jsonl: all 40 labelled examples have one label, '5'.*--allow-one-class"
    ):
        prepare(path, label_map=["hoch=5,niedrig=5"])
    assert len(prepare(path, label_map=["hoch=5,niedrig=5"], allow_one_class=True).train) == 36


def test_one_class_that_only_selection_left_is_refused_too(write):
    rows = [{**row, "label": "a"} for row in notes(20)] + [
        {"prompt": "z" * 300, "completion": "b", "label": "b"}
    ]
    with pytest.raises(DataError, match="labelled examples that are left for training have one label, 'a'"):
        prepare(write("a.jsonl", rows), max_characters=200)


def test_one_labelled_example_is_not_one_class(write):
    rows = [{**row, "label": None} for row in notes()]
    rows[0]["label"] = "a"
    assert prepare(write("a.jsonl", rows)).train


def test_labels_that_training_never_sees_are_a_warning(write):
    held = [{**row, "label": "9"} for row in notes(60)[50:]]
    prepared = prepare(write("a.jsonl", notes()), test_file=[str(write("t.jsonl", held))])
    assert any(
        "test examples have labels that no training example has: '9'" in text for text in prepared.warnings
    )


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        (notes(1) * 20, {}, r"^a\.jsonl:1: all 20 examples are this one again.*--no-exact-duplicates"),
        (
            [{"prompt": f"the very same words on {n}", "completion": "yes"} for n in ("Rome,", "rome.", "ROME!")],
            {"exact_duplicates": False},
            r"^a\.jsonl:1: all 3 examples are this one again.*--near-duplicates off",
        ),
        (notes(5), {"min_characters": 1000}, r"^a\.jsonl:1: the step 'length' left nothing of 5.*--min-characters"),
        (
            [{"text": "<p></p>"}, {"text": "<br>"}],
            {},
            r"^a\.jsonl:1: the step 'length' left nothing of 2 examples \(this one: empty text\)",
        ),
        (notes(3), {"columns": ["prompt=ask", "completion=completion"]}, r"^a\.jsonl:1: there is no column 'ask'"),
        (notes(3), {"columns": ["label=stufe"]}, r"^a\.jsonl:1: there is no column 'stufe'"),
        ([], {}, r"^a\.jsonl: the file is empty; it must hold"),
        ("\n\n", {}, r"^a\.jsonl: the data holds no example"),
        ('{"text": "x"}\nbroken\n', {}, r"^a\.jsonl:2: the line is not valid JSON"),
        ('{"text": "' + "x" * 10_000_000 + '"}\n', {}, r"^a\.jsonl:1: the line has 10,000,013 bytes, more than"),
        ("[]\n[]\n", {"skip_bad_lines": True}, r"^a\.jsonl:1: .*\n.*no other lines"),
        ('{"prompt": "P"}\n', {}, r"^a\.jsonl:1: there is a prompt but no completion"),
    ],
)  # fmt: skip
def test_bad_data_is_refused_with_file_line_and_remedy_and_left_as_it_is(write, rows, changes, message):
    path = write("a.jsonl", rows)
    before = path.read_bytes()
    with pytest.raises(DataError, match=message):
        prepare(path, **changes)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["a.jsonl"]


def test_bad_lines_can_be_left_out_and_are_counted(write):
    path = write("a.jsonl", "".join(json.dumps(row) + "\n" for row in notes()) + "broken\n{}\n")
    prepared = prepare(path, skip_bad_lines=True)
    read = row_of(prepared, "read")
    assert (read.before, read.after) == (42, 40)
    assert any("left out 2 bad lines" in text and "a.jsonl:41" in text for text in prepared.warnings)


def test_personal_data_conflicts_and_unused_columns_are_warnings(write):
    rows = notes()
    rows[0] |= {"prompt": rows[0]["prompt"] + " bob@example.com", "id": 7}
    rows.append({**rows[5], "completion": "another answer"})
    prepared = prepare(write("a.jsonl", rows))
    text = "\n".join(prepared.warnings)
    assert "personal data is in 1 example (1 mail)" in text
    assert "bob@example.com" not in text
    assert "answer otherwise: 1, such as a.jsonl:41" in text
    assert "a.jsonl: nothing was taken from 'id'" in text


def test_a_single_example_is_trained_on_without_validation(write):
    prepared = prepare(write("a.jsonl", notes(1)))
    assert len(prepared.train) == 1
    assert any("no validation examples" in text for text in prepared.warnings)


def test_two_weights_for_one_task_are_refused(write):
    path = write("a.jsonl", notes())
    with pytest.raises(DataError, match="weights 1 and 2"):
        prepare(f"x={path}", f"x={path}:2")


def test_every_task_has_the_weight_of_its_source(write):
    rows = [{**row, "task": "xy"[n % 2]} for n, row in enumerate(notes())]
    first, second = write("a.jsonl", rows), write("b.jsonl", notes(80)[50:])
    prepared = prepare(f"{first}:3", f"z={second}:0.5")
    assert prepared.task_weights == {"x": 3.0, "y": 3.0, "z": 0.5}
    with pytest.raises(DataError, match=r"b\.jsonl: the task 'x' has the weights 3 and 1"):
        prepare(f"{first}:3", f"x={second}")


def test_progress_names_what_begins(write):
    said: list[str] = []
    prepare_data(
        [DataSource(write("a.jsonl", notes()))],
        load_data_settings(validation_share=0.1),
        progress=said.append,
    )
    assert said[0] == "Reading a.jsonl"
    assert any(text.startswith("Near-duplicates: 40 examples") for text in said)
    assert said[-1] == "Leak check"


words = st.lists(st.sampled_from([*CITIES, *VERBS, "你好", "<b>bold</b>", "a@b.org"]), min_size=1, max_size=6)
drawn_rows = st.lists(
    st.builds(
        lambda ask, say, label: {"prompt": " ".join(ask), "completion": " ".join(say), "label": label},
        words,
        words,
        st.sampled_from([None, "a", "b"]),
    ),
    min_size=2,
    max_size=25,
)


@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    drawn_rows,
    st.booleans(),
    st.booleans(),
    st.sampled_from(["minhash", "simhash", "off"]),
    st.integers(0, 3),
)
def test_no_twin_is_on_both_sides_and_what_was_written_is_read_again(
    tmp_path_factory, rows, chat, exact, near, seed
):
    folder = tmp_path_factory.mktemp("drawn")
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = load_data_settings(
        chat="on" if chat else "off",
        exact_duplicates=exact,
        near_duplicates=near,
        validation_share=0.2,
        test_share=0.2,
        seed=seed,
        allow_one_class=True,
    )
    try:
        prepared = prepare_data([DataSource(path, task="notes")], settings, progress=silent)
    except DataError as error:
        assert "nothing to learn" in str(error)
        return
    for held in (prepared.validation, prepared.test):
        if held:
            assert not near_duplicates_between(
                held, prepared.train, threshold=settings.near_duplicate_threshold
            )
    lines = [example.origin.line for part in prepared.splits.values() for example in part]
    assert len(lines) == len(set(lines))
    removed = sum(row.removed for row in prepared.funnel.rows)
    assert len(lines) + removed == len(rows)

    write_prepared(prepared, folder / "out", settings)
    again = read_examples(folder / "out")
    flat = [example for part in prepared.splits.values() for example in part]
    assert list(map(content_digest, again)) == list(map(content_digest, flat))


def test_the_example_of_the_project_loses_nothing():
    folder = Path(__file__).parents[3] / "examples" / "risk"
    prepared = prepare(
        folder / "train.jsonl",
        validation_file=[str(folder / "validation.jsonl")],
        test_file=[str(folder / "test.jsonl")],
        outliers=False,
    )
    assert [len(part) for part in prepared.splits.values()] == [2000, 300, 500]
