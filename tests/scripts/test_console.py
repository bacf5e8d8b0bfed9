"""What a command writes, and where: whole or not at all, and to whatever a path leads."""

import os
import stat
import threading
from pathlib import Path

import pytest

from scripts.console import BadInput, check_place, print_table, printable, written


def write(path: Path, text: str) -> None:
    with written(path, "w") as file:
        file.write(text)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real" / "file")
    for text in ("made", "made again"):
        check_place(link)
        write(link, text)
        assert (link.is_symlink(), (tmp_path / "real" / "file").read_text()) == (True, text)
    assert [path.name for path in (tmp_path / "real").iterdir()] == ["file"]


def test_links_that_lead_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(BadInput, match="a cannot be written"):
        write(tmp_path / "a", "x")


def test_what_is_no_file_is_written_to_as_it_is(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", list[str]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    check_place(pipe)
    write(pipe, "through it")
    reader.join(10)
    assert read == ["through it"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    check_place(Path(os.devnull))
    write(Path(os.devnull), "nothing")
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)


def test_a_folder_is_no_place_for_a_file(tmp_path: Path) -> None:
    for refused in (lambda: write(tmp_path, "x"), lambda: check_place(tmp_path)):
        with pytest.raises(BadInput, match="cannot be written: "):
            refused()


def test_a_file_of_ones_own_that_is_named_like_a_part_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out.partial").write_text("precious")
    write(tmp_path / "out", "x")
    assert (tmp_path / "out.partial").read_text() == "precious"


def test_a_terminal_is_told_nothing_by_a_document(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["id"], [["\x1b]0;title\x07\x1b[31mred\x9b\u202eback\u2066"], ["tab\tand\nline"]])
    shown = capsys.readouterr().out
    assert not set(shown) & {"\x1b", "\x07", "\x9b", "\u202e", "\u2066"}
    assert "\ufffd[31mred" in shown
    assert printable("ü 👩‍🚀 हिन्दी\t\n") == "ü 👩‍🚀 हिन्दी\t\n"


def test_nothing_of_a_table_is_cut_where_no_terminal_shows_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    long = "very/long/" * 30 + "id"
    print_table(["id", "score"], [[long, "1"], ["b", ""]])
    assert capsys.readouterr().out.split("\n") == ["id".ljust(len(long)) + "  score", long + "  1", "b", ""]
