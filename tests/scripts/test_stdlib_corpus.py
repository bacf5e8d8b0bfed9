from scripts.stdlib_corpus import documents, first_paragraph


def test_it_is_thousands_of_documents_with_a_name_and_a_paragraph_each() -> None:
    texts = {document["id"]: document["text"] for document in documents()}
    assert len(texts) > 4000
    assert texts["threading.Thread.join"] == "threading.Thread.join: Wait until the thread terminates."
    assert texts["os.path.join"].startswith("os.path.join: Join two or more pathname components")
    assert texts["json"].startswith("json: JSON (JavaScript Object Notation)")
    for id_, text in texts.items():
        assert text.startswith(f"{id_}: ")
        assert "\n" not in text


def test_a_first_paragraph() -> None:
    def documented() -> None:
        """One
        line.

        More.
        """

    def signed() -> None:
        """signed(a, b)

        What it does.
        """

    assert first_paragraph(documented) == "One line."
    assert first_paragraph(signed) == "signed(a, b) What it does."
    assert first_paragraph(lambda: None) == ""
