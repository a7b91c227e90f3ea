"""A segment is read to its last whole frame, and what is wrong with it is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.journal.segment import FORMAT, JournalError, SegmentReader, frame, name_of, opening, segments_of, shape_of

FRAMES = [frame(['["head",{}]', '["turn",1]']), frame(['["turn",2]']), frame(['["end","stopped"]'])]
LINES = [["head", {}], ["turn", 1], ["turn", 2], ["end", "stopped"]]


def written(folder: Path, content: bytes) -> SegmentReader:
    path = folder / name_of(7)
    path.write_bytes(content)
    return SegmentReader(path)


def test_whole_segment_is_read_without_damage(tmp_path: Path) -> None:
    reader = written(tmp_path, opening() + b"".join(FRAMES))
    assert list(reader.lines()) == LINES
    assert reader.damage == ""


def test_segment_is_read_to_the_last_whole_frame_when_it_is_cut_anywhere(tmp_path: Path) -> None:
    whole = opening() + b"".join(FRAMES)
    ends = [len(opening()) + sum(map(len, FRAMES[:count])) for count in range(len(FRAMES) + 1)]
    for cut in range(len(opening()), len(whole)):
        reader = written(tmp_path, whole[:cut])
        frames = sum(end <= cut for end in ends) - 1
        assert list(reader.lines()) == LINES[: (0, 2, 3, 4)[frames]]
        assert bool(reader.damage) == (cut not in ends)


def test_segment_is_read_to_the_frame_before_a_flipped_bit(tmp_path: Path) -> None:
    whole = opening() + b"".join(FRAMES)
    first = len(opening()) + len(FRAMES[0])
    for at in range(first, first + len(FRAMES[1])):
        reader = written(tmp_path, whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :])
        assert list(reader.lines()) == LINES[:2]
        assert reader.damage


def test_frame_that_claims_to_be_huge_is_not_read_into_memory(tmp_path: Path) -> None:
    reader = written(tmp_path, opening() + b"\xff" * 8)
    assert list(reader.lines()) == []
    assert "damaged" in reader.damage


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"jobmesh-journal %d\n" % (FORMAT + 1), rf"format {FORMAT + 1}, this program reads format {FORMAT}"),
        (b"SQLite format 3\x00", "not a segment"),
        (b"", "not a segment"),
        (b"jobmesh-journal x\n", "not a segment"),
    ],
)
def test_other_file_is_refused_in_words(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(JournalError, match=words) as refused:
        list(written(tmp_path, content).lines())
    assert name_of(7) in str(refused.value)


def test_segments_are_found_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 9, 100_000):
        (tmp_path / name_of(number)).touch()
    (tmp_path / "notes.txt").touch()
    assert [path.name for path in segments_of(tmp_path)] == [name_of(9), name_of(10), name_of(100_000)]


@pytest.mark.parametrize(("name", "words"), [("", "no segment of a journal"), ("missing", "no such folder")])
def test_folder_without_a_journal_is_refused_in_words(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(JournalError, match=words):
        segments_of(tmp_path / name)


def test_shape_is_another_when_a_field_is_another() -> None:
    assert shape_of([["A", "b"]]) == shape_of([["A", "b"]])
    assert len({shape_of([["A", "b"]]), shape_of([["A", "c"]]), shape_of([["A", "b"], ["C"]])}) == 3
