import shutil
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from protos import generate

JOB = Path("protos/mesh/v1/job.proto")
JOB_MODULE = Path("protos/mesh/v1/job_pb2.py")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the contract, without released versions, that a test may spoil."""
    unreleased = shutil.ignore_patterns("__pycache__", "*.binpb")
    shutil.copytree(generate.ROOT / "protos", tmp_path / "protos", ignore=unreleased)
    shutil.copy(generate.ROOT / "buf.yaml", tmp_path)
    return tmp_path


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def release(tree: Path, version: str) -> None:
    assert generate.main(["--image", str(tree / f"protos/released/{version}.binpb"), "--root", str(tree)]) == 0


def test_repository_has_no_drift() -> None:
    assert generate.drift() == []


def test_repository_is_clean_when_linted(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--lint"]) == 0
    said = capsys.readouterr().err
    assert "clean" in said
    assert "no released version yet" in said or "compatible with" in said


def test_check_names_the_file_when_a_generated_module_was_edited(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / JOB_MODULE).write_text((tree / JOB_MODULE).read_text() + "# edited\n")
    assert generate.main(["--check", "--root", str(tree)]) == 1
    assert f"changed: {JOB_MODULE}" in capsys.readouterr().err


def test_drift_names_all_modules_of_a_source_when_it_gained_a_field(tree: Path) -> None:
    replace(tree / JOB, "reserved 30 to 39;", "string connection = 30;\n  reserved 31 to 39;")
    assert generate.drift(tree) == [f"changed: {JOB_MODULE}", f"changed: {JOB_MODULE}i"]


def test_drift_names_what_is_missing_and_what_is_left_over(tree: Path) -> None:
    (tree / JOB_MODULE).rename(tree / "protos/mesh/v1/gone_pb2.py")
    assert generate.drift(tree) == ["left over: protos/mesh/v1/gone_pb2.py", f"missing: {JOB_MODULE}"]


def test_write_brings_the_tree_in_line_when_it_has_drifted(tree: Path) -> None:
    (tree / JOB_MODULE).rename(tree / "protos/mesh/v1/gone_pb2.py")
    assert generate.write(tree) == ["protos/mesh/v1/gone_pb2.py", str(JOB_MODULE)]
    assert generate.drift(tree) == []
    assert not (tree / "protos/mesh/v1/gone_pb2.py").exists()


def test_generator_says_where_when_a_source_does_not_compile(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    replace(tree / JOB, "enum JobState {", "enum JobState")
    assert generate.main(["--check", "--root", str(tree)]) == 1
    assert "job.proto:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        ("JOB_STATE_UNSPECIFIED", "JOB_STATE_NONE", "job.proto:11:3:"),
        ("// What a job produced.\nmessage Result {", "message   Result {", "message Result {"),
        ("string code = 1;", 'string Code = 1 [json_name = "code"];', "lower_snake_case"),
    ],
    ids=["enum zero value", "format", "field name"],
)
def test_lint_finds_it_when_a_rule_is_broken(tree: Path, old: str, new: str, finding: str) -> None:
    replace(tree / JOB, old, new)
    assert finding in "\n".join(generate.lint(tree))


def test_lint_passes_and_names_the_release_when_a_field_is_added(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release(tree, "0.1.0")
    replace(tree / JOB, "  string content_type = 2;\n}", "  string content_type = 2;\n  uint64 bytes = 3;\n}")
    assert generate.main(["--lint", "--root", str(tree)]) == 0
    assert "compatible with 0.1.0" in capsys.readouterr().err


def test_lint_refuses_it_when_a_released_field_is_renumbered(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release(tree, "0.1.0")
    replace(tree / JOB, "string content_type = 2;", "string content_type = 3;")
    assert generate.main(["--lint", "--root", str(tree)]) == 1
    assert 'Previously present field "2" with name "content_type"' in capsys.readouterr().err


def test_newest_release_goes_by_version_not_by_spelling(tree: Path) -> None:
    assert generate.newest_release(tree / "nowhere") is None
    for version in ("0.9.1", "0.10.0", "0.2.0"):
        (tree / f"protos/released/{version}.binpb").write_bytes(b"")
    newest = generate.newest_release(tree)
    assert newest is not None
    assert newest.stem == "0.10.0"


def test_image_file_holds_all_that_another_language_needs(tmp_path: Path) -> None:
    file = tmp_path / "mesh.binpb"
    assert generate.main(["--image", str(file)]) == 0
    pool = descriptor_pool.DescriptorPool()
    for part in descriptor_pb2.FileDescriptorSet.FromString(file.read_bytes()).file:
        pool.Add(part)
    service = pool.FindServiceByName("mesh.v1.JobService")
    submit = service.FindMethodByName("SubmitJobs")
    assert submit is not None
    assert submit.input_type.full_name == "mesh.v1.SubmitJobsRequest"
