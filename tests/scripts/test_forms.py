"""Texts and files in the one form that is read here."""

from scripts.datasets.catalogue import CATALOGUE
from scripts.datasets.forms import PAIRS, clean, form_of


def test_clean_keeps_wrongly_decoded_letters() -> None:
    assert clean("Iraq\u00e2\u0080\u0099s\u00a0 \x00\x1f\x7f x\n") == "Iraq\u00e2\u0080\u0099s x"
    assert clean(None) == ""


def test_clean_composes_letters_and_makes_no_others_of_them() -> None:
    """A half is not 1/2, a square no 2, and a ligature one letter: NFC, not NFKC."""
    assert clean("cafe\u0301 \u00bd x\u00b2 \ufb01n") == "caf\u00e9 \u00bd x\u00b2 \ufb01n"


def test_every_file_of_the_catalogue_has_a_form_and_a_place_of_its_own() -> None:
    originals = [part.original for found in CATALOGUE.values() for part in found.parts]
    assert len(originals) == len(set(originals))
    for name, found in CATALOGUE.items():
        files = [part.file for part in found.parts]
        assert len(files) == len(set(files)), name
        assert all(form_of(file) is not PAIRS or file.endswith(".tsv.gz") for file in files)
