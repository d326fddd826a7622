"""Every pixel of every face arrives in the picture, in its place."""

import numpy as np
import pytest
import torch

from lassi_lib.display.faces import face_at, montage, reconstruction_figure, traversal_figure

RNG = np.random.default_rng(0)


def faces(n, size=16):
    return RNG.integers(0, 254, (n, 3, size, size), dtype=np.uint8)


def canvas(figure):
    (axes,) = figure.axes
    (image,) = axes.images
    return image.get_array(), [text.get_text() for text in axes.texts]


def cell(picture, row, column, size=16, pitch=18):
    """The face at (row, column), given rows that are `pitch` pixels apart."""
    part = picture[row * pitch : row * pitch + size, column * 18 : column * 18 + size]
    return part.transpose(2, 0, 1)


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_montage_places_every_face_and_leaves_the_rest_white(convert):
    images = faces(5)
    picture, texts = canvas(montage(convert(images), columns=3))
    assert picture.shape == (2 * 18 - 2, 3 * 18 - 2, 3) and texts == []
    for i, image in enumerate(images):
        assert np.array_equal(cell(picture, i // 3, i % 3), image)
    assert (cell(picture, 1, 2) == 255).all()
    assert (picture[16:18] == 255).all() and (picture[:, 16:18] == 255).all()


def test_montage_shows_its_titles_in_order():
    picture, texts = canvas(montage(faces(4), columns=2, titles=list("abcd")))
    assert texts == list("abcd")
    assert len(picture) > len(canvas(montage(faces(4), columns=2))[0])


def test_reconstructions_stand_below_their_originals():
    x, y = faces(3), faces(3)
    picture, texts = canvas(reconstruction_figure(x, y))
    assert texts == ["x", "D(E(x))"]
    for i in range(3):
        assert np.array_equal(cell(picture, 0, i), x[i]) and np.array_equal(cell(picture, 1, i), y[i])


def test_traversal_has_a_row_per_attribute_and_t_below():
    strips = {"Pale_Skin": faces(3), "Young": torch.from_numpy(faces(3))}
    picture, texts = canvas(traversal_figure(strips, np.array([-1.0, -0.0, 0.5])))
    assert texts == ["Pale Skin", "Young", "t = -1", "0", "0.5"]
    for row, strip in enumerate(strips.values()):
        for column in range(3):
            assert np.array_equal(cell(picture, row, column), np.asarray(strip)[column])


@pytest.mark.parametrize(("count", "size", "zoom"), [(10, 64, 1), (10, 48, 1), (4, 64, 3), (3, 128, 2)])
def test_pixels_are_whole_and_fit_a_page(count, size, zoom):
    figure = montage(faces(count, size), columns=count)
    figure.draw_without_rendering()
    shown = figure.axes[0].get_window_extent()
    width = count * (size + 2) - 2
    assert shown.width == pytest.approx(zoom * width, abs=1e-6) and shown.width <= 900
    assert shown.height == pytest.approx(zoom * size, abs=1e-6)


def test_few_faces_are_enlarged_up_to_a_limit():
    for widest, zoom in ((900, 18), (100, 2), (20, 1)):
        figure = montage(faces(1, 48), 12, widest=widest)
        figure.draw_without_rendering()
        assert figure.axes[0].get_window_extent().width == pytest.approx(zoom * 48, abs=1e-6)


@pytest.mark.parametrize("columns", [3, 12])
@pytest.mark.parametrize("titles", [None, list("abcde")])
def test_the_face_at_a_place_of_a_montage_is_found(titles, columns):
    picture, _ = canvas(montage(faces(5), columns, titles))
    pitch = (len(picture) + 2) // (2 if columns == 3 else 1)
    for number in range(5):
        x, y = number % columns * 18 + 8, number // columns * pitch + 8
        assert face_at(x, y, 5, columns, picture.shape) == number
    if columns == 3:
        assert face_at(45, pitch + 8, 5, columns, picture.shape) is None
