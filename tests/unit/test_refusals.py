"""What model servers say when they refuse images, in their own words."""

from __future__ import annotations

import pytest

from llmbackend import BackendError, InvalidRequest
from llmbackend.inference.wire import takes_no_images


@pytest.mark.parametrize(
    ("said", "is_one"),
    [
        ("smollm2 is not a multimodal model", True),
        ("At most 0 image(s) may be provided in one prompt.", True),
        ("this model does not support image input", True),
        ("image input is not supported - hint: you may need to provide the mmproj", True),
        ("messages[0]: unknown variant `image_url`, expected `text`", True),
        ("Invalid content type. image_url is only supported by certain models.", True),
        ("At most 4 image(s) may be provided in one prompt.", False),
        ("the image is too large", False),
        ("cannot identify image file", False),
        ("temperature must be at most 2", False),
    ],
)
def test_a_refusal_of_all_images_is_told_from_others(said: str, is_one: bool) -> None:
    assert takes_no_images(InvalidRequest(said)) == is_one
    assert takes_no_images(BackendError(said)) == is_one
