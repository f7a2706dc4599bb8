"""The form of an answer by the `Accept` header, and without one."""

import pytest
from solo_server.errors import NotAcceptable
from solo_server.http.accept import is_overlay_requested


@pytest.mark.parametrize(
    ("accept", "is_png"),
    [
        ("image/png", True),
        ("Image/PNG", True),
        (" image/png ; q=0.5", True),
        ("image/*", True),
        ("image/png, */*", True),
        ("image/jpeg, image/png;q=0.8", True),
        ("image/avif,image/webp,image/*;q=0.9", True),
        ("application/json;q=0.5, image/png", True),
        ("*/*", False),
        ("application/json", False),
        ("Application/JSON, image/png", False),
        ("*/*, image/png;q=0", False),
        ("image/png;q=0.1, application/*;Q=0.2", False),
        ("image/jpeg, */*;q=0.1", False),
        ("text/html", False),
        ("image/png;q=nonsense", True),
        ("", False),
        (",", False),
    ],
)
def test_the_available_type_with_the_highest_weight_decides(accept: str, is_png: bool) -> None:
    assert is_overlay_requested(accept, is_overlay=False) == is_png


@pytest.mark.parametrize("accept", ["application/json", "*/*", "text/html", "", "image/png"])
def test_an_overlay_requested_by_parameters_is_drawn_whatever_is_accepted(accept: str) -> None:
    assert is_overlay_requested(accept, is_overlay=True)


@pytest.mark.parametrize("accept", ["image/jpeg", "IMAGE/JPEG", "image/webp, image/avif", "image/jpeg, image/png;q=0"])
@pytest.mark.parametrize("is_overlay", [False, True])
def test_an_image_of_another_format_is_refused(accept: str, is_overlay: bool) -> None:
    with pytest.raises(NotAcceptable, match="send `Accept: image/png`"):
        is_overlay_requested(accept, is_overlay)
