"""Settings of a project: every fault with its line and remedy, secrets only from the environment."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from counterfoil.model.errors import InvalidFilesError, NotFoundError
from counterfoil.settings import FILE, Settings, find_project, load_settings, reference


def _faults(folder: Path, text: str, **environment: str) -> list[str]:
    (folder / FILE).write_text(text)
    with pytest.raises(InvalidFilesError) as caught:
        load_settings(folder, environment)
    return [str(fault) for fault in caught.value.faults]


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("")
    assert load_settings(tmp_path, {}) == Settings()


def test_everything_that_may_be_written(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(
        '[project]\nname = "loans"\noperator = "ana"\n[database]\ndsn = "${URL}"\nowner_dsn = "postgresql://owner@db/x"\n'
        'data_dir = "pg"\ndurable = false\n[worker]\nslices = 2\nlease = "5s"\n'
        '[objects]\nurl = "s3://documents/a"\nendpoint = "http://s3:9000"\nregion = "eu-west-2"\n'
        'access_key = "${KEY}"\nsecret_key = "${SECRET}"\n'
    )
    found = load_settings(
        tmp_path, {"URL": "postgresql://u:secret@db/x", "KEY": "secret-id", "SECRET": "secret-of-secrets"}
    )
    assert found == Settings(
        project_name="loans",
        operator="ana",
        dsn="postgresql://u:secret@db/x",
        owner_dsn="postgresql://owner@db/x",
        data_dir="pg",
        durable=False,
        worker_slices=2,
        worker_lease=timedelta(seconds=5),
        objects_url="s3://documents/a",
        objects_endpoint="http://s3:9000",
        objects_region="eu-west-2",
        objects_access_key="secret-id",
        objects_secret_key="secret-of-secrets",
    )
    assert "secret" not in repr(found)


def test_all_faults_at_once_with_lines_and_suggestions(tmp_path: Path) -> None:
    text = '[databse]\n[database]\ndata_dirr = "x"\ndurable = "yes"\n\n[worker]\nlease = "30"\nslices = 0\n'
    found = _faults(tmp_path, text)
    assert len(found) == 5
    assert found[0].startswith("counterfoil.toml:1: Unknown field `databse`")
    assert "Did you mean `database`?" in found[0]
    assert any(f.startswith("counterfoil.toml:3: ") and "Did you mean `data_dir`?" in f for f in found)
    assert any(f.startswith("counterfoil.toml:4: ") and "Write true or false." in f for f in found)
    assert any(f.startswith("counterfoil.toml:7: ") and "250ms, 5s" in f for f in found)
    assert any(f.startswith("counterfoil.toml:8: ") for f in found)


@pytest.mark.parametrize("dsn", ["postgresql://u:hunter2@db/x", "postgresql://db/x?user=u&password=hunter2"])
def test_a_password_in_clear_is_refused_and_not_shown(tmp_path: Path, dsn: str) -> None:
    (fault,) = _faults(tmp_path, f'[database]\ndsn = "{dsn}"\n')
    assert "counterfoil.toml:2: A password stands in clear" in fault
    assert "hunter2" not in fault


@pytest.mark.parametrize("name", ["access_key", "secret_key"])
def test_a_key_of_the_object_store_in_clear_is_refused_and_not_shown(tmp_path: Path, name: str) -> None:
    (fault,) = _faults(tmp_path, f'[objects]\n{name} = "hunter2"\n')
    assert fault.startswith("counterfoil.toml:2: A secret stands in clear")
    assert "hunter2" not in fault


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ('url = "gs://bucket"', "s3://BUCKET/PREFIX"),
        ('url = "s3://"', "s3://BUCKET/PREFIX"),
        ('url = "file:"', "file:FOLDER"),
        ('endpoint = "s3.example.org"', "https://host"),
        ('endpoint = "https://user:hunter2@s3.example.org"', "https://host"),
        ('region = "eu west"', "eu-west-2"),
    ],
)
def test_what_is_no_object_store_is_a_fault(tmp_path: Path, line: str, remedy: str) -> None:
    (fault,) = _faults(tmp_path, f"[objects]\n{line}\n")
    assert fault.startswith("counterfoil.toml:2: ") and remedy in fault
    assert "hunter2" not in fault


def test_the_object_store_may_stand_in_the_environment(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('[objects]\nurl = "${OBJECTS}"\n')
    assert load_settings(tmp_path, {"OBJECTS": "s3://documents"}).objects_url == "s3://documents"


def test_a_variable_that_is_not_set_is_a_fault_at_its_line(tmp_path: Path) -> None:
    (fault,) = _faults(tmp_path, '[database]\n\ndsn = "${DATABASE_URL}"\n')
    assert fault.startswith("counterfoil.toml:3: The environment has no DATABASE_URL.")


def test_a_variable_that_holds_no_dsn_is_a_fault_that_does_not_show_it(tmp_path: Path) -> None:
    (tmp_path / "counterfoil.toml").write_text('[database]\ndsn = "${DATABASE_URL}"\n')
    with pytest.raises(InvalidFilesError) as error:
        load_settings(tmp_path, {"DATABASE_URL": "mysql://me:hunter2@db/x"})
    (fault,) = error.value.faults
    assert (fault.line, fault.problem) == (2, "DATABASE_URL holds no DSN.")


def test_broken_toml_says_its_line(tmp_path: Path) -> None:
    (fault,) = _faults(tmp_path, "[worker]\nslices = \n")
    assert fault.startswith("counterfoil.toml:2: Not valid TOML")


def test_a_section_that_is_a_value(tmp_path: Path) -> None:
    (fault,) = _faults(tmp_path, "worker = 3\n")
    assert "not a section" in fault


def test_the_project_is_found_from_a_folder_below(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert find_project(below) == tmp_path.resolve()


def test_no_project_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="counterfoil init"):
        find_project(tmp_path)


def test_the_reference_page_has_every_setting() -> None:
    page = Path(__file__).parents[1] / "docs" / "reference" / "settings.md"
    assert reference() in page.read_text("utf-8")
