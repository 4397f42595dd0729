"""A folder of tables: what is read, what is inferred, and the words of every refusal."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from rivage.core.errors import ConfigError, DataError
from rivage.data.build import build_population
from rivage.data.tables import Tables

NORTH = "age,sex,dose,ill\n61,m,1.5,no\n48,f,,yes\n,m,2.5,no\n33,f,0.5,no\n70,m,1.0,yes\n"
SOUTH = "age,sex,dose,ill\n55,f,3.5,yes\n42,,2.0,no\n67,m,1.0,no\n"


def write(folder: Path, **tables: str) -> Path:
    for name, content in tables.items():
        (folder / f"{name}.csv").write_text(content)
    return folder


def refusal(folder: Path, target: str = "ill", **settings: object) -> str:
    with pytest.raises((DataError, ConfigError)) as caught:
        Tables(folder, target, **settings).load(0).validate()  # type: ignore[arg-type]
    assert caught.value.exit_code == 2
    return str(caught.value).replace(str(folder), "sites")


def test_two_sites(tmp_path: Path) -> None:
    data = Tables(write(tmp_path, north=NORTH, south=SOUTH), "ill").load(0)
    assert data.names == ("north", "south")
    assert data.clients.tolist() == [0] * 5 + [1] * 3
    columns = data.records.columns
    assert list(columns) == ["age", "sex", "dose"]
    assert np.array_equal(columns["age"], [61, 48, np.nan, 33, 70, 55, 42, 67], equal_nan=True)
    assert columns["sex"].tolist() == ["m", "f", "m", "f", "m", "f", None, "m"]
    assert data.records.target.tolist() == ["no", "yes", "no", "no", "yes", "yes", "no", "no"]
    assert data.records.target_type == "class"


def test_from_folder_to_population(tmp_path: Path) -> None:
    held = build_population(Tables(write(tmp_path, north=NORTH, south=SOUTH), "ill"), seed=0)
    assert held.size == 2
    assert held.name(0) == "north"
    assert held.schema.classes == ("no", "yes")
    assert held.schema.features == ("age", "sex=f", "sex=m", "dose")
    assert {message.kind for message in held.setup} == {"types", "vocabulary", "statistics"}
    assert held.notes["columns"]["sex"] == "category: f, m"
    trained = np.concatenate([held.client(client).train.x for client in range(2)])
    assert np.allclose(trained[:, 0].mean(), 0, atol=1e-6)


def test_mixed_types_become_a_category_and_the_notes_say_so(tmp_path: Path) -> None:
    folder = write(tmp_path, a="grade,ill\n1,0\n2,1\n2,1\n", b="grade,ill\nII,1\n1.0,0\n,0\n")
    data = Tables(folder, "ill").load(0)
    assert data.records.columns["grade"].tolist()[:4] == [1.0, 2.0, 2.0, "II"]
    held = build_population(Tables(folder, "ill"), seed=0, validation=0.0, test=0.0)
    assert "text in some tables, numbers in others" in held.notes["columns"]["grade"]
    assert "grade=II" in held.schema.features


def test_parquet_beside_csv(tmp_path: Path) -> None:
    columns = {
        "age": pa.array([50, None, 61], pa.int16()),
        "sex": pa.array(["f", "m", None]).dictionary_encode(),
        "dose": pa.array([True, False, None]),
        "ill": pa.array(["no", "no", "yes"], pa.large_string()),
    }
    parquet.write_table(pa.table(columns), tmp_path / "east.parquet")
    data = Tables(write(tmp_path, south=SOUTH), "ill").load(0)
    assert data.names == ("east", "south")
    assert np.array_equal(data.records.columns["dose"][:3], [1, 0, np.nan], equal_nan=True)
    assert data.records.columns["sex"][:3].tolist() == ["f", "m", None]


def test_dates_are_days(tmp_path: Path) -> None:
    columns = {
        "born": pa.array([datetime.date(1970, 1, 11), None]),
        "seen": pa.array([datetime.datetime(1970, 1, 2, 12), None]),
        "ill": pa.array([0, 1]),
    }
    parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    write(tmp_path, b="born,seen,ill\n1970-01-03,1970-01-05 06:00:00,1\n")
    read = Tables(tmp_path, "ill").load(0).records.columns
    assert np.array_equal(read["born"], [10, np.nan, 2], equal_nan=True)
    assert np.array_equal(read["seen"], [1.5, np.nan, 4.25], equal_nan=True)


@pytest.mark.parametrize("mark", [";", "\t"])
def test_other_separators(tmp_path: Path, mark: str) -> None:
    data = Tables(write(tmp_path, a=NORTH.replace(",", mark)), "ill").load(0)
    assert list(data.records.columns) == ["age", "sex", "dose"]


def test_text_far_down_a_long_file_is_seen(tmp_path: Path) -> None:
    """The type of a column is that of all its rows, not of the first block."""
    rows = "".join(f"{number % 7},{number % 2}\n" for number in range(400_000))
    folder = write(tmp_path, a=f"code,ill\n{rows}late,1\n")
    data = Tables(folder, "ill", categories=("code",)).load(0)
    assert data.records.columns["code"][-1] == "late"
    assert 'a.csv, row 400001: "late" among numbers in column "code"' in refusal(folder)


def column(values: list[object], name: str = "temp") -> str:
    return f"{name},ill\n" + "".join(f"{value},{number % 2}\n" for number, value in enumerate(values))


def test_a_bad_cell_in_a_column_of_numbers_is_named(tmp_path: Path) -> None:
    numbers = [20 + number / 4 for number in range(30)]
    folder = write(tmp_path, lyon=column(numbers), nice=column([*numbers[:25], "hot", "", *numbers[25:]]))
    told = (
        'sites/nice.csv, row 26: "hot" among numbers in column "temp". '
        'Correct it, leave the cell empty, or add "temp" to categories if it is meant.'
    )
    assert refusal(folder) == told
    write(folder, metz=column([*numbers, " NA", "1_000", "x" * 99]))
    assert refusal(folder).splitlines() == [
        "4 problems",
        *(
            f"  {told.replace('hot', cell).replace('nice', site).replace('26', row)}"
            for site, row, cell in (
                ("metz", "31", " NA"),
                ("metz", "32", "1_000"),
                ("metz", "33", "x" * 40),
                ("nice", "26", "hot"),
            )
        ),
    ]
    assert Tables(folder, "ill", ignore=("temp",)).load(0).records.columns == {}
    kept = Tables(folder, "ill", categories=("temp",)).load(0).records.columns["temp"]
    assert kept[0] == "20"
    assert kept[30 + 33 + 25] == "hot"


@pytest.mark.parametrize(
    ("sites", "refused"),
    [
        ([[*range(19), "x"]], True),  # 5 %
        ([[*range(18), "x"]], False),
        ([[*range(18), "x", "", "NA"]], False),  # missing values are no numbers
        ([[*range(13), "x"], range(30)], True),  # 1 of 44 over all tables
        ([["x", "y"], range(90)], False),  # text as a whole in one table
        ([["x"], [*range(90), "x"]], False),
        ([["", ""], [*range(90), "x"]], True),
        ([[*range(400), *["x"] * 20]], True),
        ([[*range(800), *["x"] * 21]], False),
        ([[*range(200), *["x"] * 5], [*range(200), *["y"] * 15]], True),
        ([[*range(200), *["x"] * 5], [*range(200), *["y"] * 16]], False),
        ([[" 1", "+2", "-.5", "5.", "1e5", "1E-3", "inf", "-Infinity", "nan", *range(40), "x"]], True),
    ],
)
def test_how_few_texts_are_mistakes(tmp_path: Path, sites: list[list[object]], refused: bool) -> None:
    for number, values in enumerate(sites):
        write(tmp_path, **{f"site{number}": column(list(values))})
    tables = Tables(tmp_path, "ill", max_categories=10_000)
    if refused:
        assert "among numbers in column" in refusal(tmp_path, max_categories=10_000)
    else:
        assert tables.load(0).records.columns["temp"].dtype == object


@pytest.mark.parametrize("cell", ["5", " 5 ", "+5", "-.5", "5.", "1e5", "1E-3", "1e", "1_0", "1,5", "0x1F", "- 5", "٣"])
def test_a_number_is_what_arrow_takes_for_one(tmp_path: Path, cell: str) -> None:
    """Else a cell that made a column of text would count as a number, and nothing would be said."""
    folder = write(tmp_path, a=column([*range(40), f'"{cell}"']))
    if csv.read_csv(folder / "a.csv").column("temp").type == pa.string():
        assert f'row 41: "{cell}" among numbers' in refusal(folder)
    else:
        assert Tables(folder, "ill").load(0).records.columns["temp"].dtype == np.float64


def test_a_bad_cell_in_the_target(tmp_path: Path) -> None:
    folder = write(tmp_path, a="x,y\n" + "".join(f"{n},{n / 2}\n" for n in range(30)) + "3,high\n")
    assert refusal(folder, "y") == refusal(folder, "y", target_type="real")
    assert refusal(folder, "y") == (
        'sites/a.csv, row 31: "high" among numbers in column "y". '
        'Correct it, remove the row, or set target_type = "class" if it is meant.'
    )
    assert Tables(folder, "y", "class").load(0).records.target[-1] == "high"


def test_parquet_says_itself_what_is_text(tmp_path: Path) -> None:
    codes = [*map(str, range(40)), "V12"]
    parquet.write_table(pa.table({"code": codes, "ill": [0, 1] * 20 + [0]}), tmp_path / "a.parquet")
    write(tmp_path, b=column([*range(40), "x"], "code"))
    assert Tables(tmp_path, "ill").load(0).records.columns["code"].dtype == object


def test_numbers_may_be_declared_categories(tmp_path: Path) -> None:
    held = build_population(
        Tables(write(tmp_path, a=column([1, 2, 10]), b=column([2.0, "", 1])), "ill", categories=("temp",)),
        seed=0,
        validation=0.0,
        test=0.0,
    )
    assert held.schema.features == ("temp=1", "temp=2", "temp=10")
    assert held.notes["columns"] == {"temp": "category: 1, 2, 10"}
    assert refusal(tmp_path, categories=("tmp",)) == (
        'sites: no table has the column "tmp" named in categories. Did you mean "temp"?'
    )
    assert refusal(tmp_path, categories=("ill",)) == (
        '"ill" is the target and in categories. Take it out of categories, and set target_type = "class".'
    )
    assert refusal(tmp_path, categories=("temp",), ignore=("temp",)) == (
        '"temp" is in ignore and in categories. Take it out of one of them.'
    )


def test_byte_order_mark_quotes_and_missing_marks(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes('\ufeffnote,v,ill\n"a, b",?,0\n"c\nd",NA,1\n"",3,1\n'.encode())
    columns = Tables(tmp_path, "ill").load(0).records.columns
    assert columns["note"].tolist() == ["a, b", "c\nd", None]
    assert np.array_equal(columns["v"], [np.nan, np.nan, 3], equal_nan=True)


@pytest.mark.parametrize(
    ("values", "wanted", "kind"),
    [
        ("1 2 1 3", None, "class"),
        ("1.0 2.0 1.0 3.0", None, "class"),
        ("1.5 2.0 1.0 3.0", None, "real"),
        (" ".join(map(str, range(21))), None, "real"),
        (" ".join(map(str, range(20))), None, "class"),
        ("1 2 1 3", "real", "real"),
        ("1.5 2.0 1.0 3.0", "class", "class"),
        ("true false true", None, "class"),
    ],
)
def test_target_type(tmp_path: Path, values: str, wanted: str | None, kind: str) -> None:
    write(tmp_path, a="x,y\n" + "".join(f"1,{value}\n" for value in values.split()))
    assert Tables(tmp_path, "y", wanted).load(0).records.target_type == kind  # type: ignore[arg-type]


def test_a_class_that_one_site_alone_has_is_fine(tmp_path: Path) -> None:
    folder = write(tmp_path, a="x,y\n1,u\n2,u\n3,u\n", b="x,y\n1,v\n2,v\n3,w\n")
    held = build_population(Tables(folder, "y"), seed=0)
    assert held.schema.classes == ("u", "v", "w")


def test_ignored_columns_may_differ(tmp_path: Path) -> None:
    folder = write(tmp_path, a="id,x,y\n7,1,0\n8,2,1\n", b="x,y\n1,1\n")
    assert list(Tables(folder, "y", ignore=("id",)).load(0).records.columns) == ["x"]


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    write(tmp_path, a=NORTH)
    (tmp_path / "README.md").write_text("x")
    (tmp_path / ".~a.csv").write_text("x")
    (tmp_path / "B.CSV").write_text(SOUTH)
    assert Tables(tmp_path, "ill").load(0).names == ("B", "a")


def test_equal_stems_keep_their_ending(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"x": [1, 2], "ill": [0, 1]}), tmp_path / "a.parquet")
    assert Tables(write(tmp_path, a="x,ill\n1,0\n"), "ill").load(0).names == ("a.csv", "a.parquet")


def test_words_of_refusals(tmp_path: Path) -> None:
    def case(name: str, **tables: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        return write(folder, **tables)

    assert refusal(tmp_path / "none") == (
        '[data] folder: there is no folder "sites". Give the folder that holds one table per client.'
    )
    assert refusal(case("empty")) == (
        '[data] folder: there is no table in "sites". Put one .csv or .parquet file per client there.'
    )
    assert refusal(case("target", a=NORTH, b=SOUTH.replace("ill", "sick"))) == (
        'sites/b.csv: no target column "ill". Its columns are: age, sex, dose, sick.'
    )
    assert refusal(case("targets", a=NORTH, b=SOUTH), "il") == (
        "2 problems\n"
        '  sites/a.csv: no target column "il". Did you mean "ill"? Its columns are: age, sex, dose, ill.\n'
        '  sites/b.csv: no target column "il". Did you mean "ill"? Its columns are: age, sex, dose, ill.'
    )
    assert refusal(case("column", a=NORTH, b=SOUTH.replace("dose", "dosis"))) == (
        "2 problems\n"
        '  sites/b.csv: no column "dose", which sites/a.csv has. Did you mean "dosis"? '
        "Add it (its cells may be empty), or name it in ignore.\n"
        '  sites/a.csv: no column "dosis", which sites/b.csv has. Did you mean "dose"? '
        "Add it (its cells may be empty), or name it in ignore."
    )
    assert refusal(case("missing", a=NORTH, b=SOUTH.replace("2.0,no", "2.0,"))) == (
        'sites/b.csv: target "ill" is missing in row 2. Fill it in, or remove the row.'
    )
    assert refusal(case("nan", a="x,y\n1,0.5\n2,NaN\n"), "y") == (
        'sites/a.csv: target "y" is missing in row 2. Fill it in, or remove the row.'
    )
    assert refusal(case("inf", a="x,y\n1,0.5\n-inf,0.7\n"), "y") == (
        'sites/a.csv: column "x" is -inf in row 2. Give a finite number, or leave the cell empty.'
    )
    assert refusal(case("rows", a=NORTH, b="age,sex,dose,ill\n")) == (
        "sites/b.csv: the table has no rows. Add records, or remove the file."
    )
    assert refusal(case("one", a="x,y\n1,u\n2,u\n", b="x,y\n1,u\n"), "y") == (
        'tables "sites": all records of all clients together have one and the same class. '
        "Add records of another class, or predict another column."
    )
    assert refusal(case("twice", a="x,x,y\n1,2,0\n"), "y") == (
        'sites/a.csv: column "x" stands there twice. Rename one of them.'
    )
    assert refusal(case("text", a="x,y\n1,u\n2,2\n"), "y", target_type="real") == (
        'sites: target "y" holds text ("u") but target_type is "real". '
        'Correct the tables, or set target_type = "class".'
    )
    many = "".join(f"p{number},{number % 2}\n" for number in range(30))
    assert refusal(case("many", a=f"name,y\n{many}"), "y", max_categories=20) == (
        'sites: column "name" holds 30 different texts, for example "p0". '
        'Add "name" to ignore, or raise max_categories (20).'
    )
    assert refusal(case("ignore", a=NORTH), ignore=("doze",)) == (
        'sites: no table has the column "doze" named in ignore. Did you mean "dose"?'
    )
    assert refusal(tmp_path / "column", ignore=("ill",)) == (
        '"ill" is the target and in ignore. Take it out of ignore.'
    )


@pytest.mark.parametrize("content", [b"", b"x,y\n1,2\n1,2,3\n", b"PAR1"])
def test_files_that_cannot_be_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ("a.parquet" if content == b"PAR1" else "a.csv")).write_bytes(content)
    assert "cannot be read (" in refusal(tmp_path, "y")


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("x,y,z\n\xe9,1,1\na,2,2\n".encode("latin-1"))
    assert refusal(tmp_path, "y") == (
        'sites/a.csv, column "x": the text is not UTF-8. Save it as UTF-8, or name the column in ignore.'
    )
    assert list(Tables(tmp_path, "y", ignore=("x",)).load(0).records.columns) == ["z"]


def test_columns_of_lists(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"x": [[1], [2]], "y": [0, 1]}), tmp_path / "a.parquet")
    assert refusal(tmp_path, "y").startswith('sites/a.parquet, column "x": values of type list')
