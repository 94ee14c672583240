"""Data sets and samples from pictures: what is read, and what is refused by name in one line."""

import warnings

import numpy as np
import pytest
from test_loading import refused

from xpnet.datasets import DatasetError, load_dataset, read_image, read_samples


def gray(h=6, w=5, value=40):
    return np.full((h, w), value, "uint8")


@pytest.fixture
def pil():
    return pytest.importorskip("PIL.Image", reason="Pillow is not installed")


class TestPictures:
    @pytest.fixture(autouse=True)
    def pillow(self, pil):
        self.pil = pil

    def save(self, file, array, mode=None, **settings):
        file.parent.mkdir(parents=True, exist_ok=True)
        image = self.pil.fromarray(array)
        (image if mode is None else image.convert(mode)).save(file, **settings)
        return file

    def test_pixels_come_back(self, tmp_path, rng):
        for shape in ((6, 5), (6, 5, 3)):
            pixels = rng.integers(0, 256, shape, dtype="uint8")
            file = self.save(tmp_path / "x.png", pixels)
            np.testing.assert_array_equal(read_image(file), pixels.reshape(6, 5, -1).transpose(2, 0, 1))
            np.testing.assert_array_equal(read_samples(file)[0], read_image(file))
            assert read_image(file, channels=1).shape == (1, 6, 5)
            assert read_image(file, (3, 4), 3).shape == (3, 3, 4)
            np.testing.assert_array_equal(read_image(file, invert=True), 255 - read_image(file))

    @pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK"])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_any_mode_becomes_gray_or_rgb(self, tmp_path, mode, channels):
        file = self.save(tmp_path / "x.tif", gray(value=255), mode)
        np.testing.assert_array_equal(read_image(file, channels=channels), np.full((channels, 6, 5), 255))

    def test_16_bits_become_8(self, tmp_path):
        file = self.save(tmp_path / "x.png", np.array([[0, 257, 65535, 30000]], "uint16"))
        np.testing.assert_array_equal(read_image(file), [[[0, 1, 255, 116]]])
        for dtype, value in (("float32", 1.5), ("int32", 70000)):
            refused(self.save(tmp_path / "x.tif", np.full((2, 2), value, dtype)), "more than 16 bits", read_image)

    def test_what_is_transparent_is_white(self, tmp_path):
        pixels = np.zeros((2, 2, 4), "uint8")
        pixels[0, 0, 3] = 255
        file = self.save(tmp_path / "x.png", pixels)
        np.testing.assert_array_equal(read_image(file, channels=1), [[[0, 255], [255, 255]]])

    def test_a_picture_is_turned_as_its_camera_says(self, tmp_path):
        pixels = np.array([[10, 20, 30], [40, 50, 60]], "uint8")
        exif = self.pil.Exif()
        exif[0x0112] = 6  # turned by 90 degrees clockwise to be seen
        file = self.save(tmp_path / "x.png", pixels, exif=exif)
        np.testing.assert_array_equal(read_image(file)[0], np.rot90(pixels, -1))

    def test_a_light_border_is_inverted(self, tmp_path):
        paper, board = gray(value=250), gray(value=5)
        paper[2, 2], board[2, 2] = 0, 255
        for pixels, expected in ((paper, 255 - paper), (board, board)):
            file = self.save(tmp_path / "x.png", pixels)
            np.testing.assert_array_equal(read_image(file, invert="auto")[0], expected)

    @pytest.mark.parametrize("shape", [(60, 60), (40, 90), (200, 30), (28, 28)])
    def test_a_digit_is_laid_out_as_in_mnist(self, tmp_path, rng, shape):
        pixels = np.full(shape, 255, "uint8")
        pixels[3:-9, 2:9] = 0  # a one, in a corner of the paper
        file = self.save(tmp_path / "x.png", pixels)
        (digit,) = read_image(file, (28, 28), 1, invert="auto", center_digit=True)
        rows, columns = (np.flatnonzero(digit.any(axis=axis)) for axis in (1, 0))
        assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20
        mass = digit.astype(float) / digit.sum(dtype=float)
        for axis in (0, 1):
            assert abs(mass.sum(axis=1 - axis) @ np.arange(28) - 14) < 0.501

    def test_mnist_itself_hardly_moves(self, tmp_path):
        for image in load_dataset("mnist").x_test[:50, 0]:
            file = self.save(tmp_path / "x.png", image)
            digit = read_image(file, (28, 28), 1, invert="auto", center_digit=True)[0] / 255.0
            assert (digit * image).sum() > 0.75 * np.linalg.norm(digit) * np.linalg.norm(image)

    def test_an_empty_sheet_stays_black(self, tmp_path):
        file = self.save(tmp_path / "x.png", gray(value=255))
        assert not read_image(file, (28, 28), 1, invert="auto", center_digit=True).any()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "an empty file"),
            (b"no picture at all", "no picture in a format that Pillow reads"),
            (b"\x89PNG\r\n\x1a\n", "x.png: "),
        ],
    )
    def test_what_is_no_picture_is_refused(self, tmp_path, content, message):
        (tmp_path / "x.png").write_bytes(content)
        refused(tmp_path / "x.png", message, read_image)

    @pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tif"])
    def test_a_picture_cut_or_damaged_anywhere_is_read_or_refused_by_name(self, tmp_path, rng, suffix):
        file = self.save(tmp_path / f"x.{suffix}", rng.integers(0, 256, (9, 9), dtype="uint8"))
        content = file.read_bytes()
        cuts = [content[:n] for n in range(0, len(content), max(1, len(content) // 40))]
        flips = [content[:n] + bytes([content[n] ^ 0xFF]) + content[n + 1 :] for n in rng.integers(0, len(content), 40)]
        for damaged in cuts + flips:
            file.write_bytes(damaged)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's own, of metadata
                try:
                    read_image(file)
                except DatasetError as error:
                    assert str(file) in str(error)  # noqa: PT017 (most of them are readable)
        file.write_bytes(content[: len(content) // 2])
        if suffix in ("png", "jpg"):
            refused(file, f"x.{suffix}: ", read_image)

    def test_several_frames_are_refused(self, tmp_path):
        frames = [self.pil.fromarray(gray(value=v)) for v in (0, 90, 200)]
        frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
        refused(tmp_path / "x.gif", "3 pictures in one file", read_image)

    def test_wrong_settings_are_refused(self, tmp_path):
        file = self.save(tmp_path / "x.png", gray())
        for settings, message in (
            ({"size": (0, 3)}, "size must be"),
            ({"size": 28}, "size"),
            ({"channels": 2}, "channels must be 1"),
            ({"invert": "yes"}, "invert must be True, False or 'auto'"),
            ({"center_digit": True}, "center_digit needs size"),
        ):
            with pytest.raises((ValueError, TypeError), match=message):
                read_image(file, **settings)
        refused(tmp_path / "none.png", "No such file", read_image)

    def test_a_folder_per_class(self, tmp_path):
        for name, value in (("cat", 10), ("ant", 20)):
            for n in range(2):
                self.save(tmp_path / name / f"{n}.png", gray(value=value + n))
        (tmp_path / "cat" / ".hidden.png").write_bytes(b"")
        (tmp_path / "cat" / "notes.txt").write_text("no picture")
        data = load_dataset(tmp_path)
        assert data.classes == ("ant", "cat")
        np.testing.assert_array_equal(data.t_train, [0, 0, 1, 1])
        np.testing.assert_array_equal(data.x_train[:, 0, 0, 0], [20, 21, 10, 11])
        assert data.x_train.shape == (4, 1, 6, 5)
        assert data.x_train.dtype == "uint8"
        assert data.x_test is None

    @pytest.mark.parametrize("test", ["test", "val"])
    def test_folders_of_training_and_test(self, tmp_path, test):
        for part, name, value in (("train", "a", 1), ("train", "b", 2), (test, "b", 3)):
            self.save(tmp_path / part / name / "x.png", gray(value=value))
        data = load_dataset(tmp_path)
        np.testing.assert_array_equal(data.t_train, [0, 1])
        np.testing.assert_array_equal(data.t_test, [1])
        assert data.x_test[0, 0, 0, 0] == 3

    def test_a_class_may_be_called_train(self, tmp_path):
        for name in ("boat", "train"):
            self.save(tmp_path / name / "x.png", gray())
        assert load_dataset(tmp_path).classes == ("boat", "train")

    def test_pictures_that_differ_need_a_size_or_channels(self, tmp_path):
        self.save(tmp_path / "a" / "x.png", gray(6, 5))
        self.save(tmp_path / "b" / "y.png", gray(8, 5))
        refused(tmp_path, r"y.png: 8 x 5 pixels, where .*x.png has 6 x 5; pass size=\(height, width\)")
        assert load_dataset(tmp_path, size=(4, 4)).x_train.shape == (2, 1, 4, 4)
        self.save(tmp_path / "b" / "y.png", np.zeros((6, 5, 3), "uint8"))
        refused(tmp_path, "y.png: 3 channels, where .*x.png has 1; pass channels=1 or 3")
        assert load_dataset(tmp_path, channels=3).x_train.shape == (2, 3, 6, 5)

    def test_folders_without_pictures_are_refused(self, tmp_path):
        refused(tmp_path, "no data set in it; expected IDX files .* or pictures in one subfolder per class")
        (tmp_path / "cat").mkdir()
        refused(tmp_path, "cat: no pictures in the folder of a class")
        refused(self.save(tmp_path / "x.png", gray()), "a picture is no data set")
