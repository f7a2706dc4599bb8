"""What is misspelt on the command line is refused with the nearest known name."""

import pytest
from solo_models.cli import main
from solo_models.suggestion import nearest


@pytest.mark.parametrize(
    ("name", "found"), [("prot", "port"), ("por", "port"), ("port", "port"), ("thread", "threads"), ("zebra", None)]
)
def test_the_nearest_name_is_found_or_none(name: str, found: str | None) -> None:
    assert nearest(name, ["host", "port", "threads"]) == found


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["serve", "--prot", "80"], "unrecognized arguments: --prot; did you mean --port?\n"),
        (["serve", "--modles=x"], "unrecognized arguments: --modles=x; did you mean --models?\n"),
        (
            ["serve", "--worker-channell"],
            "unrecognized arguments: --worker-channell\n",
        ),  # `--worker-channel` is not for people
        (["bench", "pipeline", "x.jpg", "--modell=x"], "unrecognized arguments: --modell=x; did you mean --model?"),
        (["bench", "engine", "--seconds=1"], "unrecognized arguments: --seconds=1\n"),  # of `bench server`
        (["serve", "a", "b"], "unrecognized arguments: b\n"),
        (["serve", "--zebra"], "unrecognized arguments: --zebra\n"),
    ],
)
def test_an_unknown_option_is_refused_with_the_nearest(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(("word", "said"), [("srve", "'srve'; did you mean serve?"), ("fly", "'fly'; one of: segment")])
def test_an_unknown_command_is_refused_with_the_nearest(
    word: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word]) == 2
    assert said in capsys.readouterr().err
