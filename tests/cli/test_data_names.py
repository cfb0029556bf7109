"""Names of data on the command line: one sentence and an exit code for each that is not here."""

import pytest


@pytest.fixture(autouse=True)
def nobody(tmp_path, monkeypatch):
    """An empty folder, no hub and nobody logged in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for module in ("ask", "sets"):
        monkeypatch.setattr(f"danlu.data.fetch.{module}.get_token", lambda: None)


def test_the_list_has_the_public_names_and_ours(danlu_says):
    said = danlu_says("data", "list").out
    assert all(name in said for name in ("identity", "general", "belle_0.5m", "oaast_rm_zh", "wikipedia_zh"))


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("data", "fetch", "lima"), 4, "lima: open to those who accept its terms"),
        (("data", "fetch", "dolly"), 4, "cannot be reached"),
        (("data", "fetch", "dollly"), 3, "did you mean 'dolly'?"),
        (("data", "show", "sft_lora", "data.sources=alpaca_en"), 3, "danlu data fetch alpaca_en"),
        (
            ("data", "show", "sft_lora", "data.sources={dataset: alpacaen}"),
            2,
            "Undefined dataset alpacaen in dataset_info",
        ),
        (("data", "show", "sft_lora", "data.sources=tatsu-lab/alpaca"), 4, "give that folder instead"),
    ],
)
def test_what_is_not_here_is_said_in_one_sentence(words, code, says, danlu_says):
    said = danlu_says(*words, code=code).err
    assert says in said
    assert "Traceback" not in said
